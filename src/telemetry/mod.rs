//! Sets up logs, metrics and probes.

pub mod logs;
pub mod probes;
