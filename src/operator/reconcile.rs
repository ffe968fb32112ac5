//! One resource, from what is asked for to what is there: observe, validate, build, apply, report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube_runtime::controller::Action;

use super::context::Context;
use super::error::Error;
use super::finalize;
use crate::api::names::{JOB_MANAGER, TASK_MANAGER};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec};
use crate::cluster::application::{Desired, waits_for_pods};
use crate::cluster::build::{self, Environment, Objects, job_manager};
use crate::cluster::cause::Cause;
use crate::cluster::observed::Observed;
use crate::cluster::status::Outcome;
use crate::cluster::validate::Problem;
use crate::cluster::{Cluster, rollout, stored, validate};
use crate::ha_data::foreign;
use crate::world::error_text::chain;

/// While what is stored cannot be read.
const UNKNOWN: Duration = Duration::from_secs(30);
/// Pods that no watch shows are looked for so often, while something waits for them to be gone.
const NEXT_LOOK: Duration = Duration::from_secs(5);
/// Between looks at objects of others that are in the way.
const OTHERS: Duration = Duration::from_secs(30);

/// Brings one cluster closer to what its resource asks for. Whatever it waits for comes back as a watch event.
///
/// # Errors
/// When a request fails; [`on_error`] tries again.
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
    // client: no
    let mut observed = context.caches.observe(&resource.namespace().unwrap_or_default(), &resource.name_any());
    if resource.metadata.deletion_timestamp.is_some() {
        return finalize::finalize(resource, &observed, context).await; // client: yes
    }
    context.finalizer.ensure(resource, &observed).await?; // client: yes, once
    let before = context.report.before(resource);
    // client: yes, before the first decision
    let unknown = context.first_look.complete(resource, &before, &mut observed).await?;
    if waits_for_pods(before.application.as_ref()) && observed.is_still(Timestamp::now()) {
        // client: yes, while an application waits for its pods to be gone
        let proven = context.prover.prove(resource, &observed, &[JOB_MANAGER, TASK_MANAGER]).await?;
        observed.presence = Some(proven);
    }
    let mut desired = Desired::of(resource, &before, &observed, Timestamp::now()); // client: no
    if desired.changes_run(&before) {
        // By a ledger that is late, a run would be gone back to in whose place another one has begun.
        context.first_look.read_ledger(resource, &mut observed).await?; // client: yes, when another run is decided on
        desired = Desired::of(resource, &before, &observed, Timestamp::now());
    }
    let undecided = unknown.or_else(|| desired.undecided.clone());
    let waits = undecided.is_some();
    let applied = match (validate::validate(resource), undecided) {
        // client: no
        (Ok(_), Some(cause)) => Ok(Outcome::Refused(cause)),
        (Ok(cluster), None) => match stored::left_behind(&resource.spec, deployed(&before).as_ref(), &observed) {
            Some(refused) => Ok(Outcome::Refused(refused)),
            None => {
                let cluster = Cluster { spec: desired.spec.clone(), run: desired.run(), ..cluster };
                // client: yes, when something differs
                apply(resource, &desired, &before, &cluster, &observed, context).await
            }
        },
        (Err(problems), _) => Ok(Outcome::Refused(refusal(&problems))),
    };
    let outcome = match &applied {
        Ok(outcome) => outcome.clone(),
        Err(error) if error.is_lasting() => Outcome::Refused(Cause { reason: "ApplyFailed", message: chain(error) }),
        Err(_) => return applied.map(|_| Action::await_change()),
    };
    if let Outcome::Refused(_) = outcome {
        desired = desired.frozen(&before); // client: no
    }
    context.switchover.pass_on(resource, &observed, &context.report).await?; // client: yes, when one is asked for
    // client: yes, when something is decided
    context.applications.carry_out(resource, &desired, &observed, context).await?;
    context.report.report(resource, &desired, &observed, &outcome).await?; // client: yes, when something is new
    let look = waits_for_pods(desired.application()).then_some(NEXT_LOOK);
    // No watch tells of a ledger without our label.
    let unknown = waits.then_some(UNKNOWN);
    // No watch tells that what is another's has gone.
    let others = matches!(&outcome, Outcome::Refused(cause) if foreign::is_in_the_way(cause.reason)).then_some(OTHERS);
    let wakes =
        desired.decision.and_then(|decision| decision.wake).into_iter().chain(look).chain(unknown).chain(others);
    let wake = wakes.min();
    applied.map(|_| wake.map_or_else(Action::await_change, Action::requeue))
}

async fn apply(
    resource: &FlinkHaCluster,
    desired: &Desired,
    before: &FlinkHaClusterStatus,
    cluster: &Cluster,
    observed: &Observed,
    context: &Context,
) -> Result<Outcome, Error> {
    if desired.begins_stop(before) {
        // What is to come is tried before anything goes.
        let wanted = build::build(&Cluster { spec: resource.spec.clone(), ..cluster.clone() }, &context.environment);
        if let Some(refused) = context.applier.refuses(&wanted, &context.caches).await? {
            return Ok(Outcome::Refused(refused));
        }
    }
    let pinned = before.gateway_image.as_deref();
    let objects = build_pinned(cluster, pinned, observed, &context.environment);
    let (own, digest) = (&context.environment.gateway_image, job_manager::digest_of(&objects.1.job_managers));
    let live = observed.job_manager_deployment.as_deref();
    let replaced = rollout::replaced_by_operator(before, resource.metadata.generation, live, digest, own);
    Ok(match context.applier.apply(&cluster.name, &objects.1, &context.caches).await? {
        None => {
            if let Some(news) = replaced {
                context.report.publish(resource, &news).await;
            }
            Outcome::Applied { gateway_image: objects.0 }
        }
        Some(cause) => Outcome::Refused(cause),
    })
}

/// Builds with the gateway's image that is right for this cluster, and returns both.
fn build_pinned(
    cluster: &Cluster,
    pinned: Option<&str>,
    observed: &Observed,
    environment: &Environment,
) -> (String, Objects) {
    let objects = build::build(cluster, environment);
    let template = job_manager::digest_of(&objects.job_managers);
    let live = observed.job_manager_deployment.as_deref();
    let image = rollout::gateway_image(pinned, live, template, &environment.gateway_image).to_owned();
    if image == environment.gateway_image {
        return (image, objects);
    }
    let environment = Environment { gateway_image: image.clone(), ..environment.clone() };
    (image, build::build(cluster, &environment))
}

/// What an application's pods were made from last.
fn deployed(before: &FlinkHaClusterStatus) -> Option<FlinkHaClusterSpec> {
    serde_json::from_str(&before.application.as_ref()?.deployed).ok()
}

fn refusal(problems: &[Problem]) -> Cause {
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Cause { reason: "InvalidSpec", message }
}

/// Tries again, soon at first and then ever later. What does not go away is in the log, in the metrics and in the
/// status.
pub fn on_error(resource: Arc<FlinkHaCluster>, error: &Error, context: Arc<Context>) -> Action {
    let delay = context.failed(&resource);
    let (cluster, namespace, error) = (resource.name_any(), resource.namespace(), chain(error));
    tracing::warn!(cluster, namespace, error, ?delay, "failed to reconcile; trying again");
    Action::requeue(delay)
}
