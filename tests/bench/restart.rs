//! What it brings that a JobManager which starts again lets the recovery go first (`restart-turn.sh`): kills of a
//! leader with and without it, where both JobManagers share all processors, and where each has one of its own. The
//! same job in one run. Prints p50, and writes all samples to `target/bench/restart.json`.
//!
//! Usage: `cargo test --features kind-tests --test bench-restart`; RUNS (6) kills of each. It sets the processors of
//! the nodes, and gives them all back at the end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kind/kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

use flinkha::api::names;
use k8s_openapi::api::apps::v1::Deployment;
use kit::cluster::Cluster;
use kit::failover::{Failover, kill_leaders};
use kit::machine::kubectl;
use kit::namespace::Namespace;
use kit::{node, operator, ours};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::report::{self, number, percentile};
use support::say;

/// As in production.
const JAVA_OPTIONS: [&str; 2] = ["", ""];

/// The loop of `restart-turn.sh`, and the same without a turn.
const TURNS: [&str; 2] = ["while [ $SECONDS -lt 8 ]", "while false"];

#[tokio::main]
async fn main() {
    let nodes = kubectl(&["get", "nodes", "--selector", "!node-role.kubernetes.io/control-plane", "--output", "name"]);
    let nodes: Vec<&str> = nodes.lines().map(|node| node.trim_start_matches("node/")).collect();
    let [first, second] = nodes[..] else { panic!("two nodes for pods are needed: {nodes:?}") };
    let mut report = json!({});
    println!("{:<20} {:<10} {:>15} {:>15}", "processors", "restart", "granted p50 ms", "RUNNING p50 ms");
    for (title, processors) in [("shared", ["0-1", "0-1"]), ("one each", ["0", "1"])] {
        for waits in [true, false] {
            let of_nodes = Processors([first, second].map(str::to_owned));
            of_nodes.set(processors);
            let failovers = turn(waits).await;
            let of = |time: fn(&Failover) -> u128| failovers.iter().map(time).collect::<Vec<u128>>();
            let (granted, running) = (of(|one| one.granted.as_millis()), of(|one| one.running.as_millis()));
            let restart = if waits { "waits" } else { "at once" };
            let p50 = |samples: &[u128]| percentile(samples, 50).unwrap_or_default();
            println!("{title:<20} {restart:<10} {:>15} {:>15}", p50(&granted), p50(&running));
            report[title][restart] = json!({ "granted_ms": granted, "running_ms": running });
        }
    }
    report::write("restart", &report);
}

/// A cluster of two JobManagers, one on each node; nothing of it is left for the next turn.
async fn turn(waits: bool) -> Vec<Failover> {
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    let cluster = ours::apply(Namespace::fresh("bench-restart"), &resource).await;
    cluster.wait_until_ready().await;
    if !waits {
        // The operator would set it right.
        operator::scale(0);
        restart_at_once(&cluster).await;
    }
    let arguments = ["--output", "/flink/output", "--checkpoint-interval-millis", "1000"];
    let job = cluster.run("KeyedSequence", &arguments, 2).await;
    let failovers = kill_leaders(&cluster, &job, number("RUNS", 6)).await;
    operator::scale(1);
    cluster.namespace.delete();
    failovers
}

/// Takes the turn out of the JobManagers' script, and waits until all of them have been replaced.
async fn restart_at_once(cluster: &Cluster) {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace.0);
    let name = names::job_manager(&cluster.name);
    let text = serde_json::to_string(&deployments.get(&name).await.expect("the JobManagers")).expect("JSON");
    assert!(text.contains(TURNS[0]), "the script of the JobManagers has no turn");
    let changed: Value = serde_json::from_str(&text.replace(TURNS[0], TURNS[1])).expect("JSON");
    let patch = Patch::Merge(json!({ "spec": { "template": changed["spec"]["template"] } }));
    deployments.patch(&name, &PatchParams::default(), &patch).await.expect("other JobManagers");
    kubectl(&[
        "--namespace",
        &cluster.namespace.0,
        "rollout",
        "status",
        &format!("deployment/{name}"),
        "--timeout=240s",
    ]);
    cluster.wait_until_ready().await;
    say("a JobManager that starts again starts at once");
}

/// The processors that each node may use; all of them again when it is dropped.
struct Processors([String; 2]);

impl Processors {
    fn set(&self, processors: [&str; 2]) {
        for (node, processors) in self.0.iter().zip(processors) {
            node::set_processors(node, processors);
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.set(["0-1"; 2]);
    }
}
