//! Makes requests beyond the objects of a cluster: of the leader, for a switchover, a savepoint, or the removal of a
//! job in quarantine, by annotations that it reads; of the API server, for the deletion of a resource whose time has
//! passed.

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::error::Error;
use super::report::Report;
use super::resources::ClusterResources;
use crate::api::FlinkHaCluster;
use crate::api::names::{
    self, DROP_JOB_ANNOTATION, SAVEPOINT_ANNOTATION, SWITCHOVER_ANNOTATION, UPGRADE_GATEWAYS_ANNOTATION,
};
use crate::api::v1alpha1::Provider;
use crate::cluster::drop_job::DropJob;
use crate::cluster::events::EventNote;
use crate::cluster::plan::requests::{Requests, SavepointNote};
use crate::cluster::switchover::Switchover;

/// Makes requests.
pub struct Asker {
    client: Client,
    resources: Arc<ClusterResources>,
}

impl Asker {
    pub fn new(client: Client, resources: Arc<ClusterResources>) -> Self {
        Self { client, resources }
    }

    /// Makes the requests that come after the status, in their order.
    ///
    /// # Errors
    /// When a request to the API server fails; a retry is safe.
    pub async fn ask(&self, resource: &FlinkHaCluster, requests: &Requests, report: &Report) -> Result<(), Error> {
        if let Some(switchover) = &requests.switchover {
            self.answer(resource, switchover, report).await?;
        }
        if let Some(answer) = &requests.drop_job {
            self.answer_drop(resource, answer, report).await?;
        }
        if let Some(note) = &requests.upgrade_gateways {
            self.resources.remove_annotation(resource, UPGRADE_GATEWAYS_ANNOTATION).await?;
            report.publish(resource, note).await;
        }
        if let Some(note) = &requests.savepoint {
            self.note_savepoint(resource, note).await?;
        }
        if requests.delete_resource {
            self.delete(resource).await?;
        }
        Ok(())
    }

    /// Answers the request for a planned switchover, and removes it from the resource, where a person has written it.
    async fn answer(&self, resource: &FlinkHaCluster, answer: &Switchover, report: &Report) -> Result<(), Error> {
        let name = resource.name_any();
        // The removal comes first, and only from the version that was read: a request is answered at most once, however
        // old the cache is.
        self.resources.remove_annotation(resource, SWITCHOVER_ANNOTATION).await?;
        let note = match answer {
            Switchover::Ask { to } => {
                let leases: Api<Lease> = self.namespaced(resource);
                let asked = annotate(&leases, &names::lease(&name), SWITCHOVER_ANNOTATION, Some(to)).await;
                asked.map_err(Error::request("ask for a switchover of", resource))?;
                EventNote {
                    warning: false,
                    reason: "SwitchoverAsked".to_owned(),
                    message: format!("the leader was asked to hand over to {to}"),
                }
            }
            Switchover::Refuse { why } => {
                EventNote { warning: true, reason: "SwitchoverRefused".to_owned(), message: why.clone() }
            }
        };
        report.publish(resource, &note).await;
        Ok(())
    }

    /// Answers the request to drop a job in quarantine, and removes it from the resource first, as with a switchover.
    async fn answer_drop(&self, resource: &FlinkHaCluster, answer: &DropJob, report: &Report) -> Result<(), Error> {
        self.resources.remove_annotation(resource, DROP_JOB_ANNOTATION).await?;
        let (warning, reason, message) = match answer {
            DropJob::Ask { job } => {
                let ledgers: Api<ConfigMap> = self.namespaced(resource);
                let ledger = names::ledger(&resource.name_any());
                let asked = annotate(&ledgers, &ledger, DROP_JOB_ANNOTATION, Some(job)).await;
                asked.map_err(Error::request("ask to drop a job of", resource))?;
                (false, "JobDropAsked", format!("the leader was asked to remove all HA data of job {job}"))
            }
            DropJob::Refuse { why } => (true, "JobDropRefused", why.clone()),
        };
        report.publish(resource, &EventNote { warning, reason: reason.to_owned(), message }).await;
        Ok(())
    }

    /// Writes the request for a savepoint where the leader watches, or removes the one before: on the Lease, or without
    /// one on the ledger.
    async fn note_savepoint(&self, resource: &FlinkHaCluster, note: &SavepointNote) -> Result<(), Error> {
        let (name, text) = (resource.name_any(), note.text.as_deref());
        let noted = match resource.spec.high_availability.provider {
            Provider::Kubernetes => {
                let leases: Api<Lease> = self.namespaced(resource);
                annotate(&leases, &names::lease(&name), SAVEPOINT_ANNOTATION, text).await
            }
            Provider::ZooKeeper => {
                let ledgers: Api<ConfigMap> = self.namespaced(resource);
                annotate(&ledgers, &names::ledger(&name), SAVEPOINT_ANNOTATION, text).await
            }
        };
        noted.map_err(Error::request("ask for a savepoint of", resource))
    }

    /// Deletes exactly this resource.
    async fn delete(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let preconditions = Preconditions { uid: resource.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let resources: Api<FlinkHaCluster> = self.namespaced(resource);
        match resources.delete(&resource.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(error) => Err(Error::request("delete", resource)(error)),
        }
    }

    fn namespaced<K>(&self, resource: &FlinkHaCluster) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default())
    }
}

/// Sets or removes an annotation.
async fn annotate<K>(api: &Api<K>, name: &str, key: &str, value: Option<&str>) -> Result<(), kube::Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({ "metadata": { "annotations": { key: value } } });
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}
