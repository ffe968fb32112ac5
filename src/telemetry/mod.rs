//! Sets up logs, metrics and probes.

pub mod counts;
pub mod log_fields;
pub mod logs;
pub mod probes;
