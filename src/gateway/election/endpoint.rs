//! Publishes the leader's REST endpoint: the leader writes its own address into the EndpointSlice of `<name>-rest`,
//! once per term. It needs no operator.

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::gateway::tenure::Tenures;
use crate::lease::term::Term;
use crate::world::error_text::brief;

/// Number of attempts to write, and the pause between them.
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
    /// Replaces the endpoints with this pod. It retries only while the pod leads in this term. No stronger fence is
    /// needed: with an old address a standby answers the client, and no data is affected.
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
