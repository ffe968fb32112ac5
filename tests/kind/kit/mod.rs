//! What the end-to-end tests and the bench stand on: the kind cluster that `rig/up` makes, the chart, and Flink
//! clusters in it.
//!
//! Invariant: from here only loopback is talked to. Flink is reached through the API server, nodes and what Prometheus
//! scrapes through the container engine.
#![allow(dead_code)] // each program uses a part

pub mod application;
pub mod cluster;
pub mod disturbance;
pub mod failover;
pub mod machine;
pub mod namespace;
pub mod native;
pub mod node;
pub mod operator;
pub mod ours;
pub mod outage;
pub mod processor_time;
pub mod prometheus;
pub mod record;
pub mod relay;
pub mod session;
