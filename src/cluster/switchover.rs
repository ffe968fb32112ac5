//! Decides about a planned switchover: a person requests another leader by an annotation on the resource.

use super::observed::Observed;
use crate::api::names::{ANY_POD, SWITCHOVER_ANNOTATION};
use crate::api::v1alpha1::Provider;

/// The answer to a request. It is given once, so the annotation is removed in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switchover {
    /// Pass the request on to the leader.
    Ask { to: String },
    /// Refuse the request, with the reason.
    Refuse { why: String },
}

/// Decides about a request for this pod, or for any.
pub fn switchover(wanted: &str, provider: Provider, observed: &Observed) -> Switchover {
    if provider == Provider::ZooKeeper {
        return Switchover::Refuse {
            why: format!(
                "{SWITCHOVER_ANNOTATION}: with provider ZooKeeper Flink itself elects the leader, so a switchover is not possible; delete the leader's pod instead"
            ),
        };
    }
    let spec = observed.lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let leader = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let refuse =
        |why: String| Switchover::Refuse { why: format!("{SWITCHOVER_ANNOTATION}: {why}; the leader does not change") };
    let is_standby =
        |name: &str| name != leader && observed.job_manager_pods.iter().any(|pod| pod.name() == name && pod.is_ready());
    if leader.is_empty() {
        refuse("no JobManager leads now".to_owned())
    } else if wanted == leader {
        refuse(format!("{wanted} leads already"))
    } else if wanted == ANY_POD && !observed.job_manager_pods.iter().any(|pod| is_standby(pod.name())) {
        refuse("no standby is ready".to_owned())
    } else if wanted != ANY_POD && !is_standby(wanted) {
        refuse(format!("{wanted} is no standby that is ready; name one, or write {ANY_POD}"))
    } else {
        Switchover::Ask { to: wanted.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn observed() -> Observed {
        let pod = |name: &str, ready: &str| {
            let pod = json!({ "metadata": { "name": name }, "status": { "conditions": [{ "type": "Ready", "status": ready, "reason": "", "message": "" }] } });
            Arc::new(serde_json::from_value(pod).unwrap_or_default())
        };
        let lease =
            serde_json::from_value(json!({ "metadata": {}, "spec": { "holderIdentity": "a" } })).unwrap_or_default();
        Observed {
            lease: Some(Arc::new(lease)),
            job_manager_pods: vec![pod("a", "True"), pod("b", "True"), pod("c", "False")],
            ..Observed::default()
        }
    }

    #[test]
    fn only_a_standby_that_is_ready_is_asked() {
        assert_eq!(switchover("b", Provider::Kubernetes, &observed()), Switchover::Ask { to: "b".to_owned() });
        assert_eq!(switchover("any", Provider::Kubernetes, &observed()), Switchover::Ask { to: "any".to_owned() });
        for (wanted, why) in
            [("a", "a leads already"), ("c", "c is no standby that is ready"), ("d", "d is no standby that is ready")]
        {
            let Switchover::Refuse { why: told } = switchover(wanted, Provider::Kubernetes, &observed()) else {
                panic!("{wanted} was not refused")
            };
            assert!(told.contains(why), "{told}");
        }
        let refused = switchover("b", Provider::ZooKeeper, &observed());
        assert!(matches!(refused, Switchover::Refuse { why } if why.contains("Flink itself elects")));
        let alone = Observed { job_manager_pods: observed().job_manager_pods[..1].to_vec(), ..observed() };
        assert!(
            matches!(switchover("any", Provider::Kubernetes, &alone), Switchover::Refuse { why } if why.contains("no standby is ready"))
        );
    }
}
