//! Times as the status shows them.

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Truncates to whole seconds, as the status shows times.
pub fn seconds(time: Timestamp) -> Time {
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
    Time(time.round(whole).unwrap_or(time))
}
