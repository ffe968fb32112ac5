//! What a decision that begins something rests on, from the API server itself: a cache shows only what carries our
//! label, and it may be late. [`crate::cluster::plan`] says when.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::error::Error;
use super::presence::{Prover, Which};
use crate::api::FlinkHaCluster;
use crate::api::names::{self, CLUSTER_LABEL, JOB_MANAGER, MANAGED_BY, MANAGED_BY_LABEL, TASK_MANAGER};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::decided;
use crate::cluster::ledger_data::LedgerData;
use crate::cluster::observed::{Observed, ObservedConfigMap, StoredHaData};
use crate::cluster::plan::Lookup;
use crate::ha_data::foreign;
use crate::ha_data::handover::Stored;

/// Reads what the caches may not show.
pub struct Lookups {
    client: Client,
}

impl Lookups {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Looks one thing up, and completes what has been observed.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn complete(
        &self,
        lookup: Lookup,
        resource: &FlinkHaCluster,
        before: &FlinkHaClusterStatus,
        prover: &Prover,
        observed: &mut Observed,
    ) -> Result<(), Error> {
        match lookup {
            Lookup::Presence => {
                let components = [JOB_MANAGER, TASK_MANAGER];
                observed.presence = Some(prover.prove(resource, observed, &components, Which::Live).await?);
            }
            Lookup::Ledger => {
                let found = self.ledger(resource).await?;
                observed.complete_ledger(found, decided(before).is_none());
            }
            Lookup::StoredHaData => observed.stored = self.stored(resource).await?,
        }
        Ok(())
    }

    async fn stored(&self, resource: &FlinkHaCluster) -> Result<StoredHaData, Error> {
        let config_maps: Api<ConfigMap> =
            Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let cluster = names::cluster_config_map(&names::kubernetes_cluster_id(&resource.name_any()));
        let found = config_maps.get_opt(&cluster).await.map_err(Error::request("read the HA data of", resource))?;
        Ok(match found.map(|found| Stored::in_config_map(&json!(found))) {
            None => StoredHaData::Absent,
            Some(Ok(stored)) => StoredHaData::Found(stored),
            Some(Err(refusal)) => StoredHaData::Unreadable(refusal),
        })
    }

    /// Reads the ledger. One without our label gets it.
    async fn ledger(&self, resource: &FlinkHaCluster) -> Result<Option<Arc<ObservedConfigMap>>, Error> {
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let ledgers: Api<ObservedConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        // Without a resourceVersion: a quorum read.
        let found =
            ledgers.get_opt(&names::ledger(&name)).await.map_err(Error::request("read the ledger of", resource))?;
        let Some(ledger) = found else { return Ok(None) };
        if is_ours(&ledger.data) && !foreign::is_labelled(&ledger.metadata, &name) {
            // What the watches do not see is not seen when it changes either.
            let labels = json!({ MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: name });
            let patch =
                json!({ "metadata": { "resourceVersion": ledger.metadata.resource_version, "labels": labels } });
            let patched = ledgers.patch(&names::ledger(&name), &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.map_err(Error::request("label the ledger of", resource))?;
        }
        Ok(Some(Arc::new(ledger)))
    }
}

/// It says something that a gateway of ours has written. What cannot be read is left as it is.
fn is_ours(data: &LedgerData) -> bool {
    data.unreadable.is_empty() && (data.application.is_some() || data.ha_data.is_some() || !data.jobs.is_empty())
}
