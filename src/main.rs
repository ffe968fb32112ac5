//! Parse, start, dispatch.

use std::io::Write;

use clap::Parser;
use flinkha::cli::{Arguments, Command};
use flinkha::{api, gateway, operator, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    telemetry::start_logs();
    match command {
        Command::Crd => Ok(std::io::stdout().write_all(api::crd::yaml()?.as_bytes())?),
        Command::Gateway(arguments) => gateway::run(*arguments).await,
        Command::Operator(arguments) => operator::run(arguments).await,
    }
}
