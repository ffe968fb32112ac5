//! One resource, from what is asked for to what is there: observe, validate, build, apply, report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use kube::{Client, ResourceExt};

use super::Error;
use super::apply::Applier;
use super::finalize::{self, Finalizer};
use super::metrics::Metrics;
use super::observe::{Caches, chain};
use super::report::Report;
use crate::api::FlinkHaCluster;
use crate::cluster::build::{self, Environment, Objects, job_manager};
use crate::cluster::cause::Cause;
use crate::cluster::observed::Observed;
use crate::cluster::status::Outcome;
use crate::cluster::validate::Problem;
use crate::cluster::{Cluster, rollout, validate};

/// What reconciling needs.
pub struct Context {
    pub caches: Caches,
    pub applier: Applier,
    pub report: Report,
    pub finalizer: Finalizer,
    pub environment: Environment,
    pub metrics: Metrics,
}

impl Context {
    pub fn new(client: &Client, caches: Caches, environment: Environment, instance: String, metrics: Metrics) -> Self {
        Self {
            caches,
            applier: Applier::new(client.clone()),
            report: Report::new(client.clone(), instance),
            finalizer: Finalizer::new(client.clone()),
            environment,
            metrics,
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
    result.map(|()| Action::await_change())
}

async fn steps(resource: &FlinkHaCluster, context: &Context) -> Result<(), Error> {
    let observed = context.caches.observe(&resource.namespace().unwrap_or_default(), &resource.name_any()); // client: no
    if resource.metadata.deletion_timestamp.is_some() {
        return finalize::finalize(resource, &observed, context).await; // client: yes
    }
    context.finalizer.ensure(resource).await?; // client: yes, once
    let outcome = match validate::validate(resource) {
        // client: no
        Ok(cluster) => apply(resource, &cluster, &observed, context).await?, // client: yes, when something differs
        Err(problems) => Outcome::Refused(refusal(&problems)),
    };
    context.report.report(resource, &observed, &outcome).await // client: yes, when something is new
}

async fn apply(resource: &FlinkHaCluster, cluster: &Cluster, observed: &Observed, context: &Context) -> Result<Outcome, Error> {
    let pinned = context.report.before(resource).gateway_image;
    let objects = build_pinned(cluster, pinned.as_deref(), observed, &context.environment);
    Ok(match context.applier.apply(&objects.1, &context.caches).await? {
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

/// Tries again soon. Conflicts and outages are normal; what does not go away is in the log and in the metrics.
pub fn on_error(resource: Arc<FlinkHaCluster>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!(cluster = resource.name_any(), namespace = resource.namespace(), error = %chain(error), "failed to reconcile; trying again");
    Action::requeue(Duration::from_secs(5))
}
