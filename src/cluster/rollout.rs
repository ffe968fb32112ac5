//! Decides which JobManager is replaced last.

use std::sync::Arc;

use super::observed::{Observed, ObservedPod};
use crate::api::names::ROLE_LABEL;

/// Annotation by which a ReplicaSet selects the pods to remove: those with the lowest cost.
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Higher than the cost of any other pod, which is 0.
const LEADER_COST: &str = "100";

/// The role that a JobManager's pod should carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub pod: String,
    /// Label, for people.
    pub label: &'static str,
    /// Annotation for ReplicaSets; `None` removes it.
    pub deletion_cost: Option<&'static str>,
}

/// Returns the roles of the pods that do not carry them yet. The new leader comes first, so there is no moment in which
/// its deletion is cheap.
pub fn roles(observed: &Observed) -> Vec<Role> {
    let spec = observed.lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let mut roles: Vec<Role> = observed.job_manager_pods.iter().filter_map(|pod| changed_role(pod, holder)).collect();
    roles.sort_by_key(|role| role.deletion_cost.is_none());
    roles
}

fn changed_role(pod: &Arc<ObservedPod>, holder: &str) -> Option<Role> {
    let (label, deletion_cost) = if pod.name() == holder { ("leader", Some(LEADER_COST)) } else { ("standby", None) };
    let labels = pod.metadata.labels.as_ref();
    let annotations = pod.metadata.annotations.as_ref();
    let says = labels.and_then(|labels| labels.get(ROLE_LABEL)).is_some_and(|role| role == label);
    let costs = annotations.and_then(|annotations| annotations.get(DELETION_COST_ANNOTATION)).map(String::as_str)
        == deletion_cost;
    (!says || !costs).then(|| Role { pod: pod.name().to_owned(), label, deletion_cost })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_leader_is_marked_before_the_old_one_is_unmarked_and_the_rest_is_left_alone() {
        let pod = |name: &str, role: &str, cost: Option<&str>| {
            let annotations = cost.map(|cost| json!({ DELETION_COST_ANNOTATION: cost })).unwrap_or(json!({}));
            let pod =
                json!({ "metadata": { "name": name, "labels": { ROLE_LABEL: role }, "annotations": annotations } });
            Arc::new(serde_json::from_value(pod).unwrap_or_default())
        };
        let lease =
            serde_json::from_value(json!({ "metadata": {}, "spec": { "holderIdentity": "b" } })).unwrap_or_default();
        let observed = Observed {
            lease: Some(Arc::new(lease)),
            job_manager_pods: vec![
                pod("a", "leader", Some("100")),
                pod("b", "standby", None),
                pod("c", "standby", None),
            ],
            ..Observed::default()
        };
        assert_eq!(
            roles(&observed),
            [
                Role { pod: "b".to_owned(), label: "leader", deletion_cost: Some("100") },
                Role { pod: "a".to_owned(), label: "standby", deletion_cost: None },
            ]
        );
    }
}
