//! What the operator has in pods, which a template may not claim.

use crate::api::names::{
    BLOB_PORT, JVM_PORT, PROBE_PORT, REST_PORT, RPC_PORT, TASK_MANAGER_DATA_PORT, TASK_MANAGER_RPC_PORT,
};

/// What the operator has in one kind of pod.
pub struct OwnPod {
    /// Ports at which Flink and its gateway listen in every such pod.
    pub ports: &'static [u16],
    /// A process of it may lead.
    pub leads: bool,
}

/// A pod of a JobManager.
pub const JOB_MANAGER_POD: OwnPod =
    OwnPod { ports: &[JVM_PORT, PROBE_PORT, RPC_PORT, BLOB_PORT, REST_PORT], leads: true };
/// A pod of a TaskManager.
pub const TASK_MANAGER_POD: OwnPod = OwnPod { ports: &[TASK_MANAGER_RPC_PORT, TASK_MANAGER_DATA_PORT], leads: false };
