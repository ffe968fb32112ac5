//! `spec.networkPolicy`: who may open connections to the cluster's pods. `kubectl explain` prints the comments of the
//! fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// The NetworkPolicy that the operator makes for the cluster.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether the operator makes the NetworkPolicy. `false` removes it.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Namespaces whose pods may reach Flink's REST interface (port 8081), for example those of an Ingress controller
    /// and of clients that submit jobs. Whoever reaches it may run code in the cluster. Default: everybody may. With an
    /// empty list only the cluster's own pods may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub rest_from: Option<Vec<String>>,
    /// Namespaces whose pods may read the metrics of the gateways (port 6181), for example that of Prometheus. Default:
    /// none. The kubelet's probes need no entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::namespaces")]
    pub metrics_from: Vec<String>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: enabled(), rest_from: None, metrics_from: Vec::new() }
    }
}

fn enabled() -> bool {
    true
}
