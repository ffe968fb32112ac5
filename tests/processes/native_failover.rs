//! Flink's own Kubernetes HA, measured with the same means: what our failover is compared with.

use crate::support::cluster::{Cluster, Provider};
use crate::support::failover::{Failover, fail_over};
use crate::support::seconds;

async fn kill_the_leader(provider: Provider) -> Failover {
    let mut cluster = Cluster::start(provider, 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_default_timings_a_failover_waits_for_the_lock_to_expire() {
    let failover = kill_the_leader(Provider::native()).await;
    assert!(failover.granted > seconds(10), "{failover:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tuned_timings_a_failover_still_takes_seconds() {
    let failover = kill_the_leader(Provider::native_tuned()).await;
    assert!(failover.granted > seconds(3), "{failover:?}");
}
