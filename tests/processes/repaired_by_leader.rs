//! What the leading gateway owns comes back with its contents, without a change of leader: the address of
//! `<name>-rest`, the ledger with its tombstones, and promises under a key that is renewed.

use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider};
use crate::support::gateway::published;
use crate::support::jobs::watch;
use crate::support::provider::on_zookeeper;
use crate::support::{measured, say, seconds};
use flinkha::api::names::{self, NO_KEY_ANNOTATION};
use flinkha::ledger::jobs::{self, JOBS_KEY};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// What is not back by then is not repaired.
const LIMIT: Duration = seconds(5);

async fn timed(what: &str, probe: impl AsyncFnMut() -> Option<()>) {
    let begin = Instant::now();
    measured(what, seconds(60), probe).await;
    let took = begin.elapsed();
    say(format!("{what}: {:.2} s", took.as_secs_f64()));
    assert!(took < LIMIT, "{what} took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_and_the_ledger_come_back_and_an_ended_job_stays_ended() {
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let arguments = ["--checkpoint-interval-millis", "200"];
    let ended = cluster.submit("WordCount", &arguments).await.unwrap();
    cluster.wait_for_state(&ended, "FINISHED", seconds(60)).await;
    let config_maps = cluster.config_maps();
    let is_buried = |ledger: &ConfigMap| {
        let text = ledger.data.as_ref().and_then(|data| data.get(JOBS_KEY)).map(String::as_str);
        let found =
            jobs::read(text).unwrap_or_default().into_iter().any(|job| job.id == ended.as_str() && job.has_ended());
        found.then_some(())
    };
    let ledger = names::ledger(NAME);
    let buried = async || is_buried(&config_maps.get(&ledger).await.ok()?);
    measured("the tombstone", seconds(60), buried).await;
    let leader = cluster.leader().await.expect("a leader");
    let term = cluster.lease().await.term;

    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let name = names::rest(NAME);
    let address = published(cluster.job_managers[leader].address);
    let is_published = async || {
        let endpoints = slices.get(&name).await.ok()?.endpoints;
        (endpoints.len() == 1 && endpoints[0].addresses == [address.clone()]).then_some(())
    };
    measured("the address", seconds(30), is_published).await;
    let patch = async |patch: Value| {
        slices.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("failed to patch");
    };
    slices.delete(&name, &DeleteParams::default()).await.unwrap();
    // As the operator makes it.
    let labels = json!({ "kubernetes.io/service-name": name });
    let ports = json!([{ "name": "rest", "port": 8081, "protocol": "TCP" }]);
    let empty = json!({
        "metadata": { "name": name, "labels": labels }, "addressType": "IPv4", "endpoints": [], "ports": ports,
    });
    slices.create(&PostParams::default(), &serde_json::from_value(empty).unwrap()).await.unwrap();
    timed("the address in an EndpointSlice made anew", is_published).await;
    patch(json!({ "endpoints": [] })).await;
    timed("the address in an emptied EndpointSlice", is_published).await;
    patch(json!({ "endpoints": [{ "addresses": ["10.9.9.9"] }] })).await;
    timed("the address in an edited EndpointSlice", is_published).await;

    let create = async |data: Value| {
        let ledger = json!({ "metadata": { "name": ledger }, "data": data });
        // The gateway may be faster.
        let _ = config_maps.create(&PostParams::default(), &serde_json::from_value(ledger).unwrap()).await;
    };
    config_maps.delete(&ledger, &DeleteParams::default()).await.unwrap();
    timed("a deleted ledger", buried).await;
    config_maps.delete(&ledger, &DeleteParams::default()).await.unwrap();
    create(json!({})).await;
    timed("a ledger that the operator makes anew", buried).await;
    config_maps.delete(&ledger, &DeleteParams::default()).await.unwrap();
    create(json!({ JOBS_KEY: "[]" })).await;
    timed("a ledger from a backup", buried).await;
    let emptied = Patch::Merge(json!({ "data": null }));
    config_maps.patch(&ledger, &PatchParams::default(), &emptied).await.unwrap();
    timed("an emptied ledger", buried).await;
    let torn = Patch::Merge(json!({ "data": { JOBS_KEY: "[{" } }));
    config_maps.patch(&ledger, &PatchParams::default(), &torn).await.unwrap();
    timed("a torn ledger", buried).await;

    assert_eq!(cluster.lease().await.term, term, "the term changed");
    assert_eq!(cluster.leader().await, Some(leader));
    // A new leader, which does not remember the job as Flink's dispatcher does that ran it.
    cluster.job_managers[leader].jvm.kill();
    let another = async || cluster.leader().await.filter(|now| *now != leader).map(drop);
    measured("another leader", seconds(60), another).await;
    cluster.submit_as("WordCount", &arguments, Some(&ended)).await.expect_err("an ended job is not run again");
}

/// Whether the ledger says that there is no key; `None` if it cannot be read.
async fn says_no_key(cluster: &Cluster) -> Option<bool> {
    let annotations = cluster.config_maps().get(&names::ledger(NAME)).await.ok()?.metadata.annotations;
    Some(annotations.is_some_and(|annotations| annotations.contains_key(NO_KEY_ANNOTATION)))
}

/// With ZooKeeper the key is the one under which changed Secrets are noted.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_gone_is_told_until_there_is_one() {
    let cluster = Cluster::start(Provider::ours(), 1, 0).await;
    let key = cluster.job_managers[0].directory.join("peer-key");
    std::fs::remove_file(&key).expect("a key");
    measured("the note that there is no key", seconds(20), async || says_no_key(&cluster).await?.then_some(())).await;
    std::fs::write(&key, "another key, of 32 bytes or more").expect("a key");
    measured("the note to be gone", seconds(20), async || (!says_no_key(&cluster).await?).then_some(())).await;
}

/// Kubelets deliver a renewed Secret to one pod after the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_renewed_pod_by_pod_and_an_outage_meanwhile_ends_no_leadership() {
    if on_zookeeper() {
        return say("there are no promises with ZooKeeper");
    }
    let mut cluster = Cluster::start(Provider::ours(), 3, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    cluster.wait_for_members().await;
    let (term, leader) = (cluster.lease().await.term, cluster.leader().await.expect("a leader"));
    let keys: Vec<_> = cluster.job_managers.iter().map(|one| one.directory.join("peer-key")).collect();
    // Somebody deletes the Secret, and kubelets take the file away.
    keys.iter().for_each(|key| std::fs::remove_file(key).expect("a key"));
    measured("the note that there is no key", seconds(20), async || says_no_key(&cluster).await?.then_some(())).await;
    // The operator makes another one, which reaches the leader and one standby, and not yet the other one.
    let last = (0..keys.len()).rfind(|index| *index != leader).expect("a standby");
    let deliver = |index: usize| std::fs::write(&keys[index], "another key, of 32 bytes or more").expect("a key");
    (0..keys.len()).filter(|index| *index != last).for_each(deliver);
    measured("the note to be gone", seconds(20), async || (!says_no_key(&cluster).await?).then_some(())).await;
    let rest = cluster.leader_rest().await;
    cluster.plane.servers[0].process.kill();
    watch(&rest, &job, 20).await;
    deliver(last);
    watch(&rest, &job, 10).await;
    cluster.plane.servers[0].process.restart();
    cluster.plane.servers[0].wait_until_ready().await;
    cluster.wait_for_members().await;
    assert_eq!(cluster.lease().await.term, term, "the term changed");
    assert_eq!(cluster.leader().await, Some(leader));
}
