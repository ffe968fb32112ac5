//! Reporting: the resource's status and events, and the roles of JobManager pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::error::Error;
use super::event_series::{EventKey, EventSeries, Publication};
use super::ignored::IgnoredResource;
use super::resources::ClusterResources;
use crate::api::FlinkHaCluster;
use crate::api::names::{FIELD_MANAGER, ROLE_LABEL};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::Desired;
use crate::cluster::events::{EventNote, notes};
use crate::cluster::observed::Observed;
use crate::cluster::rejection::Rejection;
use crate::cluster::rollout::{DELETION_COST_ANNOTATION, Role, roles};
use crate::cluster::status::{Applied, CONTESTED, Told, failing, status, still_failing};
use crate::world::error_text::chain;

/// The API server takes notes of up to 1 KiB.
const LONGEST_NOTE: usize = 500;
/// Resources that are not read and of which it is remembered what was said.
const MOST_IGNORED: usize = 1000;

/// Writes what has been found, and only what is new.
pub struct Report {
    client: Client,
    resources: Arc<ClusterResources>,
    /// Name of this operator's pod.
    instance: String,
    series: EventSeries,
}

impl Report {
    pub fn new(client: Client, resources: Arc<ClusterResources>, instance: String) -> Self {
        Self { client, resources, instance, series: EventSeries::default() }
    }

    /// The status until now, without what another operator says in it.
    pub fn before(&self, resource: &FlinkHaCluster) -> FlinkHaClusterStatus {
        let mut before = resource.status.clone().unwrap_or_default();
        before.conditions.retain(|condition| condition.type_ != CONTESTED);
        before
    }

    /// Brings pods, status and events up to date. The time after which something else is to be said.
    ///
    /// # Errors
    /// When a request fails, also because the resource has changed since it was read; it is safe to try again.
    pub async fn report(
        &self,
        resource: &FlinkHaCluster,
        desired: &Desired,
        observed: &Observed,
        outcome: &Result<Applied, Rejection>,
        failing_since: Option<Timestamp>,
    ) -> Result<Option<Duration>, Error> {
        let mut marked = Ok(());
        for role in roles(observed) {
            marked = marked.and(self.mark(resource, &role).await);
        }
        let (before, now) = (self.before(resource), Timestamp::now());
        let Told { status: after, look_again } = status(resource, desired, &before, observed, outcome, now);
        // The rest of the status is true all the same.
        let after = match (&marked, failing_since) {
            (Err(error), Some(since)) => failing(resource, &after, &before.conditions, &chain(error), (since, now)),
            (Ok(()), Some(_)) => still_failing(after, &before.conditions),
            (_, None) => after,
        };
        self.write(resource, &before, &after).await?;
        marked.map(|()| look_again)
    }

    /// Whether events would be published with this report.
    pub fn has_events(
        &self,
        resource: &FlinkHaCluster,
        desired: &Desired,
        observed: &Observed,
        outcome: &Result<Applied, Rejection>,
    ) -> bool {
        let before = self.before(resource);
        let Told { status: after, .. } = status(resource, desired, &before, observed, outcome, Timestamp::now());
        !notes(&before, &after).is_empty()
    }

    /// Shows that the resource has not been reconciled since this time.
    ///
    /// # Errors
    /// As for [`Self::report`].
    pub async fn failing(&self, resource: &FlinkHaCluster, error: &Error, since: Timestamp) -> Result<(), Error> {
        let before = self.before(resource);
        let after = failing(resource, &before, &before.conditions, &chain(error), (since, Timestamp::now()));
        self.write(resource, &before, &after).await
    }

    async fn write(
        &self,
        resource: &FlinkHaCluster,
        before: &FlinkHaClusterStatus,
        after: &FlinkHaClusterStatus,
    ) -> Result<(), Error> {
        if before == after {
            return Ok(());
        }
        self.resources.write_status(resource, after).await?;
        for notes in notes(before, after) {
            self.publish(resource, &notes).await;
        }
        Ok(())
    }

    /// Publishes an event. A failure is only logged: events are for people, and the status says the same.
    pub async fn publish(&self, resource: &FlinkHaCluster, notes: &EventNote) {
        self.publish_on(resource.object_ref(&()), notes).await;
    }

    /// Publishes what is said of resources that are not read, once for each generation.
    pub async fn tell_ignored(&self, mut told: UnboundedReceiver<IgnoredResource>) {
        let mut generations = HashMap::new();
        while let Some((metadata, note)) = told.next().await {
            if generations.len() >= MOST_IGNORED {
                generations.clear();
            }
            if generations.insert(metadata.uid.clone(), metadata.generation) != Some(metadata.generation) {
                let regarding = ObjectReference {
                    api_version: Some(FlinkHaCluster::api_version(&()).into_owned()),
                    kind: Some(FlinkHaCluster::kind(&()).into_owned()),
                    name: metadata.name,
                    namespace: metadata.namespace,
                    uid: metadata.uid,
                    ..ObjectReference::default()
                };
                self.publish_on(regarding, &note).await;
            }
        }
    }

    async fn publish_on(&self, regarding: ObjectReference, notes: &EventNote) {
        let (cluster, namespace) =
            (regarding.name.clone().unwrap_or_default(), regarding.namespace.clone().unwrap_or_default());
        tracing::info!(cluster, namespace, reason = notes.reason, "{}", notes.message);
        let (now, note) = (Timestamp::now(), notes.message.chars().take(LONGEST_NOTE).collect::<String>());
        let regarded = regarding.uid.clone().unwrap_or_default();
        let key = EventKey { regarding: regarded, reason: notes.reason.clone(), note: note.clone() };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let mut publication = self.series.publication(&cluster, &key, now);
        if let Publication::Again { name, count } = &publication {
            let series = json!({ "count": count, "lastObservedTime": MicroTime(now) });
            match api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "series": series }))).await {
                // The API server forgets events after an hour, or somebody has deleted it.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    self.series.forget(&key);
                    publication = self.series.publication(&cluster, &key, now);
                }
                Err(error) => {
                    return tracing::warn!(event = name, error = %chain(&error), "failed to count an event again");
                }
                Ok(_) => return,
            }
        }
        let event = Event {
            metadata: ObjectMeta {
                name: Some(publication.into_name()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(if notes.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(notes.reason.clone()),
            note: Some(note),
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            regarding: Some(regarding),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            self.series.forget(&key);
            tracing::warn!(cluster, error = %chain(&error), "failed to publish an event");
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
            // Gone in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("mark a pod of", resource)(error)),
        }
    }
}
