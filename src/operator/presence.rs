//! Proves that all pods of a cluster are gone: asks the API server for what [`crate::cluster::presence`] needs. Watches
//! show labelled pods only, and may be late. So the operator asks when they show no pod and a next step depends on it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::error::Error;
use crate::api::FlinkHaCluster;
use crate::api::names;
use crate::api::v1alpha1::Provider;
use crate::cluster::observed::Observed;
use crate::cluster::presence::{Election, Found, Presence, presence};
use crate::lease::record::Record;

/// Makes the proof, and remembers how long Leases have stood unchanged.
pub struct Prover {
    client: Client,
    /// By the resource's UID.
    stood: Mutex<HashMap<String, Stood>>,
    /// Since when this process has waited, by the resource's UID.
    waits: Mutex<HashMap<String, Instant>>,
}

/// A version of a Lease that was read.
struct Stood {
    /// UID and resourceVersion.
    version: String,
    /// When the last answer with this version arrived.
    seen: Instant,
    /// Time for which it had stood until then, at least.
    total: Duration,
}

/// Longest interval between two answers that counts: during an outage of the API server no holder can renew.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Prover {
    pub fn new(client: Client) -> Self {
        Self { client, stood: Mutex::default(), waits: Mutex::default() }
    }

    /// Looks for pods of these components, and for a process that holds the Lease without a pod.
    ///
    /// # Errors
    /// When a request fails; nothing is known then.
    pub async fn prove(
        &self,
        resource: &FlinkHaCluster,
        observed: &Observed,
        components: &[&str],
    ) -> Result<Presence, Error> {
        let failed = |error| Error::request("look for pods of", resource)(error);
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let mut found = Vec::new();
        for component in components {
            let account = names::service_account(&name, component);
            let all = ListParams::default().fields(&format!("spec.serviceAccountName={account}"));
            let all = pods.list_metadata(&all).await.map_err(failed)?;
            found.extend(Found::among(&name, component, all.iter().map(|pod| &pod.metadata)));
        }
        if resource.spec.high_availability.provider == Provider::ZooKeeper {
            let record = observed.lease.as_deref().map(Record::of).unwrap_or_default();
            return Ok(presence(found, Election::Quorum(&record)));
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace);
        let asked = Instant::now();
        let Some(lease) = leases.get_opt(&names::lease(&name)).await.map_err(failed)? else {
            return Ok(presence(found, Election::Absent));
        };
        let stood = self.stood(resource, &lease, asked);
        Ok(presence(found, Election::Lease { record: &Record::of(&lease), stood }))
    }

    /// Returns the time for which this version of the Lease has stood, at least: the sum of the intervals from each
    /// answer that showed it to the next question.
    fn stood(&self, resource: &FlinkHaCluster, lease: &Lease, asked: Instant) -> Duration {
        let version = format!("{}/{}", lease.uid().unwrap_or_default(), lease.resource_version().unwrap_or_default());
        let mut all = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        let key = resource.uid().unwrap_or_default();
        let before = all.get(&key).filter(|before| before.version == version);
        let more = |before: &Stood| before.total + asked.saturating_duration_since(before.seen).min(LONGEST_PAUSE);
        let total = before.map_or(Duration::ZERO, more);
        all.insert(key, Stood { version, seen: Instant::now(), total });
        total
    }

    /// Returns the time for which this process has waited for the pods of a resource that is being deleted.
    pub fn waited(&self, resource: &FlinkHaCluster) -> Duration {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.entry(resource.uid().unwrap_or_default()).or_insert_with(Instant::now).elapsed()
    }

    /// Forgets a removed resource.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let uid = resource.uid().unwrap_or_default();
        self.stood.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}
