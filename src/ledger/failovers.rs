//! The last changes of leader, as gateways record them in the ledger. The Lease, and with ZooKeeper the ledger's
//! annotation, tells only of the last one; an operator that was away reads here of those before.
//!
//! It is information for people: no decision rests on it, and text that is not understood counts as nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::flink::job_id::JobId;
use crate::lease::record::Change;

/// Key of the ledger ConfigMap that holds JSON of [`Failovers`]. Gateways of earlier versions leave it as it is.
pub const FAILOVERS_KEY: &str = "failovers";

/// Number of changes that are kept.
pub const KEPT: usize = 20;
/// Jobs of one change of which it is kept where they went on.
pub const RESTORED: usize = 10;
/// Characters of a name or a reason that are kept. Kubernetes limits the name of a pod to as many.
const TEXT: usize = 253;

/// Reasons of changes that somebody asked for.
const PLANNED: [&str; 2] = ["Switchover", "PodTerminating"];

/// The changes, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value")]
pub struct Failovers(pub Vec<RecordedFailover>);

/// A change of leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordedFailover {
    /// RFC 3339, by the clock of the new leader.
    pub at: String,
    /// Pod that led before.
    pub from: String,
    /// Pod that took over.
    pub to: String,
    /// Number of the term that began.
    pub term: u64,
    /// Why the former leader stopped, in CamelCase.
    pub reason: String,
    /// Milliseconds without a leader.
    pub leaderless_millis: u64,
    /// Milliseconds from the end of the former leader until the new leader's Flink showed that all tasks of all stored
    /// jobs ran. `None` while they do not, and when nobody has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_millis: Option<u64>,
    /// Where jobs went on, of the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<RestoredJob>,
}

/// A job that a new leader has restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredJob {
    pub job: JobId,
    /// Number of the checkpoint or savepoint; `None` if the job began anew, because it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
}

impl From<Value> for Failovers {
    fn from(value: Value) -> Self {
        let Value::Array(entries) = value else { return Self::default() };
        Self(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).take(KEPT).collect())
    }
}

impl RecordedFailover {
    /// `None` if the change is not complete, or if nobody led before.
    pub fn of(change: &Change) -> Option<Self> {
        (!change.from.is_empty() && !change.to.is_empty()).then(|| Self {
            at: shortened(&change.at),
            from: shortened(&change.from),
            to: shortened(&change.to),
            term: change.term,
            reason: shortened(&change.why),
            leaderless_millis: change.leaderless_millis,
            running_millis: None,
            restored: Vec::new(),
        })
    }

    /// Whether somebody asked for it.
    pub fn is_planned(&self) -> bool {
        PLANNED.contains(&self.reason.as_str())
    }

    /// A gateway that restarts beside a JVM that leads takes a new term; with ZooKeeper the change carries it then.
    fn is_same(&self, other: &Self) -> bool {
        self.term == other.term || self.is_at_once(other)
    }

    /// Whether both are of the same second and went to the same pod: the status has no parts of a second.
    fn is_at_once(&self, other: &Self) -> bool {
        let second = |at: &str| at.get(..19).map(str::to_owned);
        self.to == other.to && second(&self.at).is_some() && second(&self.at) == second(&other.at)
    }
}

/// Puts changes together that were recorded in several places: the newest first, [`KEPT`] at most. Of one that stands
/// in several places the first counts, and what it does not say is taken from the others. `term`: number of the present
/// term. Changes of higher terms are older: somebody has removed Lease and HA data since, and the numbers began anew.
pub fn merged(term: u64, changes: impl IntoIterator<Item = RecordedFailover>) -> Vec<RecordedFailover> {
    let mut all: Vec<RecordedFailover> = Vec::new();
    for mut change in changes {
        change.restored.truncate(RESTORED);
        match all.iter_mut().find(|known| known.is_same(&change)) {
            Some(known) if known.is_at_once(&change) => {
                known.running_millis = known.running_millis.or(change.running_millis);
                if known.restored.is_empty() {
                    known.restored = change.restored;
                }
            }
            Some(_) => {}
            None => all.push(change),
        }
    }
    all.sort_by_key(|change| std::cmp::Reverse((change.term <= term, change.term)));
    all.truncate(KEPT);
    all
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(term: u64, second: u64) -> RecordedFailover {
        let at = format!("2026-01-01T00:00:{second:02}.123Z");
        RecordedFailover { at, from: "a".into(), to: "b".into(), term, ..RecordedFailover::default() }
    }

    fn terms(changes: &[RecordedFailover]) -> Vec<u64> {
        changes.iter().map(|change| change.term).collect()
    }

    #[test]
    fn changes_of_several_places_are_told_once_and_the_newest_come_first() {
        let known = RecordedFailover { running_millis: Some(900), ..change(3, 3) };
        let all = merged(5, [change(5, 5), change(2, 2), known, change(3, 3), change(4, 4)]);
        assert_eq!(terms(&all), [5, 4, 3, 2]);
        let filled = merged(5, [change(3, 3), all[2].clone()]);
        assert_eq!((filled.len(), filled[0].running_millis), (1, Some(900)), "what one does not say another does");
    }

    #[test]
    fn the_last_twenty_are_kept_with_the_first_jobs_of_each() {
        let job = |number: u128| RestoredJob { job: JobId::from_number(number), checkpoint: Some(7) };
        let restored: Vec<RestoredJob> = (0..50).map(job).collect();
        let long = |term| RecordedFailover { restored: restored.clone(), ..change(term, term) };
        let all = merged(30, (1..=30).map(long));
        assert_eq!((all.len(), all[0].term, all[19].term), (KEPT, 30, 11));
        assert!(all.iter().all(|change| change.restored.len() == RESTORED));
        let name = "x".repeat(1000);
        let full = Change { from: name.clone(), to: name.clone(), why: name, ..Change::default() };
        let full = RecordedFailover { restored, ..RecordedFailover::of(&full).expect("a change") };
        let all = Failovers(merged(30, (1..=30).map(|term| RecordedFailover { term, ..full.clone() })));
        let bytes = json!(all).to_string().len();
        assert!(bytes < 48 << 10, "{bytes}");
    }

    #[test]
    fn a_change_whose_gateway_was_restarted_is_no_other_one() {
        let restarted = RecordedFailover { term: 6, ..change(5, 5) };
        assert_eq!(terms(&merged(6, [restarted, change(5, 5), change(4, 4)])), [6, 4]);
    }

    #[test]
    fn when_terms_begin_anew_the_changes_before_are_older() {
        let all = merged(2, [change(2, 50), change(9, 9), change(8, 8)]);
        assert_eq!(terms(&all), [2, 9, 8]);
        let anew = merged(9, [change(9, 59), RecordedFailover { running_millis: Some(1), ..change(9, 9) }]);
        assert_eq!((anew.len(), anew[0].running_millis), (1, None), "another change with the same number");
    }

    #[test]
    fn a_first_leader_and_a_change_that_is_not_complete_are_none() {
        let whole = Change { from: "a".into(), to: "b".into(), why: "Switchover".into(), ..Change::default() };
        assert!(RecordedFailover::of(&whole).is_some_and(|change| change.is_planned()));
        let killed = Change { why: "JobManagerDied".into(), ..whole.clone() };
        assert!(RecordedFailover::of(&killed).is_some_and(|change| !change.is_planned()));
        assert_eq!(RecordedFailover::of(&Change { from: String::new(), ..whole.clone() }), None);
        assert_eq!(RecordedFailover::of(&Change { to: String::new(), ..whole }), None);
    }

    #[test]
    fn what_is_not_understood_is_left_out_and_the_rest_is_read_back() {
        let restored = vec![RestoredJob { job: JobId::from_number(7), checkpoint: None }];
        let one = RecordedFailover { running_millis: Some(7), restored, ..change(3, 3) };
        let text = json!([one, { "term": "three" }, 7, { "term": 2, "later": "field" }]).to_string();
        let read: Failovers = serde_json::from_str(&text).expect("changes");
        assert_eq!(terms(&read.0), [3, 2]);
        assert_eq!(read.0[0], one);
        assert_eq!(serde_json::from_str::<Failovers>("{}").expect("nothing"), Failovers::default());
    }
}
