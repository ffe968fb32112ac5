//! What the provider ZooKeeper must show, on a real quorum of three servers.
//!
//! Usage: `cargo test --features long-tests --test long -- zookeeper`; RUNS (10) failovers of ours, NATIVE_RUNS (RUNS)
//! of Flink's own, QUORUM_SECONDS (60) without a quorum,
//! ONLY=failover,frozen,members,quorum,partition,deletion,input,secure for some of the parts (partition wants root).
//! Writes `target/bench/zookeeper.json`.

mod deletion;
mod input;
mod outage;
mod partition;
mod secure;

use std::time::Duration;

use crate::support::cluster::{Cluster, NAMESPACE, Provider};
use crate::support::failover::{Failover, fail_over};
use crate::support::gateway::Timings;
use crate::support::network;
use crate::support::report::{number, percentile, write_rows};
use crate::support::say;
use crate::support::terms::{JVM, requests};
use serde_json::{Value, json};

pub async fn run() {
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|one| one == part);
    let mut rows = Vec::new();
    if wanted("failover") {
        let runs = number("RUNS", 10);
        let of_ours = failovers("ours", ours(), runs).await;
        let of_flink = failovers("native", Provider::NativeZooKeeper, number("NATIVE_RUNS", runs)).await;
        for what in ["granted_ms", "running_ms"] {
            let p50 = |row: &Value| row[what]["p50"].as_u64().expect("a median");
            assert!(
                p50(&of_ours) * 5 < p50(&of_flink),
                "{what}: no better than Flink's own by far: {of_ours} {of_flink}"
            );
        }
        rows.extend([of_ours, of_flink]);
    }
    if wanted("frozen") {
        rows.push(frozen_and_deleted().await);
    }
    if wanted("members") {
        rows.push(outage::members().await);
    }
    if wanted("quorum") {
        rows.push(outage::quorum(number("QUORUM_SECONDS", 60)).await);
    }
    if wanted("partition") {
        if network::is_own() {
            network::prepare();
            rows.extend(partition::partitions().await);
        } else {
            network::run_again("partition", &crate::support::flink::version());
        }
    }
    if wanted("deletion") {
        rows.push(deletion::deletion().await);
    }
    if wanted("input") {
        rows.push(input::bad_input().await);
    }
    if wanted("secure") {
        rows.push(secure::digest().await);
        rows.push(secure::sasl().await);
    }
    for row in &rows {
        println!("{row}");
    }
    write_rows("zookeeper", "part", rows);
}

fn ours() -> Provider {
    Provider::ZooKeeper(Timings::DEFAULT)
}

/// The leader is killed again and again, each time beside a standby that is ready.
async fn failovers(name: &str, provider: Provider, runs: usize) -> Value {
    let mut cluster = Cluster::start(provider, 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let mut all: Vec<Failover> = Vec::new();
    for run in 1..=runs {
        let old = cluster.leader().await.expect("a leader");
        let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
        say(format!("{name} {run} of {runs}: {failover:?}"));
        all.push(failover);
        cluster.replace_job_manager(old).await;
    }
    let of = |what: fn(&Failover) -> Duration| {
        let samples: Vec<Duration> = all.iter().map(what).collect();
        let millis = |per_cent| {
            percentile(&samples, per_cent).map(|duration| u64::try_from(duration.as_millis()).expect("milliseconds"))
        };
        json!({ "p50": millis(50), "max": millis(100) })
    };
    let (granted, running) = (of(|one| one.granted), of(|one| one.running));
    println!("{name}: {runs} leaders killed; kill → new leader (ms) {granted}, → all tasks RUNNING (ms) {running}");
    if name == "ours" {
        let asked = requests(&cluster.plane, NAMESPACE, "configmaps").into_iter().filter(|one| one.user == JVM).count();
        assert_eq!(asked, 0, "a JVM has asked the API server for something");
    }
    json!({ "part": format!("failover-{name}"), "runs": runs, "granted_ms": granted, "running_ms": running })
}

/// A frozen leader is left to its session's time-out, unless its pod is being deleted: then its session is ended from
/// here.
async fn frozen_and_deleted() -> Value {
    let mut cluster = Cluster::start(ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let failover = fail_over(&mut cluster, &job, async |leader| {
        leader.jvm.stop();
        let hook = leader.hand_over();
        assert!(hook.status.success(), "{hook:?}");
    })
    .await;
    println!(
        "frozen and deleted: deletion → new leader {:.1} s, → all tasks RUNNING {:.1} s",
        failover.granted.as_secs_f64(),
        failover.running.as_secs_f64()
    );
    assert!(failover.granted < Duration::from_secs(10), "{failover:?}");
    let change = cluster.lease().await.change.expect("the ledger tells of the change");
    assert_eq!(change.why, "PodTerminating");
    json!({ "part": "frozen", "granted_ms": failover.granted.as_millis() as u64, "running_ms": failover.running.as_millis() as u64 })
}
