//! Flink's own Kubernetes HA in kind, with plain Deployments.

use super::cluster::Cluster;
use super::machine::{client, flink_image, kubectl_with};
use super::namespace::Namespace;

/// Lease duration, renew deadline and retry period of Flink's elector.
pub type Timings = [&'static str; 3];

/// Flink's defaults.
pub const DEFAULT: Timings = ["15s", "15s", "5s"];
/// About as short as people set them.
pub const TUNED: Timings = ["5s", "4s", "1s"];

/// Deploys a cluster named `native`; returns when it is ready.
pub async fn start(namespace: Namespace, timings: Timings, job_managers: usize, task_managers: usize) -> Cluster {
    let [duration, deadline, retry] = timings;
    let mut manifest = include_str!("native.yaml").to_owned();
    for (word, value) in [
        ("JOB_MANAGERS", job_managers.to_string().as_str()),
        ("TASK_MANAGERS", &task_managers.to_string()),
        ("IMAGE", &flink_image()),
        ("NAMESPACE", &namespace.0),
        ("LEASE_DURATION", duration),
        ("RENEW_DEADLINE", deadline),
        ("RETRY_PERIOD", retry),
    ] {
        manifest = manifest.replace(word, value);
    }
    kubectl_with(&["--namespace", &namespace.0, "apply", "--filename", "-"], &manifest);
    let cluster = Cluster { namespace, name: "native".to_owned(), job_managers, task_managers, client: client().await };
    cluster.wait_until_ready().await;
    cluster
}
