//! The world outside: the way to the API server, the Lease of an election, storage.

pub mod api_server;
pub mod http;
pub mod identity;
pub mod lease;
pub mod quorum;
pub mod storage;
pub mod takeover;
pub mod zookeeper;
