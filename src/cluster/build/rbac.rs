//! Builds the rights of JobManagers and TaskManagers: by name wherever the name is known beforehand, and none on pods.
//!
//! The operator can grant only rights that it has itself, so a rule that is added here must be added to the chart's
//! ClusterRole too.

use serde_json::{Value, json};

use super::object;
use crate::api::names;
use crate::cluster::Cluster;

/// Returns ServiceAccounts, Roles and RoleBindings.
pub fn build(cluster: &Cluster) -> Vec<Value> {
    let job_manager = json!([
        // Flink and the gateway: leader addresses, job graphs, checkpoint pointers, ledger. The names of jobs'
        // ConfigMaps contain the jobs' ids, so they are not known beforehand.
        { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"] },
        // The gateway: the election. The operator creates the Lease, so the rule can name it.
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [names::lease(cluster.name())],
            "verbs": ["get", "list", "watch", "update", "patch"],
        },
        rest_endpoint(cluster),
    ]);
    let task_manager = json!([
        // Flink: the leader's addresses.
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

/// The leading gateway: the address of the leader's REST endpoint, which it writes, watches and puts back.
pub fn rest_endpoint(cluster: &Cluster) -> Value {
    json!({
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "resourceNames": [names::rest(cluster.name())],
        "verbs": ["get", "list", "watch", "update", "patch"],
    })
}

fn identity(cluster: &Cluster, name: &str, rules: Value) -> [Value; 3] {
    let binding = json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": cluster.namespace() }],
    });
    let annotations = &cluster.spec().service_account.annotations;
    let account = match annotations.is_empty() {
        true => json!({}),
        false => json!({ "metadata": { "annotations": annotations } }),
    };
    [
        object(cluster, "v1", "ServiceAccount", name, account),
        object(cluster, "rbac.authorization.k8s.io/v1", "Role", name, json!({ "rules": rules })),
        object(cluster, "rbac.authorization.k8s.io/v1", "RoleBinding", name, binding),
    ]
}
