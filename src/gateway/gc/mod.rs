//! The life of HA data as the leading gateway runs it: the ledger, garbage of ended jobs, orphans, and whose a
//! directory is.

pub mod collector;
pub mod final_cleanup;
pub mod job_recorder;
pub mod ledger;
pub mod ownership;
pub mod pointer_store;
pub mod result_repair;
pub mod sweeper;
