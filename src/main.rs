//! Parse, start, dispatch.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use flinkha::cli::{self, Arguments, Command};
use flinkha::gateway;
use flinkha::operator;
use flinkha::plugin;
use flinkha::telemetry;
use flinkha::world::process;
use tokio::runtime::Builder;

/// Number of threads on any machine: the work is waiting, and every thread costs memory in every JobManager's pod.
const THREADS: usize = 2;
/// Limit of the wait for threads that still read or write a file: one that stands in a volume that does not answer
/// must not hold up the end of the process.
const LAST_FILES: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<ExitCode> {
    // Before anything else. What runs before this line is closed by the image, whose program nobody may read.
    let closed = process::keep_to_itself();
    let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let done = runtime.block_on(run(closed));
    runtime.shutdown_timeout(LAST_FILES);
    done
}

async fn run(closed: std::io::Result<()>) -> anyhow::Result<ExitCode> {
    let command = Arguments::parse_from(cli::words(std::env::args_os())).command;
    if let Command::Kubectl { words } = command {
        // Somebody reads at a terminal, for whom the log says nothing.
        return Ok(Box::pin(plugin::run(words)).await);
    }
    let (format, fields) = command.log();
    let log_filter = telemetry::logs::start(format, fields);
    if let Err(error) = closed {
        tracing::warn!(%error, "failed to close this process to others of its user");
    }
    let done = match command {
        Command::Crd(arguments) => operator::definition::run(arguments).await,
        Command::Check(arguments) => operator::check::run(arguments).await,
        Command::Gateway(arguments) => gateway::run(*arguments, log_filter).await,
        Command::Purge(arguments) => gateway::purge::run(arguments).await,
        Command::Fetch(arguments) => gateway::application::fetch::run(arguments).await,
        Command::PrepareTls(secrets) => gateway::prepare_tls::run(&secrets),
        Command::HandOver(arguments) => gateway::hand_over::run(arguments).await,
        Command::Ask(arguments) => gateway::answers::ask(arguments).await,
        Command::PassThrough(arguments) => gateway::quorum::pass_through(arguments).await,
        Command::Operator(arguments) => operator::run(arguments).await,
        Command::Kubectl { .. } => Ok(()),
    };
    done.map(|()| ExitCode::SUCCESS)
}
