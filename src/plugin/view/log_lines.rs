//! Lines of several logs, in the order of time.

use jiff::Timestamp;

use super::text::plain_line;

/// A line of a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the container runtime has read it.
    pub at: Timestamp,
    /// `<pod>/<container>`.
    pub source: String,
    pub text: String,
}

impl LogLine {
    /// Reads a line as the API server returns it with `timestamps=true`: a time of RFC 3339, a space, and the text. A
    /// line without a time belongs to the one before it, at `before`.
    pub fn read(source: &str, line: &str, before: Timestamp) -> Self {
        let line = line.trim_end_matches(['\n', '\r']);
        let timed = line.split_once(' ').and_then(|(at, text)| Some((at.parse().ok()?, text)));
        let (at, text) = timed.unwrap_or((before, line));
        Self { at, source: source.to_owned(), text: text.to_owned() }
    }

    /// The line for a terminal.
    pub fn shown(&self) -> String {
        format!("{:.3} {} {}\n", self.at, plain_line(&self.source), plain_line(&self.text))
    }
}

/// All lines of one log.
pub fn lines(source: &str, log: &str) -> Vec<LogLine> {
    let mut before = Timestamp::UNIX_EPOCH;
    let read = log.lines().map(|line| {
        let read = LogLine::read(source, line, before);
        before = read.at;
        read
    });
    read.collect()
}

/// Lines of several logs in the order of time; lines of one log keep their order.
pub fn merged(logs: Vec<Vec<LogLine>>) -> Vec<LogLine> {
    let mut all: Vec<LogLine> = logs.into_iter().flatten().collect();
    all.sort_by_key(|line| line.at);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_merged_by_time_and_act_on_no_terminal() {
        let gateway = "2026-01-01T00:00:01.5Z took the Lease\n2026-01-01T00:00:03.25Z leads\u{1b}[2J\n";
        let flink = "2026-01-01T00:00:02Z Exception\n\tat a line without a time\n2026-01-01T00:00:04Z done\n";
        let all = merged(vec![lines("b/gateway", gateway), lines("b/flink", flink)]);
        let shown: String = all.iter().map(LogLine::shown).collect();
        let expected = "\
2026-01-01T00:00:01.500Z b/gateway took the Lease
2026-01-01T00:00:02.000Z b/flink Exception
2026-01-01T00:00:02.000Z b/flink \tat a line without a time
2026-01-01T00:00:03.250Z b/gateway leads\\u{1b}[2J
2026-01-01T00:00:04.000Z b/flink done
";
        assert_eq!(shown, expected);
    }
}
