//! Makes the decisions about HA data for the leading gateway: what is in use, what may be removed, what is set aside,
//! what another version stored; and which periodic savepoints are removed. Pure.

pub mod collect;
pub mod entrance;
pub mod foreign;
pub mod handover;
pub mod inventory;
pub mod marks;
pub mod quarantine;
pub mod repair;
pub mod retention;
pub mod sweep;
pub mod versions;
