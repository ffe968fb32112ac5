//! Why a cluster does not do what it should, read from the status of its pods and Deployments.

use std::sync::Arc;

use super::build::application::FETCH_CONTAINER;
use super::cause::Cause;
use super::crash;
use super::observed::{ContainerStatus, Observed, ObservedDeployment, ObservedPod, Terminated};
use super::presence::Presence;
use crate::api::names::{
    COMPONENT_LABEL, FLINK_CONTAINER, GATEWAY_CONTAINER, JOB_MANAGER, PURGE, QUORUM_ANNOTATION, TASK_MANAGER,
    TLS_ANNOTATION,
};
use crate::flink::job_id::listed;
use crate::ledger::jobs::Size;
use crate::ledger::refusal::Refusal;

/// A container that ended once may just have been killed; from the second time on it is said to crash.
const CRASHES: i32 = 2;

/// All causes, JobManagers first.
pub fn causes(observed: &Observed) -> Vec<Cause> {
    let deployments = [&observed.job_manager_deployment, &observed.task_manager_deployment];
    let refused = deployments.into_iter().flatten().filter_map(|deployment| refused(deployment));
    let pods = observed.live_pods().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let remain = observed.presence.iter().filter_map(Presence::cause);
    refused
        .chain(remain)
        .chain(quorum(observed))
        .chain(refusal(observed))
        .chain(tls(observed))
        .chain(grouped(pods))
        .chain(ha_data(observed))
        .chain(secrets(observed))
        .collect()
}

/// The API server refuses a pod template. Its message speaks of the Deployment that we made of it; the user's words are
/// put back.
pub fn refused_template(field: &str, message: &str) -> Cause {
    // "failed to create typed patch object (namespace/name; apps/v1, Kind=Deployment): .spec.template.spec.x: field not
    // declared in schema" or "Deployment.apps "name" is invalid: spec.template.spec.x: …"
    let said =
        message.split_once("): ").or_else(|| message.split_once(" is invalid: ")).map_or(message, |(_, said)| said);
    let said = said.trim_start_matches('.').replace("spec.template", field);
    let message = if said.contains(field) { said } else { format!("{field}: {said}") };
    Cause { reason: "InvalidPodTemplate", message }
}

/// The API server refuses to create pods: quota, Pod Security, an admission webhook.
fn refused(deployment: &ObservedDeployment) -> Option<Cause> {
    let failure = deployment
        .status
        .conditions
        .iter()
        .find(|condition| condition.kind == "ReplicaFailure" && condition.status == "True")?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    Some(Cause { reason: "PodsRefused", message: format!("Deployment {name}: {}", failure.message) })
}

/// What a gateway says of a ZooKeeper quorum that it does not reach. Before the causes of pods: Flink crashes without
/// one.
fn quorum(observed: &Observed) -> Option<Cause> {
    let said = observed.ledger.as_ref()?.metadata.annotations.as_ref()?.get(QUORUM_ANNOTATION)?;
    Some(Cause { reason: "ZooKeeperUnreachable", message: format!("spec.highAvailability.zookeeper: {said}") })
}

/// What is wrong with a Secret of `spec.flinkConfigurationFrom`, by the leader's gateway.
fn secrets(observed: &Observed) -> Option<Cause> {
    let problem = observed.secrets()?.problem.as_ref()?;
    let message = format!("{problem}. Pods that run stay as they are; new ones may not start until that is mended");
    Some(Cause { reason: "SecretRefused", message })
}

/// What the leading gateway says of Flink's own TLS.
fn tls(observed: &Observed) -> Option<Cause> {
    let said = observed.ledger.as_ref()?.metadata.annotations.as_ref()?.get(TLS_ANNOTATION)?;
    Some(Cause { reason: "TlsFailed", message: said.clone() })
}

/// Why a gateway does not let its JobManager lead. Of a pod that is gone it says nothing any more.
fn refusal(observed: &Observed) -> Option<Cause> {
    let refusal = Refusal::of(&observed.ledger.as_ref()?.metadata)?;
    let is_there = |uid: &String| observed.job_manager_pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid));
    refusal.pod.as_ref().is_none_or(is_there).then(|| refusal.into())
}

/// A ConfigMap this full leaves little time.
const FULL: usize = 80;

/// What the leading gateway says of the HA data.
fn ha_data(observed: &Observed) -> Vec<Cause> {
    let Some(ha_data) = observed.ha_data() else { return Vec::new() };
    let reason = match ha_data.state.as_str() {
        // Two clusters would take each other's files for their own.
        "Shared" => Some("StorageShared"),
        "Unreachable" => Some("StorageUnreachable"),
        _ => None,
    };
    let storage = reason
        .map(|reason| Cause { reason, message: format!("spec.highAvailability.storageDir: {}", ha_data.message) });
    let unreadable = (!ha_data.unreadable.is_empty()).then(|| Cause {
        reason: "PointerUnreadable",
        message: format!(
            "{} {} hold a pointer that cannot be read; the files that it may name are kept, and its job may not survive a failover: \
             take a savepoint and submit the job again",
            if ha_data.unreadable.iter().all(|name| name.starts_with('/')) { "znodes" } else { "ConfigMaps" },
            listed(ha_data.unreadable.iter().map(String::as_str))
        ),
    });
    let full = ha_data.largest.as_ref().filter(|size| size.per_cent() >= FULL);
    let left = observed.ledger.as_ref().map_or(0, |ledger| ledger.data.uncollected);
    let remains = (left >= REMAINS).then(|| Cause { reason: "HaDataRemains", message: remains(left) });
    storage
        .into_iter()
        .chain(unreadable)
        .chain(remains)
        .chain(full.map(|size| Cause { reason: "HaDataLarge", message: large(size) }))
        .collect()
}

/// So many ended jobs do not end at the same time.
const REMAINS: usize = 100;

fn remains(left: usize) -> String {
    format!(
        "spec.highAvailability.storageDir: files of {left} ended jobs could not be removed; the log of the leader's gateway \
         names the first one and why (kubectl logs <pod> --container gateway): give the pods the right to list and to \
         delete there; until then results of further jobs stay in the directory, and nothing else is lost"
    )
}

/// A ConfigMap that comes near the limit of what Kubernetes stores.
pub fn large(size: &Size) -> String {
    let Size { name, bytes } = size;
    format!(
        "ConfigMap {name} holds {bytes} bytes, {} % of the limit for a ConfigMap; run fewer jobs in one cluster or retain fewer checkpoints \
         (execution.checkpointing.num-retained), because a job that does not fit is not stored",
        size.per_cent()
    )
}

/// Why a pod of another kind does not get on.
pub fn of_pods(pods: &[Arc<ObservedPod>]) -> Option<String> {
    let ended = |pod: &ObservedPod| {
        let container = pod.status.container_statuses.first()?;
        let ended = container.state.terminated.as_ref().or(container.last_state.terminated.as_ref())?;
        Some(why_ended(pod, &container.name, ended)).filter(|why| !why.is_empty())
    };
    pods.iter().find_map(|pod| ended(pod).or_else(|| of_pod(pod).map(|cause| cause.message)))
}

/// What stands in the way of pods, each cause once: the pods of a Deployment mostly have the same.
fn grouped<'a>(pods: impl Iterator<Item = &'a Arc<ObservedPod>>) -> Vec<Cause> {
    let mut groups: Vec<(String, Cause, usize)> = Vec::new();
    for (pod, cause) in pods.filter_map(|pod| Some((pod, of_pod(pod)?))) {
        // Apart from the pod's name, and from how often it has happened.
        let text = cause.message.replace(&format!("pod {}", pod.name()), "pod");
        let alike = format!("{} {}", cause.reason, text.replace(|c: char| c.is_ascii_digit(), ""));
        match groups.iter_mut().find(|(known, ..)| *known == alike) {
            Some((_, _, others)) => *others += 1,
            None => groups.push((alike, cause, 0)),
        }
    }
    let told = |(_, cause, others): (String, Cause, usize)| match others {
        0 => cause,
        1 => Cause { message: format!("{} (and one other pod)", cause.message), ..cause },
        _ => Cause { message: format!("{} (and {others} other pods)", cause.message), ..cause },
    };
    groups.into_iter().map(told).collect()
}

/// Causes that a message tells.
const TOLD: usize = 12;

/// All causes at once: the first one's reason, and what all of them say; `None` when there are none.
pub fn sentence(causes: &[Cause]) -> Option<(&'static str, String)> {
    // The operator and a gateway may have found the same.
    let mut different: Vec<&Cause> = Vec::new();
    causes.iter().for_each(|cause| {
        if !different.contains(&cause) {
            different.push(cause);
        }
    });
    let (causes, first) = (different.as_slice(), causes.first()?);
    if causes.len() == 1 {
        return Some((first.reason, first.message.clone()));
    }
    let each = causes.iter().take(TOLD).enumerate();
    let each = each.map(|(index, cause)| format!("({}) {}: {}", index + 1, cause.reason, cause.message));
    let more = causes.len().saturating_sub(TOLD);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let all = each.collect::<Vec<_>>().join("; ");
    Some((first.reason, format!("{} problems: {all}{more}", causes.len())))
}

/// Why Kubernetes does not run a pod, as far as its status tells that at once.
pub fn of_pod(pod: &ObservedPod) -> Option<Cause> {
    let containers = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    containers.into_iter().find_map(|container| of_container(pod, container)).or_else(|| unschedulable(pod))
}

fn unschedulable(pod: &ObservedPod) -> Option<Cause> {
    let condition = pod
        .status
        .conditions
        .iter()
        .find(|condition| condition.kind == "PodScheduled" && condition.reason == "Unschedulable")?;
    Some(Cause {
        reason: "Unschedulable",
        message: format!("pod {} cannot be scheduled: {}", pod.name(), condition.message),
    })
}

/// Whether a container that waits for this reason has no image.
pub fn is_pull_failure(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable"
    )
}

fn of_container(observed: &ObservedPod, container: &ContainerStatus) -> Option<Cause> {
    let waiting = container.state.waiting.clone().unwrap_or_default();
    let (pod, name) = (observed.name(), &container.name);
    match waiting.reason.as_str() {
        reason if is_pull_failure(reason) => Some(Cause {
            reason: "ImagePullFailed",
            message: format!(
                "pod {pod} cannot pull image {} of container {name}: {}",
                container.image,
                crash::tail(&waiting.message)
            ),
        }),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(Cause {
            reason: "ContainerNotStarted",
            message: format!("container {name} of pod {pod} cannot start: {}", crash::tail(&waiting.message)),
        }),
        reason => {
            let crashes = reason == "CrashLoopBackOff" || (container.restart_count >= CRASHES && !container.ready);
            let ended =
                container.last_state.terminated.as_ref().or(container.state.terminated.as_ref()).filter(|_| crashes)?;
            let (why, ended_so_often) = (why_ended(observed, name, ended), crash::times(container.restart_count));
            Some(Cause {
                reason: "CrashLooping",
                message: format!(
                    "container {name} of pod {pod} ended {ended_so_often}, last with exit code {} ({}): {why}",
                    ended.exit_code, ended.reason,
                ),
            })
        }
    }
}

/// Why a container has ended; empty if nothing tells it.
fn why_ended(pod: &ObservedPod, container: &str, ended: &Terminated) -> String {
    if ended.reason == "OOMKilled" {
        return format!("it needed more memory than its limit; raise {}", memory_limit(pod, container));
    }
    crash::sentence(&ended.message)
}

/// The field with the limit of a container's memory.
fn memory_limit(pod: &ObservedPod, container: &str) -> &'static str {
    let component = pod.metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT_LABEL)).map(String::as_str);
    match (container, component) {
        (FLINK_CONTAINER, Some(JOB_MANAGER)) => "spec.jobManager.resources.limits.memory",
        (FLINK_CONTAINER, Some(TASK_MANAGER)) => "spec.taskManager.resources.limits.memory",
        // Copies of the gateway's container fetch a jar, and remove files.
        (GATEWAY_CONTAINER | FETCH_CONTAINER | PURGE, _) => "spec.gateway.resources.limits.memory",
        _ => "its resources.limits.memory in the podTemplate",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn causes_of(status: Value) -> Vec<Cause> {
        let pod = json!({ "metadata": { "name": "demo-jobmanager-1" }, "status": status });
        let pod: ObservedPod = serde_json::from_value(pod).unwrap_or_default();
        causes(&Observed { job_manager_pods: vec![Arc::new(pod)], ..Observed::default() })
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named_with_what_the_registry_said() {
        let waiting = json!({ "reason": "ErrImagePull", "message": "failed to resolve\nnot found" });
        let found = causes_of(
            json!({ "containerStatuses": [{ "name": "flink-main-container", "image": "flink:nope", "state": { "waiting": waiting } }] }),
        );
        assert_eq!(found[0].reason, "ImagePullFailed");
        assert_eq!(
            found[0].message,
            "pod demo-jobmanager-1 cannot pull image flink:nope of container flink-main-container: failed to resolve not found"
        );
    }

    #[test]
    fn a_quorum_that_is_not_reached_is_told_of_before_what_follows_from_it() {
        let ledger = json!({ "metadata": { "annotations": { QUORUM_ANNOTATION: "zk-0:2181: connection refused" } }, "data": {} });
        let observed = Observed { ledger: serde_json::from_value(ledger).ok().map(Arc::new), ..Observed::default() };
        let found = causes(&observed);
        assert_eq!(
            (found[0].reason, found[0].message.as_str()),
            ("ZooKeeperUnreachable", "spec.highAvailability.zookeeper: zk-0:2181: connection refused")
        );
    }

    #[test]
    fn what_a_gateway_says_of_tls_is_told_on_the_resource() {
        let said = "the Secret of spec.tls.rest: the certificate expired; issue the certificate again";
        let ledger = json!({ "metadata": { "annotations": { TLS_ANNOTATION: said } }, "data": {} });
        let observed = Observed { ledger: serde_json::from_value(ledger).ok().map(Arc::new), ..Observed::default() };
        let found = causes(&observed);
        assert_eq!((found[0].reason, found[0].message.as_str()), ("TlsFailed", said));
    }

    #[test]
    fn what_a_gateway_refuses_is_told_on_the_resource() {
        let said = json!({ "reason": "ForeignHaData", "message": "ConfigMap demo-cluster-config-map is another's" })
            .to_string();
        let ledger = json!({ "metadata": { "annotations": { "flinkha.dev/refusal": said } }, "data": {} });
        let observed = Observed { ledger: serde_json::from_value(ledger).ok().map(Arc::new), ..Observed::default() };
        let found = causes(&observed);
        assert_eq!(
            (found[0].reason, found[0].message.as_str()),
            ("ForeignHaData", "ConfigMap demo-cluster-config-map is another's")
        );
    }

    #[test]
    fn what_is_refused_to_one_pod_is_told_as_long_as_the_pod_is_there() {
        let said = Refusal::new("JobsOfAnotherFlink", "jobs would be lost".to_owned()).of_pod("7");
        let ledger =
            json!({ "metadata": { "annotations": { "flinkha.dev/refusal": json!(said).to_string() } }, "data": {} });
        let told = |uid: &str| {
            let pod = json!({ "metadata": { "name": "a", "uid": uid } });
            let ledger = serde_json::from_value(ledger.clone()).ok().map(Arc::new);
            let pods = vec![Arc::new(serde_json::from_value(pod).unwrap_or_default())];
            causes(&Observed { ledger, job_manager_pods: pods, ..Observed::default() })
        };
        assert_eq!(told("7").first().map(|cause| cause.reason), Some("JobsOfAnotherFlink"));
        assert_eq!(told("8"), []);
    }

    #[test]
    fn a_crash_loop_is_seen_between_its_crashes_too_and_ends_when_the_container_is_ready() {
        let container = |ready: bool, restarts: i32| {
            let last = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "Out of luck" } });
            json!({ "initContainerStatuses": [{ "name": "gateway", "ready": ready, "restartCount": restarts, "lastState": last, "state": { "running": {} } }] })
        };
        let found = causes_of(container(false, 3));
        assert_eq!(found[0].reason, "CrashLooping");
        assert!(
            found[0].message.ends_with("ended 3 times, last with exit code 1 (Error): Out of luck"),
            "{}",
            found[0].message
        );
        assert_eq!(causes_of(container(true, 3)), []);
        assert_eq!(causes_of(container(false, 1)), []);
    }

    #[test]
    fn a_container_without_enough_memory_is_told_with_the_field_that_gives_it_more() {
        let last = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        let told = |component: &str, container: &str| {
            let pod: ObservedPod = serde_json::from_value(json!({
                "metadata": { "name": "demo", "labels": { "app.kubernetes.io/component": component } },
                "status": { "containerStatuses": [{ "name": container, "restartCount": 3, "lastState": last }] },
            }))
            .unwrap_or_default();
            of_pod(&pod).map(|cause| cause.message).unwrap_or_default()
        };
        for (component, container, field) in [
            ("jobmanager", "flink-main-container", "spec.jobManager.resources.limits.memory"),
            ("taskmanager", "flink-main-container", "spec.taskManager.resources.limits.memory"),
            ("jobmanager", "gateway", "spec.gateway.resources.limits.memory"),
            ("purge", "purge", "spec.gateway.resources.limits.memory"),
        ] {
            let message = told(component, container);
            assert!(message.contains("(OOMKilled): it needed more memory") && message.ends_with(field), "{message}");
        }
    }

    #[test]
    fn a_pod_that_does_not_fit_anywhere_is_said_to_be_unschedulable() {
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available" });
        assert_eq!(causes_of(json!({ "conditions": [condition] }))[0].reason, "Unschedulable");
    }

    #[test]
    fn a_refused_pod_template_is_told_in_the_users_words() {
        for (message, expected) in [
            (
                "failed to create typed patch object (flink/demo-jobmanager; apps/v1, Kind=Deployment): .spec.template.spec.nodeSelektor: field not declared in schema",
                "spec.jobManager.podTemplate.spec.nodeSelektor: field not declared in schema",
            ),
            (
                "Deployment.apps \"demo-jobmanager\" is invalid: spec.template.spec.containers[0].volumeMounts[4].name: Not found: \"nope\"",
                "spec.jobManager.podTemplate.spec.containers[0].volumeMounts[4].name: Not found: \"nope\"",
            ),
            ("something else", "spec.jobManager.podTemplate: something else"),
        ] {
            assert_eq!(refused_template("spec.jobManager.podTemplate", message).message, expected);
        }
    }

    #[test]
    fn pods_with_the_same_cause_are_told_of_once_and_all_causes_at_once() {
        let pod = |name: &str, restarts: i32| {
            let last = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "out of luck" } });
            let container = json!({ "name": "gateway", "restartCount": restarts, "lastState": last });
            let pod = json!({ "metadata": { "name": name }, "status": { "containerStatuses": [container] } });
            Arc::new(serde_json::from_value(pod).unwrap_or_default())
        };
        let condition = json!({ "type": "ReplicaFailure", "status": "True", "message": "exceeded quota" });
        let deployment = json!({ "metadata": { "name": "demo-taskmanager" }, "status": { "conditions": [condition] } });
        let found = causes(&Observed {
            job_manager_pods: vec![pod("a", 3), pod("b", 4), pod("c", 5)],
            task_manager_deployment: serde_json::from_value(deployment).ok().map(Arc::new),
            ..Observed::default()
        });
        let crash =
            "container gateway of pod a ended 3 times, last with exit code 1 (Error): out of luck (and 2 other pods)";
        assert_eq!(
            sentence(&found),
            Some((
                "PodsRefused",
                format!(
                    "2 problems: (1) PodsRefused: Deployment demo-taskmanager: exceeded quota; (2) CrashLooping: {crash}"
                )
            ))
        );
        assert_eq!(sentence(&found[1..]), Some(("CrashLooping", crash.to_owned())));
        assert_eq!(sentence(&[found[1].clone(), found[1].clone()]), sentence(&found[1..]), "the same is told once");
        assert_eq!(sentence(&[]), None);
    }

    #[test]
    fn a_pod_that_has_ended_for_good_is_no_cause() {
        let last = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "evicted" } });
        let container = json!({ "name": "gateway", "restartCount": 3, "lastState": last });
        assert_eq!(causes_of(json!({ "phase": "Failed", "containerStatuses": [container] })), []);
    }
}
