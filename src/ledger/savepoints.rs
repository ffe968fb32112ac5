//! The last savepoints of an application. The leading gateway notes each one when it is complete and before it answers
//! the request for it. Only what stands here as periodic is ever removed ([`crate::ha_data::retention`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::flink::job_id::{JobId, or_empty};

/// Key of the ledger ConfigMap that holds JSON of [`TakenSavepoints`]. Gateways of earlier versions leave it as it is.
pub const SAVEPOINTS_KEY: &str = "savepoints";

/// How ids of periodic savepoints begin. Seconds since 1970 follow, so that no resource of the same name that was
/// created later has the same directory.
pub const PERIODIC: &str = "periodic-";

/// Number of periodic savepoints that are noted. Of more, the oldest are forgotten and stay: they are the user's then.
const MOST_PERIODIC: usize = 110;
/// Number of other savepoints that are noted.
const MOST_OTHERS: usize = 20;
/// Bytes of the text. Beyond them the oldest are forgotten.
const BYTES: usize = 96 << 10;

/// The savepoints, in the order in which they were complete.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value")]
pub struct TakenSavepoints(pub Vec<TakenSavepoint>);

/// A complete savepoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TakenSavepoint {
    /// [`super::application::SavepointRequest::id`].
    pub id: String,
    #[serde(with = "or_empty")]
    pub job: Option<JobId>,
    /// As Flink names it.
    pub path: String,
    /// RFC 3339.
    pub at: String,
    /// It goes. A gateway that finds this goes on with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// Why it could not be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl TakenSavepoint {
    /// It was taken because its time had come, and nobody asked for it.
    pub fn is_periodic(&self) -> bool {
        self.id.starts_with(PERIODIC)
    }

    /// When it was complete, if that is known.
    pub fn at(&self) -> Option<Timestamp> {
        self.at.parse().ok()
    }
}

/// An entry that is not understood is left out: it could not be removed anyway, and no savepoint is to wait for it.
impl From<Value> for TakenSavepoints {
    fn from(value: Value) -> Self {
        let Value::Array(entries) = value else { return Self::default() };
        let read = |entry| serde_json::from_value(entry).ok().filter(|one: &TakenSavepoint| !one.path.is_empty());
        Self(entries.into_iter().filter_map(read).collect())
    }
}

impl TakenSavepoints {
    /// The savepoint that was taken of a job for a request. `None` if none is known.
    pub fn of(&self, id: &str, job: JobId) -> Option<&TakenSavepoint> {
        self.0.iter().rfind(|known| known.id == id && known.job == Some(job))
    }

    /// The latest periodic one.
    pub fn latest_periodic(&self) -> Option<&TakenSavepoint> {
        self.0.iter().rfind(|known| known.is_periodic())
    }

    /// The same with this savepoint, once.
    pub fn with(&self, taken: TakenSavepoint) -> Self {
        let mut known = self.clone();
        known.note(taken);
        known
    }

    /// The same without this savepoint, or with why it is still there.
    pub fn without(&self, gone: &TakenSavepoint, error: Option<&String>) -> Self {
        let is_it = |known: &TakenSavepoint| (&known.id, &known.path) == (&gone.id, &gone.path);
        let mut known = self.clone();
        match error {
            None => known.0.retain(|known| !is_it(known)),
            Some(error) => {
                known.0.iter_mut().filter(|known| is_it(known)).for_each(|known| known.error = Some(error.clone()));
            }
        }
        known
    }

    fn note(&mut self, taken: TakenSavepoint) {
        if self.0.iter().any(|known| (&known.id, &known.path) == (&taken.id, &taken.path)) {
            return;
        }
        self.0.push(taken);
        self.forget_oldest(MOST_PERIODIC, TakenSavepoint::is_periodic);
        self.forget_oldest(MOST_OTHERS, |known| !known.is_periodic());
        while self.0.len() > 1 && json!(self).to_string().len() > BYTES {
            self.0.remove(0);
        }
    }

    fn forget_oldest(&mut self, most: usize, is_one: impl Fn(&TakenSavepoint) -> bool) {
        let mut surplus = self.0.iter().filter(|known| is_one(known)).count().saturating_sub(most);
        self.0.retain(|known| {
            let goes = surplus > 0 && is_one(known);
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_number(1);

    fn taken(id: &str) -> TakenSavepoint {
        let path = format!("s3://b/{id}/savepoint-1");
        TakenSavepoint { id: id.to_owned(), job: Some(JOB), path, ..TakenSavepoint::default() }
    }

    #[test]
    fn each_savepoint_is_noted_once_and_there_are_never_too_many() {
        let mut known = TakenSavepoints::default();
        for number in 0..200 {
            known.note(taken(&format!("{PERIODIC}{number}")));
            known.note(taken(&format!("{PERIODIC}{number}")));
            known.note(taken(&format!("nonce-{number}")));
        }
        let periodic = known.0.iter().filter(|one| one.is_periodic()).count();
        assert_eq!((periodic, known.0.len()), (MOST_PERIODIC, MOST_PERIODIC + MOST_OTHERS));
        assert_eq!(known.latest_periodic().map(|one| one.id.as_str()), Some("periodic-199"));
        assert!(known.of("nonce-199", JOB).is_some() && known.of("nonce-1", JOB).is_none());
        assert_eq!(known.of("nonce-199", JobId::from_number(2)), None, "a run of another resource of the same name");
        let mut long = TakenSavepoints::default();
        for number in 0..20 {
            long.note(TakenSavepoint { path: "x".repeat(10 << 10), ..taken(&format!("nonce-{number}")) });
        }
        assert!(json!(long).to_string().len() <= BYTES && long.of("nonce-19", JOB).is_some());
    }

    #[test]
    fn a_savepoint_that_is_gone_is_forgotten_and_one_that_stays_says_why() {
        let known = TakenSavepoints(vec![taken("periodic-1"), taken("periodic-2")]);
        assert_eq!(known.without(&known.0[0], None).0, known.0[1..]);
        let error = "no rights".to_owned();
        assert_eq!(known.without(&known.0[0], Some(&error)).0[0].error, Some(error));
        assert_eq!(known.without(&taken("periodic-3"), None), known);
    }

    #[test]
    fn what_is_not_understood_is_left_out_and_what_a_later_version_adds_does_no_harm() {
        let one = json!({ "id": "nonce-1", "job": "", "path": "s3://b/1", "at": "then", "later": 7 });
        let text = json!([one, { "id": 3 }, "x", { "id": "periodic-1" }]).to_string();
        let read: TakenSavepoints = serde_json::from_str(&text).expect("savepoints");
        assert_eq!((read.0.len(), read.0[0].id.as_str(), read.0[0].at()), (1, "nonce-1", None));
        assert_eq!(serde_json::from_str::<TakenSavepoints>("{}").expect("nothing"), TakenSavepoints::default());
        let written = json!(read).to_string();
        assert!(!written.contains("removing") && !written.contains("error"), "{written}");
    }
}
