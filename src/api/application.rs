//! `spec.job` and `status.application`: a cluster that runs one application, and what became of it. Names as in the
//! Apache Flink Kubernetes operator, where it has them. Comments of fields are what `kubectl explain` prints.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The application that the cluster runs. Its end is the end of the cluster's pods.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The application's jar: `local:///path/in/the/image.jar`, `https://…`, or a file in a storage that Flink is
    /// configured for, such as `s3://bucket/app.jar` or `file:///volume/app.jar`. What is not local is fetched once,
    /// kept with the HA data until the job ends, and not looked for again while the URI stays the same.
    #[serde(rename = "jarURI")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^(local|https|file|s3|s3a|s3p|gs|abfs|abfss):/.+')",
        "spec.job.jarURI must be local:///path/in/the/image.jar, an https:// address, or a file in a storage: file:, s3:, s3a:, gs:, abfs: or abfss:",
    )])), length(max = 2048))]
    pub jar_uri: String,
    /// SHA-256 of the jar, 64 hex digits. A jar with another one does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[0-9a-fA-F]{64}$')",
        "spec.job.sha256 must be 64 hex digits, as sha256sum prints them",
    )])), length(max = 64))]
    pub sha256: Option<String>,
    /// The class with `main`. By default the one that the jar's manifest names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_class: Option<String>,
    /// Arguments of `main`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Flink's `parallelism.default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub parallelism: Option<i32>,
    /// Whether the job is to run.
    #[serde(default)]
    pub state: JobState,
    /// Savepoint or retained checkpoint that the first run begins from. Later runs begin as `upgradeMode` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_savepoint_path: Option<String>,
    /// Whether state that no operator of the job claims may be dropped.
    #[serde(default)]
    pub allow_non_restored_state: bool,
    /// With which state the job goes on when its definition changes, and after it was suspended.
    #[serde(default)]
    pub upgrade_mode: UpgradeMode,
    /// How long a changed job may take until all its tasks run. Then the last definition that worked is put back, with
    /// the same state.
    #[serde(default = "default_upgrade_deadline")]
    #[schemars(schema_with = "schema::duration")]
    pub upgrade_deadline: String,
    /// A savepoint is taken when this number changes to one that is not zero. Its path and time are in the status; it
    /// is never deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint_trigger_nonce: Option<i64>,
}

/// Whether the job is to run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It runs.
    #[default]
    Running,
    /// It has no pods, and its state is kept.
    Suspended,
}

/// With which state the job goes on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeMode {
    /// That of its last checkpoint, by its HA data.
    #[default]
    LastState,
    /// That of a savepoint with which it is stopped. If that fails, it runs on unchanged.
    Savepoint,
    /// None: it begins anew.
    Stateless,
}

impl UpgradeMode {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastState => "last-state",
            Self::Savepoint => "savepoint",
            Self::Stateless => "stateless",
        }
    }
}

/// What became of the application.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Application {
    /// What the operator is doing.
    pub phase: Phase,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Flink's id of the job. A run that begins without the HA data of the one before has a new one.
    pub job_id: String,
    /// Runs so far.
    pub runs: i64,
    /// How often its pods were brought there.
    pub starts: i64,
    /// Flink's state of the job, as its JobManager told last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_state: String,
    /// How the job ended: `Finished`, `Canceled` or `Failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What went wrong: of a job that failed its exception, of an upgrade or savepoint that failed the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The savepoint or checkpoint that this run began from, unless from its own HA data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// The last savepoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_savepoint: Option<Savepoint>,
    /// `spec.job.savepointTriggerNonce` as it was answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub savepoint_trigger_nonce: Option<i64>,
    /// The savepoint that is being taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub savepoint_request: Option<String>,
    /// The last upgrades, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<Upgrade>,
    /// Digest of the definition that runs: of all that needs a new run when it changes.
    pub version: String,
    /// Digest of a definition that failed, and is not tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The run before, until this one has come up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_job_id: Option<String>,
    /// The runs in whose place this one began. Its pods are told of them when they are brought there, and remove the HA
    /// data of no other run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// JSON of the spec that the pods are made from.
    pub deployed: String,
    /// JSON of the last spec with which all tasks ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
}

/// What the operator is doing with the application.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Phase {
    /// Its pods are there or on the way; not all tasks have run yet.
    #[default]
    Starting,
    /// All tasks have run.
    Running,
    /// It is being stopped with a savepoint.
    Savepointing,
    /// Its pods are going, for an upgrade.
    Upgrading,
    /// Its pods are going, for the last definition that worked to come back.
    RollingBack,
    /// Its pods are going.
    Suspending,
    /// It has no pods; its state is kept.
    Suspended,
    /// An upgrade failed, and so did going back. Nothing is deleted; the pods go on trying.
    Halted,
    /// The job has ended; its pods are going.
    Ending,
    /// The job has ended.
    Ended,
}

/// A savepoint.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Savepoint {
    /// Where it is.
    pub path: String,
    /// When it was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// What it was taken for: `nonce-<number>`, `upgrade-<generation>`, `suspend-<generation>`.
    pub id: String,
}

/// A change of the job's definition.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Upgrade {
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The resource's generation that asked for it.
    pub generation: i64,
    /// `spec.job.upgradeMode` at that time.
    pub mode: String,
    /// `InProgress`, `Succeeded`, `RolledBack`, `Refused` when the job ran on unchanged, or `Failed` when going back
    /// did not help either.
    pub result: String,
    /// Why it did not succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Savepoint or checkpoint that the job went on from, unless from its own HA data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// Milliseconds until all tasks ran again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milliseconds: Option<i64>,
}

fn default_upgrade_deadline() -> String {
    "5m".to_owned()
}
