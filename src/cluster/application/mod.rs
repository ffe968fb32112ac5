//! Decides about application mode, in which one cluster runs one application. A *run* has one id in Flink and resumes
//! from checkpoint to checkpoint. A *version* is the digest of everything in the resource whose change needs a new
//! graph or plan.
//!
//! [`lifecycle`] decides what the operator does next; [`crate::ha_data::handover`] decides what a new leader does with
//! the HA data of another version.

mod again;
pub mod conditions;
pub mod lifecycle;
#[cfg(test)]
mod tests;
mod upgrade;

use jiff::Timestamp;
use serde_json::json;

use self::lifecycle::{Decision, Inputs};
use super::build::{digest, hash};
use super::cause;
use super::observed::Observed;
use super::rejection::Rejection;
use crate::api::application::{Application, JobSpec, Phase};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec, names};
use crate::flink::job_id::JobId;
use crate::ledger::application::Run;

/// The desired state: derived from the resource, and for an application from its progress.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The spec from which the pods are built: an earlier one while a definition fails or is being replaced.
    pub spec: FlinkHaClusterSpec,
    /// The decision about an application.
    pub decision: Option<Decision>,
    /// The operator applies nothing, because the resource is invalid.
    pub frozen: bool,
}

impl Desired {
    /// Derives the desired state of a resource whose status was `before`.
    ///
    /// # Errors
    /// The ledger cannot be read. What is not known is not absent: a run would begin in the place of one that goes on,
    /// or go back to one that has ended; and a change could leave jobs behind that the ledger does not tell of.
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
            return Ok(Self { spec: wanted.clone(), decision: None, frozen: false });
        };
        let inputs = Inputs {
            uid: &uid,
            generation: metadata.generation.unwrap_or_default(),
            own_directory: &names::high_availability_cluster_id(&text(&metadata.namespace), &name),
            pods: observed.has_pods(),
            progress: &observed.progress(),
            jobs: observed.jobs(),
            stored: observed.stored.found(),
            causes: &cause::causes(observed),
            now,
        };
        let decision = lifecycle::step(wanted, job, decided(before), &inputs);
        let spec = serde_json::from_str(&decision.application.deployed).unwrap_or_else(|_| wanted.clone());
        Ok(Self { spec, decision: Some(decision), frozen: false })
    }

    /// What was decided before, when nothing can be decided now.
    pub fn kept(resource: &FlinkHaCluster, before: &FlinkHaClusterStatus) -> Self {
        let spec = deployed(before).unwrap_or_else(|| resource.spec.clone());
        Self { spec, decision: None, frozen: true }.frozen(before)
    }

    pub fn application(&self) -> Option<&Application> {
        self.decision.as_ref().map(|decision| &decision.application)
    }

    /// Carries out nothing of the decision, because the resource is invalid: the application and the request to its
    /// leader stay as they were.
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

    /// Does this decision replace the run of the decision before?
    pub fn changes_run(&self, before: &FlinkHaClusterStatus) -> bool {
        let before = before.application.as_ref().map(|application| &application.job_id);
        self.application().is_some_and(|application| before.is_some_and(|before| *before != application.job_id))
    }

    /// Does this decision begin to stop a running job for another definition?
    pub fn begins_stop(&self, before: &FlinkHaClusterStatus) -> bool {
        let stopping = |application: &Application| matches!(application.phase, Phase::Upgrading | Phase::Savepointing);
        self.application().is_some_and(stopping) && !before.application.as_ref().is_some_and(stopping)
    }

    /// Should there be no pods?
    pub fn is_stopped(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.stopped)
    }

    /// Returns the run for the pods.
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

/// What an application's pods were made from last.
pub fn deployed(before: &FlinkHaClusterStatus) -> Option<FlinkHaClusterSpec> {
    serde_json::from_str(&before.application.as_ref()?.deployed).ok()
}

/// Must all pods be gone before the next phase?
pub fn waits_for_pods(application: Option<&Application>) -> bool {
    let waits = |phase| matches!(phase, Phase::Upgrading | Phase::RollingBack | Phase::Suspending | Phase::Ending);
    application.is_some_and(|application| waits(application.phase))
}

/// Should pods be gone in this phase?
fn has_no_pods(phase: Phase) -> bool {
    matches!(phase, Phase::Upgrading | Phase::RollingBack | Phase::Suspending | Phase::Suspended | Phase::Ended)
}

/// Returns the digest of everything whose change needs a new graph or plan. Settings of one kind of pod are not part of
/// it.
pub fn version(spec: &FlinkHaClusterSpec) -> String {
    let job = spec.job.as_ref().map(|job| {
        let JobSpec { jar_uri, sha256, entry_class, args, parallelism, allow_non_restored_state, .. } = job;
        json!([jar_uri, sha256, entry_class, args, parallelism, allow_non_restored_state])
    });
    let shared = spec.flink_configuration.iter().filter(|(key, _)| !is_of_one_component(key));
    let configuration: Vec<_> = shared.map(|(key, value)| (key, value.to_string())).collect();
    digest(&json!([spec.image, job, configuration]).to_string())
}

/// Is this a key of Flink's configuration that only one kind of pod reads?
fn is_of_one_component(key: &str) -> bool {
    ["jobmanager.", "taskmanager."].iter().any(|prefix| key.starts_with(prefix))
}

/// Returns the id of a resource's n-th run. A repeated step yields the same id.
pub fn job_id(uid: &str, run: i64) -> JobId {
    let (high, low) = (hash(&format!("{uid}/{run}")), hash(&format!("{run}/{uid}")));
    JobId::from_number(u128::from(high) << 64 | u128::from(low))
}

/// Returns the user's directory for savepoints, from Flink's own keys.
pub fn savepoint_directory(spec: &FlinkHaClusterSpec) -> Option<String> {
    let keys = ["execution.checkpointing.savepoint-dir", "state.savepoints.dir", "state.backend.fs.savepointdir"];
    keys.iter().find_map(|key| spec.flink_configuration.get(*key)).map(ToString::to_string)
}
