//! What a failover took, seen from outside: by the API server's watch and by Flink's REST interface.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube_runtime::wait::await_condition;
use zookeeper_client::Client;

use super::cluster::Cluster;
use super::cluster::JobManager;
use super::cluster::cluster_config_map;
use super::cluster::lock_holder;
use super::measured;
use super::rest::Checkpoints;
use super::rest::Job;
use super::say;
use super::seconds;
use super::zookeeper::publisher;

#[derive(Debug)]
pub struct Failover {
    /// Another JVM holds Flink's lock, or has published its address in ZooKeeper.
    pub granted: Duration,
    /// All tasks of the job run.
    pub running: Duration,
    /// A new checkpoint is complete.
    pub checkpoint: Duration,
    /// The checkpoint that the job was resumed from.
    pub restored: u64,
    /// The JobManager that leads now.
    pub leader: usize,
}

/// Disturbs the leader, and follows the job until it has completed a checkpoint under another leader.
/// Panics when the job was not resumed from its last checkpoint or a later one, or when its counter went backwards.
pub async fn fail_over(cluster: &mut Cluster, job: &str, disturb: impl AsyncFnOnce(&mut JobManager)) -> Failover {
    let old = cluster.leader().await.expect("a leader to disturb");
    let before = cluster.wait_for_checkpoints(job, 1).await.latest.expect("the checkpoint that was waited for");
    let counter = cluster.checkpoint_counter(job).await;
    let granted = match &cluster.quorum {
        None => tokio::spawn(another_lock(cluster).await),
        Some(quorum) => tokio::spawn(another_dispatcher(quorum.client().await.expect("a session")).await),
    };
    // The watch has to be there first.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let begin = Instant::now();
    disturb(&mut cluster.job_managers[old]).await;
    let granted =
        tokio::time::timeout(seconds(60), granted).await.expect("no new leader in 60 s").expect("a watching task")
            - begin;
    let leader =
        measured("the new leader's address", seconds(20), async || cluster.leader().await.filter(|&now| now != old))
            .await;
    let quick = cluster.job_managers[leader].rest_with_timeout(Duration::from_millis(500));
    measured("all tasks RUNNING", seconds(60), async || quick.job(job).await.ok().filter(Job::runs)).await;
    let running = begin.elapsed();
    let rest = cluster.job_managers[leader].rest();
    let resumed = async || rest.checkpoints(job).await.ok().filter(|now| now.completed > 0);
    let after = measured("a new checkpoint", seconds(60), resumed).await;
    let failover =
        Failover { granted, running, checkpoint: begin.elapsed(), restored: restored(&after, before), leader };
    assert!(cluster.checkpoint_counter(job).await >= counter, "the checkpoint counter went backwards");
    say(format!(
        "granted {:.3} s, all tasks RUNNING {:.3} s, new checkpoint {:.3} s, resumed from checkpoint {}",
        failover.granted.as_secs_f64(),
        failover.running.as_secs_f64(),
        failover.checkpoint.as_secs_f64(),
        failover.restored,
    ));
    failover
}

/// When another JVM holds Flink's lock.
async fn another_lock(cluster: &Cluster) -> impl Future<Output = Instant> + use<> {
    let holder = cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);
    let (config_maps, name) = (cluster.config_maps(), cluster_config_map());
    async move {
        let another = move |one: Option<&ConfigMap>| one.and_then(lock_holder).is_some_and(|now| Some(now) != holder);
        await_condition(config_maps, &name, another).await.expect("a watch");
        Instant::now()
    }
}

/// When the dispatcher of another session has published its address, which Flink does when it has been granted
/// leadership. Asked every five milliseconds.
async fn another_dispatcher(client: Client) -> impl Future<Output = Instant> {
    let before = publisher(&client).await;
    async move {
        while publisher(&client).await.is_none_or(|now| Some(now) == before) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    }
}

fn restored(after: &Checkpoints, before: u64) -> u64 {
    let restored = after.restored.expect("the job was not resumed from a checkpoint");
    assert!(restored >= before, "the job was resumed from checkpoint {restored}, but {before} was complete");
    restored
}
