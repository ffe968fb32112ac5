//! Builds the rights of JobManagers and TaskManagers: by name wherever the name is known beforehand, and none on pods.
//!
//! The operator can grant only rights that it has itself, so a rule that is added here must be added to the chart's
//! ClusterRole too.

use serde_json::{Value, json};

use super::object;
use super::role_rule::{RoleRule, rest_endpoint};
use crate::api::names;
use crate::cluster::Cluster;

/// Returns ServiceAccounts, Roles and RoleBindings.
pub fn build(cluster: &Cluster) -> Vec<Value> {
    let (job_manager, task_manager) = match cluster.zookeeper() {
        None => (job_manager_rules(cluster), task_manager_rules(cluster)),
        Some(_) => (super::zookeeper::rules(cluster), Vec::new()),
    };
    [(names::job_manager(cluster.name()), job_manager), (names::task_manager(cluster.name()), task_manager)]
        .into_iter()
        .flat_map(|(name, rules)| identity(cluster, &name, rules))
        .collect()
}

/// Returns the JobManagers' rights.
pub fn job_manager_rules(cluster: &Cluster) -> Vec<RoleRule> {
    vec![
        RoleRule {
            why: "Flink and the gateway: leader addresses, job graphs, checkpoint pointers, ledger. The names of jobs' ConfigMaps contain \
                the jobs' ids, so they are not known beforehand; the chart's admission policy limits the writes to the cluster's own",
            rule: json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"] }),
        },
        RoleRule {
            why: "The gateway: the election. The operator creates the Lease, so the rule can name it",
            rule: json!({
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [names::lease(cluster.name())],
                "verbs": ["get", "list", "watch", "update", "patch"],
            }),
        },
        rest_endpoint(cluster),
    ]
}

/// Returns the TaskManagers' rights.
pub fn task_manager_rules(cluster: &Cluster) -> Vec<RoleRule> {
    vec![RoleRule {
        why: "Flink: the leader's addresses",
        rule: json!({
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [names::cluster_config_map(&cluster.kubernetes_cluster_id())],
            "verbs": ["get", "list", "watch"],
        }),
    }]
}

fn identity(cluster: &Cluster, name: &str, rules: Vec<RoleRule>) -> [Value; 3] {
    let rules: Vec<Value> = rules.into_iter().map(|one| one.rule).collect();
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
