//! What is waited for: since when, how long that is normal, and what is said after that time: the object, the cause as
//! Kubernetes has it, and the way out.
//!
//! Causes that Kubernetes itself tells at once, such as an image that cannot be pulled, are in [`super::cause`].

use jiff::{SignedDuration, Timestamp};

use super::cause::Cause;
use super::causes;
use super::observed::{ContainerStatus, Observed, ObservedPod, is_true};
use crate::api::names::FLINK_CONTAINER;
use crate::ledger::unready;

/// A container that has not started for so long is looked at: what Kubernetes' events warn of is said then.
const LOOK: SignedDuration = SignedDuration::from_secs(30);
/// A scheduler has looked at a pod by then; gates are removed by then.
const SCHEDULE_TIMEOUT: SignedDuration = SignedDuration::from_secs(30);
/// A container that has not started by then is told of, whatever the events say: images can be large.
const START_TIMEOUT: SignedDuration = SignedDuration::from_secs(300);
/// A pod whose containers run is ready by then, unless its gateway says before why it is not.
const READY_TIMEOUT: SignedDuration = SignedDuration::from_secs(45);
/// Pods whose events are read at a time.
const LOOKS: usize = 4;
/// Between looks at events, which no watch tells of.
pub const NEXT_LOOK: SignedDuration = SignedDuration::from_secs(30);

/// The reason of a pod whose containers have not started.
pub const NOT_STARTED: &str = "PodNotStarted";

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    pub since: Timestamp,
    /// How long that is normal.
    pub limit: SignedDuration,
    /// What is said after that.
    pub cause: Cause,
}

impl Wait {
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        now.duration_since(self.since) >= self.limit
    }

    /// The time until it is overdue.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        self.limit - now.duration_since(self.since)
    }
}

/// A time as messages show it. It stays the same while the wait lasts, so that the message does.
pub fn since(time: Timestamp) -> String {
    format!("since {time:.0}")
}

/// Pods of Flink that have not become ready and of which Kubernetes has not said why.
pub fn of_pods(observed: &Observed) -> Vec<Wait> {
    let pods = observed.job_manager_pods.iter().map(|pod| (pod, ", so it cannot lead"));
    let pods = pods.chain(observed.task_manager_pods.iter().map(|pod| (pod, "")));
    let ledger = observed.ledger.as_ref();
    let said = |pod: &ObservedPod| Said {
        warning: observed.warnings.get(pod.uid()).cloned(),
        unready: ledger.and_then(|ledger| unready::of(&ledger.metadata, pod.uid())),
    };
    pods.filter_map(|(pod, follows)| of_pod(pod, &said(pod), follows)).collect()
}

/// What others say of a pod that is not ready.
struct Said {
    /// Kubernetes, in an event.
    warning: Option<String>,
    /// Its gateway, on the ledger.
    unready: Option<String>,
}

/// Pods whose events are to be read: their containers have not started for a while.
pub fn to_look_at(observed: &Observed, now: Timestamp) -> Vec<String> {
    let all = [&observed.job_manager_pods, &observed.task_manager_pods, &observed.purge_pods];
    let late = all.into_iter().flatten().filter(|pod| {
        let created = created(pod);
        is_awaited(pod) && !unstarted(pod).is_empty() && created.is_some_and(|at| now.duration_since(at) >= LOOK)
    });
    late.map(|pod| pod.uid().to_owned()).take(LOOKS).collect()
}

/// The pod is to become ready, and is not.
fn is_awaited(pod: &ObservedPod) -> bool {
    pod.is_live() && pod.metadata.deletion_timestamp.is_none() && !is_true(&pod.status.conditions, "Ready")
}

fn of_pod(pod: &ObservedPod, said: &Said, follows: &str) -> Option<Wait> {
    let created = created(pod).filter(|_| is_awaited(pod) && causes::of_pod(pod).is_none())?;
    let name = pod.name();
    let unstarted = unstarted(pod);
    if let Some(what) = unstarted.first() {
        let told = match &said.warning {
            Some(warning) => format!("pod {name} has not started {}: {warning}", since(created)),
            None => format!(
                "pod {name} has not started {}: {what}; Kubernetes warns of nothing: see kubectl describe pod {name}",
                since(created)
            ),
        };
        let limit = match (&said.warning, is_true(&pod.status.conditions, "PodScheduled")) {
            (Some(_), _) => LOOK,
            (None, false) => SCHEDULE_TIMEOUT,
            (None, true) => START_TIMEOUT,
        };
        let cause = Cause { reason: NOT_STARTED, message: format!("{told}{follows}") };
        return Some(Wait { since: created, limit, cause });
    }
    let unready = containers(pod).filter(|container| !container.ready && !has_ended_well(container));
    let unready: Vec<&str> = unready.map(|container| container.name.as_str()).collect();
    let since_ready = pod.ready_since().unwrap_or(created);
    let why = match &said.unready {
        Some(why) => format!("its gateway reports that {why}"),
        None if unready.is_empty() => "its containers run, and none is not ready".to_owned(),
        None => format!("its containers run, and {} is not ready", unready.join(", ")),
    };
    // What a gateway reports of its JobManager has its cause there.
    let log = match &said.unready {
        Some(why) if why.contains("the JobManager") => FLINK_CONTAINER,
        _ => unready.first().copied().unwrap_or(FLINK_CONTAINER),
    };
    let message = format!(
        "pod {name} is not ready {}{follows}: {why}; see its log: kubectl logs {name} --container {log}",
        since(since_ready),
    );
    // A gateway reports only what lasts.
    let limit = if said.unready.is_some() { SignedDuration::ZERO } else { READY_TIMEOUT };
    Some(Wait { since: since_ready, limit, cause: Cause { reason: "PodNotReady", message } })
}

fn created(pod: &ObservedPod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn containers(pod: &ObservedPod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses)
}

fn has_ended_well(container: &ContainerStatus) -> bool {
    container.state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0)
}

/// What a pod that has not started waits for; empty when it has, also when one of its init containers runs.
fn unstarted(pod: &ObservedPod) -> Vec<String> {
    let scheduled = pod.status.conditions.iter().find(|condition| condition.kind == "PodScheduled");
    match scheduled {
        None => return vec!["no scheduler has looked at it".to_owned()],
        Some(condition) if condition.status != "True" => {
            return vec![format!("it is not scheduled: {} {}", condition.reason, condition.message).trim().to_owned()];
        }
        Some(_) => {}
    }
    let (mut waits, mut runs) = (Vec::new(), false);
    for container in containers(pod) {
        match &container.state.waiting {
            // The containers wait for the init containers.
            Some(waiting) if waiting.reason == "PodInitializing" && runs => {}
            Some(waiting) => {
                let said = format!("container {}: {} {}", container.name, waiting.reason, waiting.message);
                waits.push(said.trim().to_owned());
            }
            None => runs = runs || !has_ended_well(container),
        }
    }
    if containers(pod).next().is_none() {
        waits.push("its node's kubelet has not reported any container".to_owned());
    }
    waits
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    /// What is said of a pod of this status at this second of its life.
    fn told(status: Value, warning: Option<&str>, second: i64) -> Option<(&'static str, String)> {
        let metadata = json!({ "name": "demo-jobmanager-a", "uid": "u", "creationTimestamp": "1970-01-01T00:00:00Z" });
        let pod: ObservedPod = serde_json::from_value(json!({ "metadata": metadata, "status": status }))
            .unwrap_or_else(|error| panic!("{error}"));
        let observed = Observed {
            job_manager_pods: vec![Arc::new(pod)],
            warnings: warning.map(|warning| ("u".to_owned(), warning.to_owned())).into_iter().collect(),
            ..Observed::default()
        };
        let now = Timestamp::from_second(second).unwrap_or_default();
        let looked_at = to_look_at(&observed, now);
        assert!(looked_at.is_empty() || (second >= 30 && looked_at == ["u"]));
        let waits = of_pods(&observed);
        let wait = waits.iter().find(|wait| wait.is_overdue(now))?;
        Some((wait.cause.reason, wait.cause.message.clone()))
    }

    fn creating() -> Value {
        let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
        json!({
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "True" }],
            "initContainerStatuses": [{ "name": "gateway", "state": { "waiting": { "reason": "ContainerCreating" } } }],
            "containerStatuses": [{ "name": "flink-main-container", "state": waiting }],
        })
    }

    #[test]
    fn a_volume_that_cannot_be_mounted_is_told_as_kubernetes_says_it() {
        let warning = "FailedMount: MountVolume.SetUp failed for volume \"x\" : secret \"x\" not found";
        assert_eq!(told(creating(), Some(warning), 29), None);
        let (reason, message) = told(creating(), Some(warning), 30).unwrap_or_default();
        assert_eq!(reason, "PodNotStarted");
        assert_eq!(
            message,
            format!("pod demo-jobmanager-a has not started since 1970-01-01T00:00:00Z: {warning}, so it cannot lead")
        );
        assert_eq!(told(creating(), None, 299), None, "an image may be large");
        let (_, message) = told(creating(), None, 300).unwrap_or_default();
        assert!(message.contains("container gateway: ContainerCreating; Kubernetes warns of nothing"), "{message}");
    }

    #[test]
    fn a_pod_that_runs_and_is_not_ready_is_told_of_and_one_that_has_ended_is_not() {
        let running = json!({ "startedAt": "1970-01-01T00:00:05Z" });
        let container =
            |name: &str, ready: bool| json!({ "name": name, "ready": ready, "state": { "running": running } });
        let mut status = json!({
            "phase": "Running",
            "conditions": [
                { "type": "PodScheduled", "status": "True" },
                { "type": "Ready", "status": "False", "lastTransitionTime": "1970-01-01T00:01:00Z" },
            ],
            "initContainerStatuses": [container("gateway", false)],
            "containerStatuses": [container("flink-main-container", true)],
        });
        assert_eq!(told(status.clone(), None, 104), None);
        let (reason, message) = told(status.clone(), None, 105).unwrap_or_default();
        assert_eq!(reason, "PodNotReady");
        assert!(message.contains("since 1970-01-01T00:01:00Z, so it cannot lead"), "{message}");
        assert!(message.contains("kubectl logs demo-jobmanager-a --container gateway"), "{message}");
        status["phase"] = "Failed".into();
        assert_eq!(told(status, None, 900), None);
    }

    #[test]
    fn what_a_gateway_reports_of_its_job_manager_has_its_cause_in_the_job_managers_log() {
        let message = reported("the JobManager has not asked for the lock yet");
        assert!(message.ends_with("--container flink-main-container"), "{message}");
    }

    #[test]
    fn of_a_candidate_that_is_not_ready_the_gateways_own_reason_is_told_at_once() {
        let message = reported("no ZooKeeper server answers");
        assert!(
            message.contains("so it cannot lead: its gateway reports that no ZooKeeper server answers"),
            "{message}"
        );
        assert!(message.ends_with("--container gateway"), "{message}");
    }

    /// What is told of a candidate whose gateway has reported this.
    fn reported(why: &str) -> String {
        let status = json!({
            "phase": "Running",
            "conditions": [{ "type": "PodScheduled", "status": "True" }],
            "containerStatuses": [{ "name": "gateway", "ready": false, "state": { "running": {} } }],
        });
        let metadata = json!({ "name": "demo-jobmanager-a", "uid": "u", "creationTimestamp": "1970-01-01T00:00:00Z" });
        let pod = serde_json::from_value(json!({ "metadata": metadata, "status": status }));
        let annotation = json!({ unready::annotation("u"): unready::text(why, Timestamp::UNIX_EPOCH) });
        let ledger = serde_json::from_value(json!({ "metadata": { "annotations": annotation } }));
        let observed = Observed {
            job_manager_pods: vec![Arc::new(pod.unwrap_or_else(|error| panic!("{error}")))],
            ledger: Some(Arc::new(ledger.unwrap_or_else(|error| panic!("{error}")))),
            ..Observed::default()
        };
        let waits = of_pods(&observed);
        assert!(waits[0].is_overdue(Timestamp::UNIX_EPOCH));
        waits[0].cause.message.clone()
    }

    #[test]
    fn what_no_scheduler_looks_at_is_told_of() {
        assert_eq!(told(json!({ "phase": "Pending" }), None, 29), None);
        let (reason, message) = told(json!({ "phase": "Pending" }), None, 30).unwrap_or_default();
        assert_eq!(reason, "PodNotStarted");
        assert!(message.contains("no scheduler has looked at it"), "{message}");
        let gated =
            json!({ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gates" });
        let (_, message) = told(json!({ "phase": "Pending", "conditions": [gated] }), None, 30).unwrap_or_default();
        assert!(message.contains("it is not scheduled: SchedulingGated gates"), "{message}");
    }
}
