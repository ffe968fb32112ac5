//! Sets up logs, metrics and probes.

pub mod counts;
pub mod logs;
pub mod probes;
