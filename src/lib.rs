//! FlinkHaCluster: JobManager high availability for Apache Flink on Kubernetes.
//!
//! The map of the house, and its one dependency rule:
//!
//! ```text
//! api ← {flink, lease} ← {cluster, world} ← {operator | gateway} ← main
//! ```
//!
//! | room | what belongs there |
//! |---|---|
//! | [`api`] | the words users write and read in YAML, and the names of everything we create |
//! | [`flink`] | the bytes that Flink defines: its configuration keys, lock record, HA data |
//! | [`lease`] | the election: invariants and the pure state machine |
//! | [`cluster`] | every decision about a cluster: validate, build, conditions. No I/O |
//! | [`world`] | what is outside: API servers, Leases, quorums and their sessions, storage |
//! | [`operator`] | the controller's shell: observe, apply, report |
//! | [`gateway`] | the sidecar's shell: translation (pure), proxy, election driver, JVM process |
//! | [`telemetry`] | logs, metrics, probes |
//!
//! Pure rooms (`api`, `flink`, `lease`, `cluster`) import no client, no runtime and no clock; `tests/pure/architecture.rs`
//! holds them to it.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod flink;
pub mod gateway;
pub mod ha_data;
pub mod lease;
pub mod ledger;
pub mod operator;
pub mod telemetry;
pub mod world;
