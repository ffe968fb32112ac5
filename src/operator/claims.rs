//! Who reconciles a resource when the operators of two releases watch its namespace: the one that an annotation names.
//! Each operator writes its name there before anything else, by compare-and-swap. It leaves a resource alone that names
//! another operator, says so on the resource, and takes it over when that operator is gone, or does not select it any
//! more: each operator writes on its Lease by which labels it selects resources.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use super::error::Error;
use super::report::Report;
use super::resources::ClusterResources;
use crate::api::FlinkHaCluster;
use crate::api::names::{FINALIZER, SELECTOR_ANNOTATION};
use crate::cluster::events::EventNote;
use crate::cluster::operators::{self, Claim, LONGEST_PAUSE, Other};
use crate::lease::unchanged::Unchanged;
use crate::world::clock::since_boot;
use crate::world::error_text::brief;

/// Interval of looks at another operator's Lease.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Delay before what failed at the start is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Writes on this operator's own Lease by which labels it selects resources, before it reconciles any: then the others
/// know what it leaves to them. Tries until that is done.
pub async fn announce(client: &Client, (namespace, lease): (&str, &str), selector: Option<&str>) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    while let Err(error) = written(&leases, lease, selector).await {
        tracing::warn!(lease, error = brief(&error), "failed to write the label selector on the operators' Lease");
        sleep(RETRY_DELAY).await;
    }
}

async fn written(leases: &Api<Lease>, name: &str, selector: Option<&str>) -> kube::Result<()> {
    let lease = leases.get(name).await?;
    if lease.annotations().get(SELECTOR_ANNOTATION).map(String::as_str) == selector {
        return Ok(());
    }
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { SELECTOR_ANNOTATION: selector } } }));
    leases.patch_metadata(name, &PatchParams::default(), &patch).await.map(drop)
}

/// Claims resources.
pub struct Claims {
    client: Client,
    resources: Arc<ClusterResources>,
    /// `<namespace>/<Lease>` of this operator; `None` without an election.
    own: Option<String>,
    /// What is known of other operators, by their names.
    others: Mutex<HashMap<String, KnownOperator>>,
}

/// What is known of another operator.
struct KnownOperator {
    unchanged: Unchanged,
    other: Other,
    /// By which labels it selects resources; `None`: all of its namespaces.
    selector: Option<String>,
}

/// Whether this operator reconciles a resource.
pub enum Claimed {
    Ours,
    /// It is of another operator: look again after this time.
    Others(Duration),
}

impl Claims {
    pub fn new(client: Client, resources: Arc<ClusterResources>, own: Option<String>) -> Self {
        Self { client, resources, own, others: Mutex::default() }
    }

    /// Does the resource name no other operator? Only then may this one write its status.
    pub fn is_ours(&self, resource: &FlinkHaCluster) -> bool {
        !matches!(operators::claim(self.own.as_deref(), operators::noted(resource)), Claim::Others(_))
    }

    /// Makes sure that this operator reconciles the resource, or finds out who does.
    ///
    /// # Errors
    /// When a request fails, also because the resource has changed since it was read; a retry is safe.
    pub async fn ensure(&self, resource: &FlinkHaCluster, report: &Report) -> Result<Claimed, Error> {
        let own = self.own.as_deref();
        let (another, own) = match (operators::claim(own, operators::noted(resource)), own) {
            (Claim::Ours, _) | (_, None) => {
                if operators::contested(resource).is_some_and(|told| operators::is_old(told, Timestamp::now())) {
                    self.resources.retract(resource).await?;
                }
                return Ok(Claimed::Ours);
            }
            (Claim::Nobody, Some(own)) => {
                // Without our finalizer nothing is left to do for it.
                let is_over = resource.metadata.deletion_timestamp.is_some()
                    && !resource.finalizers().iter().any(|name| name == FINALIZER);
                if !is_over {
                    self.resources.claim(resource, own).await?;
                }
                return Ok(Claimed::Ours);
            }
            (Claim::Others(another), Some(own)) => (another, own),
        };
        let (known, selector) = self.look(&another).await;
        // The API server knows what the other one selects: this operator keeps few of a resource's labels.
        let left = match selector.filter(|_| known == Other::Alive) {
            Some(selector) => (!self.resources.is_selected(resource, &selector).await).then_some(selector),
            None => None,
        };
        if known == Other::Gone || left.is_some() {
            self.resources.claim(resource, own).await?;
            self.resources.retract(resource).await?;
            let message = match left {
                Some(selector) => operators::no_longer_selected(own, &another, &selector),
                None => format!("operator {own} reconciles this resource from now on: {another} is gone"),
            };
            let note = EventNote { warning: false, reason: "OperatorChanged".to_owned(), message };
            report.publish(resource, &note).await;
            return Ok(Claimed::Ours);
        }
        self.tell(resource, own, &another, known, report).await?;
        Ok(Claimed::Others(LOOK_INTERVAL))
    }

    /// Finds out whether another operator is alive, and what it selects. All its resources share one look.
    async fn look(&self, another: &str) -> (Other, Option<String>) {
        let known = |others: &HashMap<String, KnownOperator>| {
            let KnownOperator { unchanged, other, selector } = others.get(another)?;
            let fresh = unchanged.seen().is_some_and(|seen| since_boot().saturating_sub(seen) < LOOK_INTERVAL / 2);
            fresh.then(|| (*other, selector.clone()))
        };
        if let Some(known) = known(&self.others.lock().unwrap_or_else(PoisonError::into_inner)) {
            return known;
        }
        let Some((namespace, name)) = another.split_once('/') else { return (Other::Unknown, None) };
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let asked = since_boot();
        let found = leases.get_opt(name).await;
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let KnownOperator { unchanged, other, selector } = others.entry(another.to_owned()).or_insert_with(|| {
            KnownOperator { unchanged: Unchanged::new(LONGEST_PAUSE), other: Other::Alive, selector: None }
        });
        *other = match found {
            Ok(lease) => {
                *selector = lease.as_ref().and_then(|lease| lease.annotations().get(SELECTOR_ANNOTATION).cloned());
                let version = lease.as_ref().and_then(ResourceExt::resource_version);
                operators::other(unchanged.read(asked, since_boot(), version.as_deref()))
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                unchanged.read(asked, since_boot(), Some("unreadable"));
                Other::Unknown
            }
            Err(error) => {
                tracing::debug!(another, error = brief(&error), "failed to read the Lease of another operator");
                // Nothing is known of what it selects now.
                *selector = None;
                if *other == Other::Unknown { Other::Unknown } else { Other::Alive }
            }
        };
        (*other, selector.clone())
    }

    /// Tells once on the resource, by an event, and in the log that another operator reconciles it.
    async fn tell(
        &self,
        resource: &FlinkHaCluster,
        own: &str,
        another: &str,
        known: Other,
        report: &Report,
    ) -> Result<(), Error> {
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let message = operators::left_to(own, another, (&namespace, &name), known);
        if operators::contested(resource).is_some_and(|told| told.message == message) {
            return Ok(());
        }
        self.resources.contest(resource, own, &operators::contested_by(&message, Timestamp::now())).await?;
        let note = EventNote { warning: true, reason: operators::MANAGED_BY_ANOTHER.to_owned(), message };
        report.publish(resource, &note).await;
        Ok(())
    }
}
