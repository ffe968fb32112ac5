//! The bytes that Flink defines, and nothing that we decide: its configuration, its lock record, its HA data, its result stores.

pub mod checkpoint;
pub mod config;
pub mod ha_data;
pub mod lock;
pub mod pointer;
pub mod result;
pub mod serialized;
