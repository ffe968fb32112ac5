//! The JobManagers of a cluster as candidates: where each runs, whether it can take over, and why not.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use crate::api::names::{COMPONENT_LABEL, JOB_MANAGER, service_account};
use crate::cluster::crash;
use crate::cluster::observed::{ContainerStatus, ObservedCondition, ObservedPod};
use crate::lease::record::Record;
use crate::ledger::unready;

/// A pod and its node.
#[derive(Clone, Debug, Default)]
pub struct PlacedPod {
    pub pod: ObservedPod,
    pub node: Option<String>,
}

impl PlacedPod {
    /// Reads a pod; `None` if it is not understood.
    pub fn read(pod: &Value) -> Option<Self> {
        let node = pod["spec"]["nodeName"].as_str().map(str::to_owned);
        Some(Self { pod: serde_json::from_value(pod.clone()).ok()?, node })
    }

    /// Is it a JobManager of this cluster? Labels alone do not tell: anybody may set them.
    pub fn is_job_manager(&self, cluster: &str) -> bool {
        let labels = self.pod.metadata.labels.as_ref();
        let component = labels.and_then(|labels| labels.get(COMPONENT_LABEL));
        component.is_some_and(|component| component == JOB_MANAGER)
            && self.pod.runs_as(&service_account(cluster, JOB_MANAGER))
    }
}

/// A JobManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateReport {
    pub pod: String,
    /// `leader` or `standby`.
    pub role: &'static str,
    /// It leads, or could take over.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Has it promised the leader not to take the Lease? Absent for the leader, and while nobody leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promises: Option<bool>,
    /// Restarts of its containers.
    pub restarts: i32,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// The candidates, the leader first. `ledger`: its metadata, where gateways say why they are not ready.
pub fn candidates(
    cluster: &str,
    pods: &[PlacedPod],
    record: &Record,
    ledger: Option<&ObjectMeta>,
) -> Vec<CandidateReport> {
    let own = pods.iter().filter(|pod| pod.is_job_manager(cluster) && pod.pod.is_live());
    let mut found: Vec<CandidateReport> = own.map(|pod| candidate(pod, record, ledger)).collect();
    found.sort_by(|one, other| (one.role, &one.pod).cmp(&(other.role, &other.pod)));
    found
}

fn candidate(placed: &PlacedPod, record: &Record, ledger: Option<&ObjectMeta>) -> CandidateReport {
    let (pod, leads) = (&placed.pod, record.holder == placed.pod.name());
    let knows_promises = !leads && !record.holder.is_empty() && record.peers.promise_millis > 0;
    let containers = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    CandidateReport {
        pod: pod.name().to_owned(),
        role: if leads { "leader" } else { "standby" },
        ready: pod.is_ready(),
        why: (!pod.is_ready()).then(|| why(pod, ledger)),
        node: placed.node.clone(),
        promises: knows_promises.then(|| record.peers.lists(pod.uid())),
        restarts: containers.map(|container| container.restart_count).sum(),
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()),
    }
}

/// Why a pod is not ready: what its gateway says, else what Kubernetes says.
fn why(pod: &ObservedPod, ledger: Option<&ObjectMeta>) -> String {
    if let Some(ends) = &pod.metadata.deletion_timestamp {
        return format!("it terminates, until {:.0} at the latest", ends.0);
    }
    if let Some(said) = ledger.and_then(|ledger| unready::of(ledger, pod.uid())) {
        return said;
    }
    let status = &pod.status;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    if let Some(said) = containers.filter(|container| !container.ready).find_map(of_container) {
        return said;
    }
    let mut conditions = status.conditions.iter();
    let is_unscheduled =
        |condition: &&ObservedCondition| condition.kind == "PodScheduled" && condition.status == "False";
    if let Some(condition) = conditions.find(is_unscheduled) {
        return format!("{}: {}", condition.reason, condition.message);
    }
    match status.phase.as_str() {
        "Running" => "its containers run, and its gateway has not said yet why it is not ready".to_owned(),
        "" => "Kubernetes has not said anything of it yet".to_owned(),
        phase => format!("it is in phase {phase}"),
    }
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let with = |reason: &str, message: &str| match message {
        "" => format!("container {}: {reason}", container.name),
        message => format!("container {}: {reason}: {message}", container.name),
    };
    let ended = container.state.terminated.as_ref().or(container.last_state.terminated.as_ref());
    let ended = ended.filter(|ended| ended.exit_code != 0);
    let waiting = container.state.waiting.as_ref().filter(|waiting| waiting.reason != "PodInitializing");
    match (waiting, ended) {
        (Some(waiting), Some(ended)) => {
            let last = with(&waiting.reason, &waiting.message);
            Some(format!(
                "{last}; it ended with {}: {} {}",
                ended.exit_code,
                ended.reason,
                crash::sentence(&ended.message)
            ))
        }
        (Some(waiting), None) => Some(with(&waiting.reason, &waiting.message)),
        (None, Some(ended)) if container.state.terminated.is_some() => {
            Some(with(&format!("ended with {}: {}", ended.exit_code, ended.reason), &crash::sentence(&ended.message)))
        }
        (None, _) => None,
    }
}

/// Age of a candidate.
pub fn age_of(candidate: &CandidateReport, now: Timestamp) -> Option<String> {
    Some(super::amount::age(candidate.created.as_ref()?.parse().ok()?, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lease::record::{Member, Peers};

    fn pod(name: &str, status: Value) -> PlacedPod {
        let pod = json!({
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app.kubernetes.io/component": "jobmanager" },
            },
            "spec": { "nodeName": "node-1", "serviceAccountName": "demo-jobmanager" },
            "status": status,
        });
        PlacedPod::read(&pod).expect("a pod")
    }

    fn ready(status: &str) -> Value {
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] })
    }

    #[test]
    fn candidates_are_told_with_their_promises_and_why_they_are_not_ready() {
        let record = Record {
            holder: "b".to_owned(),
            peers: Peers {
                address: String::new(),
                promise_millis: 4000,
                members: vec![Member { pod_uid: "a".to_owned(), address: String::new() }],
            },
            ..Record::default()
        };
        let waiting = json!({
            "phase": "Pending",
            "containerStatuses": [{
                "name": "flink-main-container", "image": "", "ready": false, "restartCount": 3,
                "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
                "lastState": { "terminated": { "exitCode": 1, "reason": "Error", "message": "no storage" } },
            }],
        });
        let mut stranger = pod("stranger", ready("True"));
        stranger.pod.spec.service_account_name = "other".to_owned();
        let pods =
            [pod("a", ready("True")), pod("b", ready("True")), pod("c", waiting), pod("d", ready("False")), stranger];
        let annotations =
            [(unready::annotation("d"), unready::text("it cannot write the ledger", Timestamp::UNIX_EPOCH))];
        let ledger = ObjectMeta { annotations: Some(annotations.into_iter().collect()), ..ObjectMeta::default() };
        let found = candidates("demo", &pods, &record, Some(&ledger));
        let told: Vec<_> = found.iter().map(|one| (one.pod.as_str(), one.role, one.ready, one.promises)).collect();
        assert_eq!(
            told,
            [
                ("b", "leader", true, None),
                ("a", "standby", true, Some(true)),
                ("c", "standby", false, Some(false)),
                ("d", "standby", false, Some(false)),
            ]
        );
        assert_eq!(
            found[2].why.as_deref(),
            Some("container flink-main-container: CrashLoopBackOff: back-off 40s; it ended with 1: Error no storage")
        );
        assert_eq!(found[3].why.as_deref(), Some("it cannot write the ledger"));
        assert_eq!((found[2].restarts, found[0].node.as_deref()), (3, Some("node-1")));
        assert_eq!(candidates("demo", &pods, &Record::default(), None)[0].promises, None, "nobody leads");
    }

    #[test]
    fn what_kubernetes_says_of_a_pod_is_told_when_its_gateway_says_nothing() {
        let unscheduled = json!({
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes" }],
        });
        for (status, expected) in [
            (unscheduled, "Unschedulable: 0/3 nodes"),
            (json!({ "phase": "Pending" }), "it is in phase Pending"),
            (json!({}), "Kubernetes has not said anything of it yet"),
            (ready("False"), "its containers run, and its gateway has not said yet why it is not ready"),
        ] {
            assert_eq!(why(&pod("a", status).pod, None), expected);
        }
        let mut ending = pod("a", ready("True"));
        ending.pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:30Z")).ok();
        assert_eq!(why(&ending.pod, None), "it terminates, until 2026-01-01T00:00:30Z at the latest");
    }
}
