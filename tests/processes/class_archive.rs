//! Records the class-data archives of [`support::classes`]: a job runs, its leader is killed, another JobManager
//! recovers the job, and what that JVM and the TaskManager have loaded by then is written down. Not a test;
//! `rig/class-archive` runs it once per version of Flink.
//!
//! Usage: `SHARED_CLASSES=record cargo test --features long-tests --test long -- class-archive`; PROVIDER and
//! FLINK_VERSION as everywhere.

use std::path::Path;

use crate::support::classes::{Archives, Role, recorded};
use crate::support::cluster::{Cluster, NAME, Provider};
use crate::support::failover::fail_over;
use crate::support::process::Process;
use crate::support::{say, seconds};

pub async fn run() {
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let archives = Archives::of(&cluster.version, cluster.provider.is_zookeeper());
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    cluster.cancel(&job).await;
    cluster.wait_for_state(&job, "CANCELED", seconds(60)).await;

    let own = cluster.path().join(format!("{NAME}-taskmanager-3"));
    keep(&archives, Role::TaskManager, &mut cluster.task_managers[0], &own).await;
    let leader = &mut cluster.job_managers[failover.leader];
    keep(&archives, Role::JobManager, &mut leader.jvm, &leader.directory).await;
}

/// Ends the JVM, which makes it write its archive.
async fn keep(archives: &Archives, role: Role, jvm: &mut Process, own: &Path) {
    jvm.terminate();
    jvm.wait(seconds(120)).await.expect("the JVM ends when it is told to");
    assert!(recorded(own).exists(), "no archive was written:\n{}", jvm.log());
    archives.keep(role, own);
    say(format!("{role:?}: {}", archives.path(role).display()));
}
