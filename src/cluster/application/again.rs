//! Decides with which run a resource begins, from which start it counts on, and which runs it replaces: from all
//! records of earlier runs.

use super::job_id;
use super::lifecycle::Inputs;
use crate::api::application::Application;
use crate::flink::job_id::JobId;
use crate::ha_data::handover::Stored;
use crate::ledger::application::Progress;
use crate::ledger::jobs::Job;

/// The records that exist before the first decision about a resource.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OnRecord {
    /// The run that continues: the last one, unless it has ended.
    pub retained: Option<JobId>,
    /// As far as is known, that run has stored something.
    pub has_state: bool,
    /// Number of the last start of its pods.
    pub starts: i64,
    /// Runs that it was about to replace.
    pub replaces: Vec<JobId>,
}

/// Reads the ledger, and the marks on the cluster ConfigMap, which survive the loss of the ledger.
pub(super) fn find(progress: &Progress, jobs: &[Job], stored: Option<&Stored>) -> OnRecord {
    let marked = stored.and_then(Stored::job);
    let marked_start = stored.and_then(|stored| stored.start);
    // A ledger that was restored from a copy may be behind.
    let behind = marked_start.is_some_and(|start| start > progress.start);
    let last = if behind { marked } else { progress.job.or(marked) };
    let has_ended = |id: JobId| jobs.iter().any(|job| job.id == id && job.has_ended());
    let retained = last.filter(|id| !has_ended(*id));
    let has_state = retained.is_some_and(|id| {
        jobs.iter().any(|job| job.id == id) || stored.is_some_and(|stored| stored.plans.contains(&id))
    });
    let before = progress.before.as_ref().map(|before| before.job).filter(|_| !behind);
    // The ledger is written before the mark. So it may name a run that was about to replace the one that the mark
    // names.
    let marked = marked.filter(|_| marked_start.is_some_and(|start| start < progress.start));
    let replaces =
        before.into_iter().chain(marked).filter(|id| retained.is_some_and(|run| run != *id) && !has_ended(*id));
    let mut replaces: Vec<JobId> = replaces.collect();
    replaces.dedup();
    OnRecord { has_state, starts: progress.start.max(marked_start.unwrap_or_default()), replaces, retained }
}

/// Returns the runs that the present one replaces: the one with the state, and later ones that did not come up.
pub(super) fn predecessors(uid: &str, application: &Application) -> Vec<String> {
    let Some(previous) = &application.previous_job_id else { return Vec::new() };
    let of_resource = |run: &i64| job_id(uid, *run) == *previous;
    let first = (1..application.runs).rev().find(of_resource).unwrap_or_default();
    let after =
        (first + 1..application.runs).map(|run| job_id(uid, run).to_string()).filter(|id| *id != application.job_id);
    std::iter::once(previous.clone()).chain(after).collect()
}

/// Corrects decisions of operators of earlier versions: their starts could fall behind the ledger's, and they named no
/// predecessors.
pub(super) fn mend(inputs: &Inputs<'_>, application: &mut Application) {
    if inputs.progress.start > application.starts {
        application.starts = inputs.progress.start + 1;
    }
    if application.replaces.is_empty() {
        application.replaces = predecessors(inputs.uid, application);
    }
}
