//! Stores pointers in the keys of HA ConfigMaps.

use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde_json::{Map, Value, json};

use super::checkpoint::LastCheckpoint;
use super::snapshots::Snapshots;
use crate::api::names::{self, ANY_POD, SWITCHOVER_ANNOTATION};
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
    pub(super) async fn stored_now(&self) -> anyhow::Result<Inventory> {
        self.read(|_| ()).await
    }

    pub(super) async fn inventory(&self, term: &Term) -> anyhow::Result<Option<Inventory>> {
        let (name, mut stamped) = (names::cluster_config_map(&self.cluster_id), false);
        let see = |one: &Value| stamped |= one["metadata"]["name"] == name && relation(one, term).0 == Relation::Same;
        let inventory = self.read(see).await?;
        Ok(stamped.then_some(inventory))
    }

    async fn read(&self, mut see: impl FnMut(&Value)) -> anyhow::Result<Inventory> {
        let (id, mut inventory) = (&self.cluster_id, Inventory::default());
        let list = ListParams::default().labels(&ha_data::selector(id));
        let request = Request::new(ConfigMap::url_path(&(), Some(self.namespace.as_str()))).list(&list)?;
        let add = |one: Value| {
            see(&one);
            inventory.add(id, &one);
        };
        list_items::for_each(&self.client, request, add).await.context("failed to list the HA ConfigMaps")?;
        Ok(inventory)
    }

    pub(super) fn unreadable(&self, inventory: &Inventory) -> Vec<String> {
        inventory.unreadable(&self.cluster_id)
    }

    /// Removes exactly the object that this term has stamped.
    pub(super) async fn remove_run(&self, job: JobId, term: &Term) -> anyhow::Result<()> {
        let removed = async {
            self.remove_quarantined(job, term).await?;
            self.remove(job, term).await
        };
        removed.await.with_context(|| format!("failed to remove the ConfigMap of run {job}"))
    }

    /// Removes its pointer in quarantine, if the cluster ConfigMap carries this term's stamp.
    async fn remove_quarantined(&self, job: JobId, term: &Term) -> anyhow::Result<()> {
        let Some(found) = self.api().get_opt(&names::cluster_config_map(&self.cluster_id)).await? else {
            return Ok(());
        };
        let cluster = serde_json::to_value(&found)?;
        let of_job =
            |key: &&str| ha_data::key_in_quarantine(key).and_then(ha_data::job_key_of).and_then(JobId::of) == Some(job);
        let data: Map<String, Value> =
            ha_data::keys(&cluster).filter(of_job).map(|key| (key.to_owned(), Value::Null)).collect();
        if data.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(relation(&cluster, term).0 == Relation::Same, "another term has stamped it");
        self.change_cluster(&cluster, json!({ "data": data })).await.map(drop)
    }

    pub(super) async fn ask_for_switchover(&self) -> anyhow::Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { SWITCHOVER_ANNOTATION: ANY_POD } } }));
        let asked = leases.patch(&names::lease(&self.cluster), &PatchParams::default(), &patch).await;
        asked.map(drop).context("failed to ask for a switchover")
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

    /// Changes the cluster ConfigMap, and returns it as it is then.
    ///
    /// Safe: it changes only if it still has the resourceVersion that was read in this term.
    ///
    /// # Errors
    /// When somebody has written it meanwhile, or when the API server does not answer. The caller reads it again then.
    pub async fn change_cluster(&self, cluster: &Value, mut patch: Value) -> anyhow::Result<Value> {
        patch["metadata"]["resourceVersion"] = json!(version(cluster));
        let name = names::cluster_config_map(&self.cluster_id);
        let patched = self.api().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let mut value = serde_json::to_value(patched.context("failed to change the cluster ConfigMap")?)?;
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
