//! Manages the HA data for the leading gateway: the ledger, garbage of ended jobs, jobs that are set aside,
//! orphans, and the marks of directories.

pub mod collector;
pub mod final_cleanup;
pub mod flink_version;
pub mod job_recorder;
pub mod known_ledger;
pub mod ledger;
pub mod ledger_repair;
pub mod ownership;
pub mod pointer_store;
pub mod quarantine;
pub mod result_repair;
pub mod secret_recorder;
pub mod sweeper;
