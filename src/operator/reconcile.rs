//! Reconciles one resource: observe, plan, apply, ask, report. [`crate::cluster::plan`] makes the decisions; this
//! module carries them out.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use kube::ResourceExt;
use kube_runtime::controller::Action;

use super::context::Context;
use super::error::Error;
use super::finalize;
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::observed::Observed;
use crate::cluster::plan::{Reconciliation, Rollout, plan};
use crate::cluster::status::Applied;
use crate::world::error_text::chain;

/// Brings one cluster closer to its desired state. What it waits for arrives as a watch event.
///
/// # Errors
/// When a request fails; [`on_error`] retries.
pub async fn reconcile(resource: Arc<FlinkHaCluster>, context: Arc<Context>) -> Result<Action, Error> {
    let begin = Instant::now();
    let result = steps(&resource, &context).await;
    context.metrics.reconciled(result.is_ok(), begin.elapsed());
    if result.is_ok() {
        context.succeeded(&resource);
    }
    result
}

async fn steps(resource: &FlinkHaCluster, context: &Context) -> Result<Action, Error> {
    let observed = context.caches.observe(&resource.namespace().unwrap_or_default(), &resource.name_any());
    if resource.metadata.deletion_timestamp.is_some() {
        return finalize::finalize(resource, &observed, context).await;
    }
    context.finalizer.ensure(resource, &observed).await?;
    let before = context.report.before(resource);
    let (observed, mut plan) = decide(resource, &before, observed, context).await?;
    let applied = match &plan.rollout {
        Ok(rollout) => apply(resource, rollout, context).await,
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
    context.asker.ask(resource, &plan.requests, &context.report, &context.finalizer).await?;
    context.report.report(resource, &plan.desired, &observed, &outcome).await?;
    match applied {
        Ok(_) | Err(Error::Rejected(_)) => Ok(plan.look_again.map_or_else(Action::await_change, Action::requeue)),
        // It is on the resource now, and tried again.
        Err(failed) => Err(failed),
    }
}

/// Looks up what the caches do not show until the plan has everything that it needs. Returns both.
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

/// Applies the objects, and publishes an event if that replaces pods.
async fn apply(resource: &FlinkHaCluster, rollout: &Rollout, context: &Context) -> Result<Applied, Error> {
    context.applier.apply(&resource.name_any(), rollout, &context.caches).await?;
    if let Some(note) = &rollout.note {
        context.report.publish(resource, note).await;
    }
    Ok(Applied { gateway_image: rollout.gateway_image.clone() })
}

/// Retries, soon at first and then with growing delay. A failure that lasts is in the log, in the metrics and in the
/// status.
pub fn on_error(resource: Arc<FlinkHaCluster>, error: &Error, context: Arc<Context>) -> Action {
    let delay = context.failed(&resource);
    let (cluster, namespace, error) = (resource.name_any(), resource.namespace(), chain(error));
    tracing::warn!(cluster, namespace, error, ?delay, "failed to reconcile; trying again");
    Action::requeue(delay)
}
