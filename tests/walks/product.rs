//! The product's pure rooms that decide about a resource, its ledger and its HA data: the very files, by themselves.

#[path = "../../src/api/mod.rs"]
pub mod api;
#[path = "../../src/cluster/mod.rs"]
pub mod cluster;
#[path = "../../src/flink/mod.rs"]
pub mod flink;
#[path = "../../src/ha_data/mod.rs"]
pub mod ha_data;
#[path = "../../src/lease/mod.rs"]
pub mod lease;
#[path = "../../src/ledger/mod.rs"]
pub mod ledger;
