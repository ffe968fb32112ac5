//! Deleting: the last savepoint if one is asked for, then the JobManagers, then the HA data that `spec.haData.onDelete`
//! does not retain, then the resource itself.
//!
//! Everything else of the cluster goes with the resource, by its owner references.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube_runtime::controller::Action;

use super::context::Context;
use super::error::Error;
use super::presence::Which;
use super::purge::{Files, Purging};
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FINALIZER, JOB_MANAGER};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::{OnDelete, Provider};
use crate::cluster::application::Desired;
use crate::cluster::application::last_savepoint::{EndOfWait, LastSavepoint, last_savepoint};
use crate::cluster::deletion;
use crate::cluster::deployment::watched;
use crate::cluster::events::EventNote;
use crate::cluster::observed::Observed;
use crate::cluster::plan::requests::{Requests, SavepointNote};
use crate::cluster::presence::Presence;
use crate::cluster::rejection::Rejection;
use crate::cluster::status::Applied;

/// While something is waited for that no watch tells of.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(5);
/// Between attempts to create a Job that is refused.
const REFUSED_INTERVAL: Duration = Duration::from_secs(10);

/// A deletion that takes longer than this shows in the status, also if nothing else has happened.
const UNTOLD: Duration = Duration::from_secs(5);

/// Pods that take longer than this to end are told of.
const POD_END_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);

/// Takes the next step of a deletion. Steps that must wait for another return without removing the finalizer.
///
/// # Errors
/// When a request fails; it is safe to try again.
pub async fn finalize(resource: &FlinkHaCluster, observed: &Observed, context: &Context) -> Result<Action, Error> {
    let finalizer = &context.finalizer;
    if !holds(resource) {
        forget(resource, context);
        return Ok(Action::await_change());
    }
    if finalizer.has_released(resource) {
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    }
    let mut before = context.report.before(resource);
    let end = match last_savepoint(resource, &before, observed, Timestamp::now()) {
        LastSavepoint::Go(end) => end,
        LastSavepoint::Wait { application, request, cause } => {
            let before = FlinkHaClusterStatus { application: Some(*application), ..before };
            // The request comes after the status that announces it, as in any other reconciliation.
            tell(resource, &before, observed, Some(Rejection::of(cause)), context).await?;
            let provider = resource.spec.high_availability.provider;
            let savepoint = SavepointNote::of(provider, request.as_ref(), observed);
            context.asker.ask(resource, &Requests { savepoint, ..Requests::default() }, &context.report).await?;
            return Ok(Action::requeue(REQUEUE_INTERVAL));
        }
    };
    end.note(&mut before, observed);
    let resource = &end.retaining(resource);
    remove(resource, &before, observed, &end, context).await
}

/// Removes the cluster, when no savepoint is waited for any more.
async fn remove(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    end: &EndOfWait,
    context: &Context,
) -> Result<Action, Error> {
    let finalizer = &context.finalizer;
    let asked = resource.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let waited = Timestamp::now().duration_since(end.at.map_or(asked, |at| at.max(asked)));
    let in_time = waited < POD_END_TIMEOUT.min(signed(context.deletion_deadline));
    let deployment = observed.job_manager_deployment.as_ref().filter(|_| in_time);
    let shown = watched(resource.metadata.uid.as_deref(), deployment.map(|deployment| &deployment.metadata));
    let ends = !finalizer.deployment_is_gone(resource, shown).await? || !observed.job_manager_pods.is_empty();
    // What Kubernetes ends is given time to.
    if ends && in_time {
        let untold = UNTOLD.saturating_sub(context.prover.waited(resource));
        let (desired, outcome) = to_tell(resource, before, observed, None, context);
        if !untold.is_zero() && !context.report.has_events(resource, &desired, observed, &outcome) {
            return Ok(Action::requeue(untold));
        }
        tell(resource, before, observed, None, context).await?;
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    }
    let presence = context.prover.prove(resource, observed, &[JOB_MANAGER], Which::All).await?;
    if ends || presence != Presence::Gone {
        let why = presence.sentence().unwrap_or_else(|| {
            let deployment = names::job_manager(&resource.name_any());
            format!(
                "Kubernetes has not finished to delete Deployment {deployment}, which its garbage collector does when all its pods are gone"
            )
        });
        if waited >= signed(context.deletion_deadline) && has_waited(resource, context) {
            finalizer.leave(resource, &why, &context.report).await?;
            forget(resource, context);
            return Ok(Action::await_change());
        }
        let told = waited >= POD_END_TIMEOUT || presence.has_stray();
        let message = format!("deletion waits, because a JobManager that still runs could write: {why}");
        tell(resource, before, observed, told.then(|| Rejection::deletion_waits(message)), context).await?;
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    }
    // Another operator may have finished this deletion, and somebody may have created the resource again.
    if !context.resources.exists(resource).await? {
        forget(resource, context);
        return Ok(Action::await_change());
    }
    let purging = finalizer.purger.purge(resource, observed, &context.environment, &context.warnings);
    let files = match purging.await? {
        Purging::Done(files) => files,
        Purging::Refused(why) if waited >= signed(context.deletion_deadline) && has_waited(resource, context) => {
            Files { warning: true, message: format!("the files in the storage directory stay: {why}") }
        }
        Purging::Refused(why) => {
            let cause = deletion::purge_waits(resource, Some(&why), None, None, SignedDuration::ZERO);
            tell(resource, before, observed, cause.map(Rejection::of), context).await?;
            return Ok(Action::requeue(REFUSED_INTERVAL));
        }
        Purging::Waits(cause) => {
            tell(resource, before, observed, cause.map(Rejection::of), context).await?;
            return Ok(Action::requeue(REQUEUE_INTERVAL));
        }
    };
    let files = files.of(resource);
    // The ledger explains the znodes that the Job could not remove.
    let stays = files.warning && resource.spec.high_availability.provider == Provider::ZooKeeper;
    if stays {
        finalizer.note(resource, &files.message).await?;
    }
    let last = end.sentence();
    if let Some(last) = last.as_ref().filter(|_| end.missing.is_some()) {
        finalizer.note(resource, last).await?;
    }
    let plan = finalizer.delete_data(resource, stays).await?;
    let message = match (resource.spec.ha_data.on_delete, plan.keep.as_slice()) {
        (OnDelete::Delete, _) => format!("deleted {} ConfigMaps with HA data; {}", plan.delete.len(), files.message),
        _ if resource.spec.high_availability.provider == Provider::ZooKeeper => files.message,
        (OnDelete::Retain, []) => "no job was left to retain HA data for".to_owned(),
        (OnDelete::Retain, kept) => {
            format!("retained the HA data of jobs that have not ended: ConfigMaps {}", kept.join(", "))
        }
    };
    let last = last.map(|last| format!("{last}; ")).unwrap_or_default();
    let message = format!("{last}{message}{}", plan.of_others());
    let warning = files.warning || end.missing.is_some();
    context.report.publish(resource, &EventNote { warning, reason: "Deleted".to_owned(), message }).await;
    finalizer.release(resource).await?;
    forget(resource, context);
    Ok(Action::await_change())
}

/// Whether the resource carries our finalizer.
pub fn holds(resource: &FlinkHaCluster) -> bool {
    resource.finalizers().iter().any(|name| name == FINALIZER)
}

/// An operator that was away meanwhile looks for some time itself.
fn has_waited(resource: &FlinkHaCluster, context: &Context) -> bool {
    context.prover.waited(resource) >= context.deletion_deadline / 5
}

/// Writes the status of a resource that is being deleted: nobody is named as its leader any more, and what the deletion
/// waits for is told.
async fn tell(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    waits: Option<Rejection>,
    context: &Context,
) -> Result<(), Error> {
    let (desired, outcome) = to_tell(resource, before, observed, waits, context);
    context.report.report(resource, &desired, observed, &outcome, context.failing_since(resource)).await.map(drop)
}

/// What the status of a resource that is being deleted rests on.
fn to_tell(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    waits: Option<Rejection>,
    context: &Context,
) -> (Desired, Result<Applied, Rejection>) {
    let desired = Desired::of(resource, before, observed, Timestamp::now());
    let desired = desired.map_or_else(|_| Desired::kept(resource, before), |desired| desired.frozen(before));
    let gateway_image = before.gateway_image.clone().unwrap_or_else(|| context.environment.gateway_image.clone());
    let outcome = waits.map_or(Ok(Applied { gateway_image, objects: before.applied.clone(), turn: None }), Err);
    (desired, outcome)
}

fn forget(resource: &FlinkHaCluster, context: &Context) {
    context.applier.forget(resource);
    context.finalizer.forget(resource);
    context.resources.forget(resource);
    context.prover.forget(resource);
}

fn signed(duration: Duration) -> SignedDuration {
    duration.try_into().unwrap_or(SignedDuration::MAX)
}
