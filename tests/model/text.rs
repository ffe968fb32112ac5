//! The elector keeps its state to itself, and production code has no reason to show it. Its derived `Debug` text is
//! complete, so it is read from that, token by token as it is written.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

use pure::lease::elector::Elector;
use pure::lease::elector::Time;

/// No timing of the elector looks further back than this many milliseconds.
pub const LONG_AGO: i64 = 8_000;

/// No other timing than of a JVM or a peer looks further back.
const SHORTLY: i64 = 4_000;

/// A record that was silent for so long, in milliseconds, may be taken, whoever looks; later if there are members.
const SILENT_ENOUGH: [f64; 2] = [7_000.0, 9_000.0];

/// How long ago, as far as it makes a difference.
pub fn ago(now: Time, then: Time) -> i64 {
    (now.0 as i64 - then.0 as i64).min(LONG_AGO)
}

/// Hash of an elector's state at this time, which has peers or has not; versions of the Lease in it go to the list
/// instead.
pub fn print(elector: &Elector, now: Time, read_since: Option<Time>, has_peers: bool, versions: &mut Vec<u32>) -> u64 {
    let mut reader = Reader {
        hasher: DefaultHasher::new(),
        now,
        read_since: read_since.unwrap_or(now),
        has_peers,
        versions,
        in_settings: true,
        field: Field::Other,
        last: Field::Other,
        time: false,
        duration: String::new(),
    };
    // Writing to this never fails.
    let _ = write!(reader, "{elector:?}");
    reader.hasher.finish()
}

/// Fields whose values are not taken as they are.
#[derive(Clone, Copy, PartialEq)]
enum Field {
    Version,
    Silent,
    /// Only reported, or of no meaning but for requests that are awaited.
    Unimportant,
    /// A time to come.
    Deadline,
    /// When the last read of the Lease ended: the next interval of silence ends where the next read began.
    Confirmed,
    /// The JVM's last lock request.
    Heard,
    /// What promises and membership count from.
    Peers,
    Other,
}

fn field(name: &str) -> Field {
    match name {
        "version" => Field::Version,
        "silent" => Field::Silent,
        "id" | "next_attempt" | "leaderless_millis" | "acquired" => Field::Unimportant,
        "next_read" | "next_write" | "next_ask" | "next_join" | "next_knock" | "next_probe" | "cool_until"
        | "valid_until" | "until" => Field::Deadline,
        "confirmed" => Field::Confirmed,
        "heard" => Field::Heard,
        "started" | "first_seen" | "at" | "renewed" => Field::Peers,
        _ => Field::Other,
    }
}

struct Reader<'a> {
    hasher: DefaultHasher,
    now: Time,
    read_since: Time,
    has_peers: bool,
    versions: &'a mut Vec<u32>,
    /// Settings come first, and are the same everywhere.
    in_settings: bool,
    field: Field,
    /// What the last token would be as the name of a field.
    last: Field,
    /// The last tokens began a time.
    time: bool,
    /// Text of a duration, which comes in pieces.
    duration: String,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) {
        self.hasher.write(token.as_bytes());
        self.hasher.write_u8(0xff);
    }

    fn take_time(&mut self, then: Time) {
        let ago = match self.field {
            Field::Unimportant => 0,
            Field::Deadline => ago(self.now, then).min(0),
            Field::Confirmed => ago(self.read_since, then),
            Field::Heard => ago(self.now, then),
            Field::Peers if self.has_peers => ago(self.now, then),
            _ => ago(self.now, then).min(SHORTLY),
        };
        self.hasher.write_i64(ago);
    }
}

impl Write for Reader<'_> {
    fn write_str(&mut self, token: &str) -> std::fmt::Result {
        self.in_settings &= token != "me";
        if self.in_settings {
            return Ok(());
        }
        if token == ": " {
            self.field = self.last;
        }
        let digits = token.as_bytes().first().is_some_and(u8::is_ascii_digit);
        match self.field {
            Field::Silent if token != ": " && token != ", " => self.duration.push_str(token),
            Field::Silent if token == ", " => {
                self.field = Field::Other;
                let silent =
                    milliseconds(&std::mem::take(&mut self.duration)).min(SILENT_ENOUGH[usize::from(self.has_peers)]);
                self.hasher.write_u64(silent as u64);
            }
            _ if self.time && digits => self.take_time(Time(token.parse().unwrap_or_default())),
            Field::Version if digits => self.versions.push(token.parse().unwrap_or_default()),
            Field::Unimportant if digits => {}
            _ => self.take(token),
        }
        self.time = token == "Time" || (self.time && token == "(");
        self.last = field(token);
        Ok(())
    }
}

/// Reads the `Debug` text of a duration.
fn milliseconds(text: &str) -> f64 {
    let (number, factor) = match text {
        _ if text.ends_with("ms") => (text.trim_end_matches("ms"), 1.0),
        _ if text.ends_with("ns") || text.ends_with("µs") => ("0", 1.0),
        _ => (text.trim_end_matches('s'), 1e3),
    };
    number.parse::<f64>().unwrap_or_default() * factor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings;
    use crate::world::Gateway;
    use crate::world::incarnation;
    use pure::lease::elector::Event;
    use pure::lease::elector::Read;
    use pure::lease::record::Record;

    /// An elector that began at this time and saw this version.
    fn at(origin: u64, version: &str) -> (u64, Vec<u32>) {
        let mut elector = Gateway::new(0, 1, &settings(3, 2), false).elector;
        elector.step(Time(origin), Event::JvmHeard { jvm: incarnation(0, 1) });
        for tick in 0..3 {
            let now = Time(origin + 1000 * tick);
            let record = Record { holder: "other".into(), ..Record::default() };
            elector
                .step(now, Event::LeaseRead { started: now, outcome: Read::Found { version: version.into(), record } });
        }
        let mut versions = Vec::new();
        (print(&elector, Time(origin + 2500), None, false, &mut versions), versions)
    }

    #[test]
    fn only_differences_of_times_and_equality_of_versions_count() {
        assert_eq!(at(10_000, "7").0, at(99_000, "8").0);
        assert_eq!(at(10_000, "7").1, [7]);
        assert_eq!(milliseconds("3.15s"), 3150.0);
        assert_eq!(milliseconds("950ms"), 950.0);
        assert_eq!(milliseconds("0ns"), 0.0);
    }

    #[test]
    fn a_difference_of_one_step_counts() {
        let mut elector = Gateway::new(0, 1, &settings(3, 2), false).elector;
        let before = print(&elector, Time(0), None, false, &mut Vec::new());
        elector.step(Time(0), Event::JvmHeard { jvm: incarnation(0, 1) });
        assert_ne!(print(&elector, Time(0), None, false, &mut Vec::new()), before);
        let heard = print(&elector, Time(0), None, false, &mut Vec::new());
        assert_ne!(print(&elector, Time(1000), None, false, &mut Vec::new()), heard, "it was heard a second ago");
    }
}
