//! Builds the NetworkPolicy of a cluster's pods. It closes the ports that only these pods need, and leaves all others
//! open, because users may have opened them: for metrics of Flink, queryable state, sidecars.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::object;
use crate::api::names::{self, CLUSTER_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PROBE_PORT, REST_PORT};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::Cluster;
use crate::cluster::events::EventNote;

/// Kind of the object.
pub const KIND: &str = "NetworkPolicy";
const API_VERSION: &str = "networking.k8s.io/v1";
/// Label that Kubernetes puts on each namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Flink's ports for its own processes: data, RPC, blobs, and metrics for the web interface.
const FLINK_PORTS: RangeInclusive<u16> = 6121..=6125;
/// Linux chooses from these for a socket that asks for any port, as some of Flink's do.
const DYNAMIC_PORTS: RangeInclusive<u16> = 32768..=60999;

/// Returns the NetworkPolicy, unless the resource does not want it.
pub fn wanted(cluster: &Cluster) -> Option<Value> {
    let wanted = &cluster.spec().network_policy;
    wanted.enabled.then(|| {
        let own = json!({ MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: cluster.name() });
        let own = json!({ "matchLabels": own });
        // A rule whose list of peers is empty would admit everybody.
        let from_namespaces = |names: &[String], port: u16| {
            let expression = json!({ "key": NAMESPACE_LABEL, "operator": "In", "values": names });
            let peer = json!({ "namespaceSelector": { "matchExpressions": [expression] } });
            (!names.is_empty()).then(|| json!({ "from": [peer], "ports": [single(port)] }))
        };
        let rest = wanted.rest_from.as_deref().and_then(|names| from_namespaces(names, REST_PORT));
        let metrics = from_namespaces(&wanted.metrics_from, PROBE_PORT);
        let rules = [json!({ "from": [{ "podSelector": own }] }), json!({ "ports": open_to_all(cluster) })];
        let rules: Vec<Value> = rules.into_iter().chain(rest).chain(metrics).collect();
        identified(cluster, json!({ "spec": { "podSelector": own, "policyTypes": ["Ingress"], "ingress": rules } }))
    })
}

/// Returns what identifies the NetworkPolicy of a resource that does not want it.
pub fn unwanted(cluster: &Cluster) -> Option<Value> {
    (!cluster.spec().network_policy.enabled).then(|| identified(cluster, json!({})))
}

fn identified(cluster: &Cluster, body: Value) -> Value {
    object(cluster, API_VERSION, KIND, &names::network_policy(cluster.name()), body)
}

/// Returns the event about a NetworkPolicy that is new to a cluster which was there before.
pub fn announcement(policy: &Value, before: &FlinkHaClusterStatus) -> Option<EventNote> {
    before.gateway_image.as_ref()?;
    let name = policy["metadata"]["name"].as_str().unwrap_or_default();
    let message = format!(
        "NetworkPolicy {name} is new, and no pod is restarted for it: ports {}-{}, {PROBE_PORT} and {}-{} are open to the \
         cluster's own pods only, where the network plugin enforces it. Name the namespaces that read the gateways' \
         metrics in spec.networkPolicy.metricsFrom, and ports of your own as containerPort in a podTemplate; \
         spec.networkPolicy.enabled: false removes it",
        FLINK_PORTS.start(),
        FLINK_PORTS.end(),
        DYNAMIC_PORTS.start(),
        DYNAMIC_PORTS.end(),
    );
    Some(EventNote { warning: false, reason: "NetworkPolicyCreated".to_owned(), message })
}

/// Returns the ports that everybody may reach. Known ports come singly, because some network plugins take a range for
/// its first port.
fn open_to_all(cluster: &Cluster) -> Vec<Value> {
    let rest_is_open = cluster.spec().network_policy.rest_from.is_none();
    let rest = || REST_PORT..=REST_PORT;
    let known = rest_is_open.then_some(REST_PORT).into_iter().chain(declared(cluster)).map(single);
    let closed = [vec![FLINK_PORTS, PROBE_PORT..=PROBE_PORT], if rest_is_open { Vec::new() } else { vec![rest()] }];
    let closed: Vec<_> = closed.concat().into_iter().chain([DYNAMIC_PORTS]).collect();
    let ranges = between(&closed)
        .into_iter()
        .map(|range| json!({ "protocol": "TCP", "port": range.start(), "endPort": range.end() }));
    // The cluster itself uses no UDP.
    known.chain(ranges).chain([json!({ "protocol": "UDP" })]).collect()
}

fn single(port: u16) -> Value {
    json!({ "protocol": "TCP", "port": port })
}

/// Returns the ports between ranges that are in order.
fn between(ranges: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let starts = std::iter::once(1).chain(ranges.iter().map(|range| range.end().saturating_add(1)));
    let ends = ranges.iter().map(|range| range.start().saturating_sub(1)).chain([u16::MAX]);
    starts.zip(ends).map(|(start, end)| start..=end).filter(|range| !range.is_empty()).collect()
}

/// Returns the ports that the user's pod templates name. None of them opens a port of Flink or the gateway.
fn declared(cluster: &Cluster) -> BTreeSet<u16> {
    let spec = cluster.spec();
    let templates = [&spec.job_manager.pod_template, &spec.task_manager.pod_template];
    let lists =
        templates.into_iter().flat_map(|template| ["containers", "initContainers"].map(|key| &template["spec"][key]));
    let containers = lists.filter_map(Value::as_array).flatten();
    let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
    let tcp = ports.filter(|port| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP"));
    let numbers = tcp.filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
    numbers.filter(|port| *port > 0 && !FLINK_PORTS.contains(port) && ![PROBE_PORT, REST_PORT].contains(port)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::api::FlinkHaClusterSpec;
    use crate::cluster::tests as fixture;

    fn rules(change: impl FnOnce(&mut FlinkHaClusterSpec)) -> Vec<NetworkPolicyIngressRule> {
        let policy = wanted(&fixture::cluster_with(change)).expect("a policy");
        let typed: NetworkPolicy = serde_json::from_value(policy.clone()).expect("fields that Kubernetes knows");
        assert_eq!(json!(typed), policy);
        let spec = typed.spec.expect("a spec");
        let own = json!({ "matchLabels": { "app.kubernetes.io/instance": "demo", "app.kubernetes.io/managed-by": "flinkha" } });
        assert_eq!(json!(spec.pod_selector), own, "pods of both roles");
        assert_eq!((spec.policy_types, spec.egress), (Some(vec!["Ingress".to_owned()]), None));
        let mut rules = spec.ingress.expect("rules");
        let first = rules.remove(0);
        assert_eq!(json!(first), json!({ "from": [{ "podSelector": own }] }), "all ports for the cluster's own pods");
        rules
    }

    fn has(port: &NetworkPolicyPort, protocol: &str, number: u16, understands_ranges: bool) -> bool {
        let first = match &port.port {
            Some(IntOrString::Int(first)) => *first,
            Some(IntOrString::String(name)) => panic!("a named port: {name}"),
            None => return port.protocol.as_deref() == Some(protocol),
        };
        let last = port.end_port.filter(|_| understands_ranges).unwrap_or(first);
        port.protocol.as_deref() == Some(protocol) && (first..=last).contains(&i32::from(number))
    }

    /// Whether a pod may open a connection: of this namespace, or of somewhere else.
    fn admits(
        rules: &[NetworkPolicyIngressRule],
        namespace: Option<&str>,
        port: u16,
        understands_ranges: bool,
    ) -> bool {
        rules.iter().any(|rule| {
            let peers = rule.from.as_ref();
            let is_peer = peers.is_none_or(|peers| {
                peers.iter().any(|peer| {
                    let selector = json!(peer.namespace_selector)["matchExpressions"][0].clone();
                    assert_eq!((&selector["key"], &selector["operator"]), (&json!(NAMESPACE_LABEL), &json!("In")));
                    selector["values"].as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == namespace))
                })
            });
            is_peer && rule.ports.iter().flatten().any(|one| has(one, "TCP", port, understands_ranges))
        })
    }

    fn declare(spec: &mut FlinkHaClusterSpec, job_manager: &Value, task_manager: &Value) {
        let sidecar = |ports: &Value| json!({ "name": "sidecar", "image": "sidecar", "ports": ports });
        spec.job_manager.pod_template = json!({ "spec": { "initContainers": [sidecar(job_manager)] } });
        spec.task_manager.pod_template = json!({ "spec": { "containers": [sidecar(task_manager)] } });
    }

    #[test]
    fn each_port_is_open_as_it_was_but_for_those_that_only_the_cluster_needs() {
        let rules = rules(|_| ());
        let own = [6121, 6122, 6123, 6124, 6125, 6181];
        for port in 1..=u16::MAX {
            let closed = own.contains(&port) || (32768..=60999).contains(&port);
            assert_eq!(admits(&rules, Some("elsewhere"), port, true), !closed, "{port}");
        }
        let named = [
            names::RPC_PORT,
            names::BLOB_PORT,
            names::TASK_MANAGER_RPC_PORT,
            names::TASK_MANAGER_DATA_PORT,
            names::METRICS_QUERY_PORT.parse().expect("a port"),
        ];
        assert!(named.iter().all(|port| FLINK_PORTS.contains(port)), "{named:?}");
        assert_eq!(rules.len(), 1, "who is no pod of the cluster is treated like all others");
        assert!(rules[0].ports.iter().flatten().any(|port| has(port, "UDP", 8125, true)));
    }

    #[test]
    fn metrics_and_rest_are_open_to_the_namespaces_that_the_fields_name() {
        let rules = rules(|spec| {
            spec.network_policy.metrics_from = vec!["monitoring".to_owned()];
            spec.network_policy.rest_from = Some(vec!["ingress".to_owned(), "jobs".to_owned()]);
        });
        for (namespace, port, expected) in [
            ("monitoring", 6181, true),
            ("monitoring", 8081, false),
            ("monitoring", 6123, false),
            ("ingress", 8081, true),
            ("jobs", 8081, true),
            ("jobs", 6181, false),
            ("elsewhere", 8081, false),
            ("elsewhere", 8080, true),
            ("elsewhere", 8082, true),
        ] {
            assert_eq!(admits(&rules, Some(namespace), port, true), expected, "{namespace} {port}");
        }
        assert!(!admits(&rules, None, 8081, true), "nobody outside of the Kubernetes cluster");
    }

    #[test]
    fn an_empty_list_is_nobody_and_not_everybody() {
        let rules = rules(|spec| spec.network_policy.rest_from = Some(Vec::new()));
        assert_eq!(rules.len(), 1);
        assert!(!admits(&rules, Some("flink"), 8081, true) && admits(&rules, Some("flink"), 9249, true));
    }

    #[test]
    fn a_port_that_a_template_names_stays_open_unless_it_is_one_of_the_clusters_own() {
        let job_manager = json!([{ "containerPort": 40000 }, { "containerPort": 9249, "protocol": "TCP" }]);
        let task_manager = json!([
            { "containerPort": 50000, "protocol": "UDP" },
            { "containerPort": 6123 }, { "containerPort": 6181 }, { "containerPort": 8081 },
            { "containerPort": 70000 }, { "containerPort": 0 }, { "name": "none" },
        ]);
        let rules = rules(|spec| {
            spec.network_policy.rest_from = Some(Vec::new());
            declare(spec, &job_manager, &task_manager);
        });
        for (port, expected) in
            [(40000, true), (40001, false), (50000, false), (6123, false), (6181, false), (8081, false)]
        {
            assert_eq!(admits(&rules, None, port, true), expected, "{port}");
        }
    }

    #[test]
    fn a_plugin_that_knows_no_ranges_keeps_rest_and_named_ports_open_and_opens_none_of_the_clusters_own() {
        let rules = rules(|spec| declare(spec, &json!([{ "containerPort": 9249 }]), &Value::Null));
        for port in [8081, 9249] {
            assert!(admits(&rules, None, port, false), "{port}");
        }
        assert!(![6121, 6122, 6123, 6124, 6125, 6181].into_iter().any(|port| admits(&rules, None, port, false)));
    }

    #[test]
    fn one_field_switches_it_off_and_what_is_to_go_is_named() {
        let off = fixture::cluster_with(|spec| spec.network_policy.enabled = false);
        assert_eq!(wanted(&off), None);
        let gone = unwanted(&off).expect("what is to go");
        assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("NetworkPolicy"), &json!("demo-flinkha")));
        assert_eq!(unwanted(&fixture::cluster()), None);
    }

    #[test]
    fn a_cluster_that_was_there_before_is_told_and_a_new_one_is_not() {
        let policy = wanted(&fixture::cluster()).expect("a policy");
        assert_eq!(announcement(&policy, &FlinkHaClusterStatus::default()), None);
        let before =
            FlinkHaClusterStatus { gateway_image: Some("flinkha:1".to_owned()), ..FlinkHaClusterStatus::default() };
        let note = announcement(&policy, &before).expect("an event");
        assert!(note.message.starts_with("NetworkPolicy demo-flinkha is new, and no pod is restarted"), "{note:?}");
        assert!(note.message.len() < 500, "longer ones are cut: {}", note.message.len());
    }
}
