//! Tests with real Flink JVMs, a real etcd and real kube-apiservers as processes; one program, so that what they share
//! is compiled and linked once. A module's name selects its tests: `cargo test --test processes -- --test-threads 2
//! --nocapture wire::`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod application;
mod certificate_renewal;
mod chart_lifecycle;
mod control_plane;
mod dual_stack;
mod failover;
mod fencing;
mod fetch;
mod flink_versions;
mod foreign;
mod former_definition;
mod gateway_port;
mod gateway_questions;
mod gitops;
mod ha_data;
mod hold;
mod hostile_objects;
mod large_ha_data;
mod marks;
mod native_failover;
mod operator_api;
mod operator_claims;
mod operator_election;
mod operator_history;
mod operator_names;
mod operator_network_policy;
mod operator_requests;
mod operator_restart;
mod operator_rights;
mod operator_roll_out;
mod operator_savepoints;
mod operator_writes;
mod outage;
mod plugin;
mod presence;
mod quarantine;
mod repair;
mod repaired_by_leader;
mod savepoints;
mod secrets;
mod serving;
mod start_flink;
mod stored_jobs;
mod strangers;
mod tenants;
mod terminal_jobs;
mod tls;
mod waits;
mod wire;
mod znode_collection;
mod zookeeper_operator;
