//! What the plugin shows: values that were read become reports, and reports become text, JSON or YAML.
//!
//! Invariant: no I/O and no clock. Everything that comes in was written by others, and nothing of it acts on a terminal
//! ([`text`]).

pub mod amount;
pub mod candidates;
pub mod cluster;
pub mod cluster_text;
pub mod doctor;
pub mod failover;
pub mod garbage;
pub mod history;
pub mod log_lines;
pub mod overview;
pub mod problems;
pub mod redact;
pub mod stored;
pub mod stored_files;
pub mod stored_text;
pub mod table;
#[cfg(test)]
mod tests;
pub mod text;
