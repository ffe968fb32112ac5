//! What a gateway costs: memory and processor time at rest, time added to a request, and time to the grant as jobs grow
//! in number; of this working tree's gateway and, beside it, of the former version's.
//!
//! Usage: `make bench-gateway`; PROGRAM and FORMER are the programs to measure, of this working tree (by default as
//! this test is built) and of the former version (by default none). Each is measured in COST_ROUNDS (2) clusters of its
//! own, in turns: COST_SECONDS (30) at rest, COST_REQUESTS (1000) of each kind, COST_GRANTS (3) failovers with each
//! number of jobs. Writes `target/bench/gateway.json`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider, cluster_config_map, lock_holder};
use crate::support::gateway::{Build, jvm_url};
use crate::support::identity::token;
use crate::support::report::{self, number, percentile};
use crate::support::{measured, say, seconds};
use flinkha::api::names::{self, TERM_ANNOTATION};
use flinkha::flink::ha_data::{self, LABEL_TYPE};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, PostParams};
use serde_json::{Value, json};

const JOBS: [usize; 4] = [1, 10, 100, 500];

pub async fn run() {
    let path = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let this = path("PROGRAM").map_or(Build::Tested, Build::At);
    let mut versions = vec![Measured::of(this)];
    versions.extend(path("FORMER").map(|former| Measured::of(Build::Former(former))));
    for round in 0..number("COST_ROUNDS", 2) {
        // What the machine does besides falls on both.
        versions.reverse();
        for one in &mut versions {
            say(format!("round {}: {:?}", round + 1, one.build));
            one.measure().await;
        }
    }
    versions.sort_by_key(|one| matches!(one.build, Build::Former(_)));
    let columns: Vec<Vec<Figure>> = versions.iter().map(Measured::figures).collect();
    let rows = rows(&columns);
    report::write("gateway", &json!({"rows": rows}));
}

/// A number of one build.
struct Figure {
    what: String,
    unit: &'static str,
    value: f64,
}

/// Prints the figures, side by side with the former version's and the ratio where there is one.
fn rows(columns: &[Vec<Figure>]) -> Vec<Value> {
    println!("{:<50} {:>10} {:>10} {:>6}", "", "this", "former", "ratio");
    let mut rows = Vec::new();
    for (index, this) in columns[0].iter().enumerate() {
        let former = columns.get(1).map(|column| column[index].value);
        let ratio = former.filter(|former| *former > 0.0).map(|former| round(this.value / former));
        let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let title = format!("{}, {}", this.what, this.unit);
        println!("{title:<50} {:>10.2} {:>10} {:>6}", this.value, text(former), text(ratio));
        rows.push(json!({
            "what": this.what, "unit": this.unit, "this": round(this.value), "former": former.map(round), "ratio": ratio,
        }));
    }
    rows
}

/// The samples of one build, of all rounds.
struct Measured {
    build: Build,
    at_rest: Vec<AtRest>,
    requests: Vec<Requests>,
    /// By the number of jobs, as in [`JOBS`].
    grants: [Vec<Duration>; JOBS.len()],
}

/// A gateway at rest.
struct AtRest {
    leads: bool,
    rss_mib: f64,
    rss_most_mib: f64,
    rss_anonymous_mib: f64,
    cpu_millicores: f64,
}

/// Requests of one kind.
struct Requests {
    kind: String,
    direct: Vec<Duration>,
    through: Vec<Duration>,
}

impl Measured {
    fn of(build: Build) -> Self {
        Self { build, at_rest: Vec::new(), requests: Vec::new(), grants: Default::default() }
    }

    /// In a cluster of its own.
    async fn measure(&mut self) {
        let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
        cluster.build = self.build.clone();
        let mut cluster = cluster.up(3, 1).await;
        cluster.run_sequence(0, 100).await;
        cluster.wait_for_members().await;
        self.at_rest.extend(at_rest(&mut cluster, seconds(number("COST_SECONDS", 30))).await);
        for mut more in requests(&cluster, number("COST_REQUESTS", 1000)).await {
            match self.requests.iter_mut().find(|known| known.kind == more.kind) {
                Some(known) => {
                    known.direct.append(&mut more.direct);
                    known.through.append(&mut more.through);
                }
                None => self.requests.push(more),
            }
        }
        for (jobs, samples) in JOBS.into_iter().zip(&mut self.grants) {
            register(&cluster, jobs).await;
            for _ in 0..number("COST_GRANTS", 3) {
                samples.push(grant(&mut cluster).await);
                let stamped = stamped(&cluster).await;
                assert!(stamped >= jobs, "the grant has stamped {stamped} ConfigMaps of {jobs} jobs");
            }
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let mut add = |what: String, unit, value| figures.push(Figure { what, unit, value });
        for (role, leads) in [("leader", true), ("standby", false)] {
            let of = |figure: fn(&AtRest) -> f64| {
                let samples: Vec<f64> = self.at_rest.iter().filter(|one| one.leads == leads).map(figure).collect();
                samples.iter().sum::<f64>() / samples.len().max(1) as f64
            };
            add(format!("{role}: resident memory"), "MiB", of(|one| one.rss_mib));
            add(format!("{role}: resident memory at most"), "MiB", of(|one| one.rss_most_mib));
            add(format!("{role}: of it not the program's file"), "MiB", of(|one| one.rss_anonymous_mib));
            add(format!("{role}: processor time"), "thousandths of a core", of(|one| one.cpu_millicores));
        }
        for one in &self.requests {
            for per_cent in [50, 99] {
                let of = |times: &[Duration]| millis(percentile(times, per_cent).unwrap_or_default());
                let (direct, through) = (of(&one.direct), of(&one.through));
                add(format!("{}: direct p{per_cent}", one.kind), "ms", direct);
                add(format!("{}: added p{per_cent}", one.kind), "ms", through - direct);
            }
        }
        for (jobs, samples) in JOBS.into_iter().zip(&self.grants) {
            let granted = millis(percentile(samples, 50).unwrap_or_default());
            add(format!("grant with {jobs} ConfigMaps of jobs p50"), "ms", granted);
        }
        figures
    }
}

/// Resident memory and processor time of each gateway, with a job that completes two checkpoints a second.
async fn at_rest(cluster: &mut Cluster, window: Duration) -> Vec<AtRest> {
    let leader = cluster.leader().await.expect("a leader");
    let before: Vec<f64> = cluster.job_managers.iter_mut().map(|one| one.gateway().processor_seconds()).collect();
    tokio::time::sleep(window).await;
    let mut all = Vec::new();
    for (index, one) in cluster.job_managers.iter_mut().enumerate() {
        let used = (one.gateway().processor_seconds() - before[index]) / window.as_secs_f64() * 1000.0;
        let [rss_mib, rss_most_mib, rss_anonymous_mib] =
            ["VmRSS", "VmHWM", "RssAnon"].map(|field| one.gateway().memory(field) as f64 / 1024.0);
        all.push(AtRest { leads: index == leader, rss_mib, rss_most_mib, rss_anonymous_mib, cpu_millicores: used });
    }
    all
}

/// A read and a write of a ConfigMap that is not one of Flink's HA services, and a read of a job's, in turns through
/// the gateway and straight to the API server, on warm connections.
async fn requests(cluster: &Cluster, count: usize) -> Vec<Requests> {
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
    let mut all = Vec::new();
    for (method, name, body) in kinds {
        let kind = format!("{method} of {}", if name == "latency" { "any ConfigMap" } else { "a job's ConfigMap" });
        let mut requests = Requests { kind, direct: Vec::new(), through: Vec::new() };
        for _ in 0..count {
            for (client, times) in [(&direct, &mut requests.direct), (&through, &mut requests.through)] {
                let request = http::Request::builder().method(method).uri(format!("{path}/{name}"));
                let request =
                    request.header("content-type", "application/merge-patch+json").body(body.as_bytes().to_vec());
                let begin = Instant::now();
                client.request_text(request.expect("a request")).await.expect("an answer");
                times.push(begin.elapsed());
            }
        }
        all.push(requests);
    }
    all
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
        let cluster_id = names::kubernetes_cluster_id(NAME);
        let object = json!({"metadata": {"name": name, "labels": {"app": cluster_id, "type": LABEL_TYPE}}});
        let object: ConfigMap = serde_json::from_value(object).expect("a ConfigMap");
        match cluster.config_maps().create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => drop(created.expect("failed to create a ConfigMap")),
        }
    }
}

/// Number of ConfigMaps of jobs that carry the stamp of the present term.
async fn stamped(cluster: &Cluster) -> usize {
    let term = cluster.lease().await.term.map(|term| term.to_string());
    let list = ListParams::default().labels(&ha_data::selector(&names::kubernetes_cluster_id(NAME)));
    let found = cluster.config_maps().list_metadata(&list).await.expect("a list");
    let is_stamped =
        |one: &ObjectMeta| one.annotations.as_ref().and_then(|all| all.get(TERM_ANNOTATION)) == term.as_ref();
    let of_jobs = found.iter().filter(|one| one.metadata.name.as_ref() != Some(&cluster_config_map()));
    of_jobs.filter(|one| is_stamped(&one.metadata)).count()
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

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// To hundredths.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
