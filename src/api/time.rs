//! Times as the status shows them.

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The first time that can be written: in RFC 3339 a year has four digits and no sign, while `jiff` reads 9999 years
/// before it.
const FIRST: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// Truncates to whole seconds, as the status shows times. Whoever edits a ledger may write a time that no API server
/// reads.
pub fn seconds(time: Timestamp) -> Time {
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
    Time(time.round(whole).unwrap_or(time).max(FIRST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_time_is_shown_can_be_read_again() {
        for text in
            ["-009999-01-02T01:59:59Z", "-000001-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "9999-12-30T22:00:00.9Z"]
        {
            let shown = seconds(text.parse().expect("a time that jiff reads"));
            let written = serde_json::to_string(&shown).expect("a time as JSON");
            assert_eq!(serde_json::from_str::<Time>(&written).expect("a time that is read again"), shown, "{text}");
        }
    }
}
