//! The finalizer of a resource, and the requests of a deletion: which of the HA data is deleted, and what is noted of
//! what stays.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::error::Error;
use super::ha_config_maps::{HaConfigMap, labelled};
use super::purge::Purger;
use super::report::Report;
use super::resources::ClusterResources;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FINALIZER, LEFT_ANNOTATION};
use crate::api::v1alpha1::OnDelete;
use crate::cluster::deletion::{self, DeletionPlan};
use crate::cluster::deployment::WatchedDeployment;
use crate::cluster::events::EventNote;
use crate::cluster::ledger_data::LedgerData;
use crate::cluster::observed::Observed;
use crate::ha_data::foreign;
use crate::ledger::jobs;

/// Makes deletion wait for us, and deletes.
pub struct Finalizer {
    client: Client,
    resources: Arc<ClusterResources>,
    pub purger: Purger,
    /// UIDs of resources that were let go, and when.
    released: Mutex<HashMap<String, Instant>>,
    /// Deployments as a watch showed them when they were deleted, by the resource's UID.
    deleted: Mutex<HashMap<String, WatchedDeployment>>,
}

/// A watch shows so late at the most that a resource was let go.
const LATE: Duration = Duration::from_secs(30);

impl Finalizer {
    pub fn new(client: Client, resources: Arc<ClusterResources>) -> Self {
        Self {
            purger: Purger::new(client.clone()),
            resources,
            client,
            released: Mutex::default(),
            deleted: Mutex::default(),
        }
    }

    /// Puts our finalizer on the resource before anything is made for it.
    ///
    /// # Errors
    /// When the request fails, also because the resource has changed in between.
    pub async fn ensure(&self, resource: &FlinkHaCluster, observed: &Observed) -> Result<(), Error> {
        if observed.ledger.as_ref().is_some_and(|ledger| ledger.annotations().contains_key(LEFT_ANNOTATION)) {
            // It is the data of this resource again.
            self.annotate_ledger(resource, None).await?;
        }
        if resource.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        let finalizers: Vec<&str> = resource.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        self.resources.set_finalizers(resource, &finalizers).await
    }

    pub async fn release(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        self.resources.let_go(resource).await?;
        self.released().insert(resource.uid().unwrap_or_default(), Instant::now());
        Ok(())
    }

    /// Whether the resource was let go a moment ago, which the cache may not show yet: the API server's answer to the
    /// last finalizer's removal has no newer resourceVersion.
    pub fn has_released(&self, resource: &FlinkHaCluster) -> bool {
        let mut released = self.released();
        released.retain(|_, at| at.elapsed() < LATE);
        released.contains_key(resource.metadata.uid.as_deref().unwrap_or_default())
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        self.deleted().remove(resource.metadata.uid.as_deref().unwrap_or_default());
    }

    fn deleted(&self) -> MutexGuard<'_, HashMap<String, WatchedDeployment>> {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn released(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the HA data, because somebody may live who writes it: removes nothing, says so, and lets the resource go.
    pub async fn leave(&self, resource: &FlinkHaCluster, why: &str, report: &Report) -> Result<(), Error> {
        let (_, found, _) = self.plan(resource, OnDelete::Retain).await?;
        let config_maps: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        let message = deletion::left(resource, &config_maps, why);
        self.note(resource, &message).await?;
        report.publish(resource, &EventNote { warning: true, reason: "HaDataLeft".to_owned(), message }).await;
        self.release(resource).await?;
        Ok(())
    }

    /// Writes down in the ledger what a deletion has left, and why.
    pub async fn note(&self, resource: &FlinkHaCluster, message: &str) -> Result<(), Error> {
        self.annotate_ledger(resource, Some(&format!("{:.0}: {message}", Timestamp::now()))).await
    }

    async fn annotate_ledger(&self, resource: &FlinkHaCluster, text: Option<&str>) -> Result<(), Error> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { LEFT_ANNOTATION: text } } }));
        let ledger = names::ledger(&resource.name_any());
        match self.config_maps(resource).patch(&ledger, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("write the ledger of", resource)(error)),
        }
    }

    /// Deletes the JobManagers' Deployment in the foreground, and tells whether it is gone: then all pods of its
    /// ReplicaSets are. The API server itself is asked for that, because a cache that is late would let data be deleted
    /// under a living JobManager. `shown`: what a watch shows of it, which is enough to see that it is not gone.
    pub async fn deployment_is_gone(&self, resource: &FlinkHaCluster, shown: WatchedDeployment) -> Result<bool, Error> {
        let deployments: Api<Deployment> =
            Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let name = names::job_manager(&resource.name_any());
        let failed = |error| Error::request("delete the JobManagers of", resource)(error);
        let owner = resource.uid().unwrap_or_default();
        match &shown {
            WatchedDeployment::Ends => return Ok(false),
            _ if self.deleted().get(&owner) == Some(&shown) => return Ok(false),
            WatchedDeployment::Own { uid, version } => {
                let version = Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
                match deployments.delete(&name, &in_foreground(version)).await {
                    Ok(_) => {
                        self.deleted().insert(owner, shown);
                        return Ok(false);
                    }
                    // The watch is late.
                    Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            WatchedDeployment::Unknown => {}
        }
        match deployments.get_metadata_opt(&name).await.map_err(failed)? {
            None => Ok(true),
            // Another's of the same name, for which the resource was refused.
            Some(deployment) if !foreign::is_own(&deployment.metadata, &resource.name_any()) => Ok(true),
            Some(deployment) if deployment.metadata.deletion_timestamp.is_some() => Ok(false),
            Some(deployment) => {
                // Exactly this one, of exactly this resource: another operator may have finished this deletion, and
                // somebody may have created the resource again.
                let this = Preconditions { uid: deployment.uid(), resource_version: None };
                if self.resources.exists(resource).await? {
                    deployments.delete(&name, &in_foreground(this)).await.map_err(failed)?;
                }
                Ok(false)
            }
        }
    }

    /// Deletes the ConfigMaps that may go, and the ledger with the last of them: it stays with what it explains, and if
    /// `stays`.
    pub async fn delete_data(&self, resource: &FlinkHaCluster, stays: bool) -> Result<DeletionPlan, Error> {
        let spec = &resource.spec;
        let (plan, found, ledger) = self.plan(resource, spec.ha_data.on_delete).await?;
        let keeps = deletion::keeps_ledger(
            spec.ha_data.on_delete,
            spec.high_availability.provider,
            &plan,
            &data(ledger.as_ref()),
        );
        let ledger = ledger.filter(|_| !keeps && !stays);
        self.delete_planned(resource, &plan, &found).await?;
        if let Some(ledger) = ledger {
            let deleted = delete(&self.config_maps(resource), &ledger.metadata).await;
            deleted.map_err(Error::request("delete the ledger of", resource))?;
        }
        Ok(plan)
    }

    /// Deletes the ConfigMaps of an application whose job has ended and whose pods are gone. The ledger stays with the
    /// resource.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn delete_ended(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let (plan, found, _) = self.plan(resource, OnDelete::Retain).await?;
        self.delete_planned(resource, &plan, &found).await
    }

    async fn plan(
        &self,
        resource: &FlinkHaCluster,
        on_delete: OnDelete,
    ) -> Result<(DeletionPlan, Vec<HaConfigMap>, Option<ConfigMap>), Error> {
        let cluster_id = names::kubernetes_cluster_id(&resource.name_any());
        let config_maps = self.config_maps(resource);
        let failed = |error| Error::request("read the HA data of", resource)(error);
        let (namespace, cluster) = (resource.namespace().unwrap_or_default(), names::cluster_config_map(&cluster_id));
        let found = labelled(&self.client, &namespace, &cluster_id, |name| name == cluster).await.map_err(failed)?;
        let ledger = config_maps.get_opt(&names::ledger(&resource.name_any())).await.map_err(failed)?;
        let ledger = ledger.filter(|ledger| foreign::is_own(&ledger.metadata, &resource.name_any()));
        let values: Vec<Value> = found.iter().map(|config_map| json!(config_map)).collect();
        Ok((deletion::plan(on_delete, &cluster_id, &values, &data(ledger.as_ref()).jobs), found, ledger))
    }

    async fn delete_planned(
        &self,
        resource: &FlinkHaCluster,
        plan: &DeletionPlan,
        found: &[HaConfigMap],
    ) -> Result<(), Error> {
        for config_map in found.iter().filter(|config_map| plan.delete.contains(&config_map.name_any())) {
            delete(&self.config_maps(resource), &config_map.metadata)
                .await
                .map_err(Error::request("delete the HA data of", resource))?;
        }
        Ok(())
    }

    fn config_maps(&self, resource: &FlinkHaCluster) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default())
    }
}

fn in_foreground(preconditions: Preconditions) -> DeleteParams {
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::foreground() }
}

/// What the ledger says.
fn data(ledger: Option<&ConfigMap>) -> LedgerData {
    let data = ledger.map(|ledger| json!(ledger.data)).filter(|data| !data.is_null());
    let shown: LedgerData = data.and_then(|data| serde_json::from_value(data).ok()).unwrap_or_default();
    let text = ledger.and_then(|ledger| ledger.data.as_ref()?.get(jobs::JOBS_KEY));
    // All of them, and not only those that the status shows.
    LedgerData { jobs: jobs::read(text.map(String::as_str)).unwrap_or_default(), ..shown }
}

/// Deletes exactly the version that the decision was made on.
async fn delete(config_maps: &Api<ConfigMap>, version: &ObjectMeta) -> kube::Result<()> {
    let preconditions = Preconditions { uid: version.uid.clone(), resource_version: version.resource_version.clone() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match config_maps.delete(version.name.as_deref().unwrap_or_default(), &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
