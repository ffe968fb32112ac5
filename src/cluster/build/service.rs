//! Builds the Services by which clients find JobManagers, and the objects that the leading gateway writes.

use serde_json::{Value, json};

use super::{Environment, object, selector};
use crate::api::names::{self, JOB_MANAGER, REST_PORT, TASK_MANAGER};
use crate::api::rest::{IpFamily, IpFamilyPolicy, RestService, ServiceType};
use crate::cluster::Cluster;

/// Returns the Services and the disruption budgets.
pub fn applied(cluster: &Cluster) -> Vec<Value> {
    let name = cluster.name();
    let ports = json!([{ "name": "rest", "port": REST_PORT, "targetPort": REST_PORT, "protocol": "TCP" }]);
    let selector = selector(name, JOB_MANAGER);
    // None is said without the user, so that Services of earlier versions are as they should be.
    let RestService { service_type, annotations, .. } = &cluster.spec().rest;
    let mut rest = json!({ "spec": { "ports": ports } });
    let mut job_managers = json!({ "spec": { "ports": ports, "selector": selector } });
    for service in [&mut rest, &mut job_managers] {
        add_families(&mut service["spec"], &cluster.spec().rest);
    }
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
        object(cluster, "v1", "Service", &names::job_managers(name), job_managers),
        // Only one JobManager at a time may be evicted.
        budget(cluster, &names::job_manager(name), JOB_MANAGER, &json!(1)),
    ]
    .into_iter()
    .chain(of_task_managers.map(|max| budget(cluster, &names::task_manager(name), TASK_MANAGER, &json!(max))))
    .collect()
}

/// Says the families of addresses that the user says.
fn add_families(spec: &mut Value, wanted: &RestService) {
    // Kubernetes infers this for a new Service only, and refuses two families for one that exists without it.
    let both = (wanted.ip_families.len() > 1).then_some(IpFamilyPolicy::RequireDualStack);
    if let Some(policy) = wanted.ip_family_policy.or(both) {
        spec["ipFamilyPolicy"] = json!(policy);
    }
    if !wanted.ip_families.is_empty() {
        spec["ipFamilies"] = json!(wanted.ip_families);
    }
}

/// Returns what identifies objects that the resource does not want: the TaskManagers' disruption budget, and the
/// EndpointSlice of a family that the leader's Service has no longer, in which an address would grow old.
pub fn unwanted(cluster: &Cluster, environment: &Environment) -> Vec<Value> {
    let name = cluster.name();
    let is_wanted = cluster.spec().task_manager.max_unavailable.is_some();
    let budget = (!is_wanted).then(|| object(cluster, BUDGET.0, BUDGET.1, &names::task_manager(name), json!({})));
    let families = families(cluster, environment);
    // Unknown never deletes.
    let is_known = environment.ip_family.is_some() || !cluster.spec().rest.named_families().is_empty();
    let unwanted = IpFamily::ALL.into_iter().filter(|family| is_known && !families.contains(family));
    budget.into_iter().chain(unwanted.map(|family| slice(cluster, family, json!({})))).collect()
}

/// Returns the families of addresses in which the leader is published. That of the pods is the one of a Service about
/// which nothing is said: kubelets put the pods' addresses in the order of the nodes' own (`sortPodIPs` in
/// `pkg/kubelet/kubelet_pods.go`).
fn families(cluster: &Cluster, environment: &Environment) -> Vec<IpFamily> {
    let named = cluster.spec().rest.named_families();
    if named.is_empty() { vec![environment.ip_family.unwrap_or(IpFamily::IPv4)] } else { named }
}

fn slice(cluster: &Cluster, family: IpFamily, body: Value) -> Value {
    object(cluster, "discovery.k8s.io/v1", "EndpointSlice", &family.rest_slice(cluster.name()), body)
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
pub fn created(cluster: &Cluster, environment: &Environment) -> Vec<Value> {
    let name = cluster.name();
    let slices = families(cluster, environment).into_iter().map(|family| {
        let body = json!({
            "metadata": { "labels": slice_labels(name) },
            "addressType": family,
            "endpoints": [],
            "ports": slice_ports(),
        });
        slice(cluster, family, body)
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
    lease.into_iter().chain([ledger]).chain(slices).collect()
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

    fn with_rest(fields: Value) -> Cluster {
        fixture::cluster_with(|spec| spec.rest = serde_json::from_value(fields).expect("fields of spec.rest"))
    }

    #[test]
    fn both_services_have_the_families_that_the_resource_names_and_say_nothing_without() {
        let said = |fields: Value| {
            let applied = applied(&with_rest(fields));
            let services: Vec<&Value> = applied.iter().filter(|object| object["kind"] == "Service").collect();
            let said = |service: &Value| {
                let spec = service["spec"].as_object().cloned().unwrap_or_default();
                let said = spec.into_iter().filter(|(field, _)| field.starts_with("ipFamil"));
                Value::Object(said.collect())
            };
            assert!(services.len() == 2 && said(services[0]) == said(services[1]), "{services:#?}");
            said(services[0])
        };
        assert_eq!(said(json!({})), json!({}));
        for fields in [
            json!({ "ipFamilyPolicy": "PreferDualStack" }),
            json!({ "ipFamilies": ["IPv6"] }),
            json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"] }),
        ] {
            assert_eq!(said(fields.clone()), fields);
        }
        let both = json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"] });
        assert_eq!(said(json!({ "ipFamilies": ["IPv4", "IPv6"] })), both);
    }

    #[test]
    fn there_is_an_endpoint_slice_for_each_family_of_the_leaders_service_and_no_other() {
        let slices = |fields: Value, ip_family| {
            let (cluster, environment) = (with_rest(fields), Environment { ip_family, ..Environment::default() });
            let of = |objects: Vec<Value>| {
                let slices = objects.into_iter().filter(|object| object["kind"] == "EndpointSlice");
                slices.map(|slice| slice["metadata"]["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
            };
            for slice in created(&cluster, &environment).iter().filter(|object| object["kind"] == "EndpointSlice") {
                let is_of_ipv6 = slice["metadata"]["name"] == "demo-rest-ipv6";
                assert_eq!(slice["addressType"], if is_of_ipv6 { "IPv6" } else { "IPv4" });
                assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "demo-rest");
            }
            (of(created(&cluster, &environment)), of(unwanted(&cluster, &environment)))
        };
        let names = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
        let (v4, v6) = (names(&["demo-rest"]), names(&["demo-rest-ipv6"]));
        let both = names(&["demo-rest", "demo-rest-ipv6"]);
        let none = names(&[]);
        for (fields, ip_family, expected) in [
            (json!({}), None, (&v4, &none)),
            (json!({}), Some(IpFamily::IPv4), (&v4, &v6)),
            (json!({}), Some(IpFamily::IPv6), (&v6, &v4)),
            (json!({ "ipFamilyPolicy": "SingleStack" }), Some(IpFamily::IPv6), (&v6, &v4)),
            (json!({ "ipFamilies": ["IPv6"] }), Some(IpFamily::IPv4), (&v6, &v4)),
            (json!({ "ipFamilies": ["IPv4"] }), None, (&v4, &v6)),
            (json!({ "ipFamilyPolicy": "PreferDualStack" }), Some(IpFamily::IPv4), (&both, &none)),
            (json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"] }), None, (&both, &none)),
        ] {
            assert_eq!(slices(fields.clone(), ip_family), (expected.0.clone(), expected.1.clone()), "{fields}");
        }
    }
}
