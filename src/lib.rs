//! FlinkHaCluster: JobManager high availability for Apache Flink on Kubernetes.
//!
//! The rooms, and the one dependency rule:
//!
//! ```text
//! api ← {flink, lease} ← ledger ← ha_data ← {cluster, quorum ← world} ← {operator | gateway | plugin} ← main
//! ```
//!
//! | room | what belongs there |
//! |---|---|
//! | [`api`] | the words that users write and read in YAML, and the names of everything that we create |
//! | [`flink`] | the bytes that Flink defines: configuration keys, lock record, HA data, ZooKeeper frames |
//! | [`lease`] | the election: invariants, terms, stamps and the pure state machine |
//! | [`ledger`] | what gateways write down and the operator reads |
//! | [`ha_data`] | decisions about HA data: what is in use, what may be removed, whose it is |
//! | [`quorum`] | who leads by ZooKeeper's latch: rules and the pure state machine |
//! | [`cluster`] | decisions about a resource: validate, build, conditions, the life of an application |
//! | [`world`] | what is outside: API servers, Leases, quorums, storage, processes, servers |
//! | [`operator`] | the controller's effects: observe, apply, report, finalize |
//! | [`gateway`] | the sidecar's effects: proxy, election, garbage collection, applications, quorum |
//! | [`plugin`] | `kubectl flinkha`: what people see and do at a terminal |
//! | [`telemetry`] | logs, metrics, probes |
//!
//! The pure rooms (`api`, `flink`, `lease`, `ledger`, `ha_data`, `quorum`, `cluster`) import no client, no runtime and
//! no clock; `tests/pure/architecture.rs` holds them to it.

pub mod api;
pub mod cli;
pub mod cluster;
pub mod flink;
pub mod gateway;
pub mod ha_data;
pub mod lease;
pub mod ledger;
pub mod operator;
pub mod plugin;
pub mod quorum;
pub mod telemetry;
pub mod world;
