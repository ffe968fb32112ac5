//! Application mode: one cluster runs one application, of which a *run* has one id in Flink and goes on from checkpoint
//! to checkpoint, and a *version* is everything in the resource that needs a new graph or plan when it changes.
//!
//! Decisions: what to do next ([`lifecycle`], the operator), what a new leader does with what another version stored
//! ([`crate::ha_data::handover`], the gateway).

mod again;
pub mod conditions;
pub mod decision;
pub mod definitions;
pub mod last_savepoint;
pub mod lifecycle;
pub mod periodic;
mod step;
#[cfg(test)]
mod tests;
mod upgrade;
pub mod versions;

use jiff::Timestamp;

use self::decision::{Decision, Inputs, has_no_pods};
use self::definitions::Definition;
pub use self::versions::{job_id, savepoint_directory, version};
use super::causes;
use super::observed::Observed;
use super::rejection::Rejection;
use crate::api::application::{Application, JobState, Phase};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec, names};
use crate::flink::job_id::JobId;
use crate::ledger::application::Run;
use crate::ledger::jobs::HaData;

/// What is to be there: made from the resource, and for an application from what became of it.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The spec that the pods are made from. While a definition fails or is being replaced it is an earlier one.
    pub spec: FlinkHaClusterSpec,
    /// Of an application.
    pub decision: Option<Decision>,
    /// Nothing is carried out: the resource cannot be applied.
    pub frozen: bool,
    /// Pods stay as they are: they were made with credentials that the present spec has changed, which are written down
    /// nowhere else.
    pub keeps_pods: bool,
}

impl Desired {
    /// Of a resource whose status was `before`.
    ///
    /// # Errors
    /// The ledger, or a definition in the status, cannot be read. What is not known is not absent: a run would begin in
    /// the place of one that goes on, or go back to one that has ended; and a change could leave jobs behind that the
    /// ledger does not tell of.
    pub fn of(
        resource: &FlinkHaCluster,
        before: &FlinkHaClusterStatus,
        observed: &Observed,
        now: Timestamp,
    ) -> Result<Self, Rejection> {
        let (wanted, metadata) = (&resource.spec, &resource.metadata);
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (uid, name) = (text(&metadata.uid), text(&metadata.name));
        if let Some(cause) = observed.unreadable(&name) {
            return Err(Rejection::unwatched(cause));
        }
        let Some(job) = &wanted.job else {
            return Ok(Self { spec: wanted.clone(), decision: None, frozen: false, keeps_pods: false });
        };
        let refusal = before.application.as_ref().and_then(|application| definitions::refusal(wanted, application));
        if let Some(cause) = refusal {
            return Err(Rejection::of(cause));
        }
        let led_by = observed.ha_data().and_then(HaData::led_by);
        let inputs = Inputs {
            uid: &uid,
            generation: metadata.generation.unwrap_or_default(),
            own_directory: &names::high_availability_cluster_id(&text(&metadata.namespace), &name),
            pods: observed.has_pods(),
            shows_pods: observed.shows_pods(),
            progress: &observed.progress(),
            jobs: observed.jobs(),
            savepoints: observed.savepoints(),
            stored: observed.stored.found(),
            causes: &causes::causes(observed),
            led_by: led_by.as_ref(),
            now,
        };
        let decision = lifecycle::step(wanted, job, decided(before), &inputs);
        let application = &decision.application;
        let deployed = Definition::read(&application.deployed, wanted).ok();
        let is_known = deployed.as_ref().is_none_or(|deployed| deployed.is_that_of_pods(&application.version, wanted));
        let keeps_pods = !is_known && !decision.stopped;
        let spec = deployed.map_or_else(|| wanted.clone(), |deployed| deployed.spec);
        Ok(Self { spec, decision: Some(decision), frozen: false, keeps_pods })
    }

    /// What was decided before, when nothing can be decided now.
    pub fn kept(resource: &FlinkHaCluster, before: &FlinkHaClusterStatus) -> Self {
        let spec = deployed(before, &resource.spec).unwrap_or_else(|| resource.spec.clone());
        Self { spec, decision: None, frozen: true, keeps_pods: false }.frozen(before)
    }

    pub fn application(&self) -> Option<&Application> {
        self.decision.as_ref().map(|decision| &decision.application)
    }

    /// What was decided is not carried out, because the resource cannot be applied: the application stays what it was,
    /// and so does what the leader was asked for.
    pub fn frozen(mut self, before: &FlinkHaClusterStatus) -> Self {
        let stopped = |application: &Application| has_no_pods(application.phase);
        self.decision = before.application.clone().map(|application| Decision {
            stopped: stopped(&application),
            application,
            ..Decision::default()
        });
        self.frozen = true;
        self
    }

    /// Another run is to take the place of the one that was decided on before.
    pub fn changes_run(&self, before: &FlinkHaClusterStatus) -> bool {
        let before = before.application.as_ref().map(|application| &application.job_id);
        self.application().is_some_and(|application| before.is_some_and(|before| *before != application.job_id))
    }

    /// A running job begins to be stopped for another definition.
    pub fn begins_stop(&self, before: &FlinkHaClusterStatus) -> bool {
        let stopping = |application: &Application| matches!(application.phase, Phase::Upgrading | Phase::Savepointing);
        self.application().is_some_and(stopping) && !before.application.as_ref().is_some_and(stopping)
    }

    /// There are to be no pods.
    pub fn is_stopped(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.stopped)
    }

    /// The run as the pods are told of it.
    pub fn run(&self) -> Option<Run> {
        let Decision { application, stopped, .. } = self.decision.as_ref()?;
        Some(Run {
            job_id: JobId::of(&application.job_id)?,
            version: application.version.clone(),
            start: application.starts,
            restored_from: application.restored_from.clone(),
            stopped: *stopped,
            // One that nobody can have run is in nobody's way.
            replaces: application.replaces.iter().filter_map(|id| JobId::of(id)).collect(),
        })
    }
}

/// What was decided before. A status that names a run that Flink cannot have was edited by somebody: then the run that
/// goes on is looked for on record, as for a resource that was created again.
pub fn decided(before: &FlinkHaClusterStatus) -> Option<&Application> {
    before.application.as_ref().filter(|application| JobId::of(&application.job_id).is_some())
}

/// What an application's pods were made from last, with credentials of the `present` spec.
pub fn deployed(before: &FlinkHaClusterStatus, present: &FlinkHaClusterSpec) -> Option<FlinkHaClusterSpec> {
    Some(Definition::read(&before.application.as_ref()?.deployed, present).ok()?.spec)
}

/// The pods of a suspended application are to start.
pub fn resumes(application: Option<&Application>, wanted: &FlinkHaClusterSpec) -> bool {
    let is_suspended = application.is_some_and(|application| application.phase == Phase::Suspended);
    is_suspended && wanted.job.as_ref().is_some_and(|job| job.state == JobState::Running)
}

/// What comes next must not come before all pods are gone.
pub fn waits_for_pods(application: Option<&Application>) -> bool {
    let waits = |phase| matches!(phase, Phase::Upgrading | Phase::RollingBack | Phase::Suspending | Phase::Ending);
    application.is_some_and(|application| waits(application.phase))
}
