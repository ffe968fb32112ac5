//! One resource, from what is asked for to what is there: observe, validate, build, apply, report.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};

use super::Error;
use super::application::Applications;
use super::apply::Applier;
use super::finalize::{self, Finalizer};
use super::metrics::Metrics;
use super::observe::{Caches, chain};
use super::report::Report;
use super::switchover::Switchover;
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::Course;
use crate::cluster::build::{self, Environment, Objects, job_manager};
use crate::cluster::cause::Cause;
use crate::cluster::observed::Observed;
use crate::cluster::status::Outcome;
use crate::cluster::validate::Problem;
use crate::cluster::{Cluster, foreign, rollout, validate};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Between looks at objects of others that are in the way.
const OTHERS: Duration = Duration::from_secs(30);

/// What reconciling needs.
pub struct Context {
    pub caches: Caches,
    pub applier: Applier,
    pub report: Report,
    pub finalizer: Finalizer,
    pub switchover: Switchover,
    pub applications: Applications,
    pub environment: Environment,
    pub metrics: Metrics,
    /// How often in a row reconciling has failed.
    failures: Mutex<HashMap<ObjectRef<FlinkHaCluster>, u32>>,
}

impl Context {
    pub fn new(client: &Client, caches: Caches, environment: Environment, instance: String, metrics: Metrics) -> Self {
        Self {
            caches,
            applier: Applier::new(client.clone()),
            report: Report::new(client.clone(), instance),
            finalizer: Finalizer::new(client.clone()),
            switchover: Switchover::new(client.clone()),
            applications: Applications::new(client.clone()),
            environment,
            metrics,
            failures: Mutex::default(),
        }
    }
}

/// Brings one cluster closer to what its resource asks for. Whatever it waits for comes back as a watch event.
///
/// # Errors
/// When a request fails; [`on_error`] tries again.
pub async fn reconcile(resource: Arc<FlinkHaCluster>, context: Arc<Context>) -> Result<Action, Error> {
    let begin = Instant::now();
    let result = steps(&resource, &context).await;
    context.metrics.reconciled(result.is_ok(), begin.elapsed());
    if result.is_ok() {
        context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&ObjectRef::from_obj(&*resource));
    }
    result
}

async fn steps(resource: &FlinkHaCluster, context: &Context) -> Result<Action, Error> {
    let observed = context.caches.observe(&resource.namespace().unwrap_or_default(), &resource.name_any()); // client: no
    if resource.metadata.deletion_timestamp.is_some() {
        return finalize::finalize(resource, &observed, context).await; // client: yes
    }
    context.finalizer.ensure(resource).await?; // client: yes, once
    let before = context.report.before(resource);
    let mut course = Course::of(resource, &before, &observed, Timestamp::now()); // client: no
    let applied = match validate::validate(resource) {
        // client: no
        Ok(cluster) => {
            let cluster = Cluster { spec: course.spec.clone(), run: course.run(), ..cluster };
            apply(resource, &course, &before, &cluster, &observed, context).await // client: yes, when something differs
        }
        Err(problems) => Ok(Outcome::Refused(refusal(&problems))),
    };
    let outcome = match &applied {
        Ok(outcome) => outcome.clone(),
        Err(error) if error.is_lasting() => Outcome::Refused(Cause { reason: "ApplyFailed", message: chain(error) }),
        Err(_) => return applied.map(|_| Action::await_change()),
    };
    if let Outcome::Refused(_) = outcome {
        course = course.held(&before); // client: no
    }
    context.switchover.pass_on(resource, &observed, &context.report).await?; // client: yes, when one is asked for
    context.applications.carry_out(resource, &course, &observed, context).await?; // client: yes, when something is decided
    context.report.report(resource, &course, &observed, &outcome).await?; // client: yes, when something is new
    let wake = course.decision.and_then(|decision| decision.wake);
    // No watch tells that what is another's has gone.
    let wake = wake.or_else(|| matches!(&outcome, Outcome::Refused(cause) if foreign::is_in_the_way(cause)).then_some(OTHERS));
    applied.map(|_| wake.map_or_else(Action::await_change, Action::requeue))
}

async fn apply(
    resource: &FlinkHaCluster,
    course: &Course,
    before: &FlinkHaClusterStatus,
    cluster: &Cluster,
    observed: &Observed,
    context: &Context,
) -> Result<Outcome, Error> {
    if course.stops(before) {
        // What is to come is tried before anything goes.
        let wanted = build::build(&Cluster { spec: resource.spec.clone(), ..cluster.clone() }, &context.environment);
        if let Some(refused) = context.applier.refuses(&wanted, &context.caches).await? {
            return Ok(Outcome::Refused(refused));
        }
    }
    let pinned = before.gateway_image.as_deref();
    let objects = build_pinned(cluster, pinned, observed, &context.environment);
    Ok(match context.applier.apply(&cluster.name, &objects.1, &context.caches).await? {
        None => Outcome::Applied { gateway_image: objects.0 },
        Some(cause) => Outcome::Refused(cause),
    })
}

/// Builds with the gateway's image that is right for this cluster, and returns both.
fn build_pinned(cluster: &Cluster, pinned: Option<&str>, observed: &Observed, environment: &Environment) -> (String, Objects) {
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

fn refusal(problems: &[Problem]) -> Cause {
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Cause { reason: "InvalidSpec", message }
}

/// Tries again, soon at first and then ever later. What does not go away is in the log, in the metrics and in the status.
pub fn on_error(resource: Arc<FlinkHaCluster>, error: &Error, context: Arc<Context>) -> Action {
    let mut failures = context.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = failures.entry(ObjectRef::from_obj(&*resource)).or_default();
    let delay = (FIRST_RETRY * 2_u32.saturating_pow(*failed)).min(LAST_RETRY);
    *failed = (*failed + 1).min(16);
    let (cluster, namespace, error) = (resource.name_any(), resource.namespace(), chain(error));
    tracing::warn!(cluster, namespace, error, ?delay, "failed to reconcile; trying again");
    Action::requeue(delay)
}
