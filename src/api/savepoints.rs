//! `spec.job.savepoints`, and what the status says of them. `kubectl explain` prints the comments of the fields.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Savepoints that the operator takes by itself. They need the directory `execution.checkpointing.savepoint-dir` of
/// `spec.flinkConfiguration`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Savepoints {
    /// Interval at which the operator takes a savepoint of the running job, for example `24h`; at least 10s. Without
    /// it, it takes none periodically. A change restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::savepoint_interval")]
    pub interval: Option<String>,
    /// Periodic savepoints that are kept. Without it, all of them are. The leading gateway removes the others after
    /// each new one, and only those that `interval` made, never the latest, and none that this resource refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retain>,
    /// Whether the deletion of this resource first stops the job with a savepoint. If none can be taken in time, the
    /// job's HA data stays, whatever `spec.haData.onDelete` says. Set it to `false` to delete without one, also while
    /// the deletion waits for it.
    #[serde(default)]
    pub on_delete: bool,
    /// Time that a deletion waits for the savepoint of `onDelete`, at least 10s.
    #[serde(default = "default_on_delete_deadline")]
    #[schemars(schema_with = "schema::savepoint_on_delete_deadline")]
    pub on_delete_deadline: String,
}

impl Default for Savepoints {
    fn default() -> Self {
        Self { interval: None, retain: None, on_delete: false, on_delete_deadline: default_on_delete_deadline() }
    }
}

/// Periodic savepoints that are kept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Retain {
    /// Number of periodic savepoints that are kept at most, from 1 to 100.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 100))]
    pub count: i32,
    /// Age at which a periodic savepoint is removed although there are fewer than `count`, for example `168h`; at least
    /// 10s. The latest one stays. It is looked at when the next savepoint is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::savepoint_age")]
    pub age: Option<String>,
}

/// Progress of the periodic savepoints.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PeriodicSavepoints {
    /// Time from which the interval to the next one counts: that of the last request for one, or of the last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Time>,
    /// Number of failures since the last one that succeeded. Each lets the operator wait longer for the next try.
    pub failures: i64,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why a savepoint that `retain` does not keep is still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_removed: Option<String>,
}

fn default_on_delete_deadline() -> String {
    "10m".to_owned()
}

fn default_count() -> i32 {
    10
}
