//! Every decision about a cluster: is the resource sound, which objects make it up, what is its state.
//!
//! Invariant: no client, no runtime, no clock. What goes in has been observed by [`crate::operator`]; what comes out is
//! applied by it.

pub mod application;
pub mod build;
pub mod cause;
pub mod deletion;
pub mod events;
pub mod ha_status;
pub mod merge;
pub mod observed;
pub mod presence;
pub mod quantity;
pub mod rollout;
pub mod status;
pub mod stored;
pub mod switchover;
#[cfg(test)]
pub mod tests;
pub mod validate;

use crate::api::FlinkHaClusterSpec;
use crate::api::names;
use crate::api::zookeeper::ZooKeeper;
use crate::ledger::application::Run;

/// A cluster whose resource was found sound by [`validate::validate`].
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    pub namespace: String,
    /// UID of the resource: for owner references only, never for names.
    pub uid: String,
    pub spec: FlinkHaClusterSpec,
    /// The run of the application; `None` for a session cluster.
    pub run: Option<Run>,
}

impl Cluster {
    /// Pods that are to be there.
    pub fn replicas(&self, asked: i32) -> i32 {
        if self.run.as_ref().is_some_and(|run| run.stopped) { 0 } else { asked }
    }

    /// Flink's `kubernetes.cluster-id`.
    pub fn kubernetes_cluster_id(&self) -> String {
        names::kubernetes_cluster_id(&self.name)
    }

    /// The quorum in which Flink elects, if it does.
    pub fn zookeeper(&self) -> Option<&ZooKeeper> {
        self.spec.high_availability.zookeeper.as_ref()
    }

    /// Flink's `high-availability.cluster-id`.
    pub fn high_availability_cluster_id(&self) -> String {
        names::high_availability_cluster_id(&self.namespace, &self.name)
    }
}
