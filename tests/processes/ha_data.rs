//! What is in use, what is an orphan, and what the ledger tells: with real pointers and files of Flink, in a directory
//! and in S3.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider, cluster_config_map};
use crate::support::failover::fail_over;
use crate::support::gateway::Timings;
use crate::support::left::{Left, files};
use crate::support::provider::{needs_config_maps, on_zookeeper};
use crate::support::zookeeper::Quorum;
use crate::support::{eventually, say, seconds};
use flinkha::api::names;
use flinkha::ha_data::inventory::Inventory;
use flinkha::ledger::jobs::{self, HaData, Job};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use zookeeper_client::{Acls, CreateMode};

/// A job of no cluster: 32 hex digits.
const NOBODY: &str = "00000000000000000000000000000bad";

/// Sweeps every second, and removes orphans of more than an hour.
fn sweeping() -> Provider {
    Provider::ours_with(Timings { orphans: "delete", orphan_age: "1h", sweep_period: "1s", ..Timings::DEFAULT })
}

/// The part of the ledger that one key holds.
async fn ledger_key(cluster: &Cluster, key: &str) -> Option<String> {
    cluster.config_map(&names::ledger(NAME)).await?.data?.remove(key)
}

async fn ha_data(cluster: &Cluster) -> Option<HaData> {
    serde_json::from_str(&ledger_key(cluster, jobs::HA_DATA_KEY).await?).ok()
}

async fn jobs(cluster: &Cluster) -> Vec<Job> {
    jobs::read(ledger_key(cluster, jobs::JOBS_KEY).await.as_deref()).expect("a ledger that can be read")
}

async fn inventory(cluster: &Cluster) -> Inventory {
    if let Some(quorum) = &cluster.quorum {
        let znodes =
            flinkha::world::quorum::znodes::read(&quorum.client().await.expect("a session"), &Quorum::paths()).await;
        return Inventory::of_znodes(&znodes.expect("the znodes"));
    }
    let all = cluster.config_maps().list(&ListParams::default()).await.expect("the ConfigMaps").items;
    Inventory::of(&names::kubernetes_cluster_id(NAME), &all.iter().map(|one| json!(one)).collect::<Vec<_>>())
}

/// The cluster's own directory.
fn directory(cluster: &Cluster) -> PathBuf {
    cluster.storage().join(names::high_availability_cluster_id(NAMESPACE, NAME))
}

/// Makes a file look as old as the sweep wants orphans to be, and older.
fn age(path: &Path) {
    let file = std::fs::File::options().append(true).open(path).expect("a file");
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).expect("failed to set the time of a file");
}

fn lay_down(path: &Path, content: &[u8]) -> PathBuf {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("failed to make a directory");
    std::fs::write(path, content).expect("failed to write a file");
    age(path);
    path.to_owned()
}

fn checkpoint_of(cluster: &Cluster) -> Vec<u8> {
    let newest =
        || files(&directory(cluster)).into_iter().find(|file| file.to_string_lossy().contains("completedCheckpoint"));
    // It may be replaced by the next one between the look and the read.
    std::iter::repeat_with(|| newest().and_then(|file| std::fs::read(file).ok()))
        .flatten()
        .find(|bytes| !bytes.is_empty())
        .expect("a checkpoint")
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_crashes_go_and_nothing_else_does() {
    let mut cluster = Cluster::start(sweeping(), 2, 1).await;
    let living = sweep_and_check(&mut cluster).await;
    an_ended_job_is_not_run_again(&mut cluster, &living).await;
    if needs_config_maps("a full ConfigMap: a znode holds one pointer") {
        a_full_config_map_is_told_of(&cluster).await;
    }
    in_a_shared_directory_nothing_is_removed(&mut cluster, &living).await;
}

const FIXED: &str = "0000000000000000000000000000f1ed";

async fn an_ended_job_is_not_run_again(cluster: &mut Cluster, living: &str) {
    let output = cluster.path().join("fixed").display().to_string();
    let arguments = ["--output", &output, "--lines", "0", "--rate", "10", "--checkpoint-interval-millis", "500"];
    let job = cluster.submit_as("KeyedSequence", &arguments, Some(FIXED)).await.expect("a job under an id of its own");
    assert_eq!(job, FIXED);
    cluster.wait_for_state(FIXED, "RUNNING", seconds(30)).await;
    cluster.cancel(FIXED).await;
    let collected = async || jobs(cluster).await.into_iter().find(|job| job.id == FIXED && job.collected.is_some());
    eventually("its tombstone", seconds(30), collected).await;
    // A new leader, which does not remember the job as Flink's dispatcher does that ran it.
    fail_over(cluster, living, async |leader| leader.jvm.kill()).await;
    cluster.mend().await;
    let error =
        cluster.submit_as("KeyedSequence", &arguments, Some(FIXED)).await.expect_err("an ended job is not run again");
    say(format!("{error:#}").chars().take(200).collect::<String>());
    // With ZooKeeper the server refuses it, which has no words of ours; the gateway's log has them.
    let mut logs =
        cluster.job_managers.iter().map(|one| if on_zookeeper() { one.gateway_log() } else { one.flink_log() });
    assert!(
        logs.any(|log| log.contains("an ended job is never started again under its id")),
        "the log has the gateway's sentence"
    );
    let left = Left::of(cluster).await;
    let of_job = |all: &[String]| all.iter().any(|one| one.contains(FIXED));
    assert!(!of_job(&left.keys) && !of_job(&left.config_maps) && !of_job(&left.znodes), "{left:?}");
    assert_eq!(jobs(cluster).await.iter().filter(|job| job.id == FIXED && job.has_ended()).count(), 1);
    cluster.wait_for_checkpoints(living, 1).await;
}

async fn a_full_config_map_is_told_of(cluster: &Cluster) {
    let filler = json!({ "data": { "filler": "x".repeat(600_000) } });
    cluster
        .config_maps()
        .patch(&cluster_config_map(), &PatchParams::default(), &Patch::Merge(filler))
        .await
        .expect("a large ConfigMap");
    let job = cluster
        .submit("FailsForGood", &["--after-millis", "500", "--checkpoint-interval-millis", "300"])
        .await
        .expect("a job");
    let half = async || ha_data(cluster).await?.largest.filter(|size| size.per_cent() >= 50);
    let size = eventually("the ledger tells of the large ConfigMap", seconds(60), half).await;
    assert_eq!(size.name, cluster_config_map());
    say(format!("{size:?}"));
    // The API server compresses what is so large, where it is asked to; the gateway must be able to read it, or Flink
    // loses its lock.
    let logs = cluster
        .job_managers
        .iter()
        .map(|one| one.flink_log().matches("Exception occurred while acquiring lock").count());
    let failures: usize = logs.sum();
    tokio::time::sleep(seconds(3)).await;
    let logs = cluster
        .job_managers
        .iter()
        .map(|one| one.flink_log().matches("Exception occurred while acquiring lock").count());
    assert_eq!(logs.sum::<usize>(), failures, "Flink cannot renew its lock");
    eventually("nothing of the job", seconds(60), async || (Left::of(cluster).await.naming(&job) == 0).then_some(()))
        .await;
    let filler = json!({ "data": { "filler": null } });
    cluster
        .config_maps()
        .patch(&cluster_config_map(), &PatchParams::default(), &Patch::Merge(filler))
        .await
        .expect("a small ConfigMap");
}

/// While another cluster's mark stands in the directory, nothing is removed; not even when the resource is deleted.
async fn in_a_shared_directory_nothing_is_removed(cluster: &mut Cluster, living: &str) {
    let foreign = directory(cluster).join(".flinkha/somebody-else");
    std::fs::write(&foreign, "").expect("a mark");
    let in_state = async |state: &str| ha_data(cluster).await.filter(|ha_data| ha_data.state == state);
    let told = eventually("the ledger tells of it", seconds(90), async || in_state("Shared").await).await;
    say(&told.message);
    assert!(told.message.contains(".flinkha/somebody-else"), "the remedy names the mark");
    let owner = told.owner.expect("the owner");
    let orphan = lay_down(&directory(cluster).join("submittedJobGraphfeedbeefcafe"), b"graph");
    cluster.cancel(living).await;
    cluster.wait_for_state(living, "CANCELED", seconds(30)).await;
    let result = || {
        files(&cluster.storage().join("job-result-store"))
            .into_iter()
            .any(|file| file.to_string_lossy().contains(living))
    };
    eventually("Flink's result", seconds(20), async || result().then_some(())).await;
    tokio::time::sleep(seconds(4)).await;
    assert!(result() && orphan.exists(), "something in a directory that may be another's was removed");
    let refused = purge(cluster, &owner, &[]);
    assert!(refused.contains("another cluster has signed"), "{refused}");
    assert!(result() && orphan.exists());

    std::fs::remove_file(&foreign).expect("the mark goes");
    eventually("it is ours again", seconds(60), async || in_state("Collectable").await).await;
    eventually("the job collected and the orphan swept", seconds(60), async || {
        (!result() && !orphan.exists()).then_some(())
    })
    .await;
    let late = lay_down(&directory(cluster).join("submittedJobGraphfeedbeefcafe"), b"graph");
    // As the resource is deleted: JobManagers first.
    let signers = ha_data(cluster).await.expect("the ledger").signers;
    cluster.job_managers.clear();
    let purged = purge(cluster, &owner, &signers);
    assert!(purged.contains("files that are not Flink's HA files stay") && !late.exists(), "{purged}");
    assert!(directory(cluster).join("notes.txt").exists());
}

/// What the Job of a deleted resource runs; what it said.
fn purge(cluster: &Cluster, owner: &str, signers: &[String]) -> String {
    let flags = [
        "--storage-dir",
        &cluster.storage_uri(),
        "--ha-cluster-id",
        &names::high_availability_cluster_id(NAMESPACE, NAME),
        "--owner",
        owner,
        "--signers",
        &signers.join(","),
    ];
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_flinkha"))
        .arg("purge")
        .args(flags)
        .output()
        .expect("a run of the purge");
    let said = [run.stdout, run.stderr].concat();
    say(String::from_utf8_lossy(&said).trim());
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_of_and_nothing_is_lost() {
    if cluster_version() != "2.3.0" {
        return say("n/a with this version of Flink: its S3 file system is not published");
    }
    let cluster = Cluster::start_on_s3_with(Provider::ours(), 1, 1, "another secret").await;
    let job = cluster.run_sequence(0, 100).await;
    let told = eventually("the ledger tells of it", seconds(90), async || {
        ha_data(&cluster).await.filter(|told| told.state == "Unreachable")
    })
    .await;
    say(&told.message);
    assert!(
        told.message.contains("SignatureDoesNotMatch") && told.message.contains("spec.flinkConfiguration"),
        "{}",
        told.message
    );
    cluster.cancel(&job).await;
    cluster.wait_for_state(&job, "CANCELED", seconds(30)).await;
    let result = || {
        files(&cluster.storage().join("job-result-store")).into_iter().any(|file| file.to_string_lossy().contains(&job))
    };
    eventually("Flink's result stays", seconds(20), async || result().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_s3_orphans_go_and_an_ended_job_leaves_nothing() {
    if cluster_version() != "2.3.0" {
        return say("n/a with this version of Flink: its S3 file system is not published");
    }
    let mut cluster = Cluster::start_on_s3(sweeping(), 2, 1).await;
    let living = sweep_and_check(&mut cluster).await;
    cluster.cancel(&living).await;
    cluster.wait_for_state(&living, "CANCELED", seconds(30)).await;
    let begin = std::time::Instant::now();
    eventually("nothing left but what is foreign or protected", seconds(90), async || {
        let left = Left::of(&cluster).await;
        (left.naming(&living) == 0 && left.keys.is_empty() && left.znodes.is_empty() && left.files.len() == 3)
            .then_some(())
    })
    .await;
    say(format!("nothing left of the job in the bucket after {:.1} s", begin.elapsed().as_secs_f32()));
    cluster.s3.as_mut().expect("the S3 server").process.kill();
    let unreachable = async || ha_data(&cluster).await.filter(|told| told.state == "Unreachable");
    let told = eventually("the ledger tells that the storage is away", seconds(120), unreachable).await;
    say(told.message);
}

fn cluster_version() -> String {
    std::env::var("FLINK_VERSION").unwrap_or_else(|_| "2.3.0".to_owned())
}

/// Lays orphans down beside a living job, and things that look like orphans and are none; returns the living job.
async fn sweep_and_check(cluster: &mut Cluster) -> String {
    let living = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&living, 2).await;
    let known = eventually("the job in the ledger, with its name", seconds(20), async || {
        jobs(cluster).await.into_iter().find(|job| job.id == living && !job.name.is_empty())
    })
    .await;
    say(format!("the ledger: {known:?}"));
    assert!(known.is_stored(), "{known:?}");

    // Every pointer that this version of Flink writes is read, and its file is there.
    let plan = directory(cluster).join(known.plans.first().expect("the file of the job's plan"));
    assert!(plan.exists(), "{}", plan.display());
    let now = inventory(cluster).await;
    assert!(!now.unreadable_plan && now.unreadable_checkpoint.is_empty() && now.named.len() >= 2, "{now:?}");

    let here = directory(cluster);
    let checkpoint = checkpoint_of(cluster);
    let orphans = [
        lay_down(&here.join("submittedExecutionPlan0123456789ab"), b"graph"),
        lay_down(&here.join("completedCheckpoint0123456789ab"), &checkpoint),
        lay_down(&here.join(format!("blob/job_{NOBODY}/blob_p-00")), b"jar"),
    ];
    // Not understood, named by a pointer that cannot be read, not Flink's, and young.
    let foreign = lay_down(&here.join("notes.txt"), b"mine");
    let odd = lay_down(&here.join("completedCheckpointba9876543210"), b"not a checkpoint");
    let young = lay_down(&here.join("submittedExecutionPlanba9876543210"), b"graph");
    std::fs::write(&young, b"graph").expect("a file");
    age(&plan);
    eventually("orphans gone", seconds(90), async || orphans.iter().all(|file| !file.exists()).then_some(())).await;
    let told = eventually("numbers in the ledger", seconds(20), async || {
        ha_data(cluster)
            .await?
            .orphans
            .filter(|one| one.removed >= 3 && (one.files, one.foreign, one.protected) == (0, 1, 1))
    })
    .await;
    say(format!("{told:?}"));
    assert!(foreign.exists() && odd.exists() && young.exists() && plan.exists(), "what is no orphan stays");

    // A pointer that nobody can read protects all that it might name.
    let protected = protect(cluster, &here).await;
    tokio::time::sleep(seconds(4)).await;
    assert!(protected.exists(), "a graph that an unreadable pointer may name");
    unprotect(cluster).await;
    eventually("the graph gone, once all pointers can be read", seconds(30), async || {
        (!protected.exists()).then_some(())
    })
    .await;

    // What lives comes back from what was left.
    fail_over(cluster, &living, async |leader| leader.jvm.kill()).await;
    cluster.mend().await;
    let now = inventory(cluster).await;
    assert!(now.named.contains(plan.file_name().and_then(|name| name.to_str()).expect("a name")), "{now:?}");
    living
}

/// A key, or znode, of a job that never was, with a pointer that cannot be read; and an old graph beside it.
async fn protect(cluster: &Cluster, here: &Path) -> PathBuf {
    write_unreadable(cluster, Some("not a pointer")).await;
    lay_down(&here.join("submittedJobGraph0123456789ab"), b"graph")
}

async fn unprotect(cluster: &Cluster) {
    write_unreadable(cluster, None).await;
}

async fn write_unreadable(cluster: &Cluster, value: Option<&str>) {
    if let Some(quorum) = &cluster.quorum {
        let (client, path) =
            (quorum.client().await.expect("a session"), Quorum::paths().child(&format!("applications/{NOBODY}")));
        let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
        match value {
            Some(value) => drop(client.create(&path, value.as_bytes(), &options).await.expect("a new znode")),
            None => client.delete(&path, None).await.expect("one znode less"),
        }
        return;
    }
    let data = json!({ "data": { unreadable_key(cluster): value } });
    let patched =
        cluster.config_maps().patch(&cluster_config_map(), &PatchParams::default(), &Patch::Merge(data)).await;
    patched.expect("a changed cluster ConfigMap");
}

fn unreadable_key(cluster: &Cluster) -> String {
    let kind = if cluster.version.starts_with('1') { "jobGraph" } else { "executionPlan" };
    format!("{kind}-{NOBODY}")
}
