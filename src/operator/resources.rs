//! Reads and writes the resource itself. Each write is a compare-and-swap: it carries the UID and the resourceVersion
//! of the resource on which the decision rests. The API server rejects the write of an operator that stood still while
//! a successor wrote, and a write that was meant for a deleted resource of the same name.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::reflector::Store;
use serde_json::{Value, json};

use super::error::Error;
use super::undeclared::Undeclared;
use super::versions::{Hold, Versions};
use crate::api::FlinkHaCluster;
use crate::api::names::{FIELD_MANAGER, FINALIZER, OPERATOR_ANNOTATION};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::status::CONTESTED;

/// Writes resources, and remembers the versions that the cache does not show yet.
pub struct ClusterResources {
    client: Client,
    versions: Versions,
    undeclared: Undeclared,
}

impl ClusterResources {
    pub fn new(client: Client, cache: Store<FlinkHaCluster>) -> Self {
        Self { client, versions: Versions::new(cache), undeclared: Undeclared::default() }
    }

    /// Returns the latest known version of a resource that the cache shows as `cached`.
    pub fn latest(&self, cached: Arc<FlinkHaCluster>) -> Arc<FlinkHaCluster> {
        self.versions.after(&cached).unwrap_or(cached)
    }

    /// Makes all writes rest on each other until the answer is dropped.
    pub fn hold(&self, resource: &FlinkHaCluster) -> Hold<'_> {
        self.versions.hold(resource)
    }

    /// Writes the status. All of it belongs to one field manager, as in all versions of the operator; what others have
    /// added stays.
    ///
    /// # Errors
    /// [`Error::Outdated`] when the resource has changed since `resource` was read, and when the request fails.
    pub async fn write_status(&self, resource: &FlinkHaCluster, status: &FlinkHaClusterStatus) -> Result<(), Error> {
        let mut patch = json!({
            "apiVersion": FlinkHaCluster::api_version(&()),
            "kind": FlinkHaCluster::kind(&()),
            "metadata": self.precondition(resource),
            "status": status,
        });
        self.undeclared.remove_from(&mut patch);
        let (api, parameters) = (self.api(resource), PatchParams::apply(FIELD_MANAGER).force());
        let mut patched = api.patch_status(&resource.name_any(), &parameters, &Patch::Apply(&patch)).await;
        if let Err(kube::Error::Api(refusal)) = &patched
            && self.undeclared.learn(&refusal.message)
        {
            self.undeclared.remove_from(&mut patch);
            patched = api.patch_status(&resource.name_any(), &parameters, &Patch::Apply(&patch)).await;
        }
        self.written(resource, "write the status of", patched)
    }

    /// Writes into the resource that `own` reconciles it. It gets our finalizer with that, unless it is being deleted.
    ///
    /// # Errors
    /// As for [`Self::write_status`].
    pub async fn claim(&self, resource: &FlinkHaCluster, own: &str) -> Result<(), Error> {
        let mut metadata = self.precondition(resource);
        metadata["annotations"] = json!({ OPERATOR_ANNOTATION: own });
        let finalizers = resource.finalizers();
        if resource.metadata.deletion_timestamp.is_none() && !finalizers.iter().any(|name| name == FINALIZER) {
            let with_ours: Vec<&str> = finalizers.iter().map(String::as_str).chain([FINALIZER]).collect();
            metadata["finalizers"] = json!(with_ours);
        }
        let api = self.api(resource);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = api.patch(&resource.name_any(), &PatchParams::default(), &patch).await;
        self.written(resource, "claim", patched)
    }

    /// Says on a resource of another operator that `own` leaves it alone, beside the status of that one.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn contest(&self, resource: &FlinkHaCluster, own: &str, condition: &Condition) -> Result<(), Error> {
        let patch = json!({
            "apiVersion": FlinkHaCluster::api_version(&()),
            "kind": FlinkHaCluster::kind(&()),
            "metadata": { "name": resource.name_any(), "uid": resource.metadata.uid },
            "status": { "conditions": [condition] },
        });
        // A name of at most 128 characters.
        let manager: String = format!("{FIELD_MANAGER}.{own}").chars().take(128).collect();
        let parameters = PatchParams::apply(&manager).force();
        let api = self.api(resource);
        let patched = api.patch_status(&resource.name_any(), &parameters, &Patch::Apply(patch)).await;
        self.written(resource, "write the status of", patched)
    }

    /// Removes what another operator said about leaving the resource alone, whoever wrote it.
    ///
    /// # Errors
    /// As for [`Self::write_status`].
    pub async fn retract(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let known = self.versions.after(resource);
        let conditions = known.as_deref().unwrap_or(resource).status.iter().flat_map(|status| &status.conditions);
        let left: Vec<&Condition> = conditions.clone().filter(|condition| condition.type_ != CONTESTED).collect();
        if left.len() == conditions.count() {
            return Ok(());
        }
        let api = self.api(resource);
        let patch = json!({ "metadata": self.precondition(resource), "status": { "conditions": left } });
        let patched = api.patch_status(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        self.written(resource, "write the status of", patched)
    }

    /// Sets the finalizers.
    ///
    /// # Errors
    /// As for [`Self::write_status`].
    pub async fn set_finalizers(&self, resource: &FlinkHaCluster, finalizers: &[&str]) -> Result<(), Error> {
        let mut metadata = self.precondition(resource);
        metadata["finalizers"] = json!(finalizers);
        let api = self.api(resource);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = api.patch(&resource.name_any(), &PatchParams::default(), &patch).await;
        self.written(resource, "set the finalizer of", patched)
    }

    /// Removes our finalizer, with which the resource goes unless others have finalizers of their own.
    ///
    /// # Errors
    /// As for [`Self::write_status`].
    pub async fn let_go(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let mut metadata = self.precondition(resource);
        let others = resource.finalizers().iter().filter(|name| *name != FINALIZER);
        metadata["finalizers"] = others.cloned().collect();
        let (api, patch) = (self.api(resource), Patch::Merge(json!({ "metadata": metadata })));
        match api.patch_metadata(&resource.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            // Deleted in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(refused(error, resource, "remove the finalizer of")),
        }
    }

    /// Removes an annotation.
    ///
    /// # Errors
    /// As for [`Self::write_status`].
    pub async fn remove_annotation(&self, resource: &FlinkHaCluster, key: &str) -> Result<(), Error> {
        let mut metadata = self.precondition(resource);
        metadata["annotations"] = json!({ key: null });
        let api = self.api(resource);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = api.patch(&resource.name_any(), &PatchParams::default(), &patch).await;
        self.written(resource, "remove the request from", patched)
    }

    /// Reads a resource of which a write has conflicted. It lists, because the operator may not get resources. Returns
    /// whether the resource still exists.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn read_again(&self, resource: &FlinkHaCluster) -> Result<bool, Error> {
        let found = self.api(resource).list(&named(resource)).await.map_err(Error::request("read", resource))?;
        let found = found.items.into_iter().find(|found| found.metadata.uid == resource.metadata.uid);
        let exists = found.is_some();
        match found {
            Some(found) => self.versions.remember(found),
            None => self.forget(resource),
        }
        Ok(exists)
    }

    /// Does the resource still exist? Only the API server itself can tell.
    ///
    /// # Errors
    /// When the request fails.
    pub async fn exists(&self, resource: &FlinkHaCluster) -> Result<bool, Error> {
        let found =
            self.api(resource).list_metadata(&named(resource)).await.map_err(Error::request("read", resource))?;
        Ok(found.items.iter().any(|found| found.metadata.uid == resource.metadata.uid))
    }

    /// Does the API server find this resource by a label selector? Without an answer it counts as found.
    pub async fn is_selected(&self, resource: &FlinkHaCluster, selector: &str) -> bool {
        match self.api(resource).list_metadata(&named(resource).labels(selector)).await {
            Ok(found) => found.items.iter().any(|found| found.metadata.uid == resource.metadata.uid),
            Err(_) => true,
        }
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        self.versions.forget(resource);
    }

    /// The metadata that makes a write a compare-and-swap. Versions that this operator has written since `resource` was
    /// read rest on it, so they count as the same.
    fn precondition(&self, resource: &FlinkHaCluster) -> Value {
        let known = self.versions.after(resource);
        let version = known.as_deref().unwrap_or(resource).resource_version();
        json!({ "name": resource.name_any(), "uid": resource.metadata.uid, "resourceVersion": version })
    }

    fn written(
        &self,
        resource: &FlinkHaCluster,
        action: &'static str,
        answer: Result<FlinkHaCluster, kube::Error>,
    ) -> Result<(), Error> {
        match answer {
            Ok(written) => {
                self.versions.remember(written);
                Ok(())
            }
            Err(error) => Err(refused(error, resource, action)),
        }
    }

    fn api(&self, resource: &FlinkHaCluster) -> Api<FlinkHaCluster> {
        Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default())
    }
}

/// This resource alone. Without a resourceVersion it is a quorum read.
fn named(resource: &FlinkHaCluster) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={}", resource.name_any()))
}

fn refused(error: kube::Error, resource: &FlinkHaCluster, action: &'static str) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 409 => {
            Error::Outdated { object: format!("FlinkHaCluster {}", resource.name_any()) }
        }
        error => Error::request(action, resource)(error),
    }
}
