//! A job that has ended leaves nothing: no key, no ConfigMap, no file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider};
use crate::support::failover::fail_over;
use crate::support::left::{Left, files};
use crate::support::provider::on_zookeeper;
use crate::support::{eventually, say, seconds};
use flinkha::api::names::{self, high_availability_cluster_id};
use flinkha::ledger::jobs;

async fn wait_until_nothing_is_left(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let left = Left::of(cluster).await;
        if left.is_nothing() {
            return say(format!("nothing left after {:.1} s", begin.elapsed().as_secs_f32()));
        }
        assert!(begin.elapsed() < seconds(60), "{left:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The ledger tells how the job ended, and that nothing is left of it.
async fn wait_for_tombstone(cluster: &Cluster, job: &str, state: &str) {
    let confirmed = async || {
        let data = cluster.config_map(&names::ledger(NAME)).await?.data?;
        let tombstones = jobs::read(data.get(jobs::JOBS_KEY).map(String::as_str)).expect("a ledger that can be read");
        let tombstone = tombstones.into_iter().find(|one| one.id == job && one.collected.is_some())?;
        assert_eq!(tombstone.state.as_str(), state);
        Some(())
    };
    eventually(&format!("the tombstone of {job} in the ledger"), seconds(60), confirmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_a_cancelled_and_a_failed_job_leave_no_key_no_config_map_and_no_file() {
    let cluster = Cluster::start(Provider::ours(), 1, 1).await;
    let cancelled = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&cancelled, 2).await;
    let there = Left::of(&cluster).await;
    let pointers =
        if on_zookeeper() { !there.znodes.is_empty() } else { !there.keys.is_empty() && !there.config_maps.is_empty() };
    assert!(pointers && !there.files.is_empty(), "a running job has HA data: {there:?}");
    leave_an_orphan(&cluster);
    cluster.cancel(&cancelled).await;
    cluster.wait_for_state(&cancelled, "CANCELED", seconds(30)).await;
    wait_until_nothing_is_left(&cluster).await;
    wait_for_tombstone(&cluster, &cancelled, "Canceled").await;

    let finished = cluster.submit("WordCount", &["--checkpoint-interval-millis", "200"]).await.unwrap();
    cluster.wait_for_state(&finished, "FINISHED", seconds(60)).await;
    wait_until_nothing_is_left(&cluster).await;
    wait_for_tombstone(&cluster, &finished, "Finished").await;

    let failed = cluster
        .submit("FailsForGood", &["--after-millis", "1500", "--checkpoint-interval-millis", "500"])
        .await
        .unwrap();
    cluster.wait_for_state(&failed, "FAILED", seconds(60)).await;
    wait_until_nothing_is_left(&cluster).await;
    wait_for_tombstone(&cluster, &failed, "Failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_while_a_job_ends_leaves_nothing_either_and_the_job_does_not_come_back() {
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let leader = cluster.leader().await.unwrap();
    let mut attempts = 0;
    let job = loop {
        let job = cluster.run_sequence(0, 100).await;
        cluster.wait_for_checkpoints(&job, 2).await;
        cluster.cancel(&job).await;
        if wait_for_result(&dirty_result(&cluster, &job)) {
            break job;
        }
        attempts += 1;
        assert!(attempts < 4, "no result of a cancelled job was ever seen");
    };
    cluster.job_managers[leader].jvm.kill();
    say("leader killed while its job ended");
    eventually("another leader", seconds(20), async || cluster.leader().await.filter(|&now| now != leader)).await;
    wait_until_nothing_is_left(&cluster).await;
    wait_for_tombstone(&cluster, &job, "Canceled").await;
    let rest = cluster.leader_rest().await;
    let jobs = eventually("the jobs", seconds(60), async || rest.jobs().await.ok()).await;
    let revived = jobs.into_iter().find(|one| one.state == "RUNNING");
    assert_eq!(revived, None, "a job that had ended runs again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_left_half_written_does_not_stop_the_cluster() {
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    // What is left of a leader that dies between creating the file and writing it; every Flink that reads it ends
    // itself.
    std::fs::write(dirty_result(&cluster, &job), "").unwrap();
    fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    cluster.cancel(&job).await;
    wait_until_nothing_is_left(&cluster).await;
}

/// A checkpoint that no pointer names, as a leader leaves it that dies between writing the file and its pointer.
fn leave_an_orphan(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let found =
            files(&cluster.storage()).into_iter().find(|file| file.to_string_lossy().contains("/completedCheckpoint"));
        // Flink may remove it in this moment: then the next one.
        if found.is_some_and(|file| {
            std::fs::copy(&file, file.with_file_name("completedCheckpoint0123456789ab")).is_ok_and(|bytes| bytes > 0)
        }) {
            return;
        }
        assert!(begin.elapsed() < seconds(20), "no checkpoint to copy");
    }
}

/// Flink writes down the result, then cleans up: true in between. It is a moment, and a busy machine may look away.
fn wait_for_result(result: &Path) -> bool {
    let begin = Instant::now();
    while std::fs::metadata(result).map_or(0, |file| file.len()) == 0 {
        if begin.elapsed() > seconds(15) {
            return false;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    true
}

/// Where Flink writes down how a job ended before it cleans up.
fn dirty_result(cluster: &Cluster, job: &str) -> PathBuf {
    cluster
        .storage()
        .join(format!("job-result-store/{}/{job}_DIRTY.json", high_availability_cluster_id(NAMESPACE, NAME)))
}
