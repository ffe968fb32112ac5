//! Plans one reconciliation of a resource that is not being deleted. From the desired state, the previous status and
//! the observations it computes a value that [`crate::operator::reconcile`] carries out.
//!
//! A decision may need what the caches do not show. The result is then a [`Lookup`] that must be made first: there is
//! no plan from an incomplete observation.

pub mod requests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

use self::requests::Requests;
use super::application::{Desired, decided, deployed, resumes, waits_for_pods};
use super::build::{self, Environment, Objects, job_manager};
use super::events::EventNote;
use super::gateway_image::{self, GatewayImage};
use super::observed::{Observed, StoredHaData};
use super::rejection::Rejection;
use super::{Cluster, peer_key, rollout, secret_change, stale_tokens, stored, validate};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::Provider;
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec};

/// Interval of lookups of pods that no watch shows, while the application waits for their end.
const PODS_INTERVAL: Duration = Duration::from_secs(5);

/// An observation that a cache shows late, or only for objects with our label, and that a decision needs: the operator
/// asks the API server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The remaining pods, all of which must be gone before the application continues.
    Presence,
    /// The ledger: before the first decision, while the caches have none, and before another run replaces the present
    /// one. With an outdated ledger the operator could return to a run that has been replaced.
    Ledger,
    /// The content of the cluster ConfigMap, before the first decision.
    StoredHaData,
}

/// What one reconciliation does.
#[derive(Clone, Debug)]
pub struct Reconciliation {
    pub desired: Desired,
    /// The objects to apply, or why nothing is applied.
    pub rollout: Result<Rollout, Rejection>,
    /// The requests to make afterwards.
    pub requests: Requests,
    /// Longest time until the next reconciliation.
    pub look_again: Option<Duration>,
}

/// The objects to apply.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Objects for a dry run: those that follow once the running job has been stopped for them. If the API server
    /// refuses them, the job continues.
    pub tried_first: Option<Objects>,
    pub objects: Objects,
    /// The chosen image of the gateway.
    pub gateway_image: GatewayImage,
    /// The Secret with the gateways' key may be gone: it is created, if it is.
    pub creates_key: bool,
    /// Nobody but the operator wants to replace pods, so clusters take turns ([`crate::cluster::turn`]): the event that
    /// announces it.
    pub note: Option<EventNote>,
    /// Why the operator wants to, as a clause.
    pub why: &'static str,
    /// Only missing objects are made ([`Desired::keeps_pods`]).
    pub keeps_pods: bool,
}

/// Makes the plan.
///
/// # Errors
/// The lookup that must be made first. The observation is complete in this respect afterwards, so the next call does
/// not ask for it again.
pub fn plan(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    environment: &Environment,
    now: Timestamp,
) -> Result<Reconciliation, Lookup> {
    let Decided { desired, refusal, requests } = decide(resource, before, observed, now)?;
    let rollout = validate::validate(resource).and_then(|cluster| match refusal {
        Some(refusal) => Err(refusal),
        None => Ok(Rollout::of(resource, cluster, &desired, before, observed, environment, now)),
    });
    let image = rollout.as_ref().ok().map(|rollout| &rollout.gateway_image);
    let pull_timeout = image.and_then(|image| Duration::try_from(image.look_again?).ok());
    let upgrade_gateways = image.and_then(|image| gateway_image::answer(resource, &image.image));
    let reconciliation = Reconciliation {
        requests: Requests { upgrade_gateways, ..requests },
        look_again: look_again(&desired, None).into_iter().chain(pull_timeout).min(),
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

/// What is decided before objects are built.
#[derive(Clone, Debug)]
pub struct Decided {
    pub desired: Desired,
    /// Why nothing of it is carried out.
    pub refusal: Option<Rejection>,
    /// The requests to make if it is carried out.
    pub requests: Requests,
}

/// Decides, for a resource that is valid.
///
/// # Errors
/// The lookup that must be made first.
pub fn decide(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    now: Timestamp,
) -> Result<Decided, Lookup> {
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
    let left_behind = || {
        let deployed = deployed(before, &resource.spec);
        let cause = stored::left_behind(&resource.spec, deployed.as_ref(), observed);
        cause.or_else(|| stored::unseen(&resource.spec, observed)).map(Rejection::of)
    };
    let (desired, refusal) = match desired {
        Ok(desired) => (desired, left_behind()),
        Err(rejection) => (Desired::kept(resource, before), Some(rejection)),
    };
    Ok(Decided { requests: Requests::of(resource, &desired, observed), desired, refusal })
}

/// Returns the lookup that a decision needs. Presence comes first: the last writes of a process are read after its end.
fn missing(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    now: Timestamp,
) -> Option<Lookup> {
    let (application, spec) = (before.application.as_ref(), &resource.spec);
    let waits = waits_for_pods(application) || resumes(application, spec);
    if waits && observed.presence.is_none() && observed.is_still(now) {
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

/// Returns when to look again even if no watch shows a change.
fn look_again(desired: &Desired, rejection: Option<&Rejection>) -> Option<Duration> {
    let pods = waits_for_pods(desired.application()).then_some(PODS_INTERVAL);
    let decision = desired.decision.as_ref().and_then(|decision| decision.wake);
    [pods, decision, rejection.and_then(|rejection| rejection.look_again)].into_iter().flatten().min()
}

impl Reconciliation {
    /// Returns the reconciliation of a resource that cannot be applied: nothing of the decision is carried out.
    pub fn rejected(self, rejection: Rejection, before: &FlinkHaClusterStatus) -> Self {
        let desired = self.desired.frozen(before);
        Self {
            requests: Requests {
                switchover: self.requests.switchover,
                drop_job: self.requests.drop_job,
                ..Requests::default()
            },
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
        now: Timestamp,
    ) -> Self {
        let changes = observed.secrets().map_or(0, |secrets| secrets.changes);
        let cluster = cluster.with_secret_changes(changes).with_certificates(observed.certificates());
        let wanted = || build::build(&cluster.clone().deployed(resource.spec.clone(), desired.run()), environment);
        let tried_first = desired.begins_stop(before).then(wanted);
        // Who may reach the pods does not depend on what they run.
        let network_policy = resource.spec.network_policy.clone();
        let spec = FlinkHaClusterSpec { network_policy, ..desired.spec.clone() };
        let cluster = cluster.deployed(spec, desired.run());
        let objects = build::build(&cluster, environment);
        let digest = job_manager::digest_of(&objects.job_managers).to_owned();
        let own = &environment.gateway_image;
        let gateway_image = gateway_image::choose(resource, before, observed, &digest, own, now);
        let mut objects = if gateway_image.image == *own {
            objects
        } else {
            build::build(&cluster, &Environment { gateway_image: gateway_image.image.clone(), ..environment.clone() })
        };
        stale_tokens::name_accounts(&mut objects, observed);
        let note = rollout::replaced_by_operator(resource, before, desired, observed, &objects, &gateway_image.image);
        let creates_key = peer_key::may_be_gone(observed, now);
        let why = secret_change::why(resource, observed);
        Self { tried_first, objects, gateway_image, creates_key, note, why, keeps_pods: desired.keeps_pods }
    }
}
