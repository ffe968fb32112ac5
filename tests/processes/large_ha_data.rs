//! HA data of 50 MiB: a standby takes over, within the memory that a gateway has by default. With `FORMER_PROGRAM` that
//! one is measured first, and nothing is asserted of its memory.

use std::time::Instant;

use crate::support::cluster::{Cluster, NAME, Provider, cluster_config_map, lock_holder};
use crate::support::gateway::Build;
use crate::support::provider::needs_a_lease;
use crate::support::{eventually, say, seconds};
use flinkha::api::names::{self, TERM_ANNOTATION};
use flinkha::flink::ha_data::LABEL_TYPE;
use flinkha::ledger::jobs::{HA_DATA_KEY, HaData};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use serde_json::{Value, json};

/// ConfigMaps of jobs, and pointers in each.
const CONFIG_MAPS: usize = 64;
const POINTERS: usize = 820;
/// Characters of a pointer.
const POINTER: usize = 960;

/// `spec.gateway.resources.limits.memory`, in MiB.
const LIMIT: f64 = 128.0;
/// What the grant and the first look of the collector may add, in MiB. Half of the data would be much more.
const MOST: f64 = 24.0;

fn config_map(number: usize) -> ConfigMap {
    let name = names::job_config_map(NAME, &format!("{number:032x}"));
    let pointers =
        (0..POINTERS).map(|pointer| (format!("checkpointID-{pointer:019}"), Value::from("x".repeat(POINTER))));
    let data: serde_json::Map<String, Value> = pointers.collect();
    let metadata = json!({ "name": name, "labels": { "app": NAME, "type": LABEL_TYPE } });
    serde_json::from_value(json!({ "metadata": metadata, "data": data })).expect("a ConfigMap")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_with_fifty_mebibytes_of_ha_data() {
    if !needs_a_lease("HA data in ConfigMaps") {
        return;
    }
    if let Some(former) = std::env::var_os("FORMER_PROGRAM") {
        take_over("the former version", Build::Former(former.into())).await;
    }
    let (before, after) = take_over("this version", Build::Tested).await;
    assert!(after < LIMIT && after - before < MOST, "{before} MiB, then {after} MiB");
}

/// Returns the most memory, in MiB, that the gateway of a standby has had before it takes over, and after.
async fn take_over(version: &str, build: Build) -> (f64, f64) {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    cluster.build = build;
    let mut cluster = cluster.up(2, 0).await;
    cluster.wait_for_members().await;
    let former = cluster.leader().await.expect("a leader");
    let standby = 1 - former;
    for number in 1..=CONFIG_MAPS {
        cluster
            .config_maps()
            .create(&PostParams::default(), &config_map(number))
            .await
            .expect("a ConfigMap is created");
    }
    let (term, holder) = (cluster.lease().await.term.expect("a term"), held(&cluster).await);
    let before = cluster.job_managers[standby].gateway().memory("VmHWM") as f64 / 1024.0;
    let begin = Instant::now();
    cluster.job_managers[former].jvm.kill();
    eventually("the standby to lead", seconds(60), async || {
        let now = held(&cluster).await;
        (now.is_some() && now != holder).then_some(())
    })
    .await;
    let granted = begin.elapsed();
    // The collector's look comes after the grant: it notes the size of the largest.
    eventually("the size of the HA data in the ledger", seconds(60), async || {
        let ledger = cluster.config_map(&names::ledger(NAME)).await?;
        let noted: HaData = serde_json::from_str(ledger.data?.get(HA_DATA_KEY)?).ok()?;
        (noted.largest?.bytes > POINTERS * POINTER).then_some(())
    })
    .await;
    let after = cluster.job_managers[standby].gateway().memory("VmHWM") as f64 / 1024.0;
    let data = CONFIG_MAPS * POINTERS * (POINTER + "checkpointID-".len() + 19);
    assert!(data >> 20 >= 49);
    say(format!(
        "{version}: HA data of {} MiB in {CONFIG_MAPS} ConfigMaps: another leader after {:.2} s; peak memory of its \
         gateway {before:.1} MiB before and {after:.1} MiB after",
        data >> 20,
        granted.as_secs_f64()
    ));
    let now = cluster.lease().await.term.expect("a term");
    assert!(now.number > term.number, "{now} after {term}");
    for number in 1..=CONFIG_MAPS {
        let name = names::job_config_map(NAME, &format!("{number:032x}"));
        let metadata = cluster.config_maps().get_metadata(&name).await.expect("it is still there").metadata;
        let stamp = metadata.annotations.and_then(|annotations| annotations.get(TERM_ANNOTATION).cloned());
        assert_eq!(stamp, Some(now.to_string()), "{name} has no stamp of the new term");
    }
    (before, after)
}

async fn held(cluster: &Cluster) -> Option<String> {
    cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder)
}
