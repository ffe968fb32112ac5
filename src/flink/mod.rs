//! The bytes that Flink defines, and nothing that we decide: its lock record and its HA data.

pub mod ha_data;
pub mod lock;
