//! Reports the resource's status and events, and the roles of JobManager pods.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::error::Error;
use crate::api::FlinkHaCluster;
use crate::api::names::{FIELD_MANAGER, ROLE_LABEL};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::Desired;
use crate::cluster::events::{EventNote, notes};
use crate::cluster::observed::Observed;
use crate::cluster::rejection::Rejection;
use crate::cluster::rollout::{DELETION_COST_ANNOTATION, Role, roles};
use crate::cluster::status::{Applied, status};
use crate::world::error_text::chain;

/// The API server takes notes of up to 1 KiB.
const LONGEST_NOTE: usize = 500;

/// Writes the status and the events, and only what has changed.
pub struct Report {
    client: Client,
    /// Name of this operator's pod.
    instance: String,
    /// The status written last, by the resource's UID: the cache may still show an older one.
    written: Mutex<HashMap<String, FlinkHaClusterStatus>>,
}

impl Report {
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, written: Mutex::default() }
    }

    /// Returns the status until now.
    pub fn before(&self, resource: &FlinkHaCluster) -> FlinkHaClusterStatus {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = resource.metadata.uid.as_deref().unwrap_or_default();
        written.get(uid).or(resource.status.as_ref()).cloned().unwrap_or_default()
    }

    /// Forgets a removed resource.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let uid = resource.metadata.uid.as_deref().unwrap_or_default();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Brings pods, status and events up to date.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn report(
        &self,
        resource: &FlinkHaCluster,
        desired: &Desired,
        observed: &Observed,
        outcome: &Result<Applied, Rejection>,
    ) -> Result<(), Error> {
        for role in roles(observed) {
            self.mark(resource, &role).await?;
        }
        let before = self.before(resource);
        let after = status(resource, desired, &before, observed, outcome, Timestamp::now());
        if before == after {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": FlinkHaCluster::api_version(&()),
            "kind": FlinkHaCluster::kind(&()),
            "metadata": { "name": resource.name_any() },
            "status": after,
        });
        let api: Api<FlinkHaCluster> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patched = api.patch_status(&resource.name_any(), &parameters, &Patch::Apply(patch)).await;
        patched.map_err(Error::request("write the status of", resource))?;
        for notes in notes(&before, &after) {
            self.publish(resource, &notes).await;
        }
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, after);
        Ok(())
    }

    /// Publishes an event. A failure is only logged: events are for people, and the status says the same.
    pub async fn publish(&self, resource: &FlinkHaCluster, notes: &EventNote) {
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        tracing::info!(cluster = name, namespace, reason = notes.reason, "{}", notes.message);
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(if notes.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(notes.reason.clone()),
            note: Some(notes.message.chars().take(LONGEST_NOTE).collect()),
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            regarding: Some(resource.object_ref(&())),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!(cluster = name, error = %chain(&error), "failed to publish an event");
        }
    }

    async fn mark(&self, resource: &FlinkHaCluster, role: &Role) -> Result<(), Error> {
        let patch = json!({
            "metadata": {
                "labels": { ROLE_LABEL: role.label },
                "annotations": { DELETION_COST_ANNOTATION: role.deletion_cost },
            },
        });
        let api: Api<PartialObjectMeta<Pod>> =
            Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        match api.patch_metadata(&role.pod, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // The pod was removed in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("mark a pod of", resource)(error)),
        }
    }
}
