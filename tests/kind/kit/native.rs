//! Flink's own Kubernetes HA in kind, with plain Deployments.

use super::cluster::Cluster;
use super::machine::client;
use super::machine::flink_image;
use super::machine::kubectl_with;
use super::namespace::Namespace;

/// Lease duration, renew deadline and retry period of Flink's elector.
pub type Timings = [&'static str; 3];

/// Flink's defaults.
pub const DEFAULT: Timings = ["15s", "15s", "5s"];
/// About as short as people set them.
pub const TUNED: Timings = ["5s", "4s", "1s"];

/// Deploys a cluster named `native`; returns when it is ready.
pub async fn start(namespace: Namespace, timings: Timings, job_managers: usize, task_managers: usize) -> Cluster {
    start_as(namespace, "native", "native-jobmanager", timings, [job_managers, task_managers], "").await
}

/// The same under another cluster id, with another name of the JobManagers' Deployment and options of their JVMs.
pub async fn start_as(
    namespace: Namespace,
    name: &str,
    deployment: &str,
    timings: Timings,
    size: [usize; 2],
    jvm_options: &str,
) -> Cluster {
    let ([duration, deadline, retry], [job_managers, task_managers]) = (timings, size);
    let mut manifest = include_str!("native.yaml").to_owned();
    for (word, value) in [
        ("native-jobmanager", deployment),
        ("native-taskmanager", "native-workers"),
        ("name: native}", &format!("name: {name}}}")),
        ("serviceAccountName: native", &format!("serviceAccountName: {name}")),
        ("instance: native", &format!("instance: {name}")),
        ("NAMESPACE.native", &format!("NAMESPACE.{name}")),
        ("kubernetes.cluster-id=native", &format!("kubernetes.cluster-id={name}")),
        ("JOB_MANAGERS", job_managers.to_string().as_str()),
        ("TASK_MANAGERS", &task_managers.to_string()),
        ("IMAGE", &flink_image()),
        ("NAMESPACE", &namespace.0),
        ("LEASE_DURATION", duration),
        ("RENEW_DEADLINE", deadline),
        ("RETRY_PERIOD", retry),
        ("JVM_OPTIONS", jvm_options),
    ] {
        manifest = manifest.replace(word, value);
    }
    kubectl_with(&["--namespace", &namespace.0, "apply", "--filename", "-"], &manifest);
    let name = name.to_owned();
    let client = client().await;
    let cluster = Cluster { namespace, name, job_managers, task_managers, client, encrypted: false };
    cluster.wait_until_ready().await;
    cluster
}
