//! Passes a planned switchover on: from the resource, where a person asks for it, to the Lease, where the leader sees
//! it.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::error::Error;
use super::report::Report;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, SWITCHOVER_ANNOTATION};
use crate::cluster::events::EventNote;
use crate::cluster::observed::Observed;
use crate::cluster::switchover::{Switchover as Decision, switchover};

/// Answers requests for a planned switchover.
pub struct Switchover {
    client: Client,
}

impl Switchover {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Answers a request, if there is one, and removes it.
    ///
    /// # Errors
    /// When a request to the API server fails; it is safe to try again.
    pub async fn pass_on(&self, resource: &FlinkHaCluster, observed: &Observed, report: &Report) -> Result<(), Error> {
        let Some(wanted) = resource.annotations().get(SWITCHOVER_ANNOTATION) else { return Ok(()) };
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        // Removed first, and only from what was read: a request is answered at most once, however old our cache is.
        let resources: Api<FlinkHaCluster> = Api::namespaced(self.client.clone(), &namespace);
        match annotate(&resources, &name, None, resource.metadata.resource_version.as_deref()).await {
            Ok(()) => {}
            // Our cache is late; what it waits for brings us back.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::debug!(cluster = name, namespace, "the request is not the latest");
                return Ok(());
            }
            Err(error) => return Err(Error::request("remove the request from", resource)(error)),
        }
        let news = match switchover(wanted, resource.spec.high_availability.provider, observed) {
            Decision::Ask { to } => {
                let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace);
                let asked = annotate(&leases, &names::lease(&name), Some(&to), None).await;
                asked.map_err(Error::request("ask for a switchover of", resource))?;
                EventNote {
                    warning: false,
                    reason: "SwitchoverAsked".to_owned(),
                    message: format!("the leader was asked to hand over to {to}"),
                }
            }
            Decision::Refuse { why } => {
                EventNote { warning: true, reason: "SwitchoverRefused".to_owned(), message: why }
            }
        };
        report.publish(resource, &news).await;
        Ok(())
    }
}

async fn annotate<K>(api: &Api<K>, name: &str, value: Option<&str>, version: Option<&str>) -> Result<(), kube::Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut patch = json!({ "metadata": { "annotations": { SWITCHOVER_ANNOTATION: value } } });
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = version.into();
    }
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}
