//! Reporting: the resource's status and events, and the roles of JobManager pods.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::Error;
use super::observe::chain;
use crate::api::FlinkHaCluster;
use crate::api::names::{FIELD_MANAGER, ROLE_LABEL};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::news::{News, news};
use crate::cluster::observed::Observed;
use crate::cluster::rollout::{DELETION_COST_ANNOTATION, Role, roles};
use crate::cluster::status::{Outcome, status};

/// Writes what has been found, and only what is new.
pub struct Report {
    client: Client,
    recorder: Recorder,
    /// The status written last, by the resource's UID: the cache may still show the one before.
    written: Mutex<HashMap<String, FlinkHaClusterStatus>>,
}

impl Report {
    pub fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client.clone(), reporter), client, written: Mutex::default() }
    }

    /// The status until now.
    pub fn before(&self, resource: &FlinkHaCluster) -> FlinkHaClusterStatus {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = resource.metadata.uid.as_deref().unwrap_or_default();
        written.get(uid).or(resource.status.as_ref()).cloned().unwrap_or_default()
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let uid = resource.metadata.uid.as_deref().unwrap_or_default();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Brings pods, status and events up to date.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn report(&self, resource: &FlinkHaCluster, observed: &Observed, outcome: &Outcome) -> Result<(), Error> {
        for role in roles(observed) {
            self.mark(resource, &role).await?;
        }
        let before = self.before(resource);
        let after = status(resource, &before, observed, outcome, Timestamp::now());
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
        for news in news(&before, &after) {
            self.publish(resource, &news).await;
        }
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, after);
        Ok(())
    }

    /// Publishes an event. A failure is only logged: events are for people, and the status says the same.
    pub async fn publish(&self, resource: &FlinkHaCluster, news: &News) {
        let event = Event {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason.clone(),
            note: Some(news.message.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        tracing::info!(cluster = resource.name_any(), namespace = resource.namespace(), reason = news.reason, "{}", news.message);
        if let Err(error) = self.recorder.publish(&event, &resource.object_ref(&())).await {
            tracing::warn!(cluster = resource.name_any(), error = %chain(&error), "failed to publish an event");
        }
    }

    async fn mark(&self, resource: &FlinkHaCluster, role: &Role) -> Result<(), Error> {
        let patch = json!({
            "metadata": {
                "labels": { ROLE_LABEL: role.label },
                "annotations": { DELETION_COST_ANNOTATION: role.deletion_cost },
            },
        });
        let api: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        match api.patch_metadata(&role.pod, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // Gone in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("mark a pod of", resource)(error)),
        }
    }
}
