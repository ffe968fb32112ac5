//! One step of an application's lifecycle while it is made: what it rests on, and what it has changed so far.

use jiff::SignedDuration;

use super::decision::{Decision, Inputs};
use super::definitions::Definition;
use super::versions::job_id;
use crate::api::FlinkHaClusterSpec;
use crate::api::application::{Application, JobSpec, Phase};
use crate::api::time::seconds;
use crate::ledger::jobs;

/// A step that is being made.
pub(super) struct LifecycleStep<'a> {
    pub wanted: &'a FlinkHaClusterSpec,
    pub job: &'a JobSpec,
    pub inputs: &'a Inputs<'a>,
    pub decision: Decision,
}

impl LifecycleStep<'_> {
    pub fn application(&self) -> &Application {
        &self.decision.application
    }

    pub fn application_mut(&mut self) -> &mut Application {
        &mut self.decision.application
    }

    pub fn enter(&mut self, phase: Phase) {
        let since = Some(seconds(self.inputs.now));
        let application = self.application_mut();
        if application.phase != phase {
            (application.phase, application.since) = (phase, since);
        }
    }

    /// Makes a run that takes the place of the one before. Of several that did not come up, the run before all of them
    /// has the state.
    pub fn new_run(&mut self, restored_from: Option<String>) {
        let uid = self.inputs.uid;
        let application = self.application_mut();
        application.runs = application.runs.saturating_add(1);
        let before = std::mem::replace(&mut application.job_id, job_id(uid, application.runs).to_string());
        application.previous_job_id.get_or_insert(before);
        application.restored_from = restored_from;
    }

    /// The last definition that worked, if all of it is known.
    pub fn stable(&self) -> Option<FlinkHaClusterSpec> {
        Definition::read(self.application().stable.as_ref()?, self.wanted).ok()?.complete()
    }

    pub fn tombstone(&self) -> Option<&jobs::Job> {
        self.tombstone_of(&self.application().job_id)
    }

    pub fn tombstone_of(&self, run: &str) -> Option<&jobs::Job> {
        self.inputs.jobs.iter().find(|job| job.id == *run && job.has_ended())
    }

    pub fn elapsed(&self) -> SignedDuration {
        self.application().since.as_ref().map_or(SignedDuration::ZERO, |since| self.inputs.now.duration_since(since.0))
    }

    /// The deployed version of this run has begun, by what its leader says.
    pub fn has_begun(&self) -> bool {
        self.inputs.progress.job.is_some_and(|job| job == self.application().job_id)
            && self.inputs.progress.version == self.application().version
    }

    pub fn ask_to_stop(&mut self, id: String) {
        self.application_mut().savepoint_request = Some(id);
        self.enter(Phase::Savepointing);
    }
}
