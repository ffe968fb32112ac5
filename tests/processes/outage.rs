//! An API server that is away is no reason to fail over, nor to restart a job. All other kinds of outages are in
//! `faults`.

use std::time::Duration;

use crate::support::cluster::{Cluster, Provider};
use crate::support::jobs::watch;
use crate::support::provider::on_zookeeper;
use crate::support::{eventually, say, seconds};

/// How long the API server is away: longer than the election and Flink's own HA would bear. OUTAGE_SECONDS says
/// otherwise.
fn outage(usually: u64) -> Duration {
    seconds(std::env::var("OUTAGE_SECONDS").map_or(usually, |text| text.parse().expect("OUTAGE_SECONDS is a number")))
}

/// Three candidates, that know each other if there is a Lease, and a job with two checkpoints a second.
async fn cluster_with_members() -> (Cluster, String) {
    let cluster = Cluster::start(Provider::ours(), 3, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    if !on_zookeeper() {
        cluster.wait_for_members().await;
    }
    (cluster, job)
}

/// The API server goes away and comes back; leader, term and the running job are the same afterwards.
async fn survives(outage: Duration, begin: impl AsyncFnOnce(&mut Cluster), end: impl AsyncFnOnce(&mut Cluster)) {
    let (mut cluster, job) = cluster_with_members().await;
    let (lease, leader) = (cluster.lease().await, cluster.leader().await.unwrap());
    let rest = cluster.leader_rest().await;
    begin(&mut cluster).await;
    watch(&rest, &job, outage.as_secs()).await;
    end(&mut cluster).await;
    let back = std::time::Instant::now();
    let before = eventually("the checkpoints", seconds(60), async || rest.checkpoints(&job).await.ok()).await;
    let more = async || rest.checkpoints(&job).await.ok().filter(|now| now.completed >= before.completed + 4);
    let after = eventually("checkpoints after the outage", seconds(120), more).await;
    say(format!(
        "{} checkpoints failed; the next ones were complete {:.1} s after the API server was back",
        after.failed,
        back.elapsed().as_secs_f64()
    ));
    assert_eq!(after.restores, 0, "the job was restarted");
    assert_eq!(cluster.lease().await.term, lease.term, "the term changed");
    assert_eq!(cluster.leader().await, Some(leader));
    let now = eventually("the job", seconds(60), async || rest.job(&job).await.ok()).await;
    assert!(now.runs(), "{now:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_down_changes_no_leader_and_restarts_no_job() {
    survives(
        outage(60),
        async |cluster| cluster.plane.servers[0].process.kill(),
        async |cluster| {
            cluster.plane.servers[0].process.restart();
            cluster.plane.servers[0].wait_until_ready().await;
        },
    )
    .await;
}
