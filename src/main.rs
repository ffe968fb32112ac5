//! Parse, start, dispatch.

use std::io::Write;

use clap::Parser;
use flinkha::cli::{Arguments, Command};
use flinkha::{api, gateway, operator, telemetry};

/// Two threads on any machine: the work is waiting, and every thread costs memory in every JobManager's pod.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    telemetry::start_logs();
    match command {
        Command::Crd => Ok(std::io::stdout().write_all(api::crd::yaml()?.as_bytes())?),
        Command::Gateway(arguments) => gateway::run(*arguments).await,
        Command::Purge(arguments) => gateway::purge::run(arguments).await,
        Command::Fetch(arguments) => gateway::fetch::run(arguments).await,
        Command::HandOver(arguments) => gateway::hand_over::run(arguments).await,
        Command::PassThrough(arguments) => gateway::zookeeper::pass_through(arguments).await,
        Command::Operator(arguments) => operator::run(arguments).await,
    }
}
