//! For how long a Lease has stood unchanged, provably, by the clock of who reads it (I6).

use std::time::Duration;

/// The time for which one version of a Lease, or its absence, was read. All times are of one monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// `None` of an absent Lease.
    version: Option<String>,
    /// When the last answer was there; `None` before the first.
    seen: Option<Duration>,
    total: Duration,
    longest_pause: Duration,
}

impl Unchanged {
    /// Time between two reads counts only up to `longest_pause`: while the API server is away, nobody can renew.
    pub fn new(longest_pause: Duration) -> Self {
        Self { version: None, seen: None, total: Duration::ZERO, longest_pause }
    }

    /// Records an answer with this version of the Lease, and returns for how long it has stood at the least: from each
    /// answer that showed it to the next question.
    pub fn read(&mut self, asked: Duration, answered: Duration, version: Option<&str>) -> Duration {
        let same = self.version.as_deref() == version;
        let more = self.seen.filter(|_| same).map(|seen| asked.saturating_sub(seen).min(self.longest_pause));
        self.total = more.map_or(Duration::ZERO, |more| self.total + more);
        (self.version, self.seen) = (version.map(str::to_owned), Some(answered));
        self.total
    }

    /// When the Lease was read last.
    pub fn seen(&self) -> Option<Duration> {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_stands_only_between_reads_that_show_the_same_version() {
        let mut unchanged = Unchanged::new(SECOND * 15);
        let mut read = |second: u32, version: Option<&str>| unchanged.read(SECOND * second, SECOND * second, version);
        assert_eq!(read(100, Some("1")), Duration::ZERO);
        assert_eq!(read(110, Some("1")), SECOND * 10);
        assert_eq!(read(120, Some("2")), Duration::ZERO, "it was written");
        assert_eq!(read(130, Some("2")), SECOND * 10);
        assert_eq!(read(1000, Some("2")), SECOND * 25, "an outage proves nothing");
        assert_eq!(read(1010, None), Duration::ZERO);
        assert_eq!(read(1020, None), SECOND * 10, "it is absent");
    }
}
