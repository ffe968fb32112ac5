//! Which run a resource begins with, above which start, and in the place of which runs: by all that is on record of
//! those before it.

use super::decision::Inputs;
use super::versions::job_id;
use crate::api::application::Application;
use crate::flink::job_id::JobId;
use crate::ha_data::handover::Stored;
use crate::ledger::application::Progress;
use crate::ledger::jobs::Job;

/// What is on record before the first decision about a resource.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OnRecord {
    /// The run that goes on: the last one, unless it has ended.
    pub retained: Option<JobId>,
    /// It has stored something, as far as is known.
    pub has_state: bool,
    /// The savepoint with which the last run was stopped, before the run that was to go on from it had begun.
    pub savepoint: Option<String>,
    /// The last start of its pods.
    pub starts: i64,
    /// Runs in whose place that run was about to begin.
    pub replaces: Vec<JobId>,
}

/// Looks for it in the ledger, and in what the cluster ConfigMap says beside the data: that outlives the ledger.
pub(super) fn find(progress: &Progress, jobs: &[Job], stored: Option<&Stored>) -> OnRecord {
    let marked = stored.and_then(Stored::job);
    let marked_start = stored.and_then(|stored| stored.start);
    // A ledger that was put back from a copy may be behind.
    let behind = marked_start.is_some_and(|start| start > progress.start);
    let last = if behind { marked } else { progress.job.or(marked) };
    let has_ended = |id: JobId| jobs.iter().any(|job| job.id == id && job.has_ended());
    // It may have its tombstone or not: its job has ended.
    let stopped = last.filter(|id| progress.stopped_with(*id).is_some());
    let retained = last.filter(|id| !has_ended(*id) && stopped.is_none());
    let has_state = retained.is_some_and(|id| {
        jobs.iter().any(|job| job.id == id) || stored.is_some_and(|stored| stored.plans.contains(&id))
    });
    let before = progress.before.as_ref().map(|before| before.job).filter(|_| !behind);
    // The ledger is written before the mark: it tells of a run that was about to take the place of the one that the
    // mark names.
    let marked = marked.filter(|_| marked_start.is_some_and(|start| start < progress.start));
    let is_another = |id: JobId| retained.is_some_and(|run| run != id) || stopped.is_some();
    let replaces = before.into_iter().chain(marked).chain(stopped).filter(|id| is_another(*id) && !has_ended(*id));
    let mut replaces: Vec<JobId> = replaces.collect();
    replaces.sort();
    replaces.dedup();
    let savepoint = stopped.and_then(|id| progress.stopped_with(id)).map(str::to_owned);
    let starts = progress.start.max(marked_start.unwrap_or_default());
    OnRecord { has_state, savepoint, starts, replaces, retained }
}

/// Number of runs that are looked at. Whoever edits the status could make it any number.
const RUNS: i64 = 1000;

/// Runs in whose place the present one begins: the one with the state, and those after it that did not come up.
pub(super) fn predecessors(uid: &str, application: &Application) -> Vec<String> {
    let Some(previous) = &application.previous_job_id else { return Vec::new() };
    let of_resource = |run: &i64| job_id(uid, *run) == *previous;
    let earliest = application.runs.saturating_sub(RUNS).max(1);
    let first = (earliest..application.runs).rev().find(of_resource).unwrap_or(earliest - 1);
    let after =
        (first + 1..application.runs).map(|run| job_id(uid, run).to_string()).filter(|id| *id != application.job_id);
    std::iter::once(previous.clone()).chain(after).collect()
}

/// Puts right what an operator of an earlier version has decided: its starts could fall behind the ledger's, and it
/// named no predecessors.
pub(super) fn mend(inputs: &Inputs<'_>, application: &mut Application) {
    if inputs.progress.start > application.starts {
        application.starts = inputs.progress.start.saturating_add(1);
    }
    if application.replaces.is_empty() {
        application.replaces = predecessors(inputs.uid, application);
    }
}
