//! The status of a resource that could not be reconciled for a while, although nothing is known to be wrong with it:
//! the API server or a webhook fails, or a policy rejects a change other than that of an object.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::kinds::{DEGRADED, Verdict, find};
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::definitions::redacted;
use crate::cluster::waits::since;

/// A failure that lasts for this long is shown. Requests fail for seconds when an API server is replaced.
pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(15);

const REASON: &str = "ReconcileFailed";

/// Returns this status with `Degraded` for the failure. `before`: the conditions until now. `begin`: time of the first
/// failure in a row.
pub fn failing(
    resource: &FlinkHaCluster,
    status: &FlinkHaClusterStatus,
    before: &[Condition],
    error: &str,
    (begin, now): (Timestamp, Timestamp),
) -> FlinkHaClusterStatus {
    let unchanged =
        if resource.metadata.deletion_timestamp.is_none() { ", and the cluster runs on unchanged" } else { "" };
    let message = format!(
        "the resource has not been reconciled {}: {error}; the operator tries again, at least every 5 minutes{unchanged}",
        since(begin)
    );
    let verdict = Verdict::new(DEGRADED, true, REASON, message);
    let degraded = verdict.condition(before, resource.metadata.generation, now);
    let mut after = redacted(status.clone());
    match after.conditions.iter_mut().find(|condition| condition.type_ == DEGRADED) {
        Some(condition) => *condition = degraded,
        None => after.conditions.push(degraded),
    }
    after
}

/// Keeps what `before` says of a failure, until all steps have succeeded once: this status is written between steps.
pub fn still_failing(mut status: FlinkHaClusterStatus, before: &[Condition]) -> FlinkHaClusterStatus {
    let failed = find(before, DEGRADED).filter(|condition| condition.reason == REASON);
    let degraded = status.conditions.iter_mut().find(|condition| condition.type_ == DEGRADED);
    if let (Some(failed), Some(degraded)) = (failed, degraded) {
        degraded.clone_from(failed);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::READY;

    #[test]
    fn a_failure_is_shown_and_everything_else_stays() {
        let resource: FlinkHaCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "flinkha.dev/v1alpha1",
            "kind": "FlinkHaCluster",
            "metadata": { "name": "demo", "generation": 3 },
            "spec": { "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" } },
        }))
        .expect("a resource");
        let (begin, now) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + TOLERANCE);
        let ready = Verdict::new(READY, true, "Ready", "a leads".to_owned()).condition(&[], Some(2), begin);
        let healthy = Verdict::new(DEGRADED, false, "AsExpected", String::new()).condition(&[], Some(2), begin);
        let before = FlinkHaClusterStatus {
            observed_generation: Some(2),
            conditions: vec![healthy, ready.clone()],
            ..FlinkHaClusterStatus::default()
        };
        let after =
            failing(&resource, &before, &before.conditions, "failed to apply Service demo-rest: 500", (begin, now));
        assert_eq!((after.observed_generation, &after.conditions[1]), (Some(2), &ready));
        let degraded = &after.conditions[0];
        assert_eq!((degraded.status.as_str(), degraded.observed_generation), ("True", Some(3)));
        assert_eq!((degraded.reason.as_str(), degraded.last_transition_time.0), ("ReconcileFailed", now));
        assert!(degraded.message.contains("since 1970-01-01T00:00:00Z: failed to apply Service demo-rest: 500"));
        assert_eq!(still_failing(before.clone(), &after.conditions), after, "a step is left");
        assert_eq!(still_failing(before.clone(), &before.conditions), before, "of another failure nothing is known");
        // Told once: the message stays the same while the failure does.
        let later = now + TOLERANCE;
        let again =
            failing(&resource, &before, &after.conditions, "failed to apply Service demo-rest: 500", (begin, later));
        assert_eq!(again, after);
        let none = failing(&resource, &FlinkHaClusterStatus::default(), &[], "500", (begin, now));
        assert_eq!(none.conditions.len(), 1);
    }
}
