//! What one reconciliation does about a resource that is not being deleted: from what is asked for, what was there
//! before and what has been observed, to a value that [`crate::operator::reconcile`] carries out.
//!
//! A decision may rest on what the caches do not show. Then the answer is a [`Lookup`] to be made first: no plan comes
//! of an observation that is not complete.

pub mod requests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use self::requests::Requests;
use super::application::{Desired, decided, deployed, waits_for_pods};
use super::build::{self, Environment, Objects, job_manager};
use super::events::EventNote;
use super::observed::{Observed, StoredHaData};
use super::rejection::Rejection;
use super::{Cluster, rollout, stored, validate};
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::Provider;

/// Pods that no watch shows are looked for so often, while something waits for them to be gone.
const PODS_INTERVAL: Duration = Duration::from_secs(5);

/// What a cache shows late, or only when it carries our label, and something decided rests on: asked of the API server
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Who is left of the pods that must be gone before the application goes on.
    Presence,
    /// The ledger: before the first decision, while the caches have none, and before another run takes the place of the
    /// present one. By a ledger that is late, a run would be gone back to in whose place another one has begun.
    Ledger,
    /// What the cluster ConfigMap holds, before the first decision.
    StoredHaData,
}

/// What one reconciliation does.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    pub desired: Desired,
    /// What is applied, or why nothing is.
    pub rollout: Result<Rollout, Rejection>,
    /// What is asked for after that.
    pub requests: Requests,
    /// Look again after this time at the latest.
    pub look_again: Option<Duration>,
}

/// The objects that are applied.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Tried first, by a dry run: what is to come after the running job is stopped for it. When the API server does not
    /// take it, the job runs on.
    pub tried_first: Option<Objects>,
    pub objects: Objects,
    /// The gateway's image that was chosen for them.
    pub gateway_image: String,
    /// To be published when they have been applied.
    pub note: Option<EventNote>,
}

/// Decides.
///
/// # Errors
/// What has to be looked up first. The observation is complete then in this respect, and the next call does not ask for
/// it again.
pub fn plan(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    environment: &Environment,
    now: Timestamp,
) -> Result<Reconciliation, Lookup> {
    if let Some(lookup) = missing(resource, before, observed, now) {
        return Err(lookup);
    }
    let desired = match &observed.stored {
        StoredHaData::Unreadable(refusal) => Err(Rejection::unwatched(refusal.clone())),
        _ => Desired::of(resource, before, observed, now),
    };
    if desired.as_ref().is_ok_and(|desired| desired.changes_run(before)) && !observed.ledger_is_current {
        return Err(Lookup::Ledger);
    }
    let rollout = validate::validate(resource).and_then(|cluster| {
        let desired = desired.as_ref().map_err(Clone::clone)?;
        match stored::left_behind(&resource.spec, deployed(before).as_ref(), observed) {
            Some(cause) => Err(Rejection::of(cause)),
            None => Ok(Rollout::of(resource, cluster, desired, before, observed, environment)),
        }
    });
    let desired = desired.unwrap_or_else(|_| Desired::kept(resource, before));
    let reconciliation = Reconciliation {
        requests: Requests::of(resource, &desired, observed),
        look_again: look_again(&desired, None),
        rollout,
        desired,
    };
    Ok(match &reconciliation.rollout {
        Ok(_) => reconciliation,
        Err(rejection) => {
            let rejection = rejection.clone();
            reconciliation.rejected(rejection, before)
        }
    })
}

/// What has to be looked up before anything is decided. Presence comes first: what a process that is gone has written
/// last is read after it is gone.
fn missing(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    now: Timestamp,
) -> Option<Lookup> {
    let (application, spec) = (before.application.as_ref(), &resource.spec);
    if waits_for_pods(application) && observed.presence.is_none() && observed.is_still(now) {
        return Some(Lookup::Presence);
    }
    let first = decided(before).is_none();
    if spec.job.is_some() && (first || observed.ledger.is_none()) && !observed.ledger_is_current {
        return Some(Lookup::Ledger);
    }
    let is_unknown = observed.stored == StoredHaData::Unknown;
    let stores_config_maps = spec.high_availability.provider == Provider::Kubernetes;
    (spec.job.is_some() && first && stores_config_maps && is_unknown).then_some(Lookup::StoredHaData)
}

/// When to look again, although no watch tells of anything.
fn look_again(desired: &Desired, rejection: Option<&Rejection>) -> Option<Duration> {
    let pods = waits_for_pods(desired.application()).then_some(PODS_INTERVAL);
    let decision = desired.decision.as_ref().and_then(|decision| decision.wake);
    [pods, decision, rejection.and_then(|rejection| rejection.look_again)].into_iter().flatten().min()
}

impl Reconciliation {
    /// The same when the resource cannot be applied: nothing that was decided is carried out.
    pub fn rejected(self, rejection: Rejection, before: &FlinkHaClusterStatus) -> Self {
        let desired = self.desired.frozen(before);
        Self {
            requests: Requests { switchover: self.requests.switchover, ..Requests::default() },
            look_again: look_again(&desired, Some(&rejection)),
            rollout: Err(rejection),
            desired,
        }
    }
}

impl Rollout {
    fn of(
        resource: &FlinkHaCluster,
        cluster: Cluster,
        desired: &Desired,
        before: &FlinkHaClusterStatus,
        observed: &Observed,
        environment: &Environment,
    ) -> Self {
        let wanted = || build::build(&cluster.clone().deployed(resource.spec.clone(), desired.run()), environment);
        let tried_first = desired.begins_stop(before).then(wanted);
        let cluster = cluster.deployed(desired.spec.clone(), desired.run());
        let objects = build::build(&cluster, environment);
        let digest = job_manager::digest_of(&objects.job_managers).to_owned();
        let (own, live) = (&environment.gateway_image, observed.job_manager_deployment.as_deref());
        let gateway_image = rollout::gateway_image(before.gateway_image.as_deref(), live, &digest, own).to_owned();
        let objects = if gateway_image == *own {
            objects
        } else {
            build::build(&cluster, &Environment { gateway_image: gateway_image.clone(), ..environment.clone() })
        };
        let digest = job_manager::digest_of(&objects.job_managers);
        let note = rollout::replaced_by_operator(before, resource.metadata.generation, live, digest, own);
        Self { tried_first, objects, gateway_image, note }
    }
}
