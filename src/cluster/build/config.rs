//! Builds the ConfigMap with Flink's configuration and log configuration.

use serde_json::{Map, Value, json};

use super::zookeeper::needs_sidecar;
use super::{Environment, tls};
use crate::api::log_format::LogFormat;
use crate::api::names::{self, DEFAULT_GATEWAY_LOG, GATEWAY_LOG_FILE, LOG_FORMAT_FILE, TLS_SECRETS_FILE};
use crate::api::v1alpha1::Resources;
use crate::api::zookeeper::{Acl, ZooKeeper};
use crate::cluster::{Cluster, quantity};
use crate::flink::config::{self, Configuration};

/// Returns the ConfigMap, with one key per file. JobManagers' gateways mount it too, and follow their log filter in it.
pub fn config_map(cluster: &Cluster, environment: &Environment) -> Value {
    let mut files: Map<String, Value> = cluster
        .spec()
        .log_configuration
        .iter()
        .map(|(name, content)| (name.clone(), Value::from(content.as_str())))
        .collect();
    files.insert(config::FILE.to_owned(), config::render(&configuration(cluster)).into());
    let log = cluster.spec().gateway.log.as_ref().unwrap_or(&environment.gateway_log);
    if log != DEFAULT_GATEWAY_LOG {
        files.insert(GATEWAY_LOG_FILE.to_owned(), log.as_str().into());
    }
    if environment.log_format != LogFormat::default() {
        files.insert(LOG_FORMAT_FILE.to_owned(), environment.log_format.as_str().into());
    }
    files.extend(tls::secrets(cluster).map(|names| (TLS_SECRETS_FILE.to_owned(), names.into())));
    super::object(cluster, "v1", "ConfigMap", &names::flink_config(cluster.name()), json!({ "data": files }))
}

/// Returns the digest of the configuration that one kind of pod reads. Pods carry it, so a change of what they read
/// replaces them. `others`: prefix of the keys that only the other kind reads.
pub fn digest(cluster: &Cluster, others: &str) -> String {
    let read: Configuration = configuration(cluster).into_iter().filter(|(key, _)| !key.starts_with(others)).collect();
    super::digest(&json!([read, cluster.spec().log_configuration]).to_string())
}

/// Defaults of ours that users may override.
const FREE: [(&str, &str); 2] = [
    // A fixed port, so that network policies can name it.
    ("metrics.internal.query-service.port", names::METRICS_QUERY_PORT),
    // Flink refuses a JobMaster that registers before its new address is known everywhere, which then waits 30 s by
    // default.
    ("cluster.registration.refused-registration-delay", "100 ms"),
];

/// Returns Flink's configuration: the user's keys, and ours, which the user cannot set.
fn configuration(cluster: &Cluster) -> Configuration {
    let spec = cluster.spec();
    // Users may override these.
    let mut configuration: Configuration = FREE.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if spec.job.is_some() {
        // The state must survive a job that fails because it cannot read that state.
        configuration.insert(
            "execution.checkpointing.externalized-checkpoint-retention".to_owned(),
            "RETAIN_ON_CANCELLATION".to_owned(),
        );
    }
    configuration.extend(tls::default_settings(cluster));
    configuration.extend(spec.flink_configuration.iter().map(|(key, value)| (key.clone(), value.to_string())));
    if let Some(job) = &spec.job {
        configuration
            .extend(job.parallelism.map(|parallelism| ("parallelism.default".to_owned(), parallelism.to_string())));
        // The operator decides when pods end. Otherwise Flink would end its process, which the Deployment restarts, and
        // would remove data without the operator's knowledge.
        configuration.insert("execution.shutdown-on-application-finish".to_owned(), "false".to_owned());
        // A main method that throws must not end a job that has state.
        configuration.insert("execution.submit-failed-job-on-application-error".to_owned(), "false".to_owned());
    }
    configuration.extend(match cluster.zookeeper() {
        None => of_kubernetes(cluster),
        Some(zookeeper) => of_zookeeper(zookeeper),
    });
    let owned = [
        ("high-availability.cluster-id", cluster.high_availability_cluster_id()),
        ("high-availability.storageDir", spec.high_availability.storage_dir.clone()),
        // A stored result proves that its job has ended.
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
    configuration.extend(tls::settings(cluster));
    configuration
}

/// Returns the settings by which Flink uses its gateway as its API server.
fn of_kubernetes(cluster: &Cluster) -> Configuration {
    let owned = [
        ("high-availability.type", "kubernetes".to_owned()),
        // Flink's lock requests end at the gateway, which answers from memory. With short periods a grant arrives at
        // once; long deadlines prevent Flink's own elector from giving up before the gateway does.
        ("high-availability.kubernetes.leader-election.lease-duration", "15 s".to_owned()),
        ("high-availability.kubernetes.leader-election.renew-deadline", "15 s".to_owned()),
        ("high-availability.kubernetes.leader-election.retry-period", "200 ms".to_owned()),
        ("kubernetes.cluster-id", cluster.kubernetes_cluster_id()),
        ("kubernetes.namespace", cluster.namespace().to_owned()),
    ];
    owned.map(|(key, value)| (key.to_owned(), value)).into()
}

/// Returns the settings by which Flink finds its quorum. For JobManagers an option on the command line, which has
/// precedence, names their gateway. TaskManagers connect directly or through their own sidecar.
fn of_zookeeper(zookeeper: &ZooKeeper) -> Configuration {
    let quorum = if needs_sidecar(zookeeper) { names::jvm_address() } else { zookeeper.quorum.clone() };
    let creator = zookeeper.acl == Acl::Creator;
    let owned = [
        ("high-availability.type", "zookeeper".to_owned()),
        ("high-availability.zookeeper.quorum", quorum),
        ("high-availability.zookeeper.path.root", zookeeper.root_path.clone()),
        ("high-availability.zookeeper.client.acl", if creator { "creator" } else { "open" }.to_owned()),
        // With ZooKeeper, Flink takes its RPC port from this key; the default is random.
        ("high-availability.jobmanager.port", names::RPC_PORT.to_string()),
        // Otherwise the client tries SASL first and logs a warning. Flink requires SASL for `creator`, and works
        // without credentials.
        ("zookeeper.sasl.disable", (!creator).to_string()),
    ];
    let client = config::zookeeper(&zookeeper.session_timeout, &zookeeper.connection_timeout);
    let client = client.map(|(key, value)| (key.to_owned(), value.to_owned()));
    owned.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(client).collect()
}

/// Returns Flink's memory size: that of the container, otherwise Flink's own default.
fn process_size(resources: &Resources, default: &str) -> String {
    let bytes = quantity::memory(resources).and_then(|memory| quantity::bytes(&memory));
    bytes.map_or_else(|| default.to_owned(), |bytes| format!("{bytes}b"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    #[test]
    fn what_one_kind_of_pod_reads_alone_does_not_change_the_others_digest() {
        let digests = |cluster: &Cluster| (digest(cluster, "taskmanager."), digest(cluster, "jobmanager."));
        let memory = ("memory".to_owned(), crate::api::v1alpha1::Scalar::Text("3Gi".to_owned()));
        let before = digests(&fixture::cluster());
        let after = digests(&fixture::cluster_with(|spec| spec.task_manager.resources.limits.extend([memory])));
        assert!(before.0 == after.0 && before.1 != after.1);
    }

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

    #[test]
    fn with_zookeeper_the_configuration_names_the_quorum_and_no_api_server() {
        let configuration = configuration(&fixture::on_zookeeper());
        for (key, value) in [
            ("high-availability.type", "zookeeper"),
            ("high-availability.zookeeper.quorum", "zk-0:2181,zk-1:2181,zk-2:2181"),
            ("high-availability.zookeeper.path.root", "/flink"),
            ("high-availability.zookeeper.client.session-timeout", "20s"),
            ("high-availability.zookeeper.client.ensemble-tracker", "false"),
            ("high-availability.jobmanager.port", "6123"),
            ("high-availability.cluster-id", "flink.demo"),
        ] {
            assert_eq!(configuration.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(configuration.keys().all(|key| !key.contains("kubernetes")), "{configuration:?}");
    }

    /// Users cannot set our keys; otherwise one of the two values would be lost without notice.
    #[test]
    fn every_key_that_we_set_is_refused_from_users() {
        let cluster = fixture::cluster_with(|spec| spec.flink_configuration.clear());
        let other = fixture::on_zookeeper_with(|spec| spec.flink_configuration.clear());
        for key in configuration(&cluster)
            .keys()
            .chain(configuration(&other).keys())
            .filter(|key| FREE.iter().all(|(free, _)| free != key))
        {
            assert!(crate::api::owned::FLINK_CONFIGURATION.iter().any(|group| group.contains(key)), "{key}");
        }
    }

    #[test]
    fn the_format_of_the_gateways_logs_reaches_them_by_the_config_map_and_replaces_no_pod() {
        let built = |log_format| {
            let image = "flinkha:1".to_owned();
            let environment = Environment { gateway_image: image, log_format, ..Environment::default() };
            let objects = crate::cluster::build::build(&fixture::cluster(), &environment);
            let config_map =
                objects.applied.into_iter().find(|object| object["kind"] == "ConfigMap").unwrap_or_default();
            (config_map["data"][LOG_FORMAT_FILE].clone(), objects.job_managers["spec"]["template"].clone())
        };
        let (text, json) = (built(LogFormat::Text), built(LogFormat::Json));
        assert_eq!((text.0, json.0), (Value::Null, json!("json")));
        assert_eq!(text.1, json.1);
    }
}
