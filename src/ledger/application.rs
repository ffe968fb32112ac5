//! Defines the application's data in the ledger, which the leading gateway writes: its progress, and the answers to
//! requests for savepoints.

use serde::{Deserialize, Serialize};

use crate::flink::job_id::{JobId, or_empty};
use crate::flink::job_state::FlinkState;

/// Key of the ledger ConfigMap that holds JSON of [`Progress`].
pub const LEDGER_KEY: &str = "application";

/// A run as the operator passes it to the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Flink's id of the job and, from 2.3 on, of the application.
    pub job_id: JobId,
    /// See [`crate::cluster::application::version`].
    pub version: String,
    /// Number of times that the operator has started its pods.
    pub start: i64,
    /// URI of the savepoint or checkpoint from which the run starts.
    pub restored_from: Option<String>,
    /// The operator runs no pods for it.
    pub stopped: bool,
    /// Job ids of the runs that this one replaces.
    pub replaces: Vec<JobId>,
}

impl Run {
    /// A run that begins with nothing and in the place of none.
    pub fn new(job_id: JobId, version: &str, start: i64) -> Self {
        Self { job_id, version: version.to_owned(), start, restored_from: None, stopped: false, replaces: Vec::new() }
    }

    /// Returns the flags that pass the run to the gateway.
    pub fn gateway_options(&self) -> Vec<(&'static str, String)> {
        let mut options = vec![
            ("--application", self.job_id.to_string()),
            ("--application-version", self.version.clone()),
            ("--application-start", self.start.to_string()),
        ];
        if !self.replaces.is_empty() {
            let replaces: Vec<&str> = self.replaces.iter().map(JobId::as_str).collect();
            options.push(("--application-replaces", replaces.join(",")));
        }
        options
    }
}

/// Progress of the application, as the leading gateway writes it into the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Progress {
    /// Flink's id of the job; `None` before the first run has begun.
    #[serde(with = "or_empty")]
    pub job: Option<JobId>,
    /// See [`Run::version`].
    pub version: String,
    /// The start of the pods to which the other fields refer.
    pub start: i64,
    /// As its JobManager told last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<FlinkState>,
    /// When all tasks first ran at the same time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<String>,
    /// Why the application's main method failed, or why no JobManager of it leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What another version left when this one began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// The answer to the last request for a savepoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<SavepointAnswer>,
}

/// The state that a version found when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    /// Job id of the run that left it.
    pub job: JobId,
    /// URI of its last checkpoint. `None` if Flink keeps it only in its HA data, or if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

/// A request for a savepoint, which the operator writes into an annotation on the Lease for the leading JobManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavepointRequest {
    /// Id of this request.
    pub id: String,
    pub job: JobId,
    /// A directory for this request alone, so that a savepoint can be found even if nobody received its path.
    pub directory: String,
    /// The savepoint ends the job.
    pub stop: bool,
    /// Of a periodic one: which of the periodic savepoints before it are kept. `None`: all of them. Gateways of earlier
    /// versions do not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<Retention>,
}

/// Which periodic savepoints are kept, as a request for a new one says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Retention {
    /// The latest so many.
    pub count: usize,
    /// Only those that are not older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<i64>,
    /// Paths that the resource refers to, and what is stored at them stays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_use: Vec<String>,
}

/// The outcome of a [`SavepointRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SavepointAnswer {
    /// [`SavepointRequest::id`].
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// RFC 3339; empty while Flink takes the savepoint.
    pub at: String,
    /// The term of the last attempt. It names the directory of that attempt.
    pub attempt: u64,
    /// The JobManager process that received the last attempt.
    pub by: String,
    /// The run that the savepoint stops. `None` for a savepoint beside the running job, and in ledgers of earlier
    /// versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops: Option<JobId>,
}

impl Progress {
    /// The path of the savepoint with which this run was stopped: another run is to go on from it.
    pub fn stopped_with(&self, run: JobId) -> Option<&str> {
        self.savepoint.as_ref().filter(|answer| answer.stops == Some(run))?.path.as_deref()
    }
}
