//! Deleting: JobManagers first, then the HA data that `spec.haData.onDelete` does not retain, then the resource itself.
//!
//! Everything else of the cluster goes with the resource, by its owner references.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::Error;
use super::reconcile::Context;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FINALIZER};
use crate::api::v1alpha1::OnDelete;
use crate::cluster::deletion::{self, Plan};
use crate::cluster::ledger::{self, Tombstone};
use crate::cluster::news::News;
use crate::cluster::observed::Observed;
use crate::flink::ha_data;

/// Makes deletion wait for us, and deletes.
pub struct Finalizer {
    client: Client,
}

/// Takes the next step of a deletion. Steps that must wait for another return without removing the finalizer; the watch brings us back.
///
/// # Errors
/// When a request fails; it is safe to try again.
pub async fn finalize(resource: &FlinkHaCluster, observed: &Observed, context: &Context) -> Result<(), Error> {
    let finalizer = &context.finalizer;
    if !resource.finalizers().iter().any(|name| name == FINALIZER) {
        context.report.forget(resource);
        return Ok(());
    }
    if !finalizer.job_managers_are_gone(resource, observed).await? {
        tracing::debug!(cluster = resource.name_any(), namespace = resource.namespace(), "deleting: waiting for the JobManagers to end");
        return Ok(());
    }
    let plan = finalizer.delete_data(resource).await?;
    let message = match (resource.spec.ha_data.on_delete, plan.keep.as_slice()) {
        (OnDelete::Delete, _) => format!("deleted {} ConfigMaps with HA data", plan.delete.len()),
        (OnDelete::Retain, []) => "no job was left to retain HA data for".to_owned(),
        (OnDelete::Retain, kept) => format!("retained the HA data of jobs that have not ended: ConfigMaps {}", kept.join(", ")),
    };
    context.report.publish(resource, &News { warning: false, reason: "Deleted".to_owned(), message }).await;
    finalizer.release(resource).await?;
    context.applier.forget(resource);
    context.report.forget(resource);
    Ok(())
}

impl Finalizer {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Puts our finalizer on the resource before anything is made for it.
    ///
    /// # Errors
    /// When the request fails, also because the resource has changed in between.
    pub async fn ensure(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        if resource.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        let finalizers: Vec<&str> = resource.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        self.set(resource, &finalizers).await
    }

    async fn release(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let finalizers: Vec<&str> = resource.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        self.set(resource, &finalizers).await
    }

    async fn set(&self, resource: &FlinkHaCluster, finalizers: &[&str]) -> Result<(), Error> {
        let patch = json!({ "metadata": { "resourceVersion": resource.resource_version(), "finalizers": finalizers } });
        let api: Api<FlinkHaCluster> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        match api.patch(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // Deleted in the meantime, which is what a release wants.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("set the finalizer of", resource)(error)),
        }
    }

    /// Deletes the JobManagers' Deployment in the foreground, and tells whether it is gone: then all its pods are gone. Asked of the API server
    /// itself, because a cache that is late would let data be deleted under a living JobManager.
    async fn job_managers_are_gone(&self, resource: &FlinkHaCluster, observed: &Observed) -> Result<bool, Error> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let name = names::job_manager(&resource.name_any());
        let failed = |error| Error::request("delete the JobManagers of", resource)(error);
        match deployments.get_metadata_opt(&name).await.map_err(failed)? {
            None => Ok(observed.job_manager_pods.is_empty()),
            Some(deployment) if deployment.metadata.deletion_timestamp.is_some() => Ok(false),
            Some(_) => {
                deployments.delete(&name, &DeleteParams::foreground()).await.map_err(failed)?;
                Ok(false)
            }
        }
    }

    /// Deletes the ConfigMaps that may go.
    async fn delete_data(&self, resource: &FlinkHaCluster) -> Result<Plan, Error> {
        let cluster_id = names::kubernetes_cluster_id(&resource.name_any());
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let failed = |error| Error::request("delete the HA data of", resource)(error);
        let selector = ListParams::default().labels(&ha_data::selector(&cluster_id));
        let found = config_maps.list(&selector).await.map_err(failed)?.items;
        let ledger = config_maps.get_opt(&names::ledger(&resource.name_any())).await.map_err(failed)?;
        let values: Vec<Value> = found.iter().map(|config_map| json!(config_map)).collect();
        let plan = deletion::plan(resource.spec.ha_data.on_delete, &cluster_id, &values, &tombstones(ledger.as_ref()));
        for config_map in found.iter().chain(ledger.as_ref()) {
            let name = config_map.name_any();
            // The ledger stays with what it explains.
            let goes = if name == names::ledger(&resource.name_any()) { plan.keep.is_empty() } else { plan.delete.contains(&name) };
            if goes {
                delete(&config_maps, config_map).await.map_err(failed)?;
            }
        }
        Ok(plan)
    }
}

/// Jobs known to have ended. A ledger that cannot be read says nothing.
fn tombstones(ledger: Option<&ConfigMap>) -> Vec<Tombstone> {
    let text = ledger.and_then(|ledger| ledger.data.as_ref()?.get(ledger::JOBS_KEY));
    ledger::read(text.map(String::as_str)).unwrap_or_default()
}

/// Deletes exactly the version that the decision was made on.
async fn delete(config_maps: &Api<ConfigMap>, config_map: &ConfigMap) -> kube::Result<()> {
    let preconditions = Preconditions { uid: config_map.uid(), resource_version: config_map.resource_version() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match config_maps.delete(&config_map.name_any(), &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
