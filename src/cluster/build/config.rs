//! The ConfigMap with Flink's configuration and log configuration.

use serde_json::{Map, Value, json};

use crate::api::names;
use crate::api::v1alpha1::Resources;
use crate::cluster::{Cluster, quantity, validate};
use crate::flink::config::{self, Configuration};

/// The ConfigMap with Flink's configuration and log configuration, file by file.
pub fn config_map(cluster: &Cluster) -> Value {
    let mut files: Map<String, Value> =
        cluster.spec.log_configuration.iter().map(|(name, content)| (name.clone(), Value::from(content.as_str()))).collect();
    files.insert(config::FILE.to_owned(), config::render(&configuration(cluster)).into());
    super::object(cluster, "v1", "ConfigMap", &names::flink_config(&cluster.name), json!({ "data": files }))
}

/// Tells two configurations apart: pods carry it, so that a change of configuration replaces them.
pub fn digest(config_map: &Value) -> String {
    super::digest(&config_map["data"].to_string())
}

/// What we prefer, and users may set otherwise.
const FREE: [(&str, &str); 2] = [
    // A fixed port, so that network policies can name it.
    ("metrics.internal.query-service.port", names::METRICS_QUERY_PORT),
    // A JobMaster that registers before its new address is known everywhere is refused; by default it then waits for 30 s.
    ("cluster.registration.refused-registration-delay", "100 ms"),
];

/// Flink's configuration: the user's keys, and ours, which the user cannot set.
fn configuration(cluster: &Cluster) -> Configuration {
    let spec = &cluster.spec;
    // Users may choose others.
    let mut configuration: Configuration = FREE.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    configuration.extend(spec.flink_configuration.iter().map(|(key, value)| (key.clone(), value.to_string())));
    let owned = [
        ("high-availability.type", "kubernetes".to_owned()),
        ("high-availability.cluster-id", cluster.high_availability_cluster_id()),
        ("high-availability.storageDir", spec.high_availability.storage_dir.clone()),
        // Flink's lock ends at the gateway, which answers from memory. Short periods there make a grant arrive at once; long deadlines keep
        // Flink's own elector from giving up before the gateway does.
        ("high-availability.kubernetes.leader-election.lease-duration", "15 s".to_owned()),
        ("high-availability.kubernetes.leader-election.renew-deadline", "15 s".to_owned()),
        ("high-availability.kubernetes.leader-election.retry-period", "200 ms".to_owned()),
        ("kubernetes.cluster-id", cluster.kubernetes_cluster_id()),
        ("kubernetes.namespace", cluster.namespace.clone()),
        // A result that stays is the proof that its job has ended.
        ("job-result-store.delete-on-commit", "false".to_owned()),
        ("application-result-store.delete-on-commit", "false".to_owned()),
        ("jobmanager.bind-host", "0.0.0.0".to_owned()),
        ("jobmanager.rpc.port", names::RPC_PORT.to_string()),
        ("blob.server.port", names::BLOB_PORT.to_string()),
        ("rest.bind-address", "0.0.0.0".to_owned()),
        ("rest.port", names::REST_PORT.to_string()),
        ("taskmanager.bind-host", "0.0.0.0".to_owned()),
        ("taskmanager.rpc.port", names::TASK_MANAGER_RPC_PORT.to_string()),
        ("taskmanager.data.port", names::TASK_MANAGER_DATA_PORT.to_string()),
        ("jobmanager.memory.process.size", process_size(&spec.job_manager.resources, "1600m")),
        ("taskmanager.memory.process.size", process_size(&spec.task_manager.resources, "1728m")),
    ];
    configuration.extend(owned.map(|(key, value)| (key.to_owned(), value)));
    configuration
}

/// Flink's memory follows the container's, else is Flink's own default.
fn process_size(resources: &Resources, default: &str) -> String {
    let bytes = validate::memory(resources).and_then(|memory| quantity::bytes(&memory));
    bytes.map_or_else(|| default.to_owned(), |bytes| format!("{bytes}b"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    #[test]
    fn the_configuration_holds_the_users_keys_and_ours() {
        let configuration = configuration(&fixture::cluster());
        for (key, value) in [
            ("parallelism.default", "2"),
            ("high-availability.cluster-id", "flink.demo"),
            ("kubernetes.cluster-id", "demo"),
            ("jobmanager.memory.process.size", "2147483648b"),
            ("taskmanager.memory.process.size", "1728m"),
            ("job-result-store.delete-on-commit", "false"),
        ] {
            assert_eq!(configuration.get(key).map(String::as_str), Some(value), "{key}");
        }
    }

    /// What we set, users cannot: otherwise one of the two would silently lose.
    #[test]
    fn every_key_that_we_set_is_refused_from_users() {
        let mut cluster = fixture::cluster();
        cluster.spec.flink_configuration.clear();
        for key in configuration(&cluster).keys().filter(|key| FREE.iter().all(|(free, _)| free != key)) {
            assert!(crate::api::owned::FLINK_CONFIGURATION.iter().any(|group| group.contains(key)), "{key}");
        }
    }
}
