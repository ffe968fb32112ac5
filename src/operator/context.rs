//! Holds what a reconciliation needs; the operator makes it once at its start.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube_runtime::reflector::ObjectRef;

use super::Arguments;
use super::apply::Applier;
use super::ask::Asker;
use super::finalize::Finalizer;
use super::lookup::Lookups;
use super::metrics::Metrics;
use super::observe::Caches;
use super::presence::Prover;
use super::report::Report;
use crate::api::FlinkHaCluster;
use crate::cluster::build::Environment;

const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(300);

/// Everything that a reconciliation needs.
pub struct Context {
    pub caches: Caches,
    pub applier: Applier,
    pub report: Report,
    pub finalizer: Finalizer,
    pub prover: Prover,
    pub asker: Asker,
    pub lookups: Lookups,
    pub environment: Environment,
    pub metrics: Metrics,
    /// After this time a deletion leaves what it cannot delete safely.
    pub deletion_deadline: Duration,
    /// Number of consecutive failures of the reconciliation of each resource.
    failures: Mutex<HashMap<ObjectRef<FlinkHaCluster>, u32>>,
}

impl Context {
    pub fn new(
        client: &Client,
        caches: Caches,
        environment: Environment,
        arguments: &Arguments,
        metrics: Metrics,
    ) -> Self {
        Self {
            caches,
            applier: Applier::new(client.clone()),
            report: Report::new(client.clone(), arguments.pod_name.clone()),
            finalizer: Finalizer::new(client.clone()),
            prover: Prover::new(client.clone()),
            asker: Asker::new(client.clone()),
            lookups: Lookups::new(client.clone()),
            environment,
            metrics,
            deletion_deadline: arguments.deletion_deadline,
            failures: Mutex::default(),
        }
    }

    /// Counts a failure, and returns the time until the next attempt, which grows with each consecutive failure.
    pub fn failed(&self, resource: &FlinkHaCluster) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = failures.entry(ObjectRef::from_obj(resource)).or_default();
        let delay = (FIRST_RETRY_DELAY * 2_u32.saturating_pow(*failed)).min(LONGEST_RETRY_DELAY);
        *failed = (*failed + 1).min(16);
        delay
    }

    /// Resets the count of failures.
    pub fn succeeded(&self, resource: &FlinkHaCluster) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&ObjectRef::from_obj(resource));
    }
}
