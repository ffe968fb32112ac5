//! One resource, from what is asked for to what is there: observe, plan, apply, ask, report. What is done is decided in
//! [`crate::cluster::plan`]; here it is carried out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube_runtime::controller::Action;

use super::claims::Claimed;
use super::context::Context;
use super::error::Error;
use super::finalize;
use super::roll_out::roll_out;
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::Desired;
use crate::cluster::observed::Observed;
use crate::cluster::pause::Pause;
use crate::cluster::plan::{Reconciliation, plan};
use crate::cluster::rejection::Rejection;
use crate::cluster::status::Applied;
use crate::cluster::turn::Turn;
use crate::world::error_text::chain;

/// After this delay conflicts are logged: by then, six writes in a row have found another version.
const PERSISTENT_CONFLICT: Duration = Duration::from_millis(1600);

/// Delay of a report that failures have ended.
const REPORT_DELAY: Duration = Duration::from_millis(100);

/// Brings one cluster closer to what its resource asks for. Whatever it waits for comes back as a watch event.
///
/// # Errors
/// When a request fails; [`on_error`] tries again.
pub async fn reconcile(resource: Arc<FlinkHaCluster>, context: Arc<Context>) -> Result<Action, Error> {
    let begin = Instant::now();
    let resource = context.resources.latest(resource);
    let _held = context.resources.hold(&resource);
    let result = claimed(&resource, &context).await;
    let told = match &result {
        Ok(_) => "success",
        Err(Error::Outdated { .. }) => "outdated",
        Err(_) => "error",
    };
    context.metrics.reconciled(told, begin.elapsed());
    context.backlog.done(&resource);
    if result.is_ok() {
        context.turns.settle(&context.resources.latest(Arc::clone(&resource)));
    }
    match result {
        // Nothing fails any more, which the resource does not show yet.
        Ok(_) if context.succeeded(&resource) => return Ok(Action::requeue(REPORT_DELAY)),
        Ok(_) => {}
        Err(Error::Outdated { object }) => return again(&resource, &object, &context).await,
        Err(Error::Rejected(_) | Error::Shown(_)) => {}
        Err(ref error) if context.claims.is_ours(&resource) => show_failure(&resource, error, &context).await,
        Err(_) => {}
    }
    result
}

/// Shows a failure on the resource once it has lasted for a while.
async fn show_failure(resource: &FlinkHaCluster, error: &Error, context: &Context) {
    let Some(since) = context.failing_since(resource) else { return };
    let latest = context.resources.latest(Arc::new(resource.clone()));
    if let Err(error) = context.report.failing(&latest, error, since).await {
        let (cluster, namespace, error) = (resource.name_any(), resource.namespace(), chain(&error));
        tracing::warn!(cluster, namespace, error, "failed to show on the resource that it is not reconciled");
    }
}

/// Reads the resource again after a conflict. Nothing was written, and the next decision rests on what was read.
async fn again(resource: &FlinkHaCluster, object: &str, context: &Context) -> Result<Action, Error> {
    if !context.resources.read_again(resource).await? {
        return Ok(Action::await_change());
    }
    let delay = context.outdated(resource);
    let (cluster, namespace) = (resource.name_any(), resource.namespace());
    if delay < PERSISTENT_CONFLICT {
        tracing::debug!(cluster, namespace, ?delay, "{object} has changed since it was read; deciding again");
    } else {
        tracing::warn!(cluster, namespace, ?delay, "{object} changes again and again while it is reconciled");
    }
    Ok(Action::requeue(delay))
}

/// Takes the steps for a resource of this operator, and none for that of another.
async fn claimed(resource: &Arc<FlinkHaCluster>, context: &Context) -> Result<Action, Error> {
    match context.claims.ensure(resource, &context.report).await? {
        // The claim may have changed it.
        Claimed::Ours => steps(&context.resources.latest(Arc::clone(resource)), context).await,
        Claimed::Others(look_again) => Ok(Action::requeue(look_again)),
    }
}

async fn steps(resource: &FlinkHaCluster, context: &Context) -> Result<Action, Error> {
    let mut observed = context.caches.observe(&resource.namespace().unwrap_or_default(), &resource.name_any());
    context.warnings.complete(resource, &mut observed).await;
    let (is_deleted, is_held) = (resource.metadata.deletion_timestamp.is_some(), finalize::holds(resource));
    if Pause::of(resource).is_some() && (is_held || !is_deleted) {
        return report_only(resource, &observed, context).await;
    }
    if is_deleted {
        context.turns.forget(resource);
        return finalize::finalize(resource, &observed, context).await;
    }
    context.finalizer.ensure(resource, &observed).await?;
    // A Deployment that has just been written and is about to make pods: a watch that is late shows it without any, and
    // another version would begin beside them.
    context.applier.complete(resource, &mut observed);
    let before = context.report.before(resource);
    let (mut observed, mut plan) = decide(resource, &before, observed, context).await?;
    let applied = match &plan.rollout {
        Ok(rollout) => roll_out(resource, rollout, &before, context).await,
        Err(rejection) => Err(rejection.clone().into()),
    };
    let outcome = match &applied {
        Ok(applied) => Ok(applied.clone()),
        Err(error) => match error.rejection() {
            Some(rejection) => {
                plan = plan.rejected(rejection.clone(), &before);
                Err(rejection)
            }
            None => return applied.map(|_| Action::await_change()),
        },
    };
    context.applier.complete(resource, &mut observed);
    // What an ended run has left goes before the status says that the run has ended: nobody looks for it afterwards.
    if plan.requests.remove_ha_data {
        context.finalizer.delete_ended(resource).await?;
    }
    // Requests come after the status that announces them: an operator that has been replaced in the meantime fails to
    // write the status, and so it does not ask the leader for anything that its successor does not know.
    let look_again =
        context.report.report(resource, &plan.desired, &observed, &outcome, context.failing_since(resource)).await?;
    context.asker.ask(resource, &plan.requests, &context.report).await?;
    let written = plan.rollout.as_ref().ok().and_then(|rollout| context.applier.look_again(&rollout.objects));
    let look_again = look_again.into_iter().chain(plan.look_again).chain(waits(&outcome)).chain(written).min();
    match applied {
        Ok(_) | Err(Error::Rejected(_)) => Ok(look_again.map_or_else(Action::await_change, Action::requeue)),
        Err(failed) => Err(Error::Shown(Box::new(failed))),
    }
}

/// Reports on a paused resource, whose deletion waits too.
async fn report_only(resource: &FlinkHaCluster, observed: &Observed, context: &Context) -> Result<Action, Error> {
    let before = context.report.before(resource);
    let gateway_image = before.gateway_image.clone().unwrap_or_default();
    let outcome = Ok(Applied { gateway_image, objects: before.applied.clone(), turn: None });
    let (desired, failing_since) = (Desired::kept(resource, &before), context.failing_since(resource));
    let look_again = context.report.report(resource, &desired, observed, &outcome, failing_since).await?;
    Ok(look_again.map_or_else(Action::await_change, Action::requeue))
}

/// Looks up what the caches do not show until the plan rests on all that it needs, and returns both.
async fn decide(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    mut observed: Observed,
    context: &Context,
) -> Result<(Observed, Reconciliation), Error> {
    loop {
        match plan(resource, before, &observed, &context.environment, Timestamp::now()) {
            Ok(plan) => return Ok((observed, plan)),
            Err(lookup) => {
                context.lookups.complete(lookup, resource, before, &context.prover, &mut observed).await?;
            }
        }
    }
}

/// When a roll-out that waits for its turn asks again.
fn waits(outcome: &Result<Applied, Rejection>) -> Option<Duration> {
    match outcome.as_ref().ok()?.turn.as_ref()? {
        Turn::Waits(waits) => Some(waits.look_again),
        Turn::Begins | Turn::Continues => None,
    }
}

/// Tries again, soon at first and then ever later. What does not go away is in the log, in the metrics and in the
/// status.
pub fn on_error(resource: Arc<FlinkHaCluster>, error: &Error, context: Arc<Context>) -> Action {
    let delay = context.failed(&resource);
    let (cluster, namespace, error) = (resource.name_any(), resource.namespace(), chain(error));
    tracing::warn!(cluster, namespace, error, ?delay, "failed to reconcile; trying again");
    Action::requeue(delay)
}
