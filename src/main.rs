//! Parse, start, dispatch.

use std::io::Write;

use clap::Parser;
use flinkha::cli::{Arguments, Command};
use flinkha::{api, gateway};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    match Arguments::parse().command {
        Command::Crd => Ok(std::io::stdout().write_all(api::crd::yaml()?.as_bytes())?),
        Command::Gateway(arguments) => gateway::run(*arguments).await,
    }
}
