//! The sidecar of a JobManager: the API server, or the ZooKeeper server, as its JVM sees it, and the election behind
//! that.
//!
//! [`kubernetes`] wires [`proxy`], which answers the JVM, and [`election`], which drives the Lease; [`quorum`] stands
//! in their place where Flink elects by ZooKeeper. Both stand on [`base`]: [`gc`] keeps the ledger and removes what
//! ended jobs leave, [`application`] looks after a cluster that runs one job. What these tell each other is in
//! [`tenure`], [`signals`] and [`events`].

pub mod application;
pub mod arguments;
pub mod base;
pub mod election;
pub mod events;
pub mod gc;
pub mod hand_over;
pub mod health;
pub mod kubernetes;
pub mod metrics;
pub mod probes;
pub mod proxy;
pub mod purge;
pub mod quorum;
pub mod signals;
pub mod storage_arguments;
pub mod tasks;
pub mod tenure;
pub mod zookeeper_arguments;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use self::arguments::Arguments;
use self::base::Base;

/// Runs the gateway until it is told to end.
///
/// # Errors
/// When a port cannot be opened, the API server's address is unknown, or a task ends.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.jvm_address.ip().is_loopback(),
        "--jvm-address must be on loopback: the JVM's credentials pass through it"
    );
    keep_to_itself();
    let base = Base::open(arguments).await?;
    if base.arguments.zookeeper.quorum.is_some() { quorum::run(base).await } else { kubernetes::run(base).await }
}

/// Containers of a pod share their processes, and Flink runs as the same user: without this, a job could reach what
/// only the gateway mounts (its key, the socket of the preStop hook) through `/proc/<pid>/root`, and read its
/// environment.
fn keep_to_itself() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "failed to close this process to others of its user");
    }
}
