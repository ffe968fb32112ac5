//! A leading JobManager is lost, in every way: another one leads, and the job goes on from its last checkpoint.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::cluster::{Cluster, Provider};
use support::failover::fail_over;

async fn cluster_with_job() -> (Cluster, String) {
    let cluster = Cluster::start("2.3.0", Provider::ours(), 2, 1).await;
    let output = cluster.path().join("output").display().to_string();
    let job = cluster.run("KeyedSequence", &["--output".into(), output, "--checkpoint-interval-millis".into(), "500".into()]).await;
    (cluster, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_the_job_resumes_from_its_last_checkpoint() {
    let (mut cluster, job) = cluster_with_job().await;
    let holder = cluster.holder().await;
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    assert_ne!(cluster.holder().await, holder);
    assert_eq!(cluster.holder().await.as_deref(), Some(cluster.job_managers[failover.leader].pod.as_str()));
    dbg!(cluster.lease().await);
}
