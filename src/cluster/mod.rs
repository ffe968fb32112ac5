//! Every decision about a cluster: is the resource sound, which objects make it up, what is its state.
//!
//! Invariant: no client, no runtime, no clock. What goes in has been observed by [`crate::operator`]; what comes out is applied by it.

pub mod build;
pub mod cause;
pub mod collect;
pub mod deletion;
pub mod ha_status;
pub mod inventory;
pub mod ledger;
pub mod mend;
pub mod merge;
pub mod news;
pub mod observed;
pub mod quantity;
pub mod rollout;
pub mod status;
pub mod sweep;
pub mod switchover;
#[cfg(test)]
pub mod tests;
pub mod validate;

use crate::api::FlinkHaClusterSpec;
use crate::api::names;

/// A cluster whose resource was found sound by [`validate::validate`].
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    pub namespace: String,
    /// UID of the resource: for owner references only, never for names.
    pub uid: String,
    pub spec: FlinkHaClusterSpec,
}

impl Cluster {
    /// Flink's `kubernetes.cluster-id`.
    pub fn kubernetes_cluster_id(&self) -> String {
        names::kubernetes_cluster_id(&self.name)
    }

    /// Flink's `high-availability.cluster-id`.
    pub fn high_availability_cluster_id(&self) -> String {
        names::high_availability_cluster_id(&self.namespace, &self.name)
    }
}
