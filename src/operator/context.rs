//! What reconciling needs, made once when the operator starts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube_runtime::reflector::ObjectRef;

use super::apply::Applier;
use super::ask::Asker;
use super::backlog::Backlog;
use super::claims::Claims;
use super::finalizer::Finalizer;
use super::lookup::Lookups;
use super::metrics::Metrics;
use super::observe::Caches;
use super::presence::Prover;
use super::report::Report;
use super::resources::ClusterResources;
use super::turns::Turns;
use super::warnings::Warnings;
use crate::api::FlinkHaCluster;
use crate::cluster::build::Environment;
use crate::cluster::status::TOLERANCE;

const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(300);

/// Failures in a row.
struct Failures {
    count: u32,
    since: Timestamp,
}

impl Failures {
    fn begin() -> Self {
        Self { count: 0, since: Timestamp::now() }
    }
}

/// What this operator is.
pub struct Own {
    /// `<namespace>/<Lease>`; `None` without an election.
    pub operator: Option<String>,
    pub pod: String,
    pub deletion_deadline: Duration,
}

/// What reconciling needs.
pub struct Context {
    pub caches: Caches,
    pub resources: Arc<ClusterResources>,
    pub claims: Claims,
    pub applier: Applier,
    pub report: Report,
    pub finalizer: Finalizer,
    pub prover: Prover,
    pub asker: Asker,
    pub lookups: Lookups,
    pub warnings: Warnings,
    pub environment: Environment,
    pub metrics: Metrics,
    /// What an operator that starts has not looked at yet.
    pub backlog: Arc<Backlog>,
    /// Who is replaced when the operator itself wants to replace pods.
    pub turns: Turns,
    /// After this time a deletion leaves what it cannot delete safely.
    pub deletion_deadline: Duration,
    /// How often in a row reconciling has failed.
    failures: Mutex<HashMap<ObjectRef<FlinkHaCluster>, Failures>>,
}

impl Context {
    pub fn new(
        client: &Client,
        caches: Caches,
        environment: Environment,
        own: Own,
        metrics: Metrics,
        turns: Turns,
    ) -> Self {
        let resources = Arc::new(ClusterResources::new(client.clone(), caches.clusters.clone()));
        Self {
            caches,
            applier: Applier::new(client.clone()),
            report: Report::new(client.clone(), Arc::clone(&resources), own.pod),
            finalizer: Finalizer::new(client.clone(), Arc::clone(&resources)),
            prover: Prover::new(client.clone()),
            asker: Asker::new(client.clone(), Arc::clone(&resources)),
            claims: Claims::new(client.clone(), Arc::clone(&resources), own.operator),
            resources,
            lookups: Lookups::new(client.clone()),
            warnings: Warnings::new(client.clone()),
            environment,
            metrics,
            backlog: Arc::default(),
            turns,
            deletion_deadline: own.deletion_deadline,
            failures: Mutex::default(),
        }
    }

    /// Counts a failure, and returns how long to wait before the next try: longer after each failure in a row.
    pub fn failed(&self, resource: &FlinkHaCluster) -> Duration {
        self.delay(resource, FIRST_RETRY_DELAY)
    }

    /// Counts a decision that rested on an old version. The first is made again at once, because others write too.
    pub fn outdated(&self, resource: &FlinkHaCluster) -> Duration {
        self.delay(resource, FIRST_RETRY_DELAY / 20)
    }

    fn delay(&self, resource: &FlinkHaCluster, first: Duration) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.entry(ObjectRef::from_obj(resource)).or_insert_with(Failures::begin);
        let delay = (first * 2_u32.saturating_pow(failed.count)).min(LONGEST_RETRY_DELAY);
        failed.count = (failed.count + 1).min(16);
        delay
    }

    /// Returns the time of the first failure, once the resource shows that it is not reconciled.
    pub fn failing_since(&self, resource: &FlinkHaCluster) -> Option<Timestamp> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failures.get(&ObjectRef::from_obj(resource))?.since;
        (Timestamp::now().duration_since(since) >= TOLERANCE).then_some(since)
    }

    /// Forgets the failures until now. Returns whether the resource shows them.
    pub fn succeeded(&self, resource: &FlinkHaCluster) -> bool {
        let is_shown = self.failing_since(resource).is_some();
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&ObjectRef::from_obj(resource));
        is_shown
    }
}
