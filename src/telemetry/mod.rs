//! Sets up logs, metrics and probes.

pub mod log_fields;
pub mod logs;
pub mod probes;
