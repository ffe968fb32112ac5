//! The status of a `FlinkHaCluster`. `kubectl explain` prints the comments of the fields.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::application::Application;

/// The cluster as the operator last observed it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FlinkHaClusterStatus {
    /// Generation of the resource that the operator last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The leading JobManager. Absent while none leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// The JobManagers.
    pub job_manager: Members,
    /// The TaskManagers.
    pub task_manager: Members,
    /// The last time that leadership moved from one JobManager to another. Deprecated: `failovers[0]` says the same and
    /// more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
    /// The last twenty times that leadership moved from one JobManager to another, the newest first. Gateways record
    /// them in the ledger, so those are here too that happened while no operator ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub failovers: Vec<FailoverEntry>,
    /// Jobs whose HA data is stored, at most the latest 200, and the last twenty that ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub jobs: Vec<JobStatus>,
    /// Number of jobs without an end that `jobs` leaves out. The ledger (`<name>-ledger`) records up to 2000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs_left_out: Option<i64>,
    /// HA data of the jobs, as the leading JobManager's gateway reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha_data: Option<HaDataStatus>,
    /// Progress of the application of `spec.job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<Application>,
    /// Image of the gateway that this cluster's JobManagers run. An upgrade of the operator alone does not change it:
    /// JobManagers take the new image when they are replaced for another reason, when the annotation
    /// `flinkha.dev/upgrade-gateways: now` asks for it, and when the present one cannot be pulled for a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_image: Option<String>,
    /// What the operator applied last. By it, an operator that starts sees that nothing is to be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<AppliedObjects>,
    /// `LeaderElected`, `Ready`, `Progressing`, `Degraded`, `Reconciling` and `Stalled`, and with `spec.job` `Complete`
    /// and `Failed`, each with its reason. `Paused` while the resource is paused, `OperatorRollOut` while the operator
    /// has to replace pods that nobody has asked it to replace, `JobsQuarantined` while files of jobs are gone,
    /// `Contested` while another operator watches it too.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What the operator applied last.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AppliedObjects {
    /// Generation of the resource from which the objects were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Fingerprint of the objects: what they were to be, and their versions after that. It changes when one of them is
    /// changed, and when another version of the operator makes them differently.
    pub objects: String,
}

/// The leading JobManager.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Leader {
    /// Name of its pod.
    pub pod: String,
    /// Number of its term. Every change of leader begins a new term with a higher number.
    pub term: i64,
    /// Time of its election.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// JobManagers or TaskManagers.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Members {
    /// Number of pods.
    pub replicas: i32,
    /// Number of ready pods.
    pub ready_replicas: i32,
    /// Ready pods and desired pods, for example `2/3`.
    pub ready: String,
    /// Label selector of the pods.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

/// A change of leader, as `failovers` lists it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FailoverEntry {
    /// Time at which the new leader took over, by its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Pod that led before.
    pub from: String,
    /// Pod that took over.
    pub to: String,
    /// Number of the term that began.
    pub term: i64,
    /// Why the former leader stopped, for example `JobManagerDied` or `Switchover`.
    pub reason: String,
    /// Somebody asked for it: a switchover, or the pod of the former leader was to end.
    pub planned: bool,
    /// Milliseconds without a leader, counted from the moment at which the end of the former leader was noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless_millis: Option<i64>,
    /// Milliseconds from the same moment until all tasks of all stored jobs ran, as the gateway of the new leader saw
    /// it: it asks Flink four times a second. Absent until then, if there were no jobs, and if nobody saw it within ten
    /// minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_millis: Option<i64>,
    /// Where jobs went on: the first ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<RestoredJobStatus>,
}

/// A job that a new leader has restored.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoredJobStatus {
    /// Flink's id of the job.
    pub job: String,
    /// Number of the checkpoint or savepoint. Absent if the job began anew, because it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<i64>,
}

/// A completed checkpoint.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckpointStatus {
    /// Flink's number of it.
    pub id: i64,
    /// Time at which it was complete, by the JobManager's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Time>,
    /// URI of its directory. Absent if it is stored in HA data alone, and of many jobs with long paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A change of leader. Deprecated in favour of `failovers`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Failover {
    /// Pod that led before.
    pub from: String,
    /// Pod that took over.
    pub to: String,
    /// Why the former leader stopped.
    pub why: String,
    /// Milliseconds without a leader, counted from the moment at which the end of the former leader was noticed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaderless_milliseconds: Option<i64>,
    /// Time at which the new leader took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// A job.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// Flink's id of the job.
    pub id: String,
    /// Name of the job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Running`, `Finished`, `Canceled` or `Failed`. `Quarantined`: it is set aside, because files of its HA data are
    /// gone. `Dropped`: it was removed from there by name. `Superseded`: another run of the application replaced it.
    /// `Unknown`: its HA data is gone and there is no record of its end.
    pub state: String,
    /// Time of its submission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// Time of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Time at which the last of its HA data was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collected: Option<Time>,
    /// Files that are gone, below the cluster's directory, and without which Flink cannot recover the job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_files: Vec<String>,
    /// The last completed checkpoint of a job that has not ended. Flink may have completed more since: the leading
    /// gateway looks once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<CheckpointStatus>,
}

/// HA data of the jobs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct HaDataStatus {
    /// `Collectable`: the leading gateway removes files of jobs that have ended. `NotCollectable` and `Unreachable`:
    /// the files stay, for the reason in `message`. `Shared`: another cluster uses the same directory, so nothing is
    /// removed. `Settling`: nothing is removed for at most two minutes, until it is certain that no other cluster uses
    /// the directory.
    pub state: String,
    /// Why the HA data is not collectable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The largest ConfigMap with HA data. Kubernetes limits a ConfigMap to 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_config_map: Option<ConfigMapSize>,
    /// Number of ConfigMaps with HA data that would not come back if somebody deleted them: the leading gateway keeps
    /// copies of up to 64 MiB. Absent if it has all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_copy: Option<i64>,
    /// Orphans in the storage directory, as the last sweep counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphans: Option<OrphansStatus>,
}

/// The size of a ConfigMap.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigMapSize {
    /// Name of the ConfigMap.
    pub name: String,
    /// Bytes of its keys and values.
    pub bytes: i64,
    /// Percentage of the limit.
    pub per_cent: i64,
}

/// Files that crashes of Flink have left and that no HA data refers to.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct OrphansStatus {
    /// Number of orphans.
    pub files: i64,
    /// Bytes of the orphans.
    pub bytes: i64,
    /// Number of orphans removed so far.
    pub removed: i64,
    /// Number of files in the cluster's directory that are not Flink's. They are never removed.
    pub foreign: i64,
    /// Number of files that no readable pointer names but that an unreadable pointer may name. They are never removed.
    pub protected: i64,
}
