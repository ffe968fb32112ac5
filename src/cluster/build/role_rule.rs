//! A rule of a Role with its reason, and the rule that JobManagers need with either provider.

use serde_json::{Value, json};

use crate::api::rest::IpFamily;
use crate::cluster::Cluster;

/// A rule of a Role. `docs/rbac.md` is made from it.
pub struct RoleRule {
    /// Who needs it, and for what.
    pub why: &'static str,
    pub rule: Value,
}

/// The leader's EndpointSlices, with either provider.
pub(super) fn rest_endpoint(cluster: &Cluster) -> RoleRule {
    RoleRule {
        why: "The leading gateway: the addresses of the leader's REST endpoint, which it writes, watches and puts back; one object for each \
            family of addresses",
        rule: json!({
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "resourceNames": IpFamily::ALL.map(|family| family.rest_slice(cluster.name())),
            "verbs": ["get", "list", "watch", "update", "patch"],
        }),
    }
}
