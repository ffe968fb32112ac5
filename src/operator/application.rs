//! Carries out what [`crate::cluster::application`] decides beyond the pods: asks the leader for savepoints, and
//! removes what an ended job leaves.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::error::Error;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, SAVEPOINT_ANNOTATION};
use crate::api::v1alpha1::Provider;
use crate::cluster::application::Desired;
use crate::cluster::observed::Observed;
use crate::ledger::application::Request;

/// Carries out decisions about applications.
pub struct Applications {
    client: Client,
}

impl Applications {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Carries them out.
    ///
    /// # Errors
    /// When a request to the API server fails; it is safe to try again.
    pub async fn carry_out(
        &self,
        resource: &FlinkHaCluster,
        desired: &Desired,
        observed: &Observed,
        context: &Context,
    ) -> Result<(), Error> {
        let Some(decision) = desired.decision.as_ref().filter(|_| !desired.frozen) else { return Ok(()) };
        self.ask(resource, decision.request.as_ref(), observed).await?;
        if decision.clean {
            context.finalizer.delete_ended(resource).await?;
        }
        if decision.delete {
            self.delete(resource).await?;
        }
        Ok(())
    }

    /// Writes the request where the leader sees it, or removes the one before: onto the Lease, or where there is none
    /// onto the ledger.
    async fn ask(
        &self,
        resource: &FlinkHaCluster,
        request: Option<&Request>,
        observed: &Observed,
    ) -> Result<(), Error> {
        let on_lease = resource.spec.high_availability.provider == Provider::Kubernetes;
        let lease = observed.lease.as_ref().filter(|_| on_lease).map(|lease| lease.annotations());
        let ledger = observed.ledger.as_ref().filter(|_| !on_lease).map(|ledger| ledger.annotations());
        let Some(annotations) = lease.or(ledger) else { return Ok(()) };
        let wanted = request.map(|request| json!(request).to_string());
        if annotations.get(SAVEPOINT_ANNOTATION) == wanted.as_ref() {
            return Ok(());
        }
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { SAVEPOINT_ANNOTATION: wanted } } }));
        let parameters = PatchParams::default();
        let patched = if on_lease {
            let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace);
            leases.patch(&names::lease(&name), &parameters, &patch).await.map(drop)
        } else {
            let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
            config_maps.patch(&names::ledger(&name), &parameters, &patch).await.map(drop)
        };
        patched.map_err(Error::request("ask for a savepoint of", resource))
    }

    /// Deletes exactly this resource.
    async fn delete(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let preconditions = Preconditions { uid: resource.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let resources: Api<FlinkHaCluster> =
            Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        match resources.delete(&resource.name_any(), &parameters).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
            Err(error) => Err(Error::request("delete", resource)(error)),
        }
    }
}
