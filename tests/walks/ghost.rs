//! What the user may rely on, beside the world: which runs have ended, and how far the application's state has come.

use std::collections::BTreeSet;

use product::flink::job_id::JobId;
use product::ledger::application::Run;

/// A rule that was violated, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

#[derive(Clone, Debug, Default)]
pub struct Ghost {
    /// Runs that have ended, in whatever way.
    pub ended: BTreeSet<JobId>,
    /// Those of them that were stopped with a savepoint.
    pub stopped: BTreeSet<JobId>,
    /// Runs that have ended, and of whose end the only record was lost with the ledger: nothing can be known of it.
    pub unproven: BTreeSet<JobId>,
    /// How far the state has come: by the last checkpoint, or the last savepoint that ended the job.
    pub state: u32,
    /// The run that has come so far.
    pub job: Option<JobId>,
    /// The user has agreed that the next start begins with less.
    pub is_forgiven: bool,
    /// Runs that begin without state because the user has asked for that.
    pub forgiven: BTreeSet<JobId>,
    /// The latest start of pods of which one has led.
    pub start: i64,
    /// What happened to the ledger: it was lost, torn, or put back from an old copy.
    pub ledger_was_lost: bool,
    pub violation: Option<Violation>,
}

impl Ghost {
    pub fn violated(&mut self, rule: &'static str, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, what: what() });
        }
    }

    /// A JobManager comes to lead.
    pub fn leads(&mut self, run: &Run) {
        let latest = self.start;
        if run.start < latest {
            self.violated("one version", || format!("pods of start {} lead after pods of start {latest}", run.start));
        }
        self.start = self.start.max(run.start);
    }

    /// A job starts, or goes on, with this state.
    pub fn starts(&mut self, job: JobId, state: u32) {
        if self.ended.contains(&job) {
            self.violated("an end is final", || format!("run {job} has ended and runs again"));
        }
        let (expected, by) = (self.state, self.job);
        let is_forgiven = self.is_forgiven || self.forgiven.contains(&job) || self.unproven.contains(&job);
        if state < expected && !is_forgiven {
            self.violated("no state is dropped", || {
                format!("run {job} begins with state {state}, run {by:?} had come to {expected}")
            });
        }
        self.forgiven.remove(&job);
        (self.state, self.job, self.is_forgiven) = (state, Some(job), false);
    }

    pub fn checkpoint(&mut self, job: JobId, state: u32) {
        if self.job == Some(job) {
            self.state = state;
        }
    }

    pub fn ends(&mut self, job: JobId) {
        self.ended.insert(job);
        if self.job == Some(job) {
            self.is_forgiven = true;
        }
    }

    pub fn stops(&mut self, job: JobId, state: u32) {
        self.ended.insert(job);
        self.stopped.insert(job);
        self.checkpoint(job, state);
    }

    /// The ledger was lost, or an older one took its place. `is_on_record`: that a run has ended.
    pub fn loses_ledger(&mut self, is_on_record: impl Fn(JobId) -> bool) {
        self.ledger_was_lost = true;
        let lost: Vec<JobId> = self.ended.iter().copied().filter(|id| !is_on_record(*id)).collect();
        for id in lost {
            self.ended.remove(&id);
            self.stopped.remove(&id);
            self.unproven.insert(id);
        }
    }

    /// The pointers of a run are removed because the resource is deleted or its job has ended.
    pub fn removed(&mut self, job: JobId, superseded: bool) {
        if self.job == Some(job) && !self.is_forgiven && !self.ended.contains(&job) && !superseded {
            self.violated("no state is dropped", || format!("the data of run {job}, which has not ended, is removed"));
        }
    }
}
