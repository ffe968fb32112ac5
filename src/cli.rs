//! The command line: flags as types.

use clap::{Parser, Subcommand};

/// JobManager high availability for Apache Flink on Kubernetes.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// One binary, one image: what it does is its first word.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the CustomResourceDefinition.
    Crd,
    /// Run the sidecar of a JobManager.
    Gateway(Box<crate::gateway::Arguments>),
}
