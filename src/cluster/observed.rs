//! What has been observed of a cluster: the parts of Kubernetes' objects that a decision needs, and no more, because
//! the operator keeps them in memory for every cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer, Serialize};

use super::account::Account;
use super::cause::Cause;
use super::deployment::DeploymentSpec;
use super::ledger_data::LedgerData;
use super::presence::Presence;
use crate::api::names::GATEWAY_CONTAINER;
use crate::ha_data::handover::Stored;
use crate::ledger::application::Progress;
use crate::ledger::certificates::CertificateNotes;
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::failovers::Failovers;
use crate::ledger::jobs::{HaData, Job};
use crate::ledger::refusal::Refusal;
use crate::ledger::savepoints::TakenSavepoint;
use crate::ledger::secrets::SecretsNote;

/// Everything observed of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub lease: Option<Arc<Lease>>,
    pub job_manager_pods: Vec<Arc<ObservedPod>>,
    pub task_manager_pods: Vec<Arc<ObservedPod>>,
    /// Of the Job that removes a deleted cluster's files.
    pub purge_pods: Vec<Arc<ObservedPod>>,
    pub job_manager_deployment: Option<Arc<ObservedDeployment>>,
    pub task_manager_deployment: Option<Arc<ObservedDeployment>>,
    pub job_manager_account: Option<Account>,
    pub task_manager_account: Option<Account>,
    pub ledger: Option<Arc<ObservedConfigMap>>,
    /// The ledger is as the API server itself says, after presence was proven, and not as a cache shows it.
    pub ledger_is_current: bool,
    /// Where clients find the leader's REST addresses: one for each family.
    pub rest: Vec<Arc<ObservedEndpointSlice>>,
    /// What the cluster ConfigMap holds of an application. Looked at once, before the first decision.
    pub stored: StoredHaData,
    /// Who is left of pods that no watch shows, as the API server itself says; `None` when it was not asked.
    pub presence: Option<Presence>,
    /// What Kubernetes' events warn of, by the UID of the object: read only of what has waited for a while.
    pub warnings: BTreeMap<String, String>,
}

/// What the cluster ConfigMap holds of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoredHaData {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// There is no cluster ConfigMap.
    Absent,
    Found(Stored),
    /// It says something that is not understood.
    Unreadable(Refusal),
}

impl StoredHaData {
    pub fn found(&self) -> Option<&Stored> {
        match self {
            Self::Found(stored) => Some(stored),
            Self::Unknown | Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = "Pod")]
pub struct ObservedPod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

/// The spec of a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub service_account_name: String,
}

/// The status of a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    pub conditions: Vec<ObservedCondition>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// The status of a container.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub image: String,
    pub ready: bool,
    pub restart_count: i32,
    pub state: ContainerState,
    pub last_state: ContainerState,
}

/// The state of a container.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct ContainerState {
    pub waiting: Option<ContainerWaiting>,
    pub terminated: Option<Terminated>,
}

/// Why a container does not run yet.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct ContainerWaiting {
    pub reason: String,
    pub message: String,
}

/// How a container ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
}

/// A condition of a pod or a Deployment.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ObservedCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// A Deployment.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = "Deployment")]
pub struct ObservedDeployment {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: DeploymentSpec,
    #[serde(default)]
    pub status: DeploymentStatus,
}

/// The status of a Deployment.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub conditions: Vec<ObservedCondition>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = "EndpointSlice")]
pub struct ObservedEndpointSlice {
    pub metadata: ObjectMeta,
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of a Service.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
}

/// `null` is an empty list.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ObservedEndpointSlice {
    /// Somebody is found by it.
    pub fn has_address(&self) -> bool {
        self.endpoints.iter().any(|endpoint| !endpoint.addresses.is_empty())
    }
}

/// The ledger, of which only that is kept which the status shows.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = "ConfigMap")]
pub struct ObservedConfigMap {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub data: LedgerData,
}

/// A pod that has not ended by then hangs, or its node is lost.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

impl Observed {
    /// What the leading gateway says of the HA data, once it has said something.
    pub fn ha_data(&self) -> Option<&HaData> {
        self.ledger.as_ref()?.data.ha_data.as_ref()
    }

    /// How the application gets on, by its leading gateway.
    pub fn progress(&self) -> Progress {
        self.ledger.as_ref().and_then(|ledger| ledger.data.application.clone()).unwrap_or_default()
    }

    /// What the leading gateway says of the Secrets of `spec.flinkConfigurationFrom`.
    pub fn secrets(&self) -> Option<&SecretsNote> {
        self.ledger.as_ref()?.data.secrets.as_ref()
    }

    /// What the leading gateway says of the certificates of `spec.tls`.
    pub fn certificates(&self) -> CertificateNotes {
        self.ledger.as_ref().map(|ledger| ledger.data.certificates.clone()).unwrap_or_default()
    }

    /// Why nothing can be decided about what is stored: a key of the ledger of this cluster cannot be read.
    pub fn unreadable(&self, cluster: &str) -> Option<Cause> {
        let key = self.ledger.as_ref()?.data.unreadable.first()?;
        Some(Refusal::unreadable(cluster, key).into())
    }

    /// There are pods of Flink, or Deployments that are about to make some, or nobody has proven that there are none.
    pub fn has_pods(&self) -> bool {
        self.shows_pods() || self.presence != Some(Presence::Gone)
    }

    /// A watch shows pods of Flink, or a Deployment that makes some.
    pub fn shows_pods(&self) -> bool {
        self.live_pods().next().is_some() || self.makes_pods()
    }

    /// Pods of Flink that a watch shows and whose containers may run.
    pub fn live_pods(&self) -> impl Iterator<Item = &Arc<ObservedPod>> {
        self.job_manager_pods.iter().chain(&self.task_manager_pods).filter(|pod| pod.is_live())
    }

    fn makes_pods(&self) -> bool {
        let makes_some = |deployment: &Arc<ObservedDeployment>| {
            let status = &deployment.status;
            status.replicas > 0 || status.observed_generation < deployment.metadata.generation.unwrap_or_default()
        };
        [&self.job_manager_deployment, &self.task_manager_deployment].into_iter().flatten().any(makes_some)
    }

    /// No watch shows anything that is about to end or to begin: whoever waits for pods to be gone has to ask.
    pub fn is_still(&self, now: Timestamp) -> bool {
        !self.makes_pods() && !self.live_pods().any(|pod| pod.ends_in_time(now))
    }

    /// Takes in the ledger as the API server itself says. `is_first`: nothing was decided about the resource yet; one
    /// that is gone is then in the cache for a moment longer. Later, one that somebody has deleted still says which
    /// runs have begun.
    pub fn complete_ledger(&mut self, found: Option<Arc<ObservedConfigMap>>, is_first: bool) {
        if found.is_some() || is_first {
            self.ledger = found;
        }
        self.ledger_is_current = true;
    }

    /// What gateways have recorded of the last changes of leader.
    pub fn failovers(&self) -> Option<&Failovers> {
        self.ledger.as_ref().map(|ledger| &ledger.data.failovers)
    }

    /// The last checkpoints of jobs.
    pub fn checkpoints(&self) -> Checkpoints {
        self.ledger.as_ref().map(|ledger| ledger.data.checkpoints.clone()).unwrap_or_default()
    }

    /// The last savepoints of the application.
    pub fn savepoints(&self) -> &[TakenSavepoint] {
        self.ledger.as_ref().map_or(&[], |ledger| ledger.data.savepoints.0.as_slice())
    }

    /// Jobs that run, and the last that ended.
    pub fn jobs(&self) -> &[Job] {
        self.ledger.as_ref().map_or(&[], |ledger| ledger.data.jobs.as_slice())
    }
}

impl ObservedDeployment {
    /// A change of it has not been carried out: Kubernetes has not seen it, or pods made before it are left.
    pub fn replaces_pods(&self) -> bool {
        let status = &self.status;
        status.observed_generation < self.metadata.generation.unwrap_or_default()
            || status.replicas > status.updated_replicas
    }

    /// The image of the gateway in the template of its pods.
    pub fn gateway_image(&self) -> Option<&str> {
        self.spec.init_container(GATEWAY_CONTAINER).map(|gateway| gateway.image.as_str())
    }

    /// The same when this version of it was written, which the watch may not show yet.
    pub fn written(&self, uid: &str, generation: i64) -> Self {
        let mut written = self.clone();
        if written.metadata.uid.as_deref() == Some(uid) {
            written.metadata.generation = written.metadata.generation.max(Some(generation));
        }
        written
    }
}

impl ObservedPod {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its containers may run. Those of a pod in phase `Failed` or `Succeeded` have ended, says its kubelet, or who
    /// speaks for a kubelet that is lost: nobody waits for it to be gone, and nothing is removed for it.
    pub fn is_live(&self) -> bool {
        !["Failed", "Succeeded"].contains(&self.status.phase.as_str())
    }

    /// The pod runs as this ServiceAccount. Its labels may have been given to it by anybody.
    pub fn runs_as(&self, service_account: &str) -> bool {
        let own = &self.spec.service_account_name;
        own.is_empty() || own == service_account
    }

    /// On its way out, and not overdue. The time of its deletion includes its grace period.
    fn ends_in_time(&self, now: Timestamp) -> bool {
        self.metadata.deletion_timestamp.as_ref().is_some_and(|ends| now.duration_since(ends.0) < OVERDUE)
    }

    /// When it became ready, or not ready.
    pub fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.status.conditions.iter().find(|condition| condition.kind == "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    }

    /// Ready, and not on its way out.
    pub fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && is_true(&self.status.conditions, "Ready")
    }
}

/// Whether a condition is there and true.
pub fn is_true(conditions: &[ObservedCondition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_gone_only_when_that_was_proven_and_it_is_asked_for_when_nothing_moves() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap_or_default();
        let pod = |ends: Option<&str>| {
            let pod = json!({ "metadata": { "name": "a", "deletionTimestamp": ends } });
            vec![Arc::new(serde_json::from_value(pod).unwrap_or_default())]
        };
        let with = |job_manager_pods| Observed { job_manager_pods, ..Observed::default() };
        assert!(with(Vec::new()).has_pods() && with(Vec::new()).is_still(now), "nobody has asked yet");
        assert!(!Observed { presence: Some(Presence::Gone), ..Observed::default() }.has_pods());
        assert!(Observed { presence: Some(Presence::There(Vec::new())), ..Observed::default() }.has_pods());
        assert!(Observed { presence: Some(Presence::Gone), ..with(pod(None)) }.has_pods(), "a watch shows one");
        assert!(!with(pod(Some("2026-01-01T00:01:30Z"))).is_still(now), "it is about to end");
        for (phase, counts) in [("Failed", false), ("Succeeded", false), ("Running", true), ("Unknown", true)] {
            let pod = json!({
                "metadata": { "name": "a", "deletionTimestamp": "2026-01-01T00:01:30Z" },
                "status": { "phase": phase },
            });
            let pods = vec![Arc::new(serde_json::from_value(pod).unwrap_or_default())];
            let seen = Observed { presence: Some(Presence::Gone), ..with(pods) };
            assert_eq!((seen.has_pods(), seen.is_still(now)), (counts, !counts), "{phase}");
        }
        assert!(
            with(pod(None)).is_still(now) && with(pod(Some("2026-01-01T00:00:30Z"))).is_still(now),
            "nothing ends it"
        );
    }

    #[test]
    fn a_pod_is_of_the_cluster_whose_service_account_it_runs_as() {
        let pod = |account: Option<&str>| -> ObservedPod {
            serde_json::from_value(
                json!({ "metadata": {}, "spec": { "serviceAccountName": account.unwrap_or_default() } }),
            )
            .unwrap_or_default()
        };
        assert!(pod(Some("demo-jobmanager")).runs_as("demo-jobmanager") && pod(None).runs_as("demo-jobmanager"));
        assert!(!pod(Some("other-jobmanager")).runs_as("demo-jobmanager"));
    }
}
