//! What high availability costs the API server: ours beside Flink's own, with the same cluster and the same job.
//!
//! Usage: `cargo test --features long-tests --test long -- api-load`; LOAD_SECONDS (60) is the length of each
//! measurement. Three JobManagers and one TaskManager are real; the further TaskManagers are watches of the cluster
//! ConfigMap as a TaskManager keeps one (from 1.20 on, an informer of that one object). Requests are counted in the API
//! server's audit log. Writes `target/bench/api-load.json`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::audit::Request;
use crate::support::cluster::{Cluster, NAMESPACE, Provider, cluster_config_map};
use crate::support::identity::token;
use crate::support::report::{self, number};
use crate::support::{say, seconds};
use futures::AsyncReadExt;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

const TASK_MANAGERS: [usize; 3] = [1, 10, 100];

#[derive(Clone, Copy, Debug)]
struct Load {
    requests: f64,
    writes: f64,
    watch_bytes: f64,
}

pub async fn run() {
    let window = seconds(number("LOAD_SECONDS", 60));
    let mut report: Map<String, Value> = TASK_MANAGERS.iter().map(|count| (count.to_string(), json!({}))).collect();
    println!(
        "{:<14} {:<14} {:>12} {:>14} {:>14} {:>18}",
        "", "", "TaskManagers", "requests/min", "writes/min", "watch bytes/min"
    );
    for (name, provider) in [("ours", Provider::ours()), ("native", Provider::native())] {
        let cluster = Cluster::start(provider, 3, 1).await;
        // What comes at the beginning only is no steady load.
        tokio::time::sleep(seconds(15)).await;
        for state in ["idle", "checkpointing"] {
            if state == "checkpointing" {
                let output = cluster.output().display().to_string();
                let arguments =
                    ["--output", &output, "--lines", "0", "--rate", "100", "--checkpoint-interval-millis", "1000"];
                let job = cluster.submit("KeyedSequence", &arguments).await.expect("failed to run the job");
                cluster.wait_for_checkpoints(&job, 3).await;
            }
            for count in TASK_MANAGERS {
                let load = measure(&cluster, count, window).await;
                let Load { requests, writes, watch_bytes } = load;
                println!("{name:<14} {state:<14} {count:>12} {requests:>14.1} {writes:>14.1} {watch_bytes:>18.0}");
                let numbers =
                    json!({"requests_per_min": requests, "writes_per_min": writes, "watch_bytes_per_min": watch_bytes});
                let entry = &mut report[&count.to_string()][name];
                match state {
                    "idle" => *entry = numbers,
                    _ => entry["checkpointing"] = numbers,
                }
            }
        }
    }
    report::write("api-load", &json!({"taskmanagers": report}));
}

/// Per minute, while so many TaskManagers watch.
async fn measure(cluster: &Cluster, task_managers: usize, window: Duration) -> Load {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut watchers = JoinSet::new();
    // The real TaskManager's own watch pushes as much as one of these, but its bytes cannot be counted: so one more
    // stands for it.
    for _ in 0..task_managers {
        let token = token(&cluster.client, NAMESPACE, "demo-taskmanager", None).await;
        let client = cluster.plane.servers[0].client(&token).await;
        watchers.spawn(watch(client, Arc::clone(&bytes)));
    }
    tokio::time::sleep(seconds(3)).await;
    let before = (answered(cluster).len(), bytes.load(Ordering::Relaxed));
    tokio::time::sleep(window).await;
    let requests = answered(cluster).split_off(before.0);
    let watch_bytes = bytes.load(Ordering::Relaxed) - before.1;
    watchers.shutdown().await;
    say(format!("{task_managers} TaskManagers: {} requests in {} s", requests.len(), window.as_secs()));
    let per_minute = |count: f64| count * 60.0 / window.as_secs_f64();
    Load {
        requests: per_minute(requests.len() as f64),
        writes: per_minute(requests.iter().filter(|one| one.is_write() && one.succeeded()).count() as f64),
        watch_bytes: per_minute(watch_bytes as f64),
    }
}

/// Requests of JobManagers, gateways and TaskManagers.
fn answered(cluster: &Cluster) -> Vec<Request> {
    let audit = cluster.plane.servers[0].audit().requests().into_iter();
    audit.filter(|request| request.user.starts_with("system:serviceaccount:flink:")).collect()
}

/// Watches as a TaskManager does, and counts what comes.
async fn watch(client: kube::Client, bytes: Arc<AtomicU64>) {
    let path = format!(
        "/api/v1/namespaces/{NAMESPACE}/configmaps?watch=true&allowWatchBookmarks=true&fieldSelector=metadata.name%3D{}",
        cluster_config_map()
    );
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    let mut stream = Box::pin(client.request_stream(request).await.expect("a watch"));
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
}
