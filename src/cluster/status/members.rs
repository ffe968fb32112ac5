//! JobManagers and TaskManagers: how many are asked for, and how many there are.

use std::sync::Arc;

use serde_json::Value;

use crate::api::status::Members;
use crate::cluster::build;
use crate::cluster::observed::{ObservedDeployment, ObservedPod};

/// JobManagers or TaskManagers.
pub(super) struct Group {
    pub wanted: i32,
    pub members: Members,
}

impl Group {
    pub fn of(cluster: &str, component: &str, wanted: i32, pods: &[Arc<ObservedPod>]) -> Self {
        let ready = count(pods.iter().filter(|pod| pod.is_ready()).count());
        let label = |(key, value): (String, Value)| format!("{key}={}", value.as_str().unwrap_or_default());
        let selector = build::selector(cluster, component).into_iter().map(label).collect::<Vec<_>>().join(",");
        let members = Members {
            replicas: count(pods.iter().filter(|pod| pod.is_live()).count()),
            ready_replicas: ready,
            ready: format!("{ready}/{wanted}"),
            selector,
        };
        Self { wanted, members }
    }

    pub fn is_complete(&self) -> bool {
        self.members.ready_replicas >= self.wanted
    }

    /// The Deployment has not yet come to what is asked for.
    pub fn is_rolling_out(&self, deployment: Option<&ObservedDeployment>) -> bool {
        deployment
            .is_none_or(|deployment| deployment.replaces_pods() || deployment.status.updated_replicas < self.wanted)
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
