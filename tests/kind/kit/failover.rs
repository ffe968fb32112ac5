//! What a failover took, seen from outside: by the API server's watch and by Flink's REST interface.

use std::time::{Duration, Instant};

use flinkha::api::names::FLINK_CONTAINER;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube_runtime::wait::await_condition;
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use super::node::Shot;
use super::processor_time::{PARTS, Snapshot};
use crate::support::cluster::dispatcher;
use crate::support::cluster::lock_holder;
use crate::support::eventually;
use crate::support::measured;
use crate::support::rest::Checkpoints;
use crate::support::rest::Job;
use crate::support::say;
use crate::support::seconds;

#[derive(Debug)]
pub struct Failover {
    /// Pod that led before.
    pub from: String,
    /// Pod that leads now.
    pub to: String,
    /// Another JVM holds Flink's lock.
    pub granted: Duration,
    /// All tasks of the job run.
    pub running: Duration,
    /// A new checkpoint is complete.
    pub checkpoint: Duration,
    /// The checkpoint that the job was resumed from.
    pub restored: u64,
    /// Milliseconds of processor time until all tasks ran, of each of [`PARTS`](super::processor_time::PARTS).
    pub processor_millis: [u64; PARTS.len()],
}

/// Kills the leader's JVM with SIGKILL from its node, and follows the job until it has completed a checkpoint again.
pub async fn kill_leader(cluster: &Cluster, job: &str) -> Failover {
    let leader = cluster.leader().await.expect("a leader to kill");
    let shot = Shot::aim(&leader, FLINK_CONTAINER, "java", "KILL").await;
    fail_over(cluster, job, &leader.name_any(), async || shot.send().await).await
}

/// Kills so many leaders, one after the other, each in a cluster that is whole again.
pub async fn kill_leaders(cluster: &Cluster, job: &str, kills: usize) -> Vec<Failover> {
    let mut failovers = Vec::new();
    for _ in 0..kills {
        let failover = kill_leader(cluster, job).await;
        cluster.replace(&failover.from).await;
        failovers.push(failover);
    }
    failovers
}

/// Disturbs the leader, and follows the job until it has completed a checkpoint under another leader. `disturb` tells
/// when it did. Panics when the job was not resumed from its last checkpoint or a later one, or when its counter went
/// backwards.
pub async fn fail_over(cluster: &Cluster, job: &str, from: &str, disturb: impl AsyncFnOnce() -> Instant) -> Failover {
    let rest = cluster.rest(from);
    let before = eventually("a checkpoint", seconds(60), async || rest.checkpoints(job).await.ok()?.latest).await;
    let counter = cluster.checkpoint_counter(job).await;
    // A JVM that is restarted in the same pod is another one too: what counts is its session, not its address.
    let cluster_config_map = cluster.config_map(&cluster.cluster_config_map()).await.expect("a cluster with a leader");
    let (holder, address) = (lock_holder(&cluster_config_map), dispatcher(&cluster_config_map));
    let granted = watch(cluster, move |one| lock_holder(one).is_some_and(|now| Some(now) != holder));
    let published = watch(cluster, move |one| dispatcher(one).is_some_and(|now| Some(now) != address));
    // The watches have to be there first.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let processors = Snapshot::take();
    let begin = disturb().await;
    let granted = granted.await.expect("a new leader in 60 s") - begin;
    published.await.expect("the new leader's address in 60 s");
    let to = measured("the new leader's pod", seconds(20), async || cluster.leader().await).await.name_any();
    let quick = cluster.rest_with_timeout(&to, Duration::from_millis(300));
    measured("all tasks RUNNING", seconds(60), async || quick.job(job).await.ok().filter(Job::runs)).await;
    let (running, processor_millis) = (begin.elapsed(), processors.since());
    let rest = cluster.rest(&to);
    let resumed = async || rest.checkpoints(job).await.ok().filter(|now| now.completed > 0);
    let after = measured("a new checkpoint", seconds(60), resumed).await;
    let failover = Failover {
        from: from.to_owned(),
        to,
        granted,
        running,
        checkpoint: begin.elapsed(),
        restored: restored(&after, before),
        processor_millis,
    };
    assert!(cluster.checkpoint_counter(job).await >= counter, "the checkpoint counter went backwards");
    say(format!(
        "{} → {}: granted {:.3} s, all tasks RUNNING {:.3} s, new checkpoint {:.3} s, resumed from checkpoint {}",
        failover.from,
        failover.to,
        failover.granted.as_secs_f64(),
        failover.running.as_secs_f64(),
        failover.checkpoint.as_secs_f64(),
        failover.restored,
    ));
    failover
}

/// When the cluster's ConfigMap came to be so.
fn watch(cluster: &Cluster, so: impl Fn(&ConfigMap) -> bool + Send + Sync + 'static) -> JoinHandle<Instant> {
    let (config_maps, name) = (cluster.config_maps(), cluster.cluster_config_map());
    tokio::spawn(async move {
        let condition = move |one: Option<&ConfigMap>| one.is_some_and(&so);
        let condition = await_condition(config_maps, &name, condition);
        tokio::time::timeout(seconds(60), condition).await.expect("waited 60 s in vain").expect("a watch");
        Instant::now()
    })
}

fn restored(after: &Checkpoints, before: u64) -> u64 {
    let restored = after.restored.expect("the job was not resumed from a checkpoint");
    assert!(restored >= before, "the job was resumed from checkpoint {restored}, but {before} was complete");
    restored
}
