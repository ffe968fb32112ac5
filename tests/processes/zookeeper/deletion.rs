//! A deleted resource: what the Job `<name>-purge` does, run as the operator builds it, against real znodes and files.

use std::process::Output;

use flinkha::api::names;
use flinkha::api::v1alpha1::OnDelete;
use flinkha::ha_data::marks::Mark;
use flinkha::ledger::jobs::{self, HaData};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::cluster::NAME;
use crate::support::cluster::NAMESPACE;
use crate::support::eventually;
use crate::support::left::Left;
use crate::support::left::files;
use crate::support::rest::Job;
use crate::support::say;
use crate::support::seconds;
use crate::support::zookeeper::Quorum;
use crate::support::zookeeper::tree;

/// With `Retain` the job resumes when the same resource is applied again; with `Delete` nothing is left, not even the
/// cluster's own znode.
pub async fn deletion() -> Value {
    let mut cluster = Cluster::start(super::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let before = cluster.wait_for_checkpoints(&job, 4).await;
    let owner = eventually("the owner of the directory", seconds(90), async || owner(&cluster).await).await;
    let counter = cluster.checkpoint_counter(&job).await;

    stop_all(&mut cluster).await;
    let retained = run(&cluster, &owner, OnDelete::Retain);
    assert!(retained.status.success(), "{}", told(&retained));
    let left = Left::of(&cluster).await;
    assert!(left.naming(&job) > 0 && !left.files.is_empty(), "what the job needs was removed: {left:?}");
    let paths = Quorum::paths();
    let client = cluster.quorum.as_ref().expect("a quorum").client().await.expect("a session");
    assert!(tree(&client, &paths.child("leader")).await.is_empty(), "the election's znodes are gone");
    say(format!("Retain: {}", told(&retained)));
    cluster.add_job_manager().await;
    cluster.add_task_manager().await;
    cluster.wait_until_ready().await;
    let rest = cluster.leader_rest().await;
    eventually("the job resumed", seconds(60), async || rest.job(&job).await.ok().filter(Job::runs)).await;
    let after = eventually("a new checkpoint", seconds(60), async || {
        rest.checkpoints(&job).await.ok().filter(|now| now.completed > 0)
    })
    .await;
    assert!(
        after.restored >= before.latest && cluster.checkpoint_counter(&job).await >= counter,
        "{before:?} {after:?}"
    );

    stop_all(&mut cluster).await;
    // Somebody else's mark stops it, before anything is removed.
    let foreign = paths.child("flinkha/somebody-else");
    let options = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
    client.create(&foreign, b"", &options).await.expect("a mark");
    // Of jobs: the server itself removes empty parents of its kind `container`.
    let there = Left::of(&cluster).await;
    let refused = run(&cluster, &owner, OnDelete::Delete);
    assert!(!refused.status.success() && told(&refused).contains("another cluster has signed"), "{}", told(&refused));
    assert_eq!(Left::of(&cluster).await, there, "something was removed");
    client.delete(&foreign, None).await.expect("the mark goes");

    let deleted = run(&cluster, &owner, OnDelete::Delete);
    assert!(deleted.status.success(), "{}", told(&deleted));
    say(format!("Delete: {}", told(&deleted)));
    let (znodes, files) = (tree(&client, &paths.cluster).await, files(&cluster.storage()));
    assert!(znodes.is_empty() && files.is_empty(), "left: {znodes:?} {files:?}");
    println!(
        "deletion: Retain keeps the job, which resumed from checkpoint {:?}; Delete leaves 0 znodes and 0 files",
        after.restored
    );
    json!({ "part": "deletion", "retained_resumed_from": after.restored, "left_znodes": 0, "left_files": 0 })
}

pub async fn owner(cluster: &Cluster) -> Option<String> {
    let text = cluster.config_map(&names::ledger(NAME)).await?.data?.remove(jobs::HA_DATA_KEY)?;
    serde_json::from_str::<HaData>(&text).ok()?.owner
}

/// As the operator does it: JobManagers first, each with its signal; gateways end after them.
pub async fn stop_all(cluster: &mut Cluster) {
    for one in &mut cluster.job_managers {
        let _ = one.hand_over();
        one.jvm.terminate();
    }
    for one in &mut cluster.job_managers {
        one.jvm.wait(seconds(30)).await.expect("the JobManager ends when it is told to");
        one.gateway().terminate();
    }
    cluster.job_managers.clear();
    cluster.task_managers.clear();
}

pub fn run(cluster: &Cluster, owner: &str, on_delete: OnDelete) -> Output {
    let id = names::high_availability_cluster_id(NAMESPACE, NAME);
    let (storage, quorum) = (cluster.storage_uri(), cluster.quorum.as_ref().expect("a quorum"));
    let flags = ["--storage-dir", &storage, "--ha-cluster-id", &id, "--owner", owner];
    // As the ledger names it: the gateway process that has signed last.
    let mark = std::fs::read_to_string(cluster.storage().join(&id).join(".flinkha").join(owner)).unwrap_or_default();
    let signer = Mark::read(&mark).unwrap_or_default().process;
    let retain = if on_delete == OnDelete::Retain { &["--retain"][..] } else { &[] };
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flinkha"));
    command
        .arg("purge")
        .args(flags)
        .args(["--signers", &signer])
        .args(quorum.flags())
        .args(retain)
        .output()
        .expect("a run of the purge")
}

pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).trim().to_owned()
}
