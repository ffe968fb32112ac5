//! Addresses of IPv6: a cluster whose pods have no others, and Services with one family or both.

use std::time::Instant;

use flinkha::api::FlinkHaCluster;
use flinkha::api::names;
use flinkha::api::rest::IpFamily;
use flinkha::cluster::build::job_manager::RESTART_TURN;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, NAME, Provider};
use crate::support::failover::fail_over;
use crate::support::gateway::Timings;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, flink, gateway, machine, pods, say, seconds};

/// Everything as in a Kubernetes cluster without IPv4: pods have namespaces of their own, with the ports, the flags and
/// the configuration of production, and the API server's address is of IPv6.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_where_all_addresses_are_of_ipv6() {
    const TEST: &str = "dual_stack::a_killed_leader_is_replaced_where_all_addresses_are_of_ipv6";
    machine::want_all();
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        return say("this machine has no IPv6");
    }
    if !pods::are_of_ipv6() {
        let _share = machine::share().await;
        return pods::run_again(TEST, &flink::version());
    }
    pods::prepare();
    let mut cluster = Cluster::start(Provider::Kubernetes(Timings::DEFAULT), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let before = cluster.lease().await;
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    let leader = &cluster.job_managers[failover.leader];
    let address = pods::address(leader.address).to_string();
    assert!(address.contains(':'), "{address}");

    let after = cluster.lease().await;
    assert_eq!((&after.holder, &after.peers.address), (&leader.pod, &format!("[{address}]:{}", names::PROBE_PORT)));
    assert_ne!(before.peers.address, after.peers.address);
    let task_managers = leader.rest().get("/taskmanagers").await.unwrap();
    let paths = task_managers["taskmanagers"].as_array().unwrap().iter().map(|one| one["path"].to_string());
    let paths: Vec<_> = paths.collect();
    assert!(paths.len() == 1 && paths[0].contains("flink@[2001:db8:"), "{paths:?}");

    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let published = async |family: IpFamily| {
        let slice = slices.get(&family.rest_slice(NAME)).await.unwrap();
        slice.endpoints.into_iter().flat_map(|endpoint| endpoint.addresses).collect::<Vec<_>>()
    };
    let is_published = async || (published(IpFamily::IPv6).await == [address.clone()]).then_some(());
    eventually("the leader's address in the EndpointSlice", seconds(5), is_published).await;
    assert!(published(IpFamily::IPv4).await.is_empty());

    // A JobManager that starts again asks at 127.0.0.1, whatever the address of its pod.
    assert!(RESTART_TURN.contains("/dev/tcp/127.0.0.1/6181"), "{RESTART_TURN}");
    let asked = pods::output_inside(leader.address, "exec 3<>/dev/tcp/127.0.0.1/6181 && echo reached");
    assert_eq!(asked.trim(), "reached");
    let turn = leader.probe("/startz").await.expect("an answer at the pod's address");
    say(format!("at {}: {turn:?}", gateway::probe_url(leader.address)));
}

/// The families of a Service, once it has these.
async fn has_families(installation: &Installation, families: &[&str]) -> Value {
    let has = |service: &Value| service["spec"]["ipFamilies"] == json!(families);
    for service in ["demo-rest", "demo-jobmanagers"] {
        installation.until::<Service>(&format!("{service} with {families:?}"), (NAMESPACE, service), has).await;
    }
    installation.until::<Service>("the Service", (NAMESPACE, "demo-rest"), has).await
}

/// The EndpointSlices of the leader's Service and their types, once they are these.
async fn has_slices(installation: &Installation, expected: &[(&str, &str)]) {
    let slices = installation.api::<EndpointSlice>(NAMESPACE);
    let are_there = async || {
        let all = slices.list(&Default::default()).await.expect("the API server answers").items;
        let mut all: Vec<_> = all
            .into_iter()
            .map(|one| (one.metadata.name.unwrap_or_default(), one.data["addressType"].as_str().unwrap().to_owned()))
            .collect();
        all.sort();
        let expected = expected.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned()));
        (all == expected.collect::<Vec<_>>()).then_some(())
    };
    eventually(&format!("the EndpointSlices {expected:?}"), seconds(20), are_there).await;
}

const OF_IPV4: (&str, &str) = ("demo-rest", "IPv4");
const OF_IPV6: (&str, &str) = ("demo-rest-ipv6", "IPv6");

#[tokio::test(flavor = "multi_thread")]
async fn services_have_the_families_of_the_resource_and_an_endpoint_slice_for_each() {
    let installation = Installation::start_with_flags(NAMESPACE, &["--pod-ip", "10.1.2.3"]).await;
    let apply = |rest: Value| installation.apply(&cluster(json!({ "rest": rest })));
    installation.apply(&cluster(json!({})));
    has_families(&installation, &["IPv4"]).await;
    has_slices(&installation, &[OF_IPV4]).await;

    let begin = Instant::now();
    apply(json!({ "ipFamilyPolicy": "PreferDualStack" }));
    let service = has_families(&installation, &["IPv4", "IPv6"]).await;
    has_slices(&installation, &[OF_IPV4, OF_IPV6]).await;
    say(format!("both families after {:.1} s", begin.elapsed().as_secs_f32()));
    assert_eq!(service["spec"]["clusterIPs"].as_array().map(Vec::len), Some(2), "{service}");

    // Nobody writes into the second one any more.
    apply(json!({}));
    has_slices(&installation, &[OF_IPV4]).await;
    let left = installation.until::<Service>("the Service", (NAMESPACE, "demo-rest"), |_| true).await;
    say(format!("a Service of both families about which nothing is said any more has {}", left["spec"]["ipFamilies"]));
    apply(json!({ "ipFamilyPolicy": "SingleStack" }));
    has_families(&installation, &["IPv4"]).await;
    has_slices(&installation, &[OF_IPV4]).await;

    // By two families, which Kubernetes would not take without a policy.
    apply(json!({ "ipFamilies": ["IPv4", "IPv6"] }));
    has_families(&installation, &["IPv4", "IPv6"]).await;

    // Kubernetes does not change the first family of a Service, and the resource says so.
    apply(json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] }));
    let is_told = |resource: &Value| condition(resource, "Degraded")["reason"] == "ApplyFailed";
    let told = installation.until::<FlinkHaCluster>("a refusal", (NAMESPACE, "demo"), is_told).await;
    let message = condition(&told, "Degraded")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("Service demo-rest") && message.contains("ipFamilies[0]"), "{message}");
    say(message);

    let refusal = installation
        .refusal(&cluster(json!({ "rest": { "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4", "IPv6"] } })));
    assert!(refusal.contains("spec.rest.ipFamilies must name one family with ipFamilyPolicy SingleStack"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_an_address_of_ipv6_makes_one_endpoint_slice_of_that_type() {
    let installation = Installation::start_with_flags(NAMESPACE, &["--pod-ip", "2001:db8::1"]).await;
    installation.apply(&cluster(json!({ "rest": { "ipFamilies": ["IPv6"] } })));
    has_families(&installation, &["IPv6"]).await;
    has_slices(&installation, &[OF_IPV6]).await;
    installation.apply(&cluster(json!({})));
    let is_told = |resource: &Value| {
        resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
            && resource["metadata"]["generation"] == 2
    };
    installation.until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), is_told).await;
    // What is left out stays as it is.
    let service = has_families(&installation, &["IPv6"]).await;
    assert_eq!(service["spec"]["ipFamilyPolicy"], "SingleStack");
    has_slices(&installation, &[OF_IPV6]).await;
    let requests = installation.plane.servers[0].audit().requests().into_iter();
    let of_slices = requests.filter(|one| one.user == OPERATOR && one.resource == "endpointslices" && one.is_write());
    let of_slices: Vec<_> = of_slices.map(|one| format!("{} {}", one.verb, one.name)).collect();
    assert_eq!(of_slices, ["create demo-rest-ipv6"]);
}
