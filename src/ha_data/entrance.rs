//! What a gateway does with what it finds stored, before its JVM may lead, and the writes with which a version of an
//! application begins. [`super::handover`] decides whose the stored data is; a gateway carries out what is decided
//! here, one write after another, and may end between any two of them.

use std::collections::BTreeSet;

use super::handover::{HandoverPlan, Stored, StoredState, begin, judge, later, unnamed};
use crate::flink::job_id::JobId;
use crate::flink::job_state::FlinkState;
use crate::flink::result::{Entry, Outcome};
use crate::ledger::application::{Before, Progress, Run};
use crate::ledger::jobs::Job;
use crate::ledger::refusal::Refusal;

/// What is on record: the ledger's data, and the entries of the result stores.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub progress: Progress,
    pub jobs: Vec<Job>,
    pub entries: Vec<Entry>,
}

/// What the gateway that is about to grant leadership does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Its JVM may lead. `raises`: the start beside the mark is raised first.
    Enter { raises: bool },
    /// Its JVM leads only so that Flink cleans up after the run, or so that the savepoint that ended it is answered.
    Finish,
    /// The run has ended and nobody leads: what is left is collected. The outcome is not in the ledger yet.
    Collect(Option<Outcome>),
    /// Nobody leads, for this reason, which a person removes.
    Refuse(Refusal),
    /// Nobody leads: these names are of jobs that no application of this resource has run.
    Foreign(BTreeSet<String>),
    /// This version begins by these writes; then its JVM may lead.
    Begin(HandoverPlan),
}

/// Decides. `stored` was read in this term. `is_being_stopped`: the operator has asked to stop the run with a
/// savepoint, and no answer is on record. `ledger`: the name of its ConfigMap.
pub fn entrance(run: &Run, stored: &Stored, records: &Records, is_being_stopped: bool, ledger: &str) -> Entrance {
    match judge(run, stored, &records.progress, &records.jobs, &records.entries) {
        StoredState::Ours => Entrance::Enter { raises: stored.start < Some(run.start) },
        StoredState::Later(begun) => Entrance::Refuse(later(run, begun)),
        StoredState::Unnamed(runs) => Entrance::Refuse(unnamed(run, &runs, ledger)),
        // Another run continues from the stop of this one, so its last state must be known first.
        StoredState::Finished(_) if is_being_stopped => Entrance::Finish,
        StoredState::Finished(outcome) => Entrance::Collect(outcome),
        StoredState::Finishing => Entrance::Finish,
        StoredState::Foreign(jobs) => Entrance::Foreign(jobs),
        StoredState::Supersede(plan) => Entrance::Begin(plan),
    }
}

/// A write with which a version begins, before the mark says that it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginWrite<'a> {
    /// The ledger's progress becomes [`begun`].
    Progress,
    /// Tombstones of these runs: [`crate::ledger::jobs::supersede`].
    Tombstones(&'a BTreeSet<JobId>),
    /// The entry of a result store goes.
    Entry(&'a Entry),
}

/// The writes with which a version begins, in this order. The progress comes first: the operator rolls back to a run
/// that has begun, and never to one with a tombstone.
pub fn begin_version(plan: &HandoverPlan) -> impl Iterator<Item = BeginWrite<'_>> {
    let tombstones = Some(&plan.superseded).filter(|superseded| !superseded.is_empty());
    let entries = plan.entries.iter().map(BeginWrite::Entry);
    std::iter::once(BeginWrite::Progress).chain(tombstones.map(BeginWrite::Tombstones)).chain(entries)
}

/// What the ledger says of the application once this version has begun. `found`: the last checkpoint of the run that
/// it takes over from. If this version has already begun, the record of what it found stays.
///
/// # Errors
/// Pods of a later start have begun since the decision.
pub fn begun(run: &Run, progress: &Progress, found: Option<Before>) -> Result<Progress, Refusal> {
    if progress.start > run.start {
        return Err(later(run, progress.start));
    }
    let before = found.or_else(|| progress.before.clone().filter(|_| is_of(run, progress)));
    Ok(begin(run, progress, before))
}

/// Notes how the run's job gets on, by its JobManager. `up`: now, if all tasks run.
pub fn note_state(run: &Run, progress: &mut Progress, state: &FlinkState, error: Option<&str>, up: Option<&str>) {
    // Pods of a later start have begun, and their gateway notes the progress from now on.
    if progress.start > run.start {
        return;
    }
    // The stored HA data belongs to this version, even if somebody has edited the ledger.
    if !is_of(run, progress) {
        *progress = begin(run, progress, None);
    }
    if progress.start != run.start {
        (progress.start, progress.up) = (run.start, None);
    }
    progress.state = Some(state.clone());
    progress.error = error.map(str::to_owned);
    progress.up = progress.up.take().or_else(|| up.map(str::to_owned));
}

fn is_of(run: &Run, progress: &Progress) -> bool {
    progress.job == Some(run.job_id) && progress.version == run.version
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flink::job_state::End;
    use crate::flink::result::Store;

    const OURS: JobId = JobId::from_number(0xa);
    const FORMER: JobId = JobId::from_number(0xb);

    fn run() -> Run {
        Run { replaces: vec![FORMER], ..Run::new(OURS, "v2", 2) }
    }

    fn marked(by: JobId, version: &str, start: i64) -> Stored {
        Stored { mark: Some(format!("{by}/{version}")), start: Some(start), ..Stored::default() }
    }

    #[test]
    fn a_version_enters_what_is_its_own_and_raises_the_start_of_its_pods() {
        let enter = |start| entrance(&run(), &marked(OURS, "v2", start), &Records::default(), false, "ledger");
        assert_eq!(enter(1), Entrance::Enter { raises: true });
        assert_eq!(enter(2), Entrance::Enter { raises: false });
        assert!(matches!(enter(3), Entrance::Refuse(refusal) if refusal.message.contains("start 3")));
    }

    #[test]
    fn a_run_that_is_being_stopped_is_not_collected_before_the_answer() {
        let outcome = Outcome::of(End::Finished);
        let entry = Entry { store: Store::Job, id: OURS, dirty: false, outcome: Some(outcome.clone()), torn: false };
        let records = Records { entries: vec![entry], ..Records::default() };
        let enter = |stopped| entrance(&run(), &marked(OURS, "v2", 2), &records, stopped, "ledger");
        assert_eq!(enter(true), Entrance::Finish);
        assert_eq!(enter(false), Entrance::Collect(Some(outcome)));
    }

    #[test]
    fn a_version_begins_in_this_order_and_never_below_a_later_start() {
        let entry = Entry { store: Store::Job, id: FORMER, dirty: false, outcome: None, torn: true };
        let (mark, superseded) = (String::new(), BTreeSet::from([FORMER]));
        let plan = HandoverPlan { from: Some(FORMER), superseded, entries: vec![entry], mark, start: 2 };
        let writes: Vec<BeginWrite<'_>> = begin_version(&plan).collect();
        let expected =
            [BeginWrite::Progress, BeginWrite::Tombstones(&plan.superseded), BeginWrite::Entry(&plan.entries[0])];
        assert_eq!(writes, expected);
        let found = Some(Before { job: FORMER, checkpoint: Some("chk-7".to_owned()) });
        let first = begun(&run(), &Progress::default(), found.clone()).expect("begins");
        assert_eq!((first.job, first.start, &first.before), (Some(OURS), 2, &found));
        assert_eq!(begun(&run(), &first, None).map(|again| again.before), Ok(found), "what it found stays");
        let later = Progress { start: 3, ..Progress::default() };
        assert!(begun(&run(), &later, None).is_err());
        let mut progress = later.clone();
        note_state(&run(), &mut progress, &FlinkState::Running, None, Some("now"));
        assert_eq!(progress, later);
    }
}
