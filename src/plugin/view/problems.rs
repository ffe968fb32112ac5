//! Finds what is not as it should be, in the conditions of a resource: each problem once, with where to read about it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::status::{CONTESTED, DEGRADED, LEADER_ELECTED, PAUSED, PROGRESSING, READY, RECONCILING, STALLED};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// The conditions that say it.
    pub conditions: Vec<String>,
    /// CamelCase.
    pub reason: String,
    /// A sentence that names the object and the remedy.
    pub message: String,
    /// Since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Where the documentation explains it.
    pub see: String,
    /// Somebody has asked for it, or it ends by itself.
    pub is_expected: bool,
}

/// What a condition means for whoever looks at a cluster.
enum Meaning {
    AsItShouldBe,
    /// The operator or Kubernetes is at work.
    Work,
    /// Asked for, or ends by itself.
    Expected,
    Wrong,
}

fn meaning(condition: &Condition) -> Meaning {
    let holds = condition.status == "True";
    match condition.type_.as_str() {
        LEADER_ELECTED | READY if holds => Meaning::AsItShouldBe,
        LEADER_ELECTED | READY => Meaning::Wrong,
        DEGRADED | STALLED | CONTESTED | "Failed" if condition.status == "False" => Meaning::AsItShouldBe,
        DEGRADED | STALLED | CONTESTED | "Failed" => Meaning::Wrong,
        PROGRESSING | RECONCILING if holds => Meaning::Work,
        PROGRESSING | RECONCILING | "Complete" => Meaning::AsItShouldBe,
        PAUSED if condition.status == "False" => Meaning::AsItShouldBe,
        // A pause, a roll-out that waits for its turn, and what a later version of the operator says.
        _ => Meaning::Expected,
    }
}

/// The problems that the conditions tell of; those that say the same are one.
pub fn problems(status: &FlinkHaClusterStatus) -> Vec<ProblemReport> {
    let mut found: Vec<ProblemReport> = Vec::new();
    for condition in &status.conditions {
        let is_expected = match meaning(condition) {
            Meaning::Wrong => false,
            Meaning::Expected => true,
            Meaning::AsItShouldBe | Meaning::Work => continue,
        };
        if condition.type_ == LEADER_ELECTED && is_at_rest(status) {
            continue;
        }
        match found.iter_mut().find(|known| known.message == condition.message) {
            Some(known) => known.conditions.push(condition.type_.clone()),
            None => found.push(ProblemReport {
                conditions: vec![condition.type_.clone()],
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                since: Some(condition.last_transition_time.0.to_string()),
                see: format!("docs/operations.md#{}", anchor(&condition.type_)),
                is_expected,
            }),
        }
    }
    found.sort_by_key(|problem| problem.is_expected);
    found
}

/// What the operator or Kubernetes is at work on, each once.
pub fn work(status: &FlinkHaClusterStatus) -> Vec<String> {
    let at_work = status.conditions.iter().filter(|condition| matches!(meaning(condition), Meaning::Work));
    let mut found: Vec<String> = Vec::new();
    for condition in at_work {
        if !found.contains(&condition.message) {
            found.push(condition.message.clone());
        }
    }
    found
}

/// A suspended application, and one whose job has ended, has no leader.
pub fn is_at_rest(status: &FlinkHaClusterStatus) -> bool {
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
    ready.is_some_and(|ready| ready.status == "True" && ["Suspended", "Ended"].contains(&ready.reason.as_str()))
}

/// The heading of `docs/operations.md` that explains a condition, as an anchor.
pub fn anchor(condition: &str) -> &'static str {
    match condition {
        LEADER_ELECTED => "reasons-of-leaderelected",
        READY => "reasons-of-ready",
        PROGRESSING | RECONCILING => "reasons-of-progressing-and-reconciling",
        DEGRADED => "reasons-of-degraded",
        STALLED => "reasons-of-stalled",
        PAUSED => "reasons-of-paused",
        CONTESTED => "reasons-of-contested",
        "OperatorRollOut" => "reasons-of-operatorrollout",
        "Complete" | "Failed" => "reasons-of-complete-and-failed",
        _ => "how-tools-read-a-resource",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(conditions: &[(&str, &str, &str, &str)]) -> FlinkHaClusterStatus {
        let condition = |(kind, status, reason, message): &(&str, &str, &str, &str)| {
            let at = "2026-01-01T00:00:00Z";
            json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at })
        };
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        serde_json::from_value(json!({ "conditions": conditions })).expect("a status")
    }

    #[test]
    fn nothing_is_wrong_with_a_cluster_that_works() {
        let well = status(&[
            ("LeaderElected", "True", "LeaderElected", "a leads"),
            ("Ready", "True", "Ready", "all work"),
            ("Progressing", "False", "Complete", "everything is as the resource asks for"),
            ("Degraded", "False", "AsExpected", "no problem is known"),
            ("Reconciling", "False", "RolledOut", "x"),
            ("Stalled", "False", "RolledOut", "x"),
            ("Complete", "False", "NotEnded", "x"),
            ("Failed", "False", "NotEnded", "x"),
        ]);
        assert_eq!((problems(&well), work(&well)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn conditions_that_say_the_same_are_one_problem_and_what_was_asked_for_comes_last() {
        let ill = status(&[
            ("Paused", "True", "ReconcileDisabled", "paused"),
            ("LeaderElected", "False", "NoLeader", "no JobManager is elected"),
            ("Ready", "False", "NoLeader", "no JobManager is elected"),
            ("Degraded", "Unknown", "X", "something"),
            ("Progressing", "True", "PodsStarting", "0/2"),
            ("Reconciling", "True", "PodsStarting", "0/2"),
            ("OfALaterVersion", "False", "X", "new"),
        ]);
        let found = problems(&ill);
        let said: Vec<(&str, usize, bool)> =
            found.iter().map(|one| (one.message.as_str(), one.conditions.len(), one.is_expected)).collect();
        let expected = [("no JobManager is elected", 2, false), ("something", 1, false), ("paused", 1, true)];
        assert_eq!(said[..3], expected);
        assert_eq!(said[3], ("new", 1, true));
        assert_eq!(found[0].see, "docs/operations.md#reasons-of-leaderelected");
        assert_eq!(work(&ill), ["0/2"]);
    }

    #[test]
    fn a_suspended_application_needs_no_leader() {
        let suspended = status(&[
            ("LeaderElected", "False", "NoLeader", "no JobManager is elected"),
            ("Ready", "True", "Suspended", "as requested"),
        ]);
        assert!(problems(&suspended).is_empty() && is_at_rest(&suspended));
    }
}
