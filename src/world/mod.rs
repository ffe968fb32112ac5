//! The world outside: the way to the API server, the Lease of an election, storage, and servers for whoever comes from there.

pub mod api_server;
pub mod http;
pub mod identity;
pub mod lease;
pub mod quorum;
pub mod server;
pub mod storage;
pub mod takeover;
pub mod zookeeper;
