//! The operator's NetworkPolicy where something enforces it: who reaches which port of a cluster's pods, and that the
//! cluster itself works and fails over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flinkha::api::names::{self, JOB_MANAGER, TASK_MANAGER};
use futures::future::join_all;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::kit::cluster::{Cluster, ip};
use crate::kit::failover::kill_leader;
use crate::kit::machine::{flink_image, kubectl, kubectl_with, run};
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::script;
use crate::support::seconds;

const NAMESPACE: &str = "kind-network";
const ELSEWHERE: &str = "kind-network-elsewhere";
const MONITORING: &str = "kind-network-monitoring";
const CLIENT: &str = "client";

/// A packet that is dropped is answered by nobody.
const PATIENCE: &str = "3";

/// Ports on which a TaskManager listens for this test: of a reporter, which nobody has named; a dynamic one; and a
/// dynamic one that the podTemplate names.
const REPORTER: u16 = 9249;
const DYNAMIC: u16 = 40000;
const NAMED: u16 = 40001;

/// Somebody who opens connections: a container of a pod.
#[derive(Clone)]
struct Client {
    namespace: String,
    pod: String,
    container: &'static str,
}

impl Client {
    /// A pod that is none of the cluster's.
    fn start(namespace: &str) -> Self {
        let security = json!({
            "runAsNonRoot": true, "runAsUser": 9999, "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        });
        let container = json!({
            "name": CLIENT, "image": flink_image(), "command": ["sleep", "infinity"], "securityContext": security,
        });
        let spec = json!({ "containers": [container], "terminationGracePeriodSeconds": 0 });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": CLIENT }, "spec": spec });
        kubectl_with(&["--namespace", namespace, "apply", "--filename", "-"], &pod.to_string());
        kubectl(&["--namespace", namespace, "wait", "pod", CLIENT, "--for", "condition=Ready", "--timeout", "120s"]);
        Self { namespace: namespace.to_owned(), pod: CLIENT.to_owned(), container: CLIENT }
    }

    async fn reaches(&self, address: &str, port: u16) -> bool {
        let client = self.clone();
        let connect = format!("timeout {PATIENCE} bash -c '</dev/tcp/{address}/{port}' 2>&1 || echo failed $?");
        let ask = move || {
            let place = ["--namespace", &client.namespace, "exec", &client.pod, "--container", client.container];
            run("kubectl", &[place.as_slice(), &["--", "bash", "-c", &connect]].concat(), "")
        };
        let printed = tokio::task::spawn_blocking(ask).await.expect("a task").expect("kubectl exec");
        printed.is_empty()
    }
}

/// The pods that are asked: the leading JobManager and a TaskManager.
struct Targets {
    job_manager: String,
    task_manager: String,
}

impl Targets {
    async fn of(cluster: &Cluster) -> Self {
        let leader = cluster.leader().await.expect("a leader");
        let task_manager = cluster.pods(TASK_MANAGER).await.remove(0);
        let address = |pod| ip(pod).expect("an address").to_owned();
        Self { job_manager: address(&leader), task_manager: address(&task_manager) }
    }

    /// What a client reaches of all ports.
    async fn seen_by(&self, client: &Client) -> BTreeMap<String, bool> {
        let metrics = names::METRICS_QUERY_PORT.parse().expect("a port");
        let job_manager = [names::RPC_PORT, names::BLOB_PORT, metrics, names::PROBE_PORT, names::REST_PORT];
        let task_manager =
            [names::TASK_MANAGER_DATA_PORT, names::TASK_MANAGER_RPC_PORT, metrics, REPORTER, DYNAMIC, NAMED];
        let ports = job_manager.map(|port| ("JobManager", &self.job_manager, port)).into_iter();
        let ports = ports.chain(task_manager.map(|port| ("TaskManager", &self.task_manager, port)));
        let asked = ports.map(|(role, address, port)| async move {
            (format!("{role} {port}"), client.reaches(address, port).await)
        });
        join_all(asked).await.into_iter().collect()
    }
}

/// Those of the ports that are open.
fn open(seen: &BTreeMap<String, bool>) -> Vec<&str> {
    seen.iter().filter(|(_, is_open)| **is_open).map(|(port, _)| port.as_str()).collect()
}

/// Opens the ports of this test in a TaskManager; they stay open as long as the pod lives.
fn listen(namespace: &str, pod: &str) {
    let program = format!(
        "use IO::Socket::INET; exit if fork; open STDIN, '<', '/dev/null'; open STDOUT, '>', '/dev/null'; \
         open STDERR, '>', '/dev/null'; \
         my @all = map {{ IO::Socket::INET->new(LocalPort => $_, Listen => 64, ReuseAddr => 1) or die $! }} ({REPORTER}, {DYNAMIC}, {NAMED}); \
         sleep 3600"
    );
    kubectl(&[
        "--namespace",
        namespace,
        "exec",
        pod,
        "--container",
        names::FLINK_CONTAINER,
        "--",
        "perl",
        "-e",
        &program,
    ]);
}

fn patch(cluster: &Cluster, policy: &Value) {
    let patch = json!({ "spec": { "networkPolicy": policy } }).to_string();
    cluster.namespace.kubectl(&["patch", "flinkhacluster", &cluster.name, "--type", "merge", "--patch", &patch]);
}

/// Waits until a port is open to a client, or closed.
async fn until(what: &str, client: &Client, address: &str, port: u16, is_open: bool) -> Duration {
    let begin = Instant::now();
    let is_so = async || (client.reaches(address, port).await == is_open).then_some(());
    eventually(what, seconds(60), is_so).await;
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_clusters_own_pods_reach_what_only_they_need_and_the_cluster_fails_over() {
    let _share = machine::share().await;
    let namespace = Namespace::fresh(NAMESPACE);
    script("rig/network-policies", &[]);
    for namespace in [ELSEWHERE, MONITORING] {
        let _ = run("kubectl", &["delete", "namespace", namespace, "--timeout", "120s"], "");
        kubectl(&["create", "namespace", namespace]);
    }
    let mut resource = ours::example();
    resource["spec"]["networkPolicy"] = json!({ "enabled": false });
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    resource["spec"]["taskManager"]["podTemplate"]["spec"]["containers"][0]["ports"] =
        json!([{ "name": "extra", "containerPort": NAMED }]);
    let cluster = ours::apply(namespace, &resource).await;
    cluster.wait_until_ready().await;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/network", "--rate", "200"], 2).await;
    let task_manager = cluster.pods(TASK_MANAGER).await.remove(0).name_any();
    listen(NAMESPACE, &task_manager);
    let [beside, elsewhere, monitoring] = [NAMESPACE, ELSEWHERE, MONITORING].map(Client::start);
    let targets = Targets::of(&cluster).await;

    // Switched off: everybody reaches everything.
    let seen = targets.seen_by(&elsewhere).await;
    assert!(seen.values().all(|is_open| *is_open), "{seen:?}");

    patch(&cluster, &json!({ "enabled": true }));
    let took = until("RPC to be closed", &elsewhere, &targets.job_manager, names::RPC_PORT, false).await;
    say(format!("ports are closed {:.1} s after the field was set", took.as_secs_f32()));
    let left = ["JobManager 8081", "TaskManager 40001", "TaskManager 9249"];
    for client in [&beside, &elsewhere, &monitoring] {
        let seen = targets.seen_by(client).await;
        say(format!("a pod in {} reaches {:?} of {} ports", client.namespace, open(&seen), seen.len()));
        assert_eq!(open(&seen), left, "from {}", client.namespace);
    }
    let rest = format!("{}.{NAMESPACE}", names::rest(&cluster.name));
    assert!(elsewhere.reaches(&rest, names::REST_PORT).await, "the leader's Service");
    let told = cluster.namespace.kubectl(&["get", "events.events.k8s.io", "--output", "jsonpath={.items[*].reason}"]);
    assert!(told.contains("NetworkPolicyCreated"), "{told}");

    // The cluster's own pods reach each other, and the cluster works.
    let own =
        |pod: &str| Client { namespace: NAMESPACE.to_owned(), pod: pod.to_owned(), container: names::FLINK_CONTAINER };
    for component in [JOB_MANAGER, TASK_MANAGER] {
        let pod = cluster.pods(component).await.pop().expect("a pod").name_any();
        let seen = targets.seen_by(&own(&pod)).await;
        assert!(seen.values().all(|is_open| *is_open), "{pod}: {seen:?}");
    }
    let failover = kill_leader(&cluster, &job).await;
    assert_ne!(failover.to, failover.from);
    cluster.replace(&failover.from).await;
    assert_eq!(cluster.degraded().await, None, "gateways promise each other");
    let targets = Targets::of(&cluster).await;
    assert!(!elsewhere.reaches(&targets.job_manager, names::RPC_PORT).await, "pods of after the failover");

    // By choice.
    patch(&cluster, &json!({ "metricsFrom": [MONITORING], "restFrom": [ELSEWHERE] }));
    until("metrics", &monitoring, &targets.job_manager, names::PROBE_PORT, true).await;
    for (client, port, expected) in [
        (&monitoring, names::RPC_PORT, false),
        (&monitoring, names::REST_PORT, false),
        (&elsewhere, names::REST_PORT, true),
        (&elsewhere, names::PROBE_PORT, false),
        (&beside, names::REST_PORT, false),
        (&beside, names::PROBE_PORT, false),
    ] {
        let reached = client.reaches(&targets.job_manager, port).await;
        assert_eq!(reached, expected, "from {} to {port}", client.namespace);
    }

    patch(&cluster, &json!({ "enabled": false, "metricsFrom": null, "restFrom": null }));
    until("RPC to be open again", &elsewhere, &targets.job_manager, names::RPC_PORT, true).await;
    let left = cluster.namespace.kubectl(&["get", "networkpolicies", "--output", "name"]);
    assert_eq!(left, "", "the NetworkPolicy is gone");

    for namespace in [ELSEWHERE, MONITORING] {
        kubectl(&["delete", "namespace", namespace, "--timeout", "120s"]);
    }
    cluster.namespace.delete();
}
