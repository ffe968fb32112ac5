//! What a decision that begins something rests on, from the API server itself: a cache shows only what carries our
//! label, and it may be late. Read before the first decision about an application, and while the cache knows no ledger
//! of it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::error::Error;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, CLUSTER_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::Provider;
use crate::cluster::cause::Cause;
use crate::cluster::observed::{LedgerData, Observed, ObservedConfigMap};
use crate::ha_data::foreign;
use crate::ha_data::handover::Stored;

/// Reads what the caches may not show.
pub struct FirstLook {
    client: Client,
}

impl FirstLook {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Completes what has been observed, if that is needed. A cause: what is stored cannot be understood, and nothing
    /// may begin.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn complete(
        &self,
        resource: &FlinkHaCluster,
        before: &FlinkHaClusterStatus,
        observed: &mut Observed,
    ) -> Result<Option<Cause>, Error> {
        let first = before.application.is_none();
        if resource.spec.job.is_none() || (!first && observed.ledger.is_some()) {
            return Ok(None);
        }
        // One that is gone since is in the cache for a moment longer.
        observed.ledger = None;
        self.read_ledger(resource, observed).await?;
        if first && resource.spec.high_availability.provider == Provider::Kubernetes {
            let config_maps: Api<ConfigMap> =
                Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
            let cluster = names::cluster_config_map(&names::kubernetes_cluster_id(&resource.name_any()));
            let found = config_maps.get_opt(&cluster).await.map_err(Error::request("read the HA data of", resource))?;
            match found.map(|found| Stored::in_config_map(&json!(found))).transpose() {
                Ok(stored) => observed.stored = stored,
                Err(refusal) => return Ok(Some(refusal.into())),
            }
        }
        Ok(None)
    }

    /// Reads the ledger; absent, it stays what the cache has. One without our label gets it.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn read_ledger(&self, resource: &FlinkHaCluster, observed: &mut Observed) -> Result<(), Error> {
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let ledgers: Api<ObservedConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        // Without a resourceVersion: a quorum read.
        let found =
            ledgers.get_opt(&names::ledger(&name)).await.map_err(Error::request("read the ledger of", resource))?;
        let Some(ledger) = found else { return Ok(()) };
        if is_ours(&ledger.data) && !foreign::is_labelled(&ledger.metadata, &name) {
            // What the watches do not see is not seen when it changes either.
            let labels = json!({ MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: name });
            let patch =
                json!({ "metadata": { "resourceVersion": ledger.metadata.resource_version, "labels": labels } });
            let patched = ledgers.patch(&names::ledger(&name), &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.map_err(Error::request("label the ledger of", resource))?;
        }
        observed.ledger = Some(Arc::new(ledger));
        Ok(())
    }
}

/// It says something that a gateway of ours has written. What cannot be read is left as it is.
fn is_ours(data: &LedgerData) -> bool {
    data.unreadable.is_empty() && (data.application.is_some() || data.ha_data.is_some() || !data.jobs.is_empty())
}
