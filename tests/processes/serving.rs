//! A JobManager that leads and whose Flink does not serve says so: with a real JVM whose storage does not answer.

use std::fs;
use std::process::Command;

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider};
use crate::support::{eventually, say, seconds};
use flinkha::api::names::{self, high_availability_cluster_id};
use flinkha::ledger::unready;

const JOB: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_flink_waits_for_its_storage_is_not_ready_and_its_reason_is_on_the_ledger() {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    // Flink reads unfinished results before it publishes its dispatcher. A pipe without a writer does not answer.
    let results = cluster.storage().join(format!("job-result-store/{}", high_availability_cluster_id(NAMESPACE, NAME)));
    fs::create_dir_all(&results).unwrap();
    let pipe = results.join(format!("{JOB}_DIRTY.json"));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    cluster.add_job_manager().await;

    let leader = &cluster.job_managers[0];
    let unready = async || {
        leader
            .probe("/readyz")
            .await
            .ok()
            .filter(|(code, why)| *code == 503 && why.contains("answers that nobody leads"))
    };
    let (_, why) = eventually("a leader that is not ready", seconds(90), unready).await;
    say(&why);
    let reported = async || {
        let ledger = cluster.config_map(&names::ledger(NAME)).await?;
        unready::of(&ledger.metadata, &leader.uid).filter(|reported| *reported == why)
    };
    eventually("the reason on the ledger", seconds(60), reported).await;

    // Somebody removes what does not answer, and restarts the JobManager.
    fs::remove_file(&pipe).unwrap();
    cluster.job_managers[0].jvm.kill();
    eventually("a JVM that has ended", seconds(10), async || (cluster.restart_ended() > 0).then_some(())).await;
    let leader = &cluster.job_managers[0];
    let ready = async || leader.probe("/readyz").await.ok().filter(|(code, _)| *code == 200);
    eventually("a leader that is ready", seconds(60), ready).await;
    let lifted = async || {
        let ledger = cluster.config_map(&names::ledger(NAME)).await?;
        unready::of(&ledger.metadata, &leader.uid).is_none().then_some(())
    };
    eventually("no reason on the ledger", seconds(60), lifted).await;
}
