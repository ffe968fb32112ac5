//! Implements the sidecar of a JobManager: the API server or ZooKeeper server for its JVM, and the election behind it.
//!
//! [`kubernetes`] wires [`proxy`], which answers the JVM, and [`election`], which drives the Lease; [`quorum`] replaces
//! both where Flink elects by ZooKeeper. Both use [`base`]: [`gc`] keeps the ledger and removes what ended jobs leave,
//! and [`application`] serves a cluster that runs one job. These tasks communicate through [`tenure`], [`signals`] and
//! [`events`].

pub mod answers;
pub mod application;
pub mod arguments;
pub mod base;
mod certificate_recorder;
mod checkpoint_recorder;
pub mod counters;
pub mod election;
pub mod events;
mod failover_recorder;
pub mod gc;
pub mod hand_over;
pub mod health;
pub mod kubernetes;
pub mod log_filter;
pub mod metrics;
pub mod prepare_tls;
pub mod probes;
pub mod proxy;
pub mod purge;
pub mod quorum;
pub mod recovery;
mod serving;
pub mod signals;
pub mod storage_arguments;
pub mod tasks;
pub mod tenure;
pub mod tls_arguments;
mod tls_report;
mod unready;
pub mod zookeeper_arguments;

use self::arguments::Arguments;
use self::base::Base;
use crate::telemetry::logs::LogFilter;

/// Runs the gateway until the process receives a signal to end.
///
/// # Errors
/// When a port cannot be opened, when the API server's address is unknown, or when a task ends.
pub async fn run(arguments: Arguments, log_filter: LogFilter) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.jvm_address.ip().is_loopback(),
        "--jvm-address must be on loopback: the JVM's credentials pass through it"
    );
    let base = Base::open(arguments, log_filter).await?;
    if base.arguments.zookeeper.quorum.is_some() { quorum::run(base).await } else { kubernetes::run(base).await }
}
