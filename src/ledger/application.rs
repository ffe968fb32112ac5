//! The application, as the leading gateway writes it down: its progress, and savepoints that were asked for.

use serde::{Deserialize, Serialize};

use crate::flink::job_id::{JobId, or_empty};

/// Key of the ledger ConfigMap that holds JSON of [`Progress`].
pub const LEDGER_KEY: &str = "application";

/// A run as the pods are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Flink's id of the job and, from 2.3 on, of the application.
    pub job_id: JobId,
    /// See [`crate::cluster::application::version`].
    pub version: String,
    /// How often its pods were brought there.
    pub start: i64,
    /// Savepoint or checkpoint that the run begins from.
    pub restored_from: Option<String>,
    /// There are to be no pods.
    pub stopped: bool,
    /// Runs in whose place this one begins.
    pub replaces: Vec<JobId>,
}

impl Run {
    /// A run that begins with nothing and in the place of none.
    pub fn new(job_id: JobId, version: &str, start: i64) -> Self {
        Self { job_id, version: version.to_owned(), start, restored_from: None, stopped: false, replaces: Vec::new() }
    }

    /// Flags by which the gateway is told of it.
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

/// How the application gets on, as the leading gateway says in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Progress {
    /// The run; absent before the first one has begun.
    #[serde(with = "or_empty")]
    pub job: Option<JobId>,
    pub version: String,
    /// The start of its pods that the rest is about.
    pub start: i64,
    /// Flink's state of the job.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// When all tasks first ran at the same time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<String>,
    /// Why the application's main method failed, or why nobody leads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What another version left when this one began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// The last savepoint that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<Answer>,
}

/// The state that a version found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    /// The run that left it.
    pub job: JobId,
    /// Its last checkpoint. `None` when Flink keeps it nowhere but in its HA data, or when it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

/// A savepoint that the leading JobManager is asked for, through an annotation on the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub id: String,
    pub job: JobId,
    /// A directory of this request alone, so that a savepoint whose path nobody heard of can be found.
    pub directory: String,
    /// Whether the job ends with it.
    pub stop: bool,
}

/// What became of a [`Request`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Answer {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// RFC 3339; empty while it is being taken.
    pub at: String,
    /// The term in which it was tried last: the name of its directory.
    pub attempt: u64,
    /// The JobManager's process that was asked for it then.
    pub by: String,
}
