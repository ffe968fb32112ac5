//! REST discovery: the leader writes its own address into the EndpointSlice of `<name>-rest`, once per term.
//! Works while the operator is down.

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::gateway::tenure::Tenures;
use crate::lease::term::Term;
use crate::world::error_text::brief;

/// How often a failed write is tried again, and after which pause.
const ATTEMPTS: u32 = 30;
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Writes the address of this pod.
#[derive(Clone)]
pub struct Publisher {
    pub client: Client,
    pub namespace: String,
    /// Name of Service and EndpointSlice.
    pub name: String,
    pub pod: String,
    pub address: String,
}

impl Publisher {
    /// Replaces the endpoints by this pod, trying again only while it leads in this term. Not fenced beyond that: an
    /// old address costs a client an answer through a standby, never data.
    pub async fn publish(&self, tenures: &Tenures, term: &Term) {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = json!({ "endpoints": [{
            "addresses": [self.address],
            "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "namespace": self.namespace, "name": self.pod },
        }] });
        for _ in 0..ATTEMPTS {
            if !tenures.leads(term) {
                return;
            }
            match slices.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(
                        error = brief(&error),
                        slice = self.name,
                        "failed to publish the leader's address; trying again"
                    )
                }
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}
