//! Which resources an operator that starts looks at first.

use super::status::{READY, RECONCILING};
use crate::api::FlinkHaCluster;
use crate::api::names::{DROP_JOB_ANNOTATION, SWITCHOVER_ANNOTATION};

/// How urgent it is to look at a resource; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody waits: it was created, changed or deleted, or a switchover was asked for, and no operator has acted.
    Changed,
    /// It is not ready, or on the way.
    Unsettled,
    /// As far as the last operator knew, nothing is to be done.
    Settled,
}

/// Tells it from the resource alone.
pub fn urgency(resource: &FlinkHaCluster) -> Urgency {
    let (metadata, status) = (&resource.metadata, resource.status.as_ref());
    let asked = [SWITCHOVER_ANNOTATION, DROP_JOB_ANNOTATION].into_iter().any(|key| resource.annotation(key).is_some());
    let acted_on = status.is_some_and(|status| status.observed_generation == metadata.generation);
    if !acted_on || asked || metadata.deletion_timestamp.is_some() {
        return Urgency::Changed;
    }
    let holds = |kind: &str| {
        let conditions = status.into_iter().flat_map(|status| &status.conditions);
        conditions.filter(|condition| condition.type_ == kind).any(|condition| condition.status == "True")
    };
    if holds(READY) && !holds(RECONCILING) { Urgency::Settled } else { Urgency::Unsettled }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::tests as fixture;

    fn urgency_of(change: Value) -> Urgency {
        let condition = |kind, status| {
            json!({
                "type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z",
            })
        };
        let status = json!({
            "observedGeneration": 1, "conditions": [condition("Ready", "True"), condition("Reconciling", "False")],
        });
        let mut resource = json!(fixture::resource());
        crate::cluster::merge::merge(&mut resource, json!({ "status": status }));
        crate::cluster::merge::merge(&mut resource, change);
        urgency(&serde_json::from_value(resource).expect("a resource"))
    }

    #[test]
    fn what_somebody_waits_for_comes_first_and_what_rests_last() {
        assert_eq!(urgency_of(json!({})), Urgency::Settled);
        for changed in [
            json!({ "metadata": { "generation": 2 } }),
            json!({ "metadata": { "deletionTimestamp": "2026-01-02T03:04:05Z" } }),
            json!({ "metadata": { "annotations": { SWITCHOVER_ANNOTATION: "any" } } }),
            json!({ "status": null }),
        ] {
            assert_eq!(urgency_of(changed.clone()), Urgency::Changed, "{changed}");
        }
        assert_eq!(urgency_of(json!({ "status": { "conditions": [] } })), Urgency::Unsettled);
        assert!(Urgency::Changed < Urgency::Unsettled && Urgency::Unsettled < Urgency::Settled);
    }
}
