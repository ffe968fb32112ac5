//! The custom resource as users write and read it in YAML, and the names of all objects that we create.
//!
//! Invariant: this module makes no decision and does no I/O. [`crate::cluster`] decides what a field means for a
//! cluster.

pub mod application;
pub mod configuration_source;
pub mod crd;
pub mod durations;
pub mod jvm_options;
pub mod log_format;
pub mod metadata;
pub mod names;
pub mod network_policy;
pub mod owned;
pub mod rest;
pub mod savepoints;
pub mod schema;
pub mod secret;
pub mod status;
pub mod time;
pub mod tls;
pub mod v1alpha1;
pub mod zookeeper;

pub use v1alpha1::{FlinkHaCluster, FlinkHaClusterSpec};
