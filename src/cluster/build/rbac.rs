//! What JobManagers and TaskManagers may do: by name wherever the name is known beforehand, and nothing on pods.
//!
//! The operator may grant only what it may do itself: a rule that is added here is added to the chart's ClusterRole
//! too.

use serde_json::{Value, json};

use super::object;
use crate::api::names;
use crate::cluster::Cluster;

/// ServiceAccounts, Roles and RoleBindings.
pub fn build(cluster: &Cluster) -> Vec<Value> {
    let job_manager = json!([
        // Flink and the gateway: leader addresses, job graphs, checkpoint pointers, ledger. A job's ConfigMap is named
        // after the job.
        { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"] },
        // The gateway: the election. The operator creates the Lease, so that it can be named here.
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [names::lease(cluster.name())],
            "verbs": ["get", "list", "watch", "update", "patch"],
        },
        // The leading gateway: the address of the leader's REST endpoint.
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "resourceNames": [names::rest(cluster.name())],
            "verbs": ["get", "update", "patch"],
        },
    ]);
    let task_manager = json!([
        // Flink: who leads.
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [names::cluster_config_map(&cluster.kubernetes_cluster_id())],
            "verbs": ["get", "list", "watch"],
        },
    ]);
    let (job_manager, task_manager) = match cluster.zookeeper() {
        None => (job_manager, task_manager),
        Some(_) => (super::zookeeper::rules(cluster), json!([])),
    };
    [(names::job_manager(cluster.name()), job_manager), (names::task_manager(cluster.name()), task_manager)]
        .into_iter()
        .flat_map(|(name, rules)| identity(cluster, &name, rules))
        .collect()
}

fn identity(cluster: &Cluster, name: &str, rules: Value) -> [Value; 3] {
    let binding = json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": cluster.namespace() }],
    });
    [
        object(cluster, "v1", "ServiceAccount", name, json!({})),
        object(cluster, "rbac.authorization.k8s.io/v1", "Role", name, json!({ "rules": rules })),
        object(cluster, "rbac.authorization.k8s.io/v1", "RoleBinding", name, binding),
    ]
}
