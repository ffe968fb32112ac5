//! What Kubernetes' events warn of.

use k8s_openapi::api::events::v1::Event;

use super::crash::tail;

/// The latest warning of these events, as `<reason>: <what it says>`. A probe that fails says less than the pod's own
/// status.
pub fn latest(events: &[Event]) -> Option<String> {
    let when = |event: &Event| {
        let series = event.series.as_ref().map(|series| series.last_observed_time.0);
        let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
        let first = event.event_time.as_ref().map(|time| time.0);
        series.into_iter().chain(last).chain(first).max()
    };
    let warnings = events.iter().filter(|event| event.type_.as_deref() == Some("Warning"));
    let latest =
        warnings.filter(|event| event.reason.as_deref() != Some("Unhealthy")).max_by_key(|event| when(event))?;
    let (reason, note) = (latest.reason.as_deref().unwrap_or_default(), latest.note.as_deref().unwrap_or_default());
    Some(format!("{reason}: {}", tail(note)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_latest_warning_is_told_with_its_reason() {
        let event = |reason: &str, note: &str, kind: &str, times: Value| {
            let mut event = json!({
                "metadata": { "name": "x" }, "reason": reason, "note": note, "type": kind, "eventTime": null,
            });
            crate::cluster::merge::merge(&mut event, times);
            serde_json::from_value::<Event>(event).unwrap_or_else(|error| panic!("{error}"))
        };
        let at = |second: u32| json!({ "deprecatedLastTimestamp": format!("2026-01-01T00:00:{second:02}Z") });
        let events = [
            event("FailedScheduling", "0/3 nodes", "Warning", json!({ "eventTime": "2026-01-01T00:00:01.000000Z" })),
            event(
                "FailedMount",
                "MountVolume.SetUp failed for volume \"x\" :\n secret \"x\" not found",
                "Warning",
                at(9),
            ),
            event("Pulling", "Pulling image", "Normal", at(20)),
            event("Unhealthy", "Readiness probe failed", "Warning", at(30)),
        ];
        let expected = "FailedMount: MountVolume.SetUp failed for volume \"x\" : secret \"x\" not found";
        assert_eq!(latest(&events).as_deref(), Some(expected));
        assert_eq!(latest(&events[2..]), None);
    }
}
