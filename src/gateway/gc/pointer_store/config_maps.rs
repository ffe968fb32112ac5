//! Stores pointers in the keys of HA ConfigMaps.

use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::checkpoint::LastCheckpoint;
use super::snapshots::Snapshots;
use crate::api::names;
use crate::flink::job_id::JobId;
use crate::flink::{ha_data, pointer};
use crate::gateway::tenure::Tenures;
use crate::ha_data::inventory::Inventory;
use crate::lease::stamp::{relation, version};
use crate::lease::term::{Relation, Term};
use crate::world::list_items;

/// The HA ConfigMaps of this cluster.
#[derive(Clone)]
pub struct ConfigMaps {
    pub client: Client,
    pub namespace: String,
    /// Flink's `kubernetes.cluster-id`.
    pub cluster_id: String,
    /// Name of the FlinkHaCluster.
    pub cluster: String,
    pub tenures: Arc<Tenures>,
    /// The objects that the JVM has written through the proxy.
    pub snapshots: Arc<Snapshots>,
}

impl ConfigMaps {
    pub(super) async fn inventory(&self, term: &Term) -> anyhow::Result<Option<Inventory>> {
        let id = &self.cluster_id;
        let list = ListParams::default().labels(&ha_data::selector(id));
        let request = Request::new(ConfigMap::url_path(&(), Some(self.namespace.as_str()))).list(&list)?;
        let (name, mut stamped, mut inventory) = (names::cluster_config_map(id), false, Inventory::default());
        let add = |one: Value| {
            stamped |= one["metadata"]["name"] == name && relation(&one, term).0 == Relation::Same;
            inventory.add(id, &one);
        };
        list_items::for_each(&self.client, request, add).await.context("failed to list the HA ConfigMaps")?;
        Ok(stamped.then_some(inventory))
    }

    pub(super) fn unreadable(&self, inventory: &Inventory) -> Vec<String> {
        inventory.unreadable(&self.cluster_id)
    }

    /// Removes exactly the object that this term has stamped.
    pub(super) async fn remove_run(&self, job: JobId, term: &Term) -> anyhow::Result<()> {
        self.remove(job, term).await.with_context(|| format!("failed to remove the ConfigMap of run {job}"))
    }

    async fn remove(&self, job: JobId, term: &Term) -> anyhow::Result<()> {
        let name = names::job_config_map(&self.cluster_id, job.as_str());
        let Some(found) = self.api().get_metadata_opt(&name).await? else { return Ok(()) };
        anyhow::ensure!(
            relation(&serde_json::to_value(&found)?, term).0 == Relation::Same,
            "another term has stamped it"
        );
        let preconditions =
            Preconditions { uid: found.metadata.uid, resource_version: found.metadata.resource_version };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.api().delete(&name, &parameters).await.map(drop).map_err(Into::into)
    }

    pub(super) async fn last_checkpoint(&self, job: JobId) -> anyhow::Result<Option<LastCheckpoint>> {
        let name = names::job_config_map(&self.cluster_id, job.as_str());
        let found = self.api().get_opt(&name).await.context("failed to read the job's ConfigMap")?;
        let data = found.and_then(|found| found.data).unwrap_or_default();
        // The number in the key has a fixed width.
        let last = data.iter().filter(|(key, _)| ha_data::is_checkpoint(key)).max_by_key(|(key, _)| (*key).clone());
        Ok(last.map(|(_, pointer)| LastCheckpoint { metadata: pointer::file(pointer).ok() }))
    }

    /// Changes the cluster ConfigMap so that its data belongs to another version, and returns it as it is then.
    ///
    /// Safe: it changes only if it still has the resourceVersion that was read in this term.
    ///
    /// # Errors
    /// When somebody has written it meanwhile, or when the API server does not answer. The caller reads it again then.
    pub async fn take_over(&self, cluster: &Value, mut patch: Value) -> anyhow::Result<Value> {
        patch["metadata"]["resourceVersion"] = json!(version(cluster));
        let name = names::cluster_config_map(&self.cluster_id);
        let patched = self.api().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let mut value = serde_json::to_value(patched.context("failed to take over the cluster ConfigMap")?)?;
        (value["apiVersion"], value["kind"]) = (json!("v1"), json!("ConfigMap"));
        Ok(value)
    }

    pub(super) fn witnessed(&self) -> Vec<String> {
        self.tenures.witnessed()
    }

    pub(super) async fn lease_uid(&self) -> anyhow::Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = leases.get(&names::lease(&self.cluster)).await.context("failed to read the Lease")?;
        lease.metadata.uid.context("the Lease has no UID")
    }

    fn api(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
