//! Does an application go on from the last state of another version of Flink? Each pair of versions upwards, with real
//! JVMs: what the table in `src/flink/version.rs` rests on. The gateways are made to let the new version in: the ledger
//! is made to forget which version led last, and the former version's graph is removed, as a take-over removes it.
//!
//! Usage: `cargo test --features long-tests --test long -- flink-upgrades`; VERSIONS names others, the earliest first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use flinkha::api::names;
use flinkha::flink::ha_data;
use flinkha::ledger::jobs::{HA_DATA_KEY, HaData};
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use crate::support::application::spec;
use crate::support::cluster::{Cluster, NAME, Provider, cluster_config_map};
use crate::support::{eventually, say, seconds};

const VERSIONS: &str = "1.20.5 2.0.2 2.1.3 2.2.1 2.3.0";
const SEQUENCE: [&str; 6] = ["--output", "OUTPUT", "--rate", "100", "--checkpoint-interval-millis", "500"];

/// A version that has not come up after this time does not.
const PATIENCE: Duration = seconds(120);

pub async fn run() {
    let versions = std::env::var("VERSIONS").unwrap_or_else(|_| VERSIONS.to_owned());
    let versions: Vec<&str> = versions.split_whitespace().collect();
    let mut rows = Vec::new();
    for (index, from) in versions.iter().enumerate() {
        for to in &versions[index + 1..] {
            let outcome = upgrade(from, to).await.unwrap_or_else(|why| format!("no: {why}"));
            say(format!("{from} -> {to}: {outcome}"));
            rows.push(format!("{from:<8} {to:<8} {outcome}"));
        }
    }
    say(format!("from     to       goes on from the last state\n{}", rows.join("\n")));
}

/// Upgrades a running application; tells how it went on, or why it did not.
async fn upgrade(from: &str, to: &str) -> Result<String, String> {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    cluster.change_version(from);
    let mut cluster = cluster.up_as_application(1, 1, "KeyedSequence", &SEQUENCE).await;
    let job = cluster.job();
    let latest = cluster.wait_for_checkpoints(&job, 3).await.latest.expect("a checkpoint");
    let led_by = async || ha_data_of(&cluster).await.flink_version.filter(|version| version == from);
    eventually("the version in the ledger", seconds(30), led_by).await;
    for job_manager in &mut cluster.job_managers {
        job_manager.jvm.kill();
    }
    cluster.job_managers.clear();
    forget(&cluster).await;
    cluster.change_version(to);
    let next = spec(&cluster, "KeyedSequence", &SEQUENCE);
    cluster.redeploy(1, |application| application.spec = next).await;
    let begin = Instant::now();
    wait_until_up(&cluster, begin).await?;
    let up = begin.elapsed().as_secs_f32();
    let checkpoints = cluster.wait_for_checkpoints(&job, 3).await;
    let restored = checkpoints.restored.ok_or("it began anew: no checkpoint was restored")?;
    if restored < latest {
        return Err(format!("it was restored from checkpoint {restored}, and not from {latest}"));
    }
    catch_unwind(AssertUnwindSafe(|| cluster.verify("any"))).map_err(|_| "its output is not exactly-once")?;
    Ok(format!("yes: from checkpoint {restored}, all tasks run after {up:.1} s, output exactly-once"))
}

async fn ha_data_of(cluster: &Cluster) -> HaData {
    let data = cluster.config_map(&names::ledger(NAME)).await.and_then(|one| one.data).unwrap_or_default();
    data.get(HA_DATA_KEY).map(|text| serde_json::from_str(text).expect("HA data")).unwrap_or_default()
}

async fn forget(cluster: &Cluster) {
    let (parameters, ledger) = (PatchParams::default(), names::ledger(NAME));
    let ha_data = HaData { flink_version: None, ..ha_data_of(cluster).await };
    let noted = Patch::Merge(json!({ "data": { HA_DATA_KEY: json!(ha_data).to_string() } }));
    cluster.config_maps().patch(&ledger, &parameters, &noted).await.expect("the ledger");
    let stored = cluster.config_map(&cluster_config_map()).await.expect("the cluster ConfigMap").data;
    let plans = stored.into_iter().flatten().filter(|(key, _)| ha_data::plan_of(key).is_some());
    let plans: Map<String, Value> = plans.map(|(key, _)| (key, Value::Null)).collect();
    let without = Patch::Merge(json!({ "data": plans }));
    cluster.config_maps().patch(&cluster_config_map(), &parameters, &without).await.expect("the cluster ConfigMap");
}

/// # Errors
/// Why not, by the ledger or the log of Flink.
async fn wait_until_up(cluster: &Cluster, begin: Instant) -> Result<(), String> {
    let run = &cluster.application.as_ref().expect("an application").run;
    loop {
        let progress = cluster.progress().await;
        if progress.start == run.start && progress.up.is_some() {
            return Ok(());
        }
        let told = progress.error.filter(|_| progress.start == run.start);
        if let Some(why) = told.or(cluster.refusal().await.map(|refusal| refusal.message)) {
            return Err(why);
        }
        if begin.elapsed() > PATIENCE {
            let log = cluster.job_managers[0].flink_log();
            let cause = log.lines().rfind(|line| line.starts_with("Caused by: "));
            return Err(cause.unwrap_or("not all tasks ran, and the log of Flink names no cause").to_owned());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
