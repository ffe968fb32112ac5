//! Reaches everything outside the process: the API server, the Lease of an election, a ZooKeeper quorum, storage, the
//! JVM's process and its REST API. It also has the bounded servers for inbound connections.

pub mod api_server;
pub mod backoff;
pub mod clock;
pub mod error_text;
pub mod flink_rest;
pub mod lease;
pub mod list_items;
pub mod mounted_secrets;
pub mod process;
pub mod quorum;
pub mod random;
pub mod server;
pub mod storage;
pub mod tls;
