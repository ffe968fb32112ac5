//! A real Prometheus scrapes operator and gateways as the chart says, with the chart's rules: an alert fires when its
//! cause is there, no other one does, and it clears when the cause is gone. Then every query of the dashboard is asked.

use std::time::Instant;

use flinkha::api::names;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::kit::cluster::Cluster;
use crate::kit::namespace::Namespace;
use crate::kit::node::{self, Shot};
use crate::kit::ours;
use crate::kit::outage::Outage;
use crate::kit::prometheus::{Prometheus, chart};
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

const NAMESPACE: &str = "kind-metrics";

/// Bytes that fill a ConfigMap beyond the alert's threshold.
const FILLING: usize = 900_000;

async fn start() -> Cluster {
    let mut resource = ours::example();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    // Another test has the cluster's policies enforced.
    resource["spec"]["networkPolicy"] = json!({ "enabled": false });
    let cluster = ours::apply(Namespace::fresh(NAMESPACE), &resource).await;
    cluster.wait_until_ready().await;
    cluster
}

struct Watched<'a> {
    prometheus: &'a Prometheus,
    cluster: &'a Cluster,
}

impl Watched<'_> {
    /// Waits until the alert fires.
    async fn wait_for(&self, alert: &str) {
        let begin = Instant::now();
        let fires = async || self.prometheus.firing(NAMESPACE).await.iter().any(|one| one == alert).then_some(());
        eventually(&format!("{alert} to fire"), seconds(120), fires).await;
        say(format!("{alert} fires after {:.0} s", begin.elapsed().as_secs_f32()));
    }

    /// Waits until nothing fires, and checks that only these alerts have fired since the cause began.
    async fn wait_for_silence(&self, since: Instant, only: &[&str]) {
        let begin = Instant::now();
        let silent = async || self.prometheus.firing(NAMESPACE).await.is_empty().then_some(());
        eventually("silence", seconds(180), silent).await;
        let fired = self.prometheus.fired(NAMESPACE, since.elapsed()).await;
        say(format!("silent after {:.0} s; {fired:?} had fired", begin.elapsed().as_secs_f32()));
        assert!(fired.iter().all(|one| only.contains(&one.as_str())), "{fired:?} fired, and only {only:?} should have");
    }

    /// Kills each JobManager as soon as it leads, and none of them twice: the kubelet would wait before it starts one
    /// again.
    async fn kill_all_leaders(&self) {
        let mut killed: Vec<String> = Vec::new();
        for _ in 0..self.cluster.job_managers {
            let next = async || self.cluster.leader().await.filter(|pod| !killed.contains(&pod.name_any()));
            let leader = eventually("another leader", seconds(60), next).await;
            Shot::aim(&leader, names::FLINK_CONTAINER, "java", "KILL").await.send().await;
            killed.push(leader.name_any());
        }
    }
}

/// On any node, where the volume is.
fn shell(command: &str) {
    node::run(&node::any(), &["sh", "-ec", command]);
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_for_their_cause_and_clear_and_every_query_of_the_dashboard_has_an_answer() {
    let _share = machine::share().await;
    let cluster = start().await;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/metrics"], 2).await;
    let prometheus = Prometheus::start(NAMESPACE).await;
    let watched = Watched { prometheus: &prometheus, cluster: &cluster };
    let begin = Instant::now();

    let found = async || {
        let gateways = format!("count(flinkha_gateway_ready{{namespace=\"{NAMESPACE}\", name=\"{}\"}})", cluster.name);
        let info = format!("count(flinkha_cluster_info{{namespace=\"{NAMESPACE}\", name=\"{}\"}})", cluster.name);
        let works = "max(flinkha_operator_leader)";
        let all = [prometheus.value(&gateways).await?, prometheus.value(&info).await?, prometheus.value(works).await?];
        (all == [3.0, 1.0, 1.0]).then_some(())
    };
    eventually("three gateways and the operator to be found", seconds(60), found).await;
    say(format!("found after {:.0} s", begin.elapsed().as_secs_f32()));
    let age = format!("flinkha_gateway_checkpoint_age_seconds{{namespace=\"{NAMESPACE}\", job=\"{job}\"}}");
    let recent = async || prometheus.value(&age).await.filter(|age| *age < 10.0);
    eventually("the age of the last checkpoint", seconds(60), recent).await;
    watched.wait_for_silence(begin, &[]).await;

    outage(&watched, &job).await;

    say("the storage is away");
    let (begin, directory) = (Instant::now(), cluster.namespace.directory());
    shell(&format!("chmod 000 {directory}/ha"));
    watched.wait_for("FlinkHaStorageUnreachable").await;
    shell(&format!("chmod 777 {directory}/ha"));
    // Without its storage the job may end its JobManagers, one after the other.
    watched.wait_for_silence(begin, &["FlinkHaStorageUnreachable"]).await;

    say("a ConfigMap is full");
    let begin = Instant::now();
    let name = names::job_config_map(&names::kubernetes_cluster_id(&cluster.name), &job);
    let config_maps: Api<ConfigMap> = cluster.config_maps();
    let fill = async |value: Value| {
        let patch = Patch::Merge(json!({ "data": { "filling": value } }));
        config_maps.patch(&name, &PatchParams::default(), &patch).await.expect("a patched ConfigMap");
    };
    fill("x".repeat(FILLING).into()).await;
    watched.wait_for("FlinkHaDataLarge").await;
    fill(Value::Null).await;
    watched.wait_for_silence(begin, &["FlinkHaDataLarge"]).await;

    say("one leader after the other is killed");
    let changes =
        format!("sum(flinkha_gateway_leader_changes_total{{namespace=\"{NAMESPACE}\", reason=\"JobManagerDied\"}})");
    let before = prometheus.value(&changes).await.expect("the number of failovers");
    let begin = Instant::now();
    watched.kill_all_leaders().await;
    watched.wait_for("FlinkHaLeaderFlapping").await;
    cluster.wait_until_ready().await;
    let counted = prometheus.value(&changes).await.expect("the number of failovers") - before;
    assert_eq!(counted, cluster.job_managers as f64, "each failover is counted once");
    // The last one leaves nobody who could lead until a JVM has started, and then for a while a single candidate. On a
    // busy machine it takes longer than the shortened time of `FlinkHaDegraded` until the others are back.
    let expected = ["FlinkHaDegraded", "FlinkHaLeaderFlapping", "FlinkHaNoLeader", "FlinkHaSingleCandidate"];
    watched.wait_for_silence(begin, &expected).await;

    ask_all_queries(&prometheus, &cluster).await;
    cluster.cancel(&job).await;
    cluster.namespace.delete();
}

/// The API server is away for this cluster. The leader goes on by the promises of its standbys, so only its Lease is
/// told of.
async fn outage(watched: &Watched<'_>, job: &str) {
    let cluster = watched.cluster;
    say("the API server is away");
    let (begin, leads) = (Instant::now(), cluster.last_change().await);
    let rest = cluster.leading_rest().await;
    let outage = Outage::of(cluster).await;
    watched.wait_for("FlinkHaLeaseNotRenewed").await;
    assert!(rest.job(job).await.expect("the job").runs(), "the job runs in the outage");
    drop(outage);
    cluster.wait_for_more_checkpoints(job, 2).await;
    watched.wait_for_silence(begin, &["FlinkHaLeaseNotRenewed", "FlinkHaLeaseRenewalsSlow"]).await;
    assert_eq!(cluster.last_change().await, leads, "nobody else has led");
    assert_eq!(rest.checkpoints(job).await.expect("the checkpoints").restores, 0, "the job was not restarted");
}

/// Every query of the dashboard is understood, and has an answer, unless the cluster has nothing to show there.
async fn ask_all_queries(prometheus: &Prometheus, cluster: &Cluster) {
    let chart = chart();
    let is_dashboard = |object: &&Value| object["kind"] == "ConfigMap" && object["data"]["flinkha.json"].is_string();
    let dashboard = chart.iter().find(is_dashboard).expect("the dashboard")["data"]["flinkha.json"].as_str();
    let dashboard: Value = serde_json::from_str(dashboard.unwrap()).expect("JSON");
    // There is no quorum, nothing fires now, and the first sweep comes a minute after an election.
    let may_be_empty = ["flinkha_gateway_quorum_session", "ALERTS", "flinkha_gateway_orphan_bytes"];
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<String> = targets
        .map(|target| {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            query.replace("$namespace", NAMESPACE).replace("$name", &cluster.name)
        })
        .collect();
    assert!(queries.len() > 20, "{} queries", queries.len());
    // Other tests end the operator for a while.
    let answered = async || {
        let mut empty = Vec::new();
        for query in queries.iter().filter(|query| !may_be_empty.iter().any(|metric| query.contains(metric))) {
            if prometheus.query(query).await.is_empty() {
                empty.push(query);
            }
        }
        if !empty.is_empty() {
            say(format!("without data: {empty:?}"));
            tokio::time::sleep(seconds(5)).await;
        }
        empty.is_empty().then_some(())
    };
    eventually("data of all queries", seconds(120), answered).await;
    for query in &queries {
        prometheus.query(query).await;
    }
    say(format!("{} queries of the dashboard have an answer", queries.len()));
    let leader = cluster.leader().await.expect("a leader").name_any();
    let leads = format!("flinkha_gateway_leader{{namespace=\"{NAMESPACE}\"}} == 1");
    let samples = prometheus.query(&leads).await;
    let pods: Vec<&Value> = samples.iter().map(|one| &one["metric"]["pod"]).collect();
    assert_eq!(pods, [leader.as_str()]);
}
