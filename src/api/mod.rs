//! The words users write and read in YAML: the custom resource, and the names of everything we create.
//!
//! Invariant: nothing here decides anything and nothing here does I/O. What a word means for a cluster is decided in
//! [`crate::cluster`].

pub mod application;
pub mod crd;
pub mod names;
pub mod owned;
pub mod schema;
pub mod status;
pub mod time;
pub mod v1alpha1;
pub mod zookeeper;

pub use v1alpha1::{FlinkHaCluster, FlinkHaClusterSpec};
