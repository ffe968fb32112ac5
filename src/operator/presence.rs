//! Proving that all pods of a cluster are gone: what [`crate::cluster::presence`] decides by, asked of the API server
//! itself. Watches show labelled pods only, and may be late; so this is asked when they show none and something is
//! about to go on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::error::Error;
use super::kinds::PodOwners;
use super::pages::for_each;
use super::received::Received;
use crate::api::FlinkHaCluster;
use crate::api::names;
use crate::api::v1alpha1::Provider;
use crate::cluster::observed::Observed;
use crate::cluster::presence::{ElectionEvidence, Found, Presence, presence};
use crate::lease::record::Record;
use crate::lease::unchanged::Unchanged;

/// Proves, and remembers for how long Leases have stood still.
pub struct Prover {
    client: Client,
    /// Times of `stood` count from here.
    begin: Instant,
    /// By the resource's UID.
    stood: Mutex<HashMap<String, Unchanged>>,
    /// Since when this process has waited, by the resource's UID.
    waits: Mutex<HashMap<String, Instant>>,
}

/// Time between two answers counts only so far: in an outage of the API server no holder can renew.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Which pods count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All: data is removed next, and the phase of a pod is no proof.
    All,
    /// Those whose containers may run: what comes next is fenced from a process that the phase does not tell of. It
    /// holds or takes the Lease, by which it is seen here, or the latch in ZooKeeper, without which nobody else leads.
    Live,
}

impl Which {
    /// To follow another field selector.
    fn selector(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Live => ",status.phase!=Failed,status.phase!=Succeeded",
        }
    }
}

impl Prover {
    pub fn new(client: Client) -> Self {
        Self { client, begin: Instant::now(), stood: Mutex::default(), waits: Mutex::default() }
    }

    /// Looks for pods of these components, and for a process that holds the Lease without a pod.
    ///
    /// # Errors
    /// When a request fails: then nothing is known.
    pub async fn prove(
        &self,
        resource: &FlinkHaCluster,
        observed: &Observed,
        components: &[&str],
        which: Which,
    ) -> Result<Presence, Error> {
        let failed = |error| Error::request("look for pods of", resource)(error);
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let pods: Api<Received<PodOwners>> = Api::namespaced(self.client.clone(), &namespace);
        let mut found = Vec::new();
        for component in components {
            let account = names::service_account(&name, component);
            let all = ListParams::default().fields(&format!("spec.serviceAccountName={account}{}", which.selector()));
            let take = |pod: PodOwners| found.extend(Found::among(&name, component, std::iter::once(&pod.metadata)));
            for_each(&pods, all, take).await.map_err(failed)?;
        }
        if resource.spec.high_availability.provider == Provider::ZooKeeper {
            let record = observed.lease.as_deref().map(Record::of).unwrap_or_default();
            return Ok(presence(found, ElectionEvidence::Quorum(&record)));
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace);
        let asked = Instant::now();
        let Some(lease) = leases.get_opt(&names::lease(&name)).await.map_err(failed)? else {
            return Ok(presence(found, ElectionEvidence::Absent));
        };
        let stood = self.stood(resource, &lease, asked);
        Ok(presence(found, ElectionEvidence::Lease { record: &Record::of(&lease), stood }))
    }

    /// For how long this version of the Lease has stood, at the least.
    fn stood(&self, resource: &FlinkHaCluster, lease: &Lease, asked: Instant) -> Duration {
        let version = format!("{}/{}", lease.uid().unwrap_or_default(), lease.resource_version().unwrap_or_default());
        let asked = asked.saturating_duration_since(self.begin);
        let mut all = self.stood.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = all.entry(resource.uid().unwrap_or_default()).or_insert_with(|| Unchanged::new(LONGEST_PAUSE));
        unchanged.read(asked, self.begin.elapsed(), Some(&version))
    }

    /// For how long this process has waited for the pods of a resource that is being deleted.
    pub fn waited(&self, resource: &FlinkHaCluster) -> Duration {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.entry(resource.uid().unwrap_or_default()).or_insert_with(Instant::now).elapsed()
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let uid = resource.uid().unwrap_or_default();
        self.stood.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}
