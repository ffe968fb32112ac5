//! The condition that is there while the operator has to replace pods that nobody has asked it to replace. It holds
//! when the turn of the cluster has come.

use jiff::Timestamp;

use super::facts::Facts;
use super::kinds::{READY, Verdict, find};
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::definitions::redacted;
use crate::cluster::secret_change;
use crate::cluster::turn::{OPERATOR_ROLL_OUT, REPLACING, REPLACING_UNREADY, Turn, has_turn};

pub(super) fn operator_roll_out(facts: &Facts<'_>) -> Option<Verdict> {
    if facts.is_deleted() {
        return None;
    }
    let before = has_turn(facts.before, facts.resource.metadata.generation);
    match facts.outcome.as_ref().map(|applied| applied.turn.as_ref()) {
        Ok(Some(Turn::Waits(waits))) => {
            Some(Verdict::new(OPERATOR_ROLL_OUT, false, waits.reason, waits.message.clone()))
        }
        Ok(Some(Turn::Begins | Turn::Continues)) => Some(replacing(facts.resource, facts.before, why(facts))),
        Ok(None) if facts.ready().holds && !facts.progressing().holds => None,
        Ok(None) => before
            .filter(|before| before.reason == REPLACING)
            .map(|_| replacing(facts.resource, facts.before, why(facts))),
        // It keeps its turn, so that no other cluster is brought into the same trouble.
        Err(_) => before.map(|_| replacing(facts.resource, facts.before, why(facts))),
    }
}

/// The status of a cluster whose turn has come, before any of its pods is replaced.
pub fn announced(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    why: &str,
    now: Timestamp,
) -> FlinkHaClusterStatus {
    let verdict = replacing(resource, before, why);
    let condition = verdict.condition(&before.conditions, resource.metadata.generation, now);
    let mut status = redacted(before.clone());
    status.conditions.retain(|known| known.type_ != condition.type_);
    status.conditions.push(condition);
    status
}

fn why(facts: &Facts<'_>) -> &'static str {
    secret_change::why(facts.resource, facts.observed)
}

/// What is said of a cluster that has its turn. Why, and whether it was ready before, is what it was when the turn
/// began.
fn replacing(resource: &FlinkHaCluster, before: &FlinkHaClusterStatus, why: &str) -> Verdict {
    let was_ready = find(&before.conditions, READY).is_some_and(|ready| ready.status == "True");
    if let Some(begun) = has_turn(before, resource.metadata.generation) {
        return Verdict::new(OPERATOR_ROLL_OUT, true, &begun.reason, begun.message.clone());
    }
    let reason = if was_ready { REPLACING } else { REPLACING_UNREADY };
    Verdict::new(OPERATOR_ROLL_OUT, true, reason, format!("pods are replaced, because {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::application::Desired;
    use crate::cluster::observed::Observed;
    use crate::cluster::status::{Applied, status};
    use crate::cluster::tests as fixture;
    use crate::cluster::turn::Waits;

    fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    /// A cluster whose leader leads, with this many ready JobManagers.
    fn observed(ready: usize) -> Observed {
        let pod = |name: String, ready: bool| {
            let ready = json!([{ "type": "Ready", "status": if ready { "True" } else { "False" } }]);
            Arc::new(parsed(json!({ "metadata": { "name": name }, "status": { "conditions": ready } })))
        };
        let deployment = |replicas: i32| {
            let status = json!({ "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas });
            Some(Arc::new(parsed(json!({ "metadata": {}, "status": status }))))
        };
        let change = json!({ "term": 3, "from": "", "to": "j0", "why": "JobManagerDied", "leaderlessMillis": 25, "at": "2026-01-02T03:04:05.678Z" });
        let lease = json!({
            "metadata": { "annotations": { "flinkha.dev/term": "3.uid.process.1-1", "flinkha.dev/last-change": change.to_string() } },
            "spec": { "holderIdentity": "j0" },
        });
        Observed {
            lease: Some(Arc::new(parsed(lease))),
            job_manager_pods: (0..3).map(|index| pod(format!("j{index}"), index < ready)).collect(),
            task_manager_pods: (0..2).map(|index| pod(format!("t{index}"), true)).collect(),
            job_manager_deployment: deployment(3),
            task_manager_deployment: deployment(2),
            ..Observed::default()
        }
    }

    fn told(before: &FlinkHaClusterStatus, ready: usize, turn: Option<Turn>, generation: i64) -> FlinkHaClusterStatus {
        let (mut resource, observed) = (fixture::resource(), observed(ready));
        resource.metadata.generation = Some(generation);
        let now = Timestamp::UNIX_EPOCH;
        let desired = Desired::of(&resource, before, &observed, now).expect("a decision");
        let outcome = Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn });
        status(&resource, &desired, before, &observed, &outcome, now).status
    }

    fn reason(status: &FlinkHaClusterStatus) -> Option<&str> {
        find(&status.conditions, OPERATOR_ROLL_OUT).map(|condition| condition.reason.as_str())
    }

    #[test]
    fn a_cluster_keeps_its_turn_until_it_is_ready_again() {
        let ready = told(&FlinkHaClusterStatus::default(), 3, None, 1);
        assert!(find(&ready.conditions, READY).is_some_and(|ready| ready.status == "True"), "{ready:?}");
        assert_eq!(reason(&ready), None);
        let waits = Waits { reason: "WaitsForTurn", message: String::new(), look_again: Duration::ZERO };
        let waits = told(&ready, 3, Some(Turn::Waits(waits)), 1);
        assert_eq!(reason(&waits), Some("WaitsForTurn"));
        let announced = announced(&fixture::resource(), &waits, "a Secret has changed", Timestamp::UNIX_EPOCH);
        assert_eq!(reason(&announced), Some("Replacing"));
        assert_eq!(announced.conditions.len(), waits.conditions.len());
        let moves = find(&told(&announced, 2, None, 1).conditions, OPERATOR_ROLL_OUT).cloned().expect("a condition");
        assert_eq!(moves.message, "pods are replaced, because a Secret has changed");
        let begun = told(&waits, 3, Some(Turn::Begins), 1);
        assert_eq!(reason(&begun), Some("Replacing"));
        let moves = told(&begun, 2, None, 1);
        assert_eq!(reason(&moves), Some("Replacing"));
        assert_eq!(reason(&told(&moves, 3, None, 1)), None, "ready again");
        assert_eq!(reason(&told(&moves, 2, None, 2)), None, "what is rolled out now was asked for");
    }

    #[test]
    fn others_do_not_wait_for_a_cluster_that_was_not_ready_before() {
        let unready = told(&FlinkHaClusterStatus::default(), 0, None, 1);
        let begun = told(&unready, 0, Some(Turn::Begins), 1);
        assert_eq!(reason(&begun), Some("ReplacingUnready"));
        assert_eq!(reason(&told(&begun, 0, None, 1)), None);
    }
}
