//! The command line: flags as types.

use clap::{Parser, Subcommand};

use crate::gateway;
use crate::operator;

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
    /// Run the operator.
    Operator(operator::Arguments),
    /// Run the sidecar of a JobManager.
    Gateway(Box<gateway::arguments::Arguments>),
    /// Remove the HA files of a cluster that is being deleted.
    Purge(gateway::purge::Arguments),
    /// Fetch the application's jar before its JobManager starts.
    Fetch(gateway::application::fetch::Arguments),
    /// Tell the gateway of this pod that the pod begins to terminate: its preStop hook.
    HandOver(gateway::hand_over::Arguments),
    /// Pass connections on to a ZooKeeper quorum that is reached by TLS or wants to know who comes: the sidecar of a
    /// TaskManager.
    PassThrough(gateway::quorum::PassThrough),
    /// Print the CustomResourceDefinition.
    Crd,
}
