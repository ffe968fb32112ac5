//! Why a cluster does not do what it should, read from the status of its pods and Deployments.

use super::observed::{ContainerStatus, Observed, ObservedDeployment, ObservedPod};
use super::presence::Presence;
use crate::api::names::QUORUM_ANNOTATION;
use crate::ledger::jobs::Size;
use crate::ledger::refusal::Refusal;

/// A cause of trouble: a reason for machines and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// CamelCase, as in a condition.
    pub reason: &'static str,
    pub message: String,
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.condition_reason(), message: refusal.message }
    }
}

/// The longest part of a crashed container's log that goes into a message.
const LOG_LENGTH: usize = 500;

/// A container that ended once may just have been killed; from the second time on it is said to crash.
const CRASHES: i32 = 2;

/// Returns all causes, those of JobManagers first.
pub fn causes(observed: &Observed) -> Vec<Cause> {
    let deployments = [&observed.job_manager_deployment, &observed.task_manager_deployment];
    let refused = deployments.into_iter().flatten().filter_map(|deployment| refused(deployment));
    let pods = observed.job_manager_pods.iter().chain(&observed.task_manager_pods);
    let pods = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let remain = observed.presence.iter().filter_map(Presence::cause);
    refused
        .chain(remain)
        .chain(quorum(observed))
        .chain(refusal(observed))
        .chain(pods.filter_map(|pod| of_pod(pod)))
        .chain(ha_data(observed))
        .collect()
}

/// Returns the cause for a pod template that the API server refuses. Its message names the fields of our Deployment;
/// they are translated back into the user's field.
pub fn refused_template(field: &str, message: &str) -> Cause {
    // "failed to create typed patch object (namespace/name; apps/v1, Kind=Deployment): .spec.template.spec.x: field not
    // declared in schema" or "Deployment.apps "name" is invalid: spec.template.spec.x: …"
    let said =
        message.split_once("): ").or_else(|| message.split_once(" is invalid: ")).map_or(message, |(_, said)| said);
    let said = said.trim_start_matches('.').replace("spec.template", field);
    let message = if said.contains(field) { said } else { format!("{field}: {said}") };
    Cause { reason: "InvalidPodTemplate", message }
}

/// Returns the cause if the API server refuses to create pods: quota, Pod Security, an admission webhook.
fn refused(deployment: &ObservedDeployment) -> Option<Cause> {
    let failure = deployment
        .status
        .conditions
        .iter()
        .find(|condition| condition.kind == "ReplicaFailure" && condition.status == "True")?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    Some(Cause { reason: "PodsRefused", message: format!("Deployment {name}: {}", failure.message) })
}

/// Returns the report of a gateway that does not reach its ZooKeeper quorum. It precedes the causes of pods, because
/// Flink crashes without a quorum.
fn quorum(observed: &Observed) -> Option<Cause> {
    let said = observed.ledger.as_ref()?.metadata.annotations.as_ref()?.get(QUORUM_ANNOTATION)?;
    Some(Cause { reason: "ZooKeeperUnreachable", message: format!("spec.highAvailability.zookeeper: {said}") })
}

/// Returns why a gateway does not let its JobManager lead.
fn refusal(observed: &Observed) -> Option<Cause> {
    Refusal::of(&observed.ledger.as_ref()?.metadata).map(Cause::from)
}

/// Percentage from which a ConfigMap is about to be full.
const FULL: usize = 80;

/// Returns the leading gateway's report about the HA data.
fn ha_data(observed: &Observed) -> Vec<Cause> {
    let Some(ha_data) = observed.ha_data() else { return Vec::new() };
    let reason = match ha_data.state.as_str() {
        // Each of the two clusters would consider the other's files its own.
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
            ha_data.unreadable.join(", ")
        ),
    });
    let full = ha_data.largest.as_ref().filter(|size| size.per_cent() >= FULL);
    storage
        .into_iter()
        .chain(unreadable)
        .chain(full.map(|size| Cause { reason: "HaDataLarge", message: large(size) }))
        .collect()
}

/// Returns the message for a ConfigMap near the limit of Kubernetes.
pub fn large(size: &Size) -> String {
    let Size { name, bytes } = size;
    format!(
        "ConfigMap {name} holds {bytes} bytes, {} % of the limit for a ConfigMap; run fewer jobs in one cluster or retain fewer checkpoints \
         (execution.checkpointing.num-retained), because a job that does not fit is not stored",
        size.per_cent()
    )
}

/// Why a pod of another kind does not get on.
pub fn of_pods(pods: &[std::sync::Arc<ObservedPod>]) -> Option<String> {
    let ended = |pod: &ObservedPod| {
        let container = pod.status.container_statuses.first()?;
        let ended = container.state.terminated.as_ref().or(container.last_state.terminated.as_ref())?;
        Some(one_line(&ended.message)).filter(|message| !message.is_empty())
    };
    pods.iter().find_map(|pod| ended(pod).or_else(|| of_pod(pod).map(|cause| cause.message)))
}

fn of_pod(pod: &ObservedPod) -> Option<Cause> {
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

fn of_container(pod: &ObservedPod, container: &ContainerStatus) -> Option<Cause> {
    let waiting = container.state.waiting.clone().unwrap_or_default();
    let (pod, name) = (pod.name(), &container.name);
    match waiting.reason.as_str() {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
            Some(Cause {
                reason: "ImagePullFailed",
                message: format!(
                    "pod {pod} cannot pull image {} of container {name}: {}",
                    container.image,
                    one_line(&waiting.message)
                ),
            })
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some(Cause {
            reason: "ContainerNotStarted",
            message: format!("container {name} of pod {pod} cannot start: {}", one_line(&waiting.message)),
        }),
        reason => {
            let crashes = reason == "CrashLoopBackOff" || (container.restart_count >= CRASHES && !container.ready);
            let ended =
                container.last_state.terminated.as_ref().or(container.state.terminated.as_ref()).filter(|_| crashes)?;
            Some(Cause {
                reason: "CrashLooping",
                message: format!(
                    "container {name} of pod {pod} ended {} times, last with exit code {} ({}): {}",
                    container.restart_count,
                    ended.exit_code,
                    ended.reason,
                    one_line(&ended.message)
                ),
            })
        }
    }
}

/// The end of a log as one line: the last words of a program say most about its end, apart from a stack trace.
fn one_line(text: &str) -> String {
    let said = text
        .lines()
        .map(str::trim)
        .filter(|line| !(line.starts_with("at ") || line.starts_with("...") && line.ends_with(" more")));
    let line = said.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    let excess = line.chars().count().saturating_sub(LOG_LENGTH);
    if excess == 0 { line } else { std::iter::once('…').chain(line.chars().skip(excess)).collect() }
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
    fn a_stack_trace_does_not_hide_the_exception() {
        let log = "INFO starting\nException in thread \"main\" Unlucky: out of luck\n\tat a.B.c(B.java:1)\nCaused by: Worse: no luck\n\t... 3 more\n";
        assert_eq!(
            one_line(log),
            "INFO starting Exception in thread \"main\" Unlucky: out of luck Caused by: Worse: no luck"
        );
    }

    #[test]
    fn only_the_end_of_a_long_log_is_kept() {
        let line = one_line(&format!("{} the end", "x".repeat(2000)));
        assert_eq!(line.chars().count(), LOG_LENGTH + 1);
        assert!(line.ends_with("the end"));
    }
}
