//! `spec.job` and `status.application`: a cluster that runs one application, and its progress. Names are those of the
//! Apache Flink Kubernetes operator, where it has them. `kubectl explain` prints the comments of the fields.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::savepoints::{PeriodicSavepoints, Savepoints};
use super::{metadata, schema};

/// The application that the cluster runs. When its job ends, the operator removes the cluster's pods.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// URI of the application's jar: `local:///path/in/the/image.jar`, `https://…`, or a file in a storage that Flink
    /// is configured for, such as `s3://bucket/app.jar` or `file:///volume/app.jar`. It must not contain credentials.
    /// An init container fetches a jar that is not local once and keeps it with the HA data until the job ends. It does
    /// not look for a newer jar while the URI and `sha256` stay the same.
    #[serde(rename = "jarURI")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^(local|https|file|s3|s3a|s3p|gs|abfs|abfss):/.+')",
        "spec.job.jarURI must be local:///path/in/the/image.jar, an https:// address, or a file in a storage: file:, s3:, s3a:, gs:, abfs: or abfss:",
    )])), length(max = 2048))]
    pub jar_uri: String,
    /// SHA-256 of the jar, 64 hex digits. A jar with another digest does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[0-9a-fA-F]{64}$')",
        "spec.job.sha256 must be 64 hex digits, as sha256sum prints them",
    )])), length(max = 64))]
    pub sha256: Option<String>,
    /// Class with the `main` method. Default: the class that the jar's manifest names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_class: Option<String>,
    /// Arguments of the `main` method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Default parallelism of the job (Flink's `parallelism.default`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub parallelism: Option<i32>,
    /// Desired state of the job. `running`: the job runs. `suspended`: the cluster has no pods; the job's state is
    /// kept.
    #[serde(default)]
    pub state: JobState,
    /// Savepoint or retained checkpoint from which the first run restores its state. `upgradeMode` decides for later
    /// runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_savepoint_path: Option<String>,
    /// Whether Flink may drop state that belongs to no operator of the job.
    #[serde(default)]
    pub allow_non_restored_state: bool,
    /// State from which the job resumes after its definition has changed, and after a suspension. `last-state`: its
    /// last checkpoint, found through its HA data. `savepoint`: a savepoint with which the operator stops the job; if
    /// the savepoint fails, the job runs on unchanged. `stateless`: the job starts without state.
    #[serde(default)]
    pub upgrade_mode: UpgradeMode,
    /// Time in which all tasks of a changed job must run, at least 10s. After it the operator restores the last
    /// definition that worked, from the same state.
    #[serde(default = "default_upgrade_deadline")]
    #[schemars(schema_with = "schema::upgrade_deadline")]
    pub upgrade_deadline: String,
    /// Triggers a savepoint whenever it changes to a number other than zero. The status shows the savepoint's path and
    /// time. The operator never deletes such a savepoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint_trigger_nonce: Option<i64>,
    /// Savepoints that the operator takes by itself: periodically, and when the resource is deleted.
    #[serde(default, skip_serializing_if = "metadata::is_default")]
    pub savepoints: Savepoints,
}

/// Desired state of the job.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// The job runs.
    #[default]
    Running,
    /// The cluster has no pods; the job's state is kept.
    Suspended,
}

/// State from which the job resumes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeMode {
    /// Its last checkpoint, found through its HA data.
    #[default]
    LastState,
    /// A savepoint with which the job is stopped. If the savepoint fails, the job runs on unchanged.
    Savepoint,
    /// The job starts without state.
    Stateless,
}

impl UpgradeMode {
    /// The mode as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastState => "last-state",
            Self::Savepoint => "savepoint",
            Self::Stateless => "stateless",
        }
    }
}

/// Progress of the application of `spec.job`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Application {
    /// What the operator is doing with the application. `Starting`: the pods start; not all tasks have run yet.
    /// `Running`: all tasks have run. `Savepointing`: Flink stops the job with a savepoint. `Upgrading`: the pods end
    /// so that the next version can start. `RollingBack`: the pods end so that the last version that worked can start.
    /// `Suspending`: the pods end. `Suspended`: no pods; the state is kept. `Halted`: an upgrade and the roll-back
    /// after it failed; nothing is deleted and the pods keep trying. `Ending`: the job has ended and the pods end.
    /// `Ended`: the job has ended.
    pub phase: Phase,
    /// Time at which this phase began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Flink's id of the job. A run that does not continue the HA data of the previous run has a new id.
    pub job_id: String,
    /// Number of runs so far. Each run has its own job id.
    pub runs: i64,
    /// Sequence number of the current start of the pods. It rises with each start; pods of an earlier start never lead.
    pub starts: i64,
    /// Flink's state of the job, as the JobManager last reported it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_state: String,
    /// How the job ended: `Finished`, `Canceled` or `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What went wrong: the exception of a job that failed, or the reason why an upgrade or a savepoint failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Savepoint or checkpoint from which this run restored its state. Absent if the run continues its own HA data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// The latest savepoint that somebody asked for, or with which the job was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_savepoint: Option<Savepoint>,
    /// The last twenty savepoints that exist as far as is known, the latest at the end. The ledger records more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub savepoints: Vec<Savepoint>,
    /// Progress of the savepoints of `spec.job.savepoints.interval`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub periodic_savepoints: Option<PeriodicSavepoints>,
    /// Last value of `spec.job.savepointTriggerNonce` for which the operator has finished the savepoint, whether it
    /// succeeded or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub savepoint_trigger_nonce: Option<i64>,
    /// Id of the savepoint in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub savepoint_request: Option<String>,
    /// The last ten upgrades, the latest at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<Upgrade>,
    /// Digest of the version that runs: of all parts of the spec whose change needs a new job graph.
    pub version: String,
    /// Digest of a version that failed. The operator does not try it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Job id of the previous run, until all tasks of this run have run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_job_id: Option<String>,
    /// Job ids of the runs that this run replaces. The leading gateway removes the HA data of these runs, and of no
    /// others, when it takes over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// JSON of the spec from which the pods are made. Values of keys that look like credentials are null.
    pub deployed: String,
    /// JSON of the last spec with which all tasks ran, as in `deployed`. A roll-back takes values that are null from
    /// the present spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
}

/// What the operator is doing with the application.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Phase {
    /// The pods start; not all tasks have run yet.
    #[default]
    Starting,
    /// All tasks have run.
    Running,
    /// Flink stops the job with a savepoint.
    Savepointing,
    /// The pods end so that the next version can start.
    Upgrading,
    /// The pods end so that the last version that worked can start.
    RollingBack,
    /// The pods end.
    Suspending,
    /// There are no pods; the state is kept.
    Suspended,
    /// An upgrade and the roll-back after it failed. Nothing is deleted; the pods keep trying.
    Halted,
    /// The job has ended; the pods end.
    Ending,
    /// The job has ended.
    Ended,
}

/// A savepoint.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Savepoint {
    /// Its path or URI.
    pub path: String,
    /// Time at which it was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Why it was taken: `nonce-<number>-<uid>`, `upgrade-<generation>-<uid>`, `suspend-<generation>-<uid>` with the
    /// first part of the resource's UID, `periodic-<time>` or `delete-<time>` with the time in seconds since 1970.
    pub id: String,
}

/// A change of the job's definition.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Upgrade {
    /// Time at which it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Generation of the resource that requested it.
    pub generation: i64,
    /// `spec.job.upgradeMode` at that time.
    pub mode: String,
    /// `InProgress`, `Succeeded`, `RolledBack`, `Refused` (the job runs on unchanged) or `Failed` (the roll-back failed
    /// too).
    pub result: String,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Savepoint or checkpoint from which the job resumed. Absent if it continued its own HA data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// Milliseconds until all tasks ran again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<i64>,
}

fn default_upgrade_deadline() -> String {
    "5m".to_owned()
}
