//! Every decision about a cluster. No I/O, no clock.

pub mod collect;
pub mod ledger;
