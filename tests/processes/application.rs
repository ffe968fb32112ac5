//! One cluster, one application, with real JVMs: it survives its leader, ends once, and another version goes on where
//! it was.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::application::spec;
use crate::support::cluster::Cluster;
use crate::support::failover::fail_over;
use crate::support::left::Left;
use crate::support::provider::on_zookeeper;
use crate::support::zookeeper::{Quorum, tree};
use crate::support::{eventually, say, seconds};
use flinkha::cluster::application::job_id;
use flinkha::ledger::application::SavepointRequest;
use flinkha::ledger::jobs::RecordedState;
use flinkha::ledger::refusal::STORED_BY_ANOTHER;
use zookeeper_client::{Acls, CreateMode};

const SEQUENCE: [&str; 6] = ["--output", "OUTPUT", "--rate", "100", "--checkpoint-interval-millis", "500"];

async fn wait_for_end(cluster: &mut Cluster, job: &str, state: &str) -> Option<String> {
    let begin = Instant::now();
    let tombstone = loop {
        // As the kubelet does it.
        for one in &mut cluster.job_managers {
            if !one.jvm.is_running() {
                one.jvm.restart();
            }
        }
        match cluster.tombstone(job).await.filter(|one| one.collected.is_some()) {
            Some(tombstone) => break tombstone,
            None => assert!(begin.elapsed() < seconds(240), "no tombstone: {:#?}", Left::of(cluster).await),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(tombstone.state.as_str(), state);
    // The entries of Flink's result stores are removed after the tombstone is written.
    let nothing = async || Left::of(cluster).await.is_nothing().then_some(());
    eventually("nothing left", seconds(10), nothing).await;
    tombstone.cause
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_survives_its_leader_and_ends_once() {
    let arguments = [&SEQUENCE[..], &["--lines", "6000"]].concat();
    let mut cluster = Cluster::start_application(2, 1, "KeyedSequence", &arguments).await;
    let job = cluster.job();
    for _ in 0..2 {
        let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
        assert!(failover.running < seconds(25), "{failover:?}");
        let old = 1 - failover.leader;
        cluster.job_managers[old].jvm.restart();
        cluster.wait_until_ready().await;
    }
    assert_eq!(wait_for_end(&mut cluster, &job, "Finished").await, None);
    // A JobManager that starts anew now, before the operator has taken the pods away, does not lead, so that it runs
    // nothing.
    for one in &mut cluster.job_managers {
        one.jvm.kill();
        one.jvm.restart();
    }
    tokio::time::sleep(seconds(15)).await;
    assert_eq!(leads(&cluster).await, None, "an application that has ended has no leader");
    assert!(Left::of(&cluster).await.is_nothing());
    cluster.verify("6000");
}

/// JobManagers that end together: each still sees a latch of another one for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_znodes_of_an_ended_application_go_with_its_job_managers_although_a_latch_lingers() {
    if !on_zookeeper() {
        return say("there are no latches in ConfigMaps");
    }
    let arguments = [&SEQUENCE[..], &["--lines", "600"]].concat();
    let mut cluster = Cluster::start_application(2, 1, "KeyedSequence", &arguments).await;
    let job = cluster.job();
    wait_for_end(&mut cluster, &job, "Finished").await;
    let (quorum, paths) = (cluster.quorum.as_ref().expect("a quorum"), Quorum::paths());
    let (client, other) = (quorum.client().await.expect("a session"), quorum.connect().await.expect("a session"));
    let ephemeral = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
    let latch = format!("{}/_c_0a0b0c0d-0000-0000-0000-000000000000-latch-", paths.latch());
    other.create(&latch, b"another", &ephemeral).await.expect("a latch");
    for one in &mut cluster.job_managers {
        one.jvm.terminate();
    }
    for one in &mut cluster.job_managers {
        one.jvm.wait(seconds(30)).await.expect("the JobManager ends when it is told to");
        one.gateway().terminate();
    }
    tokio::time::sleep(seconds(3)).await;
    assert!(!tree(&client, &paths.cluster).await.is_empty(), "somebody stands for election");
    drop(other);
    let gone = async || tree(&client, &paths.cluster).await.is_empty().then_some(());
    eventually("no znode of the cluster", seconds(10), gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_for_good_leaves_its_exception() {
    let mut cluster = Cluster::start_application(2, 1, "FailsForGood", &["--after-millis", "15000"]).await;
    let job = cluster.job();
    let cause = wait_for_end(&mut cluster, &job, "Failed").await.expect("a cause");
    say(&cause);
    assert!(cause.contains("Exception"), "{cause}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_goes_on_from_the_last_checkpoint_and_another_run_begins_anew() {
    let mut cluster = Cluster::start_application(2, 1, "KeyedSequence", &SEQUENCE).await;
    let (job, output) = (cluster.job(), cluster.output().display().to_string());
    cluster.wait_for_checkpoints(&job, 3).await;
    let arguments = |rate: &str, lines: &str| {
        ["--output", &output, "--rate", rate, "--checkpoint-interval-millis", "500", "--lines", lines]
            .map(str::to_owned)
    };
    let to = |cluster: &Cluster, arguments: &[String]| {
        spec(cluster, "KeyedSequence", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    // Another version of the same run.
    let second = to(&cluster, &arguments("150", "0"));
    let counter = cluster.checkpoint_counter(&job).await;
    let latest = cluster.wait_for_checkpoints(&job, 3).await.latest.expect("a checkpoint");
    cluster.redeploy(2, |application| application.spec = second).await;
    cluster.wait_until_ready().await;
    cluster.wait_until_up().await;
    let checkpoints = cluster.wait_for_checkpoints(&job, 1).await;
    assert!(checkpoints.restored.unwrap() >= latest, "{checkpoints:?}, {latest}");
    assert!(cluster.checkpoint_counter(&job).await >= counter, "the checkpoint counter went backwards");
    assert_eq!(checkpoints.restores, 1);
    let before = cluster.progress().await.before.expect("what was there before");
    assert_eq!(before.job, job);
    let checkpoint = before.checkpoint.expect("the last checkpoint's directory");
    assert!(checkpoint.contains(&job) && checkpoint.contains("/chk-"), "{checkpoint}");
    // A main method that throws ends nothing: the version before goes on.
    let broken = to(&cluster, &["--nonsense".to_owned(), "x".to_owned()]);
    let good = cluster.application.as_ref().unwrap().spec.clone();
    cluster.redeploy(2, |application| application.spec = broken).await;
    tokio::time::sleep(seconds(12)).await;
    assert!(cluster.tombstone(&job).await.is_none());
    cluster.redeploy(2, |application| application.spec = good).await;
    cluster.mend().await;
    cluster.wait_until_up().await;
    assert_eq!(cluster.wait_for_checkpoints(&job, 1).await.restores, 1);
    cluster.verify("any");
    // Another run, stateless: nothing is left of the one before.
    let last = to(&cluster, &arguments("200", "1000"));
    cluster
        .redeploy(2, |application| {
            std::fs::remove_dir_all(&output).expect("failed to remove the output");
            application.spec = last;
            application.run.job_id = job_id("uid", 2);
        })
        .await;
    let next = cluster.job();
    cluster.wait_until_ready().await;
    // All pods were new: a mark that a process wrote whose life nobody has seen must stand for 20 s first.
    let superseded = eventually("the former run's tombstone", seconds(60), async || {
        cluster.tombstone(&job).await.filter(|one| one.collected.is_some())
    });
    assert_eq!(superseded.await.state, RecordedState::Superseded);
    assert_eq!(Left::of(&cluster).await.naming(&job), 0);
    wait_for_end(&mut cluster, &next, "Finished").await;
    cluster.verify("1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_an_earlier_start_drop_nothing_also_when_the_ledger_is_lost() {
    let mut cluster = Cluster::start_application(1, 1, "KeyedSequence", &SEQUENCE).await;
    let (job, output) = (cluster.job(), cluster.output().display().to_string());
    cluster.wait_for_checkpoints(&job, 2).await;
    let earlier = cluster.application.clone();
    let arguments = ["--output", &output, "--rate", "150", "--checkpoint-interval-millis", "500"];
    let second = spec(&cluster, "KeyedSequence", &arguments);
    cluster.redeploy(1, |application| application.spec = second).await;
    cluster.wait_until_ready().await;
    cluster.wait_until_up().await;
    let latest = cluster.wait_for_checkpoints(&job, 2).await.latest.expect("a checkpoint");
    let later = std::mem::replace(&mut cluster.application, earlier);
    // A node that was lost is back, with its pod.
    cluster.add_job_manager().await;
    cluster.application = later;
    let old = &cluster.job_managers[1];
    eventually("the earlier pod's gateway answers", seconds(60), async || old.probe("/livez").await.ok()).await;
    // A leader would put back what its ledger has lost.
    cluster.job_managers[0].jvm.kill();
    eventually("the ledger is lost", seconds(20), async || {
        cluster.forget_in_ledger().await;
        (cluster.progress().await.start == 0).then_some(())
    })
    .await;
    let refusal = eventually("the refusal", seconds(120), async || cluster.refusal().await).await;
    say(&refusal.message);
    assert_eq!(refusal.reason, STORED_BY_ANOTHER);
    assert!(refusal.message.contains("pods of start 2"), "{}", refusal.message);
    assert_eq!(leads(&cluster).await, None);
    assert_eq!(cluster.progress().await.start, 0, "nobody has begun");
    cluster.job_managers[0].jvm.restart();
    cluster.wait_until_up().await;
    let checkpoints = cluster.wait_for_checkpoints(&job, 1).await;
    assert!(checkpoints.restored.unwrap() >= latest, "{checkpoints:?}, {latest}");
    eventually("the refusal is gone", seconds(30), async || cluster.refusal().await.is_none().then_some(())).await;
    cluster.verify("any");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_named_is_not_superseded() {
    let mut cluster = Cluster::start_application(1, 1, "KeyedSequence", &SEQUENCE).await;
    let job = cluster.job();
    let latest = cluster.wait_for_checkpoints(&job, 2).await.latest.expect("a checkpoint");
    let first = cluster.application.clone();
    cluster
        .redeploy(1, |application| {
            application.run.job_id = job_id("another", 1);
        })
        .await;
    // What became of the ledger, the operator did not know.
    cluster.job_managers.clear();
    cluster.forget_in_ledger().await;
    cluster.run_mut().replaces.clear();
    cluster.add_job_manager().await;
    let refusal = eventually("the refusal", seconds(120), async || cluster.refusal().await).await;
    say(&refusal.message);
    assert!(refusal.reason == STORED_BY_ANOTHER && refusal.message.contains(&job), "{refusal:?}");
    // Whoever goes on with it finds all of it.
    cluster.application = first;
    cluster.redeploy(1, |application| application.run.start = 5).await;
    cluster.wait_until_ready().await;
    cluster.wait_until_up().await;
    let checkpoints = cluster.wait_for_checkpoints(&job, 1).await;
    assert!(checkpoints.restored.unwrap() >= latest, "{checkpoints:?}, {latest}");
    cluster.verify("any");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_stopped_with_a_savepoint_that_is_told_before_its_end() {
    let mut cluster = Cluster::start_application(2, 1, "KeyedSequence", &SEQUENCE).await;
    let job = cluster.job();
    let directory = format!("file://{}/savepoints", cluster.path().display());
    let ask = async |id: &str, stop: bool, directory: &str| {
        let request = SavepointRequest {
            id: id.to_owned(),
            job: job.parse().expect("an id"),
            directory: format!("{directory}/{id}"),
            stop,
            retain: None,
        };
        cluster.ask_for_savepoint(&request).await;
        let answered =
            async || cluster.progress().await.savepoint.filter(|answer| answer.id == id && !answer.at.is_empty());
        eventually(&format!("an answer to {id}"), seconds(60), answered).await
    };
    let unwritable = ask("nonce-1", false, "file:///proc/nowhere").await;
    say(unwritable.error.expect("an error"));
    let beside = ask("nonce-2", false, &directory).await.path.expect("a savepoint");
    assert!(Path::new(beside.trim_start_matches("file:")).join("_metadata").exists(), "{beside}");
    assert!(cluster.tombstone(&job).await.is_none());
    let path = ask("upgrade-2", true, &directory).await.path.expect("a savepoint");
    wait_for_end(&mut cluster, &job, "Finished").await;
    cluster.verify("any");
    cluster.go_on_from(&path, job_id("uid", 2)).await;
    assert!(Path::new(path.trim_start_matches("file:")).join("_metadata").exists(), "a savepoint is never deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_that_a_job_is_stopped_with_survives_its_gateway() {
    let mut cluster = Cluster::start_application(1, 1, "KeyedSequence", &SEQUENCE).await;
    let job = cluster.job();
    cluster.wait_for_checkpoints(&job, 2).await;
    // Flink is at the savepoint for as long as its tasks stand still.
    cluster.task_managers[0].stop();
    let directory = format!("file://{}/savepoints/upgrade-2", cluster.path().display());
    cluster
        .ask_for_savepoint(&SavepointRequest {
            id: "upgrade-2".to_owned(),
            job: job.parse().expect("an id"),
            directory,
            stop: true,
            retain: None,
        })
        .await;
    eventually("the attempt in the ledger", seconds(30), async || cluster.progress().await.savepoint).await;
    tokio::time::sleep(seconds(1)).await;
    cluster.job_managers[0].gateway().restart();
    tokio::time::sleep(seconds(3)).await;
    cluster.task_managers[0].cont();
    let answered = async || cluster.progress().await.savepoint.filter(|answer| !answer.at.is_empty());
    let answer = eventually("an answer", seconds(60), answered).await;
    say(format!("gateway killed while Flink took the savepoint: {answer:?}"));
    let path = answer.path.expect("a savepoint");
    wait_for_end(&mut cluster, &job, "Finished").await;
    cluster
        .redeploy(1, |application| {
            let next = &mut application.run;
            (next.job_id, next.restored_from) = (job_id("uid", 2), Some(path));
        })
        .await;
    cluster.wait_until_ready().await;
    cluster.wait_until_up().await;
    cluster.verify("any");
}

/// The pod whose JVM leads, by the Lease: one that only tries holds it too, for a moment.
async fn leads(cluster: &Cluster) -> Option<String> {
    let lease = cluster.lease().await;
    lease.change.is_some_and(|change| change.to == lease.holder && !change.to.is_empty()).then_some(lease.holder)
}

/// How often the storm comes.
fn storms() -> u32 {
    std::env::var("STORMS").map_or(2, |text| text.parse().expect("STORMS is a number"))
}

/// Lines of a job that ends three seconds after all its tasks run.
const SHORT: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_restarts_around_the_end_never_runs_the_job_again() {
    let arguments = [&SEQUENCE[..], &["--lines", "300"]].concat();
    let mut cluster = Cluster::start_application(3, 1, "KeyedSequence", &arguments).await;
    let mut killed_after_the_end = 0;
    for storm in 1..=storms() {
        let job = cluster.job();
        if storm > 1 {
            cluster.wait_until_up().await;
        }
        // Each at its own moment in the three seconds around the end.
        let end = Instant::now() + Duration::from_millis(SHORT * 10);
        let mut moments: Vec<Instant> =
            (0..3).map(|_| end - seconds(2) + Duration::from_millis(fastrand::u64(0..3000))).collect();
        let mut order: Vec<usize> = vec![0, 1, 2];
        fastrand::shuffle(&mut order);
        moments.sort();
        let mut late = Vec::new();
        for (moment, index) in moments.into_iter().zip(order) {
            tokio::time::sleep_until(moment.into()).await;
            if cluster.tombstone(&job).await.is_some() {
                late.push(index);
            }
            let one = &mut cluster.job_managers[index];
            one.jvm.kill();
            one.jvm.restart();
        }
        wait_for_end(&mut cluster, &job, "Finished").await;
        // Those that were killed last have come up by now, and lead nothing.
        for one in &cluster.job_managers {
            eventually("every JobManager answers", seconds(60), async || one.probe("/livez").await.ok()).await;
        }
        tokio::time::sleep(seconds(8)).await;
        killed_after_the_end += late.len();
        // The published address may be that of a JVM that led and was killed; the Lease tells who leads.
        let leads = leads(&cluster).await;
        let began_late =
            late.iter().map(|&index| &cluster.job_managers[index].pod).find(|pod| Some(*pod) == leads.as_ref());
        assert_eq!(began_late, None, "storm {storm}: a JVM that began after the end leads");
        let left = Left::of(&cluster).await;
        assert!(left.is_nothing(), "storm {storm}: {left:#?}");
        cluster.verify(&SHORT.to_string());
        if storm < storms() {
            let output = cluster.output();
            cluster
                .redeploy(3, |application| {
                    std::fs::remove_dir_all(output).expect("failed to remove the output");
                    application.run.job_id = job_id("uid", i64::from(storm) + 1);
                })
                .await;
        }
    }
    say(format!(
        "{} storms, {killed_after_the_end} of {} JobManagers killed after the tombstone: no job ran again",
        storms(),
        3 * storms()
    ));
}
