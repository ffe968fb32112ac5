//! Entries of Flink's result stores: what a job (FLIP-194, Flink ≥ 1.15) or an application (Flink ≥ 2.3) came to.
//!
//! `<id>_DIRTY.json` is written when the end is reached and before Flink cleans up; it becomes `<id>.json` when Flink
//! has cleaned up (`FileSystemJobResultStore`, with `delete-on-commit: false`). The absence of an entry proves nothing.

use serde_json::Value;

use super::job_id::JobId;
use super::job_state::{End, FlinkState};

/// Which store an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Store {
    Job,
    Application,
}

impl Store {
    pub const ALL: [Store; 2] = [Store::Job, Store::Application];

    /// Directory below `high-availability.storageDir`; entries stand in its sub-directory named by the cluster id.
    pub fn directory(self) -> &'static str {
        match self {
            Store::Job => "job-result-store",
            Store::Application => "application-result-store",
        }
    }
}

/// One entry, by its file name and content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub store: Store,
    pub id: JobId,
    /// Flink itself is still cleaning up: hands off.
    pub dirty: bool,
    /// `None` when the content is not what Flink writes; such an entry proves nothing.
    pub outcome: Option<Outcome>,
    /// Not JSON: its writer died between creating the file and writing it.
    pub torn: bool,
}

/// How a job or application ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub name: String,
    pub state: End,
    /// Application of the job (Flink ≥ 2.3); in a session it has the job's own id.
    pub application: Option<JobId>,
    /// The exception of a job that failed: its class and message, and that of its first cause.
    pub cause: Option<String>,
    /// Milliseconds since the epoch; 0 when the entry does not say.
    pub started: u64,
    pub ended: u64,
}

impl Outcome {
    /// An end of which nothing else is known.
    pub fn of(state: End) -> Self {
        Self { name: String::new(), state, application: None, cause: None, started: 0, ended: 0 }
    }
}

/// Characters of an exception that are kept.
const CAUSE: usize = 500;

/// An application's entry, as `FileSystemApplicationResultStore` (2.3.0) reads it, made from the entry of its only job.
pub fn application_entry(id: JobId, of_job: &Outcome) -> String {
    let result = serde_json::json!({
        "application-id": id,
        "application-state": of_job.state.as_str().to_uppercase(),
        "application-name": format!("SingleJobApplication({})", of_job.name),
        "start-time": of_job.started,
        "end-time": of_job.ended,
    });
    serde_json::json!({ "result": result, "version": 1 }).to_string()
}

/// Id and whether the entry is dirty, from its file name. `None` for files that are no entries.
fn named(file_name: &str) -> Option<(JobId, bool)> {
    let stem = file_name.strip_suffix(".json")?;
    let (id, dirty) = stem.strip_suffix("_DIRTY").map_or((stem, false), |id| (id, true));
    Some((JobId::of(id)?, dirty))
}

/// An entry that was listed and could not be read because Flink renames it. It counts as dirty, whatever its name.
pub fn unread(store: Store, file_name: &str) -> Option<Entry> {
    let (id, _) = named(file_name)?;
    Some(Entry { store, id, dirty: true, outcome: None, torn: false })
}

/// Reads an entry. `None` for files that are no entries.
pub fn entry(store: Store, file_name: &str, content: &str) -> Option<Entry> {
    let (id, dirty) = named(file_name)?;
    let json = serde_json::from_str(content);
    Some(Entry { store, id, dirty, torn: json.is_err(), outcome: json.ok().and_then(|json| outcome(id, &json)) })
}

fn outcome(id: JobId, json: &Value) -> Option<Outcome> {
    let result = json.get("result")?;
    let text = |key: &str| result.get(key).and_then(Value::as_str);
    if text("id").or_else(|| text("application-id"))? != id.as_str() {
        return None;
    }
    // A job's entry has an ApplicationStatus, which calls its first state otherwise.
    let state = match text("application-status").or_else(|| text("application-state"))? {
        "SUCCEEDED" => End::Finished,
        other => FlinkState::from(other).end()?,
    };
    let number = |key: &str| result.get(key).and_then(Value::as_u64).unwrap_or(0);
    Some(Outcome {
        // Names, times and applications are in the entries from Flink 2.3 on.
        name: text("name").or_else(|| text("application-name")).unwrap_or_default().to_owned(),
        state,
        application: text("id").and(text("application-id")).and_then(JobId::of),
        cause: result.get("failure-cause").and_then(|cause| cause.get("stack-trace")?.as_str()).map(cause_of),
        started: number("start-time"),
        ended: number("end-time"),
    })
}

/// The first and the last exception of a stack trace: what was thrown last says most about the reason.
pub fn cause_of(stack_trace: &str) -> String {
    let first = stack_trace.lines().next().unwrap_or_default().trim();
    let root = stack_trace.lines().filter_map(|line| line.trim().strip_prefix("Caused by: ")).next_back();
    let said = root.map_or_else(|| first.to_owned(), |root| format!("{first}; caused by {root}"));
    said.chars().take(CAUSE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3725478800c8e957e3b171c181e799ee";

    #[test]
    fn entries_of_all_versions_are_read() {
        let old = format!(
            r#"{{"result":{{"id":"{ID}","application-status":"CANCELED","accumulator-results":{{}},"net-runtime":8215}},"version":1}}"#
        );
        let read = entry(Store::Job, &format!("{ID}.json"), &old).expect("an entry");
        assert_eq!((read.dirty, read.outcome), (false, Some(Outcome::of(End::Canceled))));
        let new = format!(
            r#"{{"result":{{"application-id":"{ID}","application-state":"FINISHED","application-name":"a"}},"version":1}}"#
        );
        let read = entry(Store::Application, &format!("{ID}_DIRTY.json"), &new).expect("an entry");
        assert_eq!(
            (read.dirty, read.outcome),
            (true, Some(Outcome { name: "a".into(), ..Outcome::of(End::Finished) }))
        );
    }

    #[test]
    fn of_a_failure_the_first_and_the_last_exception_are_told() {
        let trace = "org.apache.flink.JobException: Recovery is suppressed\n\tat a.B\nCaused by: x.Y: why\n\tat c.D\nCaused by: z: root\n";
        assert_eq!(cause_of(trace), "org.apache.flink.JobException: Recovery is suppressed; caused by z: root");
        assert_eq!(cause_of("x.Y: why\n\tat a.B"), "x.Y: why");
    }

    #[test]
    fn what_is_not_understood_proves_nothing() {
        for content in ["", "{}", r#"{"result":{"id":"other","application-status":"FAILED"}}"#] {
            assert_eq!(entry(Store::Job, &format!("{ID}.json"), content).expect("an entry").outcome, None);
        }
        let unknown = format!(r#"{{"result":{{"id":"{ID}","application-status":"UNKNOWN"}}}}"#);
        assert_eq!(entry(Store::Job, &format!("{ID}.json"), &unknown).expect("an entry").outcome, None);
        assert!(entry(Store::Job, &format!("{ID}_DIRTY.json"), "").expect("an entry").torn);
        assert!(!entry(Store::Job, &format!("{ID}_DIRTY.json"), "{}").expect("an entry").torn);
        let renamed = unread(Store::Job, &format!("{ID}.json")).expect("an entry");
        assert!(renamed.dirty && !renamed.torn && renamed.outcome.is_none());
        assert_eq!(entry(Store::Job, "notes.json", ""), None);
        assert_eq!(entry(Store::Job, &format!("{ID}.tmp"), ""), None);
    }
}
