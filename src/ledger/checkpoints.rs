//! The last completed checkpoint of each job, as the leading gateway notes it in the ledger once a minute at most. It
//! is information for people: Flink's own pointers decide from which checkpoint a job goes on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::flink::job_id::JobId;

/// Key of the ledger ConfigMap that holds JSON of [`Checkpoints`]. Gateways of earlier versions leave it as it is.
pub const CHECKPOINTS_KEY: &str = "checkpoints";

/// Number of jobs whose checkpoints are noted.
pub const JOBS: usize = 200;
/// Longest path that is noted, in bytes.
const PATH: usize = 512;
/// Bytes of the text. Beyond them paths are left out.
const BYTES: usize = 48 << 10;

/// The checkpoints by jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value")]
pub struct Checkpoints(pub BTreeMap<JobId, NotedCheckpoint>);

/// A completed checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedCheckpoint {
    /// Flink's number of it.
    pub id: u64,
    /// When it was complete, RFC 3339, by the JobManager's clock.
    pub completed: String,
    /// URI of its directory; `None` if it is stored in HA data alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl From<Value> for Checkpoints {
    fn from(value: Value) -> Self {
        let Value::Object(entries) = value else { return Self::default() };
        let read = |(job, entry): (String, Value)| Some((JobId::of(&job)?, serde_json::from_value(entry).ok()?));
        Self(entries.into_iter().filter_map(read).collect())
    }
}

impl Checkpoints {
    /// The text for the ledger: what is too much is left out.
    pub fn to_text(&self) -> String {
        let mut kept: BTreeMap<JobId, NotedCheckpoint> =
            self.0.iter().take(JOBS).map(|(job, noted)| (*job, noted.clone())).collect();
        // Without its path a checkpoint takes less.
        let mut bytes = 120 * kept.len();
        for noted in kept.values_mut() {
            let length = noted.path.as_ref().map_or(0, String::len);
            if length > PATH || bytes + length > BYTES {
                noted.path = None;
            } else {
                bytes += length;
            }
        }
        json!(Self(kept)).to_string()
    }
}

/// Returns the last completed checkpoint in Flink's statistics of a job (`CheckpointingStatistics`, the answer to
/// `/jobs/:jobid/checkpoints`, 1.15 to 2.3). Savepoints do not count: Flink recovers no job from one that it has not
/// been started from (`CheckpointProperties.isUnclaimed`). `None` if this JobManager has completed none.
pub fn completed(statistics: &Value) -> Option<NotedCheckpoint> {
    let found = &statistics["latest"]["completed"];
    let completed = jiff::Timestamp::from_millisecond(found["latest_ack_timestamp"].as_i64()?).ok()?;
    let path = found["external_path"].as_str().filter(|path| path.contains(":/"));
    let id = found["id"].as_u64()?;
    Some(NotedCheckpoint { id, completed: format!("{completed:.0}"), path: path.map(str::to_owned) })
}

/// Returns the number of the checkpoint from which Flink has restored a job last, by the same statistics; `None` if it
/// has not.
pub fn restored(statistics: &Value) -> Option<u64> {
    statistics["latest"]["restored"]["id"].as_u64()
}

/// Whether Flink takes a savepoint of the job now, by the same statistics (`CheckpointStatistics.isSavepoint`).
pub fn is_at_savepoint(statistics: &Value) -> bool {
    let mut history = statistics["history"].as_array().into_iter().flatten();
    history.any(|one| one["is_savepoint"] == true && one["status"] == "IN_PROGRESS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> JobId {
        JobId::from_number(number)
    }

    #[test]
    fn statistics_of_flink_name_the_last_checkpoint_and_the_one_that_was_restored() {
        // As Flink 2.3.0 answers, shortened.
        let statistics = json!({
            "counts": { "restored": 1, "total": 2, "in_progress": 0, "completed": 2, "failed": 0 },
            "latest": {
                "completed": { "id": 18, "latest_ack_timestamp": 1_767_225_600_500_i64, "external_path": "file:/c/chk-18" },
                "savepoint": { "id": 19, "latest_ack_timestamp": 1_767_225_599_000_i64, "external_path": "file:/s/sp" },
                "failed": null,
                "restored": { "id": 16, "restore_timestamp": 1, "is_savepoint": false, "external_path": "file:/c/chk-16" },
            },
        });
        let last = completed(&statistics).expect("a checkpoint");
        assert_eq!((last.id, last.completed.as_str()), (18, "2026-01-01T00:00:00Z"));
        assert_eq!((last.path.as_deref(), restored(&statistics)), (Some("file:/c/chk-18"), Some(16)));
        let none = json!({ "latest": { "completed": null, "savepoint": null, "restored": null } });
        assert_eq!((completed(&none), restored(&none)), (None, None));
        let inside = json!({ "latest": { "completed": {
            "id": 1, "latest_ack_timestamp": 1, "external_path": "<checkpoint-not-externally-addressable>",
        } } });
        assert_eq!(completed(&inside).and_then(|inside| inside.path), None);
        assert_eq!((completed(&json!([])), restored(&json!("x"))), (None, None));
        let history = |status: &str, is_savepoint: bool| {
            is_at_savepoint(&json!({ "history": [{ "id": 20, "status": status, "is_savepoint": is_savepoint }] }))
        };
        assert!(history("IN_PROGRESS", true) && !history("COMPLETED", true) && !history("IN_PROGRESS", false));
    }

    #[test]
    fn the_text_reads_back_and_is_never_too_large() {
        let noted = |path: usize| NotedCheckpoint {
            id: u64::MAX,
            completed: "2026-01-01T00:00:00Z".to_owned(),
            path: Some("x".repeat(path)),
        };
        let few = Checkpoints(BTreeMap::from([(id(1), noted(PATH))]));
        assert_eq!(serde_json::from_str::<Checkpoints>(&few.to_text()).expect("checkpoints"), few);
        let long = Checkpoints(BTreeMap::from([(id(1), noted(PATH + 1))]));
        assert!(!long.to_text().contains("path"));
        let many = Checkpoints((0..1000).map(|number| (id(number), noted(PATH))).collect());
        let text = many.to_text();
        assert!(text.len() <= BYTES, "{}", text.len());
        let read: Checkpoints = serde_json::from_str(&text).expect("checkpoints");
        assert_eq!((read.0.len(), read.0.values().filter(|noted| noted.path.is_some()).count() > 20), (JOBS, true));
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let text =
            json!({ id(1).to_string(): { "id": 3, "completed": "then" }, "x": { "id": 1 }, id(2).to_string(): 7 });
        let read: Checkpoints = serde_json::from_str(&text.to_string()).expect("checkpoints");
        assert_eq!(read.0.into_keys().collect::<Vec<_>>(), [id(1)]);
        assert_eq!(serde_json::from_str::<Checkpoints>("[]").expect("nothing"), Checkpoints::default());
    }
}
