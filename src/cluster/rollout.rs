//! Decides whether only the operator wants to replace pods, and which JobManager is replaced last.

use std::sync::Arc;

use serde_json::Value;

use super::application::Desired;
use super::build::Objects;
use super::build::job_manager::{TEMPLATE_ANNOTATION, digest_of};
use super::events::EventNote;
use super::observed::{Observed, ObservedDeployment, ObservedPod};
use super::secret_change;
use crate::api::FlinkHaCluster;
use crate::api::application::{Application, Phase};
use crate::api::names::ROLE_LABEL;
use crate::api::status::FlinkHaClusterStatus;

/// Annotation by which a ReplicaSet selects the pods to remove: those with the lowest cost.
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Higher than the cost of any other pod, which is 0.
const LEADER_COST: &str = "100";

/// The event that announces a roll-out that only the operator wants: this generation of the resource was applied, an
/// application is where it was, and yet pods that exist would be replaced.
pub fn replaced_by_operator(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    desired: &Desired,
    observed: &Observed,
    objects: &Objects,
    gateway_image: &str,
) -> Option<EventNote> {
    let generation = resource.metadata.generation;
    // A status of an earlier version does not say which generation was applied.
    let applied = before.applied.as_ref().map_or(before.observed_generation, |applied| applied.generation);
    if generation.is_none() || applied != generation || !is_where_it_was(desired.application(), before) {
        return None;
    }
    let deployments = [
        ("pods of JobManagers", observed.job_manager_deployment.as_deref(), &objects.job_managers),
        ("pods of TaskManagers", observed.task_manager_deployment.as_deref(), &objects.task_managers),
    ];
    let replaced = deployments.into_iter().filter(|(_, live, wanted)| live.is_some_and(|live| replaces(live, wanted)));
    let replaced: Vec<&str> = replaced.map(|(name, ..)| name).collect();
    if replaced.is_empty() {
        return None;
    }
    let pinned = before.gateway_image.as_deref().filter(|pinned| *pinned != gateway_image);
    let image = pinned.map(|pinned| format!(", and their gateway {pinned} with {gateway_image}")).unwrap_or_default();
    let replaced = replaced.join(" and ");
    let (reason, why) = match secret_change::changed(resource, observed) {
        Some(changed) => ("SecretChanged", format!("{changed}: the operator replaces the {replaced}")),
        None => (
            "JobManagersReplaced",
            format!("this version of the operator builds the {replaced} in another way: it replaces them"),
        ),
    };
    let message = format!("{why} one by one, the leading JobManager last{image}");
    Some(EventNote { warning: false, reason: reason.to_owned(), message })
}

fn is_where_it_was(now: Option<&Application>, before: &FlinkHaClusterStatus) -> bool {
    let (now, before) = match (now, before.application.as_ref()) {
        (None, None) => return true,
        (Some(now), Some(before)) => (now, before),
        _ => return false,
    };
    let run = |application: &Application| {
        let Application { job_id, version, starts, restored_from, replaces, .. } = application.clone();
        (job_id, version, starts, restored_from, replaces)
    };
    let has_pods = matches!(now.phase, Phase::Starting | Phase::Running | Phase::Savepointing | Phase::Halted);
    has_pods && now.phase == before.phase && run(now) == run(before)
}

/// The template's digest is not noted on a Deployment that an earlier version has made: then it counts as the same.
fn replaces(live: &ObservedDeployment, wanted: &Value) -> bool {
    let built = live.metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_ANNOTATION));
    let scale = |value: &Value| value["spec"]["replicas"].as_i64().unwrap_or_default();
    live.status.replicas > 0 && scale(wanted) > 0 && built.is_some_and(|built| built != digest_of(wanted))
}

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
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::status::AppliedObjects;
    use crate::cluster::build::{Environment, build};
    use crate::cluster::tests as fixture;

    /// Deployments with pods, as another version has built them.
    fn observed(job_managers: &str, task_managers: Option<&str>) -> Observed {
        let deployment = |digest: Option<&str>| {
            let annotations = digest.map(|digest| json!({ TEMPLATE_ANNOTATION: digest }));
            let deployment = json!({ "metadata": { "annotations": annotations }, "status": { "replicas": 2 } });
            Some(Arc::new(serde_json::from_value(deployment).unwrap_or_default()))
        };
        Observed {
            job_manager_deployment: deployment(Some(job_managers)),
            task_manager_deployment: deployment(task_managers),
            ..Observed::default()
        }
    }

    #[test]
    fn only_what_nobody_has_asked_for_waits() {
        let resource = fixture::resource();
        let environment = Environment {
            gateway_image: "flinkha:2".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let objects = build(&fixture::cluster(), &environment);
        let (job_managers, task_managers) = (digest_of(&objects.job_managers), digest_of(&objects.task_managers));
        let former = FlinkHaClusterStatus {
            observed_generation: Some(1),
            gateway_image: Some("flinkha:1".to_owned()),
            ..FlinkHaClusterStatus::default()
        };
        let applied = |generation| {
            let applied = AppliedObjects { generation: Some(generation), objects: String::new() };
            FlinkHaClusterStatus { applied: Some(applied), ..former.clone() }
        };
        let told = |before: &FlinkHaClusterStatus, observed: &Observed| {
            let desired = Desired::of(&resource, before, observed, Timestamp::UNIX_EPOCH).expect("a decision");
            replaced_by_operator(&resource, before, &desired, observed, &objects, "flinkha:2").map(|note| note.message)
        };
        let message = told(&former, &observed("old", None)).unwrap_or_default();
        assert!(message.contains("the pods of JobManagers in another way"), "{message}");
        assert!(message.contains("flinkha:1 with flinkha:2"), "{message}");
        let message = told(&applied(1), &observed(job_managers, Some("old"))).unwrap_or_default();
        assert!(message.contains("the pods of TaskManagers in another way"), "{message}");
        assert_eq!(told(&former, &observed(job_managers, None)), None, "made by an earlier version, and the same");
        assert_eq!(told(&former, &observed(job_managers, Some(task_managers))), None);
        assert_eq!(
            told(&applied(0), &observed("old", None)),
            None,
            "the resource was changed, and was not applied since"
        );
        assert_eq!(told(&former, &Observed::default()), None, "there are none");
        let mut scaled = observed("old", None);
        let none = json!({ "metadata": { "annotations": { TEMPLATE_ANNOTATION: "old" } }, "status": {} });
        scaled.job_manager_deployment = Some(Arc::new(serde_json::from_value(none).unwrap_or_default()));
        assert_eq!(told(&former, &scaled), None, "there are no pods");
    }

    #[test]
    fn a_changed_secret_replaces_pods_in_turn_and_is_told() {
        let mut resource = fixture::resource();
        resource.spec.flink_configuration_from =
            serde_json::from_value(json!([{ "secretRef": { "name": "s3" } }])).expect("a source");
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let made = |changes| {
            let cluster = crate::cluster::validate::validate(&resource).expect("a cluster");
            build(&cluster.with_secret_changes(changes), &environment)
        };
        let live = |changes| {
            let (objects, note) = (made(changes), json!({ "names": ["s3"], "digest": "d", "changes": 1 }));
            let deployment = |built: &Value| {
                let deployment = json!({ "metadata": built["metadata"], "status": { "replicas": 2 } });
                serde_json::from_value(deployment).ok().map(Arc::new)
            };
            let ledger = json!({ "metadata": {}, "data": { "secrets": note.to_string() } });
            Observed {
                job_manager_deployment: deployment(&objects.job_managers),
                task_manager_deployment: deployment(&objects.task_managers),
                ledger: serde_json::from_value(ledger).ok().map(Arc::new),
                ..Observed::default()
            }
        };
        let before = FlinkHaClusterStatus { observed_generation: Some(1), ..FlinkHaClusterStatus::default() };
        let note = |observed: &Observed| {
            let desired = Desired::of(&resource, &before, observed, Timestamp::UNIX_EPOCH).expect("a decision");
            replaced_by_operator(&resource, &before, &desired, observed, &made(1), "flinkha:1")
        };
        let told = note(&live(0)).expect("an event");
        assert_eq!(told.reason, "SecretChanged");
        let expected = "a Secret of spec.flinkConfigurationFrom has changed: the operator replaces the pods of JobManagers \
                        and pods of TaskManagers one by one, the leading JobManager last";
        assert_eq!(told.message, expected);
        let why = |observed: &Observed| crate::cluster::secret_change::why(&resource, observed);
        assert!(why(&live(0)).contains("Secret") && why(&live(1)).contains("operator"));
        assert_eq!(note(&live(1)), None, "the pods have it");
    }

    #[test]
    fn a_renewed_certificate_replaces_the_pods_that_use_it_and_is_told() {
        let mut resource = fixture::resource();
        let tls = json!({ "internal": { "name": "a" }, "rest": { "name": "b" } });
        resource.spec.tls = serde_json::from_value(tls).expect("TLS");
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let made = |notes: &Value| {
            let cluster = crate::cluster::validate::validate(&resource).expect("a cluster");
            build(&cluster.with_certificates(serde_json::from_value(notes.clone()).expect("notes")), &environment)
        };
        let told = |notes: Value, pods: &Value| {
            let live = made(pods);
            let deployment = |built: &Value| {
                let deployment = json!({ "metadata": built["metadata"], "status": { "replicas": 2 } });
                serde_json::from_value(deployment).ok().map(Arc::new)
            };
            let ledger = json!({ "metadata": {}, "data": { "certificates": notes.to_string() } });
            let observed = Observed {
                job_manager_deployment: deployment(&live.job_managers),
                task_manager_deployment: deployment(&live.task_managers),
                ledger: serde_json::from_value(ledger).ok().map(Arc::new),
                ..Observed::default()
            };
            let before = FlinkHaClusterStatus { observed_generation: Some(1), ..FlinkHaClusterStatus::default() };
            let desired = Desired::of(&resource, &before, &observed, Timestamp::UNIX_EPOCH).expect("a decision");
            let note = replaced_by_operator(&resource, &before, &desired, &observed, &made(&notes), "flinkha:1");
            note.map(|note| (note.reason, note.message))
        };
        let notes =
            |internal: u64, rest: u64| json!({ "internal": { "changes": internal }, "rest": { "changes": rest } });
        let of_both = "a Secret of spec.tls has changed: the operator replaces the pods of JobManagers and pods of \
                       TaskManagers one by one, the leading JobManager last";
        let said = |message: &str| Some(("SecretChanged".to_owned(), message.to_owned()));
        assert_eq!(told(notes(1, 1), &notes(0, 0)), said(of_both));
        assert_eq!(told(notes(1, 1), &notes(0, 1)), said(of_both));
        assert_eq!(told(notes(1, 1), &notes(1, 0)), said(&of_both.replace(" and pods of TaskManagers", "")));
        assert_eq!(told(notes(1, 1), &notes(1, 1)), None, "the pods have it");
        assert_eq!(told(notes(0, 0), &json!({})), None, "a gateway has noted certificates for the first time");
    }

    #[test]
    fn an_application_that_moves_by_itself_does_not_wait() {
        let application = |phase, starts| Application { phase, starts, ..Application::default() };
        let before = |application| FlinkHaClusterStatus { application, ..FlinkHaClusterStatus::default() };
        for (now, then, expected) in [
            (Some(application(Phase::Running, 1)), Some(application(Phase::Running, 1)), true),
            (Some(application(Phase::Running, 2)), Some(application(Phase::Running, 1)), false),
            (Some(application(Phase::Starting, 1)), Some(application(Phase::Upgrading, 1)), false),
            (Some(application(Phase::Upgrading, 1)), Some(application(Phase::Upgrading, 1)), false),
            (Some(application(Phase::Running, 1)), None, false),
            (None, None, true),
        ] {
            assert_eq!(is_where_it_was(now.as_ref(), &before(then.clone())), expected, "{now:?} {then:?}");
        }
    }

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
