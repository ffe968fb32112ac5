//! Builds the Services by which clients find JobManagers, and the objects that the leading gateway writes.

use serde_json::{Value, json};

use super::{object, selector};
use crate::api::names::{self, JOB_MANAGER, REST_PORT, TASK_MANAGER};
use crate::api::rest::{RestService, ServiceType};
use crate::cluster::Cluster;

/// Returns the Services and the disruption budgets.
pub fn applied(cluster: &Cluster) -> Vec<Value> {
    let name = cluster.name();
    let ports = json!([{ "name": "rest", "port": REST_PORT, "targetPort": REST_PORT, "protocol": "TCP" }]);
    let selector = selector(name, JOB_MANAGER);
    // Neither is said without the user, so that Services of earlier versions are as they should be.
    let RestService { service_type, annotations } = &cluster.spec().rest;
    let mut rest = json!({ "spec": { "ports": ports } });
    if *service_type != ServiceType::ClusterIP {
        rest["spec"]["type"] = json!(service_type);
    }
    if !annotations.is_empty() {
        rest["metadata"]["annotations"] = json!(annotations);
    }
    let of_task_managers = cluster.spec().task_manager.max_unavailable.iter();
    vec![
        // The leader's Service has no selector: the leading gateway writes its address into the EndpointSlice, even
        // while the operator is down.
        object(cluster, "v1", "Service", &names::rest(name), rest),
        // All JobManagers: a standby asks the leader and answers. This is for port-forward, which needs a selector, as
        // some Ingress controllers do.
        object(
            cluster,
            "v1",
            "Service",
            &names::job_managers(name),
            json!({ "spec": { "ports": ports, "selector": selector } }),
        ),
        // Only one JobManager at a time may be evicted.
        budget(cluster, &names::job_manager(name), JOB_MANAGER, &json!(1)),
    ]
    .into_iter()
    .chain(of_task_managers.map(|max| budget(cluster, &names::task_manager(name), TASK_MANAGER, &json!(max))))
    .collect()
}

/// Returns what identifies the TaskManagers' disruption budget of a resource that does not want it.
pub fn unwanted(cluster: &Cluster) -> Option<Value> {
    let is_wanted = cluster.spec().task_manager.max_unavailable.is_some();
    (!is_wanted).then(|| object(cluster, BUDGET.0, BUDGET.1, &names::task_manager(cluster.name()), json!({})))
}

/// API version and kind of a disruption budget.
const BUDGET: (&str, &str) = ("policy/v1", "PodDisruptionBudget");

/// Returns the disruption budget of a component. A pod that is not ready serves nobody, so it never holds up a drain.
fn budget(cluster: &Cluster, name: &str, component: &str, max_unavailable: &Value) -> Value {
    let spec = json!({
        "maxUnavailable": max_unavailable,
        "selector": { "matchLabels": selector(cluster.name(), component) },
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    object(cluster, BUDGET.0, BUDGET.1, name, json!({ "spec": spec }))
}

/// Returns the objects that the operator creates empty, so that the JobManagers' Role can name them. The leading
/// gateway fills them.
pub fn created(cluster: &Cluster) -> Vec<Value> {
    let name = cluster.name();
    let slice = json!({
        "metadata": { "labels": slice_labels(name) },
        "addressType": "IPv4",
        "endpoints": [],
        "ports": slice_ports(),
    });
    let mut ledger = object(cluster, "v1", "ConfigMap", &names::ledger(name), json!({}));
    // The ledger may outlive the resource, together with the data of jobs that have not ended; the finalizer decides.
    // Without an owner, Argo CD takes it for its own if it tracks by label and its application has the cluster's name.
    let not_of_argo_cd = json!({
        "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
    });
    let metadata = json!({ "metadata": { "ownerReferences": null, "annotations": not_of_argo_cd } });
    crate::cluster::merge::merge(&mut ledger, metadata);
    // With ZooKeeper, Flink elects and there is no Lease: the ledger names the leader.
    let lease = cluster
        .zookeeper()
        .is_none()
        .then(|| object(cluster, "coordination.k8s.io/v1", "Lease", &names::lease(name), json!({ "spec": {} })));
    let others = [ledger, object(cluster, "discovery.k8s.io/v1", "EndpointSlice", &names::rest(name), slice)];
    lease.into_iter().chain(others).collect()
}

/// Returns the labels by which Kubernetes finds the EndpointSlice of the leader's Service. The leading gateway keeps
/// them there.
pub fn slice_labels(cluster: &str) -> Value {
    json!({ "kubernetes.io/service-name": names::rest(cluster), "endpointslice.kubernetes.io/managed-by": "flinkha" })
}

/// Returns the ports of that EndpointSlice.
pub fn slice_ports() -> Value {
    json!([{ "name": "rest", "port": REST_PORT, "protocol": "TCP" }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    #[test]
    fn the_service_of_the_leader_has_the_type_and_the_annotations_of_the_resource_and_none_without() {
        let rest = |fields: Value| {
            let set = |spec: &mut crate::api::FlinkHaClusterSpec| {
                spec.rest = serde_json::from_value(fields).unwrap_or_default();
                spec.common_metadata.annotations = [("a".to_owned(), "of all".to_owned())].into();
            };
            let applied = applied(&fixture::cluster_with(set));
            applied.into_iter().find(|object| object["metadata"]["name"] == "demo-rest").unwrap_or_default()
        };
        assert_eq!(rest(json!({}))["spec"]["type"], Value::Null);
        let annotations = json!({ "a": "b", "c": "d" });
        let service = rest(json!({ "serviceType": "LoadBalancer", "annotations": annotations }));
        assert_eq!(
            (&service["spec"]["type"], &service["metadata"]["annotations"]),
            (&json!("LoadBalancer"), &annotations)
        );
    }
}
