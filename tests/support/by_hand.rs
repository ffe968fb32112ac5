//! What kubelets and gateways write, for tests without them.

use serde_json::{Value, json};

/// A pod under this ServiceAccount that says that it is of this cluster, or of none.
pub fn pod(name: &str, service_account: &str, instance: Option<&str>) -> Value {
    let mut labels = json!({
        "app.kubernetes.io/managed-by": "flinkha",
        "app.kubernetes.io/component": if name.contains("taskmanager") { "taskmanager" } else { "jobmanager" },
    });
    if let Some(instance) = instance {
        labels["app.kubernetes.io/instance"] = instance.into();
    }
    json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "containers": [{ "name": "flink-main-container", "image": "flink:2.3.0" }],
            "serviceAccountName": service_account,
            "automountServiceAccountToken": false,
        },
    })
}

/// The record of the first leader's election.
pub fn taken(pod: &str) -> Value {
    json!({ "term": 1, "from": "", "to": pod, "why": "FirstLeader", "leaderlessMillis": 0 })
}

/// The record of a leader that gave its Lease back.
pub fn given_back(pod: &str) -> Value {
    json!({ "term": 0, "from": pod, "to": "", "why": "PodTerminating", "leaderlessMillis": 0 })
}
