//! Who reconciles a resource when the operators of two releases watch its namespace: the one that an annotation names.
//! Each operator writes its name there before anything else, by compare-and-swap. It leaves a resource alone that names
//! another operator, says so on the resource, and takes it over when that operator is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, ResourceExt};

use super::error::Error;
use super::report::Report;
use super::resources::ClusterResources;
use crate::api::FlinkHaCluster;
use crate::api::names::FINALIZER;
use crate::cluster::events::EventNote;
use crate::cluster::operators::{self, Claim, LONGEST_PAUSE, Other};
use crate::lease::unchanged::Unchanged;
use crate::world::clock::since_boot;
use crate::world::error_text::brief;

/// Interval of looks at another operator's Lease.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Claims resources.
pub struct Claims {
    client: Client,
    resources: Arc<ClusterResources>,
    /// `<namespace>/<Lease>` of this operator; `None` without an election.
    own: Option<String>,
    /// What is known of other operators, by their names.
    others: Mutex<HashMap<String, (Unchanged, Other)>>,
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
        let known = self.look(&another).await;
        if known == Other::Gone {
            self.resources.claim(resource, own).await?;
            self.resources.retract(resource).await?;
            let message = format!("operator {own} reconciles this resource from now on: {another} is gone");
            let note = EventNote { warning: false, reason: "OperatorChanged".to_owned(), message };
            report.publish(resource, &note).await;
            return Ok(Claimed::Ours);
        }
        self.tell(resource, own, &another, known, report).await?;
        Ok(Claimed::Others(LOOK_INTERVAL))
    }

    /// Finds out whether another operator is alive. All its resources share one look.
    async fn look(&self, another: &str) -> Other {
        let known = |others: &HashMap<String, (Unchanged, Other)>| {
            let (unchanged, other) = others.get(another)?;
            let fresh = unchanged.seen().is_some_and(|seen| since_boot().saturating_sub(seen) < LOOK_INTERVAL / 2);
            fresh.then_some(*other)
        };
        if let Some(other) = known(&self.others.lock().unwrap_or_else(PoisonError::into_inner)) {
            return other;
        }
        let Some((namespace, name)) = another.split_once('/') else { return Other::Unknown };
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let asked = since_boot();
        let found = leases.get_opt(name).await;
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let (unchanged, other) =
            others.entry(another.to_owned()).or_insert((Unchanged::new(LONGEST_PAUSE), Other::Alive));
        *other = match found {
            Ok(lease) => {
                let version = lease.as_ref().and_then(ResourceExt::resource_version);
                operators::other(unchanged.read(asked, since_boot(), version.as_deref()))
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                unchanged.read(asked, since_boot(), Some("unreadable"));
                Other::Unknown
            }
            Err(error) => {
                tracing::debug!(another, error = brief(&error), "failed to read the Lease of another operator");
                if *other == Other::Unknown { Other::Unknown } else { Other::Alive }
            }
        };
        *other
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
