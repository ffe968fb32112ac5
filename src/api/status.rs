//! The status of a `FlinkHaCluster`: what the operator has seen. Comments of fields are what `kubectl explain` prints.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::application::Application;

/// What the operator has seen of the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FlinkHaClusterStatus {
    /// The generation of the resource that the operator has acted on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The leading JobManager; absent while none leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// The JobManagers.
    pub job_manager: Members,
    /// The TaskManagers.
    pub task_manager: Members,
    /// The last time that leadership went from one JobManager to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
    /// Jobs that are stored, and the last twenty that ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub jobs: Vec<Job>,
    /// The jobs' HA data, as the leading JobManager's gateway sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha_data: Option<HaData>,
    /// The application of `spec.job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
    /// Image of the gateway that this cluster's JobManagers run. It changes only when they are replaced for another
    /// reason, so that an upgraded operator does not restart JobManagers by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_image: Option<String>,
    /// `LeaderElected`, `Ready`, `Progressing` and `Degraded`, and with `spec.job` `Complete` and `Failed`, each with
    /// its reason.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The leading JobManager.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Leader {
    /// Its pod.
    pub pod: String,
    /// Its term: every change of leader begins a new one.
    pub term: i64,
    /// When it was elected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// JobManagers or TaskManagers.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Members {
    /// How many pods there are.
    pub replicas: i32,
    /// How many of them are ready.
    pub ready_replicas: i32,
    /// Ready ones of those asked for, for example `2/3`.
    pub ready: String,
    /// Label selector of the pods.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

/// A change of leader.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// The pod that led before.
    pub from: String,
    /// The pod that took over.
    pub to: String,
    /// Why the former leader stopped.
    pub why: String,
    /// How long nobody led, in milliseconds, from the moment that the end of the old leader was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless_milliseconds: Option<i64>,
    /// When the new leader took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// A job.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Job {
    /// Flink's id of the job.
    pub id: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Running`, `Finished`, `Canceled` or `Failed`; `Superseded` when another run of the application took its place;
    /// `Unknown` when it is no longer stored and there is no record of its end.
    pub state: String,
    /// When it was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// When nothing was left of its HA data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collected: Option<Time>,
}

/// The jobs' HA data.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct HaData {
    /// `Collectable`: files of jobs that have ended are removed. `NotCollectable`, `Unreachable`: they stay, for the
    /// reason in the message. `Shared`: another cluster uses the same directory, so that nothing is removed.
    /// `Settling`: they stay for two minutes at most, until it is sure that no other cluster does.
    pub state: String,
    /// Why it is not collectable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The largest ConfigMap with HA data. Kubernetes stores no more than 1 MiB in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_config_map: Option<ConfigMapSize>,
    /// Files that crashes of Flink have left in the storage directory, as the last sweep found them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Orphans>,
}

/// The size of a ConfigMap.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapSize {
    /// Its name.
    pub name: String,
    /// Bytes of its keys and values.
    pub bytes: i64,
    /// Of what fits.
    pub per_cent: i64,
}

/// Files that nothing needs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Orphans {
    /// Orphans that are there.
    pub files: i64,
    /// Their size.
    pub bytes: i64,
    /// Orphans that have been removed.
    pub removed: i64,
    /// Files in the cluster's directory that are not Flink's. They are never touched.
    pub foreign: i64,
    /// Files that nothing names, but which a pointer that cannot be read might name. They are never touched.
    pub protected: i64,
}
