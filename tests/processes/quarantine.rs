//! A file of one job of a session is gone when the leader is lost: the other job goes on, the broken one is set aside
//! and named, and comes back with its file. An empty mount is no loss.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider, cluster_config_map};
use crate::support::left::{Left, files};
use crate::support::provider::on_zookeeper;
use crate::support::rest::Job as Running;
use crate::support::{eventually, say, seconds};
use flinkha::api::names::{self, DROP_JOB_ANNOTATION, high_availability_cluster_id};
use flinkha::flink::checkpoint;
use flinkha::ledger::jobs::{self, Job, RecordedState};
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// What a JobManager that crashes again and again may take to set a job aside: two looks, ten seconds apart, and some
/// starts of JVMs.
const ASIDE: Duration = seconds(120);

enum Lost {
    Plan,
    Checkpoint,
    Jar,
}

async fn jobs(cluster: &Cluster) -> Vec<Job> {
    let data = cluster.config_map(&names::ledger(NAME)).await.and_then(|ledger| ledger.data).unwrap_or_default();
    jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("a ledger that can be read")
}

async fn job(cluster: &Cluster, id: &str) -> Job {
    jobs(cluster).await.into_iter().find(|job| job.id == id).expect("the job in the ledger")
}

/// As a kubelet does, starts again what has ended, until something is so.
async fn until<T>(
    cluster: &mut Cluster,
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut(&Cluster) -> Option<T>,
) -> T {
    let begin = Instant::now();
    let mut restarts = 0;
    loop {
        restarts += cluster.restart_ended();
        if let Some(found) = probe(cluster).await {
            say(format!("{what} after {:.1} s and {restarts} restarts", begin.elapsed().as_secs_f32()));
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for: {what}: {:#?}", jobs(cluster).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn runs(cluster: &Cluster, id: &str) -> Option<()> {
    let rest = cluster.job_managers[cluster.leader().await?].rest_with_timeout(seconds(1));
    rest.job(id).await.ok().filter(Running::runs).map(drop)
}

async fn has_checkpoint(cluster: &Cluster, id: &str) -> Option<()> {
    let rest = cluster.job_managers[cluster.leader().await?].rest_with_timeout(seconds(1));
    rest.checkpoints(id).await.ok().filter(|now| now.completed > 0).map(drop)
}

/// A session with a job whose output proves exactly-once, and another one that completes a checkpoint now and then.
async fn session() -> (Cluster, String, String) {
    let cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let living = cluster.run_sequence(0, 100).await;
    let output = cluster.path().join("broken").display().to_string();
    let arguments = ["--output", &output, "--lines", "0", "--rate", "10", "--checkpoint-interval-millis", "15000"];
    let broken = cluster.submit("KeyedSequence", &arguments).await.expect("a second job");
    cluster.wait_for_checkpoints(&living, 1).await;
    let noted = async || {
        let all = jobs(&cluster).await;
        let is_noted = |id: &String| all.iter().any(|job| job.id == id.as_str() && job.jars.is_some());
        [&living, &broken].into_iter().all(is_noted).then_some(())
    };
    eventually("the jars of both jobs in the ledger", seconds(30), noted).await;
    (cluster, living, broken)
}

fn directory(cluster: &Cluster) -> PathBuf {
    cluster.storage().join(high_availability_cluster_id(NAMESPACE, NAME))
}

/// Removes a file of the job, once it is there, and returns its path and content.
async fn lose(cluster: &Cluster, id: &str, lost: &Lost) -> (PathBuf, Vec<u8>) {
    let (directory, noted) = (directory(cluster), job(cluster, id).await);
    let path = match lost {
        Lost::Plan => directory.join(noted.plans.last().expect("a plan in the ledger")),
        Lost::Jar => directory.join(noted.jars.iter().flatten().next().expect("a jar in the ledger")),
        Lost::Checkpoint => {
            cluster.wait_for_checkpoints(id, 1).await;
            let is_its = |path: &PathBuf| {
                let name =
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("completedCheckpoint"));
                let content = if name { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
                checkpoint::job(&content).is_some_and(|job| job.as_str() == id)
            };
            files(&directory).into_iter().find(is_its).expect("the metadata of its checkpoint")
        }
    };
    let content = std::fs::read(&path).expect("the file");
    std::fs::remove_file(&path).expect("the file");
    say(format!("{} is gone", path.display()));
    (path, content)
}

/// Removes the file, kills the leader, and returns when the other job goes on and this one is set aside.
async fn set_aside(cluster: &mut Cluster, living: &str, broken: &str, lost: &Lost) -> (PathBuf, Vec<u8>) {
    let (path, content) = lose(cluster, broken, lost).await;
    let leader = cluster.leader().await.expect("a leader");
    cluster.job_managers[leader].jvm.kill();
    let named = path.strip_prefix(directory(cluster)).expect("a path below").display().to_string();
    let is_told = async |cluster: &Cluster| {
        let job = jobs(cluster).await.into_iter().find(|job| job.id == broken)?;
        (job.state == RecordedState::Quarantined && job.missing == [named.clone()]).then_some(())
    };
    until(cluster, "the job is set aside and its file named", ASIDE, is_told).await;
    until(cluster, "the other job runs", seconds(60), async |cluster| runs(cluster, living).await).await;
    until(cluster, "the other job's checkpoint", seconds(60), async |cluster| has_checkpoint(cluster, living).await)
        .await;
    assert!(runs(cluster, broken).await.is_none(), "the broken job runs");
    cluster.verify("any");
    let left = Left::of(cluster).await;
    let pointers =
        left.keys.iter().chain(&left.znodes).filter(|one| one.contains(broken) && one.contains("quarantine"));
    assert_eq!(pointers.count(), 1, "{left:#?}");
    (path, content)
}

async fn comes_back(lost: Lost) {
    let (mut cluster, living, broken) = session().await;
    let (path, content) = set_aside(&mut cluster, &living, &broken, &lost).await;
    cluster.mend().await;
    std::fs::write(&path, content).expect("the file put back");
    until(&mut cluster, "the job runs again", seconds(90), async |cluster| runs(cluster, &broken).await).await;
    let is_told = async |cluster: &Cluster| {
        let job = job(cluster, &broken).await;
        (job.state == RecordedState::Running && job.missing.is_empty()).then_some(())
    };
    until(&mut cluster, "the ledger tells so", seconds(60), is_told).await;
    until(&mut cluster, "its checkpoint", seconds(60), async |cluster| has_checkpoint(cluster, &broken).await).await;
    until(&mut cluster, "the other job runs", seconds(60), async |cluster| runs(cluster, &living).await).await;
    cluster.wait_for_checkpoints(&living, 1).await;
    cluster.verify("any");
    let restored = cluster.leader_rest().await.checkpoints(&broken).await.expect("its checkpoints").restored;
    assert!(restored.is_some() || !matches!(lost, Lost::Checkpoint), "it goes on from its checkpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_its_plan_is_set_aside_and_comes_back_with_it() {
    comes_back(Lost::Plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_its_checkpoint_is_set_aside_and_comes_back_with_it() {
    comes_back(Lost::Checkpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_its_jar_is_set_aside_and_comes_back_with_it() {
    comes_back(Lost::Jar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_quarantine_that_is_dropped_by_name_leaves_nothing() {
    let (mut cluster, living, broken) = session().await;
    set_aside(&mut cluster, &living, &broken, &Lost::Plan).await;
    cluster.mend().await;
    let asked = json!({ "metadata": { "annotations": { DROP_JOB_ANNOTATION: broken } } });
    let ledger = names::ledger(NAME);
    cluster.config_maps().patch(&ledger, &PatchParams::default(), &Patch::Merge(asked)).await.expect("the ledger");
    let dropped = async |cluster: &Cluster| {
        let job = job(cluster, &broken).await;
        (job.state == RecordedState::Dropped && job.collected.is_some()).then_some(())
    };
    until(&mut cluster, "the job is dropped", seconds(60), dropped).await;
    let gone = async |cluster: &Cluster| (Left::of(cluster).await.naming(&broken) == 0).then_some(());
    until(&mut cluster, "nothing is left of it", seconds(60), gone).await;
    let asked = cluster.config_map(&ledger).await.and_then(|ledger| ledger.metadata.annotations).unwrap_or_default();
    assert!(!asked.contains_key(DROP_JOB_ANNOTATION), "the request is answered");
    assert!(runs(&cluster, &living).await.is_some());
    cluster.wait_for_checkpoints(&living, 2).await;
    cluster.verify("any");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_mount_sets_nothing_aside_and_both_jobs_come_back_with_it() {
    let (mut cluster, living, broken) = session().await;
    let keys = async |cluster: &Cluster| {
        if on_zookeeper() {
            let znodes = Left::of(cluster).await.znodes.into_iter();
            return znodes.filter(|path| path.contains("-plans/") || path.contains("jobgraphs/")).count();
        }
        let data = cluster.config_map(&cluster_config_map()).await.and_then(|one| one.data).unwrap_or_default();
        data.keys().filter(|key| key.starts_with("executionPlan-") || key.starts_with("jobGraph-")).count()
    };
    let before = keys(&cluster).await;
    let (storage, kept) = (cluster.storage(), cluster.path().join("kept"));
    let leader = cluster.leader().await.expect("a leader");
    cluster.job_managers[leader].jvm.kill();
    std::fs::rename(&storage, &kept).expect("the mount is gone");
    empty(&storage);
    let begin = Instant::now();
    while begin.elapsed() < seconds(60) {
        cluster.restart_ended();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let all = jobs(&cluster).await;
        assert!(all.iter().all(|job| job.state != RecordedState::Quarantined), "{all:?}");
        assert!(keys(&cluster).await >= before.min(2), "a pointer is gone");
    }
    std::fs::remove_dir_all(&storage).expect("the empty mount");
    std::fs::rename(&kept, &storage).expect("the mount is back");
    for id in [&living, &broken] {
        until(&mut cluster, "the job runs again", seconds(120), async |cluster| runs(cluster, id).await).await;
    }
    until(&mut cluster, "a checkpoint", seconds(60), async |cluster| has_checkpoint(cluster, &living).await).await;
    cluster.verify("any");
}

fn empty(storage: &Path) {
    std::fs::create_dir_all(storage).expect("an empty mount");
}
