//! The whole product in a real Kubernetes cluster: chart, operator, gateway, unmodified Flink.
//!
//! Usage: `cargo test --features kind-tests --test kind -- --test-threads 1 --nocapture`; KILLS (3) is how often the
//! leader is killed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;
#[path = "../support/mod.rs"]
mod support;

mod adversity;
mod applications;
mod authority;
mod bad_input;
mod causes;
mod deletion;
mod ended_jobs;
mod failover;
mod foreign;
mod metrics;
mod network;
mod nodes;
mod plugin;
mod quarantine;
mod releases;
mod security;
mod tls;
mod upgrades;
mod user_jar;
mod without_operator;
mod zookeeper;

/// Of JobManagers and TaskManagers. Several start at a time on two cores: one that is up after 4 s of processor time
/// instead of 6 is worth more than one that runs fast later. JobManagers find an archive of the image by themselves; a
/// JVM that does not find the file starts without it.
const JAVA_OPTIONS: [&str; 2] = [
    "-XX:TieredStopAtLevel=1",
    "-XX:TieredStopAtLevel=1 -Xshare:auto -XX:SharedArchiveFile=/opt/flink/class-archives/taskmanager.jsa",
];
