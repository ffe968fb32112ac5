//! What a gateway costs: memory and processor time at rest, time added to a request, and time to the grant as jobs grow
//! in number.
//!
//! Usage: `cargo test --release --features long-tests --test long -- gateway-cost`; COST_SECONDS (60) at rest,
//! COST_REQUESTS (2000) of each kind, COST_GRANTS (5) failovers with each number of jobs. Writes
//! `target/bench/gateway.json`.

use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider, cluster_config_map, lock_holder};
use crate::support::gateway::jvm_url;
use crate::support::identity::token;
use crate::support::process::Process;
use crate::support::report::{self, number, percentile};
use crate::support::{measured, seconds};
use flinkha::api::names;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::{Value, json};

const JOBS: [usize; 3] = [1, 10, 100];

pub async fn run() {
    let mut cluster = Cluster::start(Provider::ours(), 3, 1).await;
    cluster.run_sequence(0, 100).await;
    cluster.wait_for_members().await;
    let rest = at_rest(&mut cluster, seconds(number("COST_SECONDS", 60))).await;
    let added = added_latency(&cluster, number("COST_REQUESTS", 2000)).await;
    let mut grants = serde_json::Map::new();
    for jobs in JOBS {
        register(&cluster, jobs).await;
        let mut samples = Vec::new();
        for _ in 0..number("COST_GRANTS", 5) {
            samples.push(grant(&mut cluster).await);
        }
        let p50 = millis(percentile(&samples, 50).unwrap_or_default());
        println!("{jobs:>4} ConfigMaps of jobs: JVM killed → granted p50 {p50:.0} ms");
        grants.insert(jobs.to_string(), json!({"granted_ms_p50": p50}));
    }
    report::write("gateway", &json!({"at_rest": rest, "added_latency": added, "jobs": grants}));
}

/// Resident memory and processor time of each gateway, with a job that completes two checkpoints a second.
async fn at_rest(cluster: &mut Cluster, window: Duration) -> Value {
    let leader = cluster.leader().await.expect("a leader");
    let before: Vec<f64> = cluster.job_managers.iter_mut().map(|one| processor_seconds(one.gateway())).collect();
    tokio::time::sleep(window).await;
    let mut report = Vec::new();
    for (index, one) in cluster.job_managers.iter_mut().enumerate() {
        let role = if index == leader { "leader" } else { "standby" };
        let used = (processor_seconds(one.gateway()) - before[index]) / window.as_secs_f64() * 1000.0;
        let (now, most) = (memory(one.gateway(), "VmRSS"), memory(one.gateway(), "VmHWM"));
        println!("{role:<8} {now:>6.1} MiB resident, at most {most:.1} MiB, {used:.1} thousandths of a core");
        report.push(json!({"role": role, "rss_mib": now, "rss_most_mib": most, "cpu_millicores": used}));
    }
    json!(report)
}

/// A read and a write of a ConfigMap that is not one of Flink's HA services, in turns through the gateway and straight
/// to the API server, on warm connections.
async fn added_latency(cluster: &Cluster, requests: usize) -> Value {
    let one = &cluster.job_managers[cluster.leader().await.expect("a leader")];
    let token = token(&cluster.client, NAMESPACE, "demo-jobmanager", Some((&one.pod, &one.uid))).await;
    let direct = cluster.plane.servers[0].client(&token).await;
    let through = kube::Client::try_from(through(&jvm_url(one.address), &token)).expect("a client for the gateway");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "latency"}, "data": {"text": "x".repeat(4000)}});
    let created = cluster
        .config_maps()
        .create(&PostParams::default(), &serde_json::from_value(object).expect("a ConfigMap"))
        .await;
    created.expect("failed to create a ConfigMap");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let ha = names::job_config_map(NAME, &cluster.leader_rest().await.jobs().await.expect("the job")[0].id);
    let patch = json!({"data": {"text": "y".repeat(4000)}}).to_string();
    let kinds = [("GET", "latency".to_owned(), ""), ("PATCH", "latency".to_owned(), patch.as_str()), ("GET", ha, "")];
    let mut report = Vec::new();
    for (method, name, body) in kinds {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for _ in 0..requests {
            for (client, times) in [&direct, &through].into_iter().zip(&mut times) {
                let request = http::Request::builder().method(method).uri(format!("{path}/{name}"));
                let request =
                    request.header("content-type", "application/merge-patch+json").body(body.as_bytes().to_vec());
                let begin = Instant::now();
                client.request_text(request.expect("a request")).await.expect("an answer");
                times.push(begin.elapsed());
            }
        }
        let kind = format!("{method} of {}", if name == "latency" { "any ConfigMap" } else { "a job's ConfigMap" });
        let of = |times: &Vec<Duration>, per_cent| millis(percentile(times, per_cent).unwrap_or_default());
        let [direct, through] = times.map(|times| (of(&times, 50), of(&times, 99)));
        println!(
            "{kind:<28} direct p50 {:.2} p99 {:.2} ms, through the gateway p50 {:.2} p99 {:.2} ms: added p50 {:.2} p99 {:.2} ms",
            direct.0,
            direct.1,
            through.0,
            through.1,
            through.0 - direct.0,
            through.1 - direct.1
        );
        let entry = json!({"request": kind, "direct_ms": {"p50": direct.0, "p99": direct.1}, "through_ms": {"p50": through.0, "p99": through.1}});
        report.push(entry);
    }
    json!(report)
}

fn through(url: &str, token: &str) -> kube::Config {
    let mut config = kube::Config::new(url.parse().expect("a URL"));
    config.auth_info.token = Some(token.to_owned().into());
    config
}

/// As many ConfigMaps as so many jobs have, beside that of the job that runs: what a new leader stamps.
async fn register(cluster: &Cluster, jobs: usize) {
    for number in 1..jobs {
        let name = names::job_config_map(&names::kubernetes_cluster_id(NAME), &format!("{number:032x}"));
        let object = json!({"metadata": {"name": name, "labels": {"app": NAME, "type": "kubernetes"}}});
        let object: ConfigMap = serde_json::from_value(object).expect("a ConfigMap");
        match cluster.config_maps().create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => drop(created.expect("failed to create a ConfigMap")),
        }
    }
}

/// The leader's JVM is killed; how long until another JVM holds the lock.
async fn grant(cluster: &mut Cluster) -> Duration {
    let leader = cluster.leader().await.expect("a leader");
    let holder = cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);
    let begin = Instant::now();
    cluster.job_managers[leader].jvm.kill();
    measured("another leader", seconds(30), async || {
        cluster
            .config_map(&cluster_config_map())
            .await
            .as_ref()
            .and_then(lock_holder)
            .filter(|now| Some(now) != holder.as_ref())
    })
    .await;
    let granted = begin.elapsed();
    cluster.mend().await;
    cluster.wait_for_members().await;
    granted
}

/// MiB, of a line of `/proc/<pid>/status`.
fn memory(process: &Process, line: &str) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.pid().as_raw_nonzero())).expect("a running process");
    let value = status.lines().find_map(|one| one.strip_prefix(line)?.split_whitespace().nth(1)?.parse::<f64>().ok());
    value.expect("a number of kB") / 1024.0
}

/// User and system time of a process; a tick is a hundredth of a second on Linux.
fn processor_seconds(process: &Process) -> f64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", process.pid().as_raw_nonzero())).expect("a running process");
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
