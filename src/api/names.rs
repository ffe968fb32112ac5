//! The names of a cluster's objects, and the keys of our annotations and labels, in one place for operator, gateway and
//! tests.
//!
//! Namespace and name identify a cluster, never its UID: the same resource applied again finds its data.

/// All our annotations begin with it.
pub const ANNOTATION_PREFIX: &str = "flinkha.dev/";
/// Annotation on the Lease, the cluster ConfigMap and every job ConfigMap: the fencing token of the term that wrote
/// last.
pub const TERM_ANNOTATION: &str = "flinkha.dev/term";
/// Annotation on the Lease: JSON of [`crate::lease::record::Change`], the last change of leader.
pub const CHANGE_ANNOTATION: &str = "flinkha.dev/last-change";
/// Annotation on the ledger of a cluster with ZooKeeper: JSON of [`crate::ledger::election::Leading`], the leader. Such
/// a cluster has no Lease.
pub const LEADER_ANNOTATION: &str = "flinkha.dev/leader";
/// Annotation on the ledger of a cluster with ZooKeeper: a sentence that says why a gateway does not reach the quorum.
/// Absent otherwise.
pub const QUORUM_ANNOTATION: &str = "flinkha.dev/quorum";
/// Annotation on the ledger: a sentence that says what is wrong with Flink's own TLS, as the leading gateway sees it.
/// Absent otherwise.
pub const TLS_ANNOTATION: &str = "flinkha.dev/tls";
/// Annotation on the ledger: JSON of [`crate::ledger::refusal::Refusal`], why a gateway does not let its JobManager
/// lead. Absent otherwise.
pub const REFUSAL_ANNOTATION: &str = "flinkha.dev/refusal";
/// Annotation on the ledger: since when the leading gateway finds no key in the Secret [`peers`], RFC 3339. Absent
/// otherwise.
pub const NO_KEY_ANNOTATION: &str = "flinkha.dev/no-peers-key";
/// Annotation on the ledger: a sentence that says which HA data the deletion of a resource has left, and why: the
/// operator could not prove that no JobManager lives.
pub const LEFT_ANNOTATION: &str = "flinkha.dev/ha-data-left";
/// Annotation on the Lease: JSON of [`crate::lease::record::Peers`], the holder and the members whose promises keep it
/// leading.
pub const PEERS_ANNOTATION: &str = "flinkha.dev/peers";
/// Annotation on the ledger: when a standby last tested whether it can write. No decision uses its value.
pub const PROBE_ANNOTATION: &str = "flinkha.dev/probed";
/// Annotation on the cluster ConfigMap: job and version of the application whose graph or plan is stored there,
/// `<job>/<version>`. (With ZooKeeper the data of the znode `flinkha`.)
pub const APPLICATION_ANNOTATION: &str = "flinkha.dev/application";
/// Annotation on the cluster ConfigMap beside [`APPLICATION_ANNOTATION`]: the start of the pods that took it over last,
/// a number. Pods of an earlier start never lead. (With ZooKeeper the third part of the data of the znode `flinkha`.)
pub const START_ANNOTATION: &str = "flinkha.dev/application-start";
/// Annotation on the Lease, or with ZooKeeper on the ledger: JSON of
/// [`crate::ledger::application::SavepointRequest`], the savepoint that the operator requests from the leader.
pub const SAVEPOINT_ANNOTATION: &str = "flinkha.dev/savepoint";
/// Annotation on the resource, copied to the Lease: the JobManager pod that should lead, or [`ANY_POD`].
pub const SWITCHOVER_ANNOTATION: &str = "flinkha.dev/switchover";
/// Annotation on the resource, copied to the ledger: id of the job in quarantine that is to be removed. See
/// [`crate::ha_data::quarantine`].
pub const DROP_JOB_ANNOTATION: &str = "flinkha.dev/drop-job";
/// Annotation on the resource: `disabled` pauses the operator's work on it, `enabled` (the default) does not. See
/// [`crate::cluster::pause`].
pub const RECONCILE_ANNOTATION: &str = "flinkha.dev/reconcile";
/// Annotation on the resource: the operator that reconciles it, as `<namespace>/<Lease>` of the operators' election.
pub const OPERATOR_ANNOTATION: &str = "flinkha.dev/operator";
/// Annotation on the Lease of the operators' election: the label selector of the resources that they reconcile. Absent:
/// all of their namespaces.
pub const SELECTOR_ANNOTATION: &str = "flinkha.dev/label-selector";
/// Annotation on the resource: [`UPGRADE_NOW`] replaces the image of the cluster's gateways with the operator's own.
/// The operator removes it when that is done. See [`crate::cluster::gateway_image`].
pub const UPGRADE_GATEWAYS_ANNOTATION: &str = "flinkha.dev/upgrade-gateways";
/// Value of [`UPGRADE_GATEWAYS_ANNOTATION`].
pub const UPGRADE_NOW: &str = "now";
/// Value of [`SWITCHOVER_ANNOTATION`]: whichever standby is ready.
pub const ANY_POD: &str = "any";
/// Annotation on the resource: `hold` keeps pods that only the operator wants to replace, `now` replaces them at once.
pub const ROLL_OUT_ANNOTATION: &str = "flinkha.dev/rollout";
/// Annotation on the template of pods: UID of their ServiceAccount, which was made again after older pods. Their tokens
/// are no longer valid, so they are replaced.
pub const ACCOUNT_ANNOTATION: &str = "flinkha.dev/service-account";
/// Label on JobManager pods: `leader` or `standby`. The operator writes it for people; no decision uses it.
pub const ROLE_LABEL: &str = "flinkha.dev/role";
/// Finalizer of a FlinkHaCluster.
pub const FINALIZER: &str = "flinkha.dev/ha-data";

/// Field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "flinkha-operator";
/// Label of all our objects and pods, with the value [`MANAGED_BY`]. The operator watches objects with this label.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "flinkha";
/// Label of every object and pod of a cluster: the name of its FlinkHaCluster.
pub const CLUSTER_LABEL: &str = "app.kubernetes.io/instance";
/// Label of pods: [`JOB_MANAGER`] or [`TASK_MANAGER`].
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Value of [`COMPONENT_LABEL`].
pub const JOB_MANAGER: &str = "jobmanager";
/// Value of [`COMPONENT_LABEL`].
pub const TASK_MANAGER: &str = "taskmanager";

/// Value of [`COMPONENT_LABEL`], and name of the container, of the Job that removes a deleted cluster's files.
pub const PURGE: &str = "purge";

/// The container that runs Flink, named as in the Apache operator.
pub const FLINK_CONTAINER: &str = "flink-main-container";
/// The native sidecar (init container with restartPolicy Always).
pub const GATEWAY_CONTAINER: &str = "gateway";

/// Log filter of gateways, unless the chart or the resource says another one.
pub const DEFAULT_GATEWAY_LOG: &str = "info";
/// Key of the ConfigMap with Flink's configuration, and so the name of a file beside it: the log filter of the
/// gateways, which they follow while they run. Absent for [`DEFAULT_GATEWAY_LOG`].
pub const GATEWAY_LOG_FILE: &str = "flinkha-gateway-log";
/// Key of the same ConfigMap: the format of the gateways' logs, which they read when they start. Absent for text.
pub const LOG_FORMAT_FILE: &str = "flinkha-log-format";
/// Key of the same ConfigMap: JSON of the names of the Secrets of `spec.tls`, by its fields. A gateway reads it when it
/// starts, to tell a renewed certificate from one of another Secret. Absent without `spec.tls`.
pub const TLS_SECRETS_FILE: &str = "flinkha-tls-secrets";

/// Beginning of the names of volumes with Secrets of `spec.flinkConfigurationFrom`; their place in the order follows.
pub const CONFIGURATION_SECRET_VOLUME: &str = "flinkha-secret-";
/// Volume with the key by which gateways authenticate each other. Only the gateway mounts it.
pub const PEERS_VOLUME: &str = "flinkha-peers";
/// Volume with the name and the password for a ZooKeeper quorum. Only gateways mount it.
pub const ZOOKEEPER_USER_VOLUME: &str = "flinkha-zookeeper-user";
/// Volume with the socket through which the preStop hook reaches the gateway. Only the gateway mounts it.
pub const HAND_OVER_VOLUME: &str = "flinkha-hand-over";

/// Directory with the key stores for Flink's own TLS, in every container that mounts them.
pub const TLS_STORES: &str = "/etc/flinkha/stores";

/// Flink's RPC port of a JobManager.
pub const RPC_PORT: u16 = 6123;
/// Flink's blob server port.
pub const BLOB_PORT: u16 = 6124;
/// Flink's RPC port of a TaskManager.
pub const TASK_MANAGER_RPC_PORT: u16 = 6122;
/// Flink's data port of a TaskManager.
pub const TASK_MANAGER_DATA_PORT: u16 = 6121;
/// Flink's port for the metrics that its web interface shows.
pub const METRICS_QUERY_PORT: &str = "6125";
/// Flink's REST port.
pub const REST_PORT: u16 = 8081;
/// The gateway's port for its JVM, on 127.0.0.1 only.
pub const JVM_PORT: u16 = 6180;
/// Address of the gateway as Flink's ZooKeeper server.
pub fn jvm_address() -> String {
    format!("127.0.0.1:{JVM_PORT}")
}

/// The gateway's port for probes, metrics and its peers, on the pod's address.
pub const PROBE_PORT: u16 = 6181;

/// Flink's `kubernetes.cluster-id`: unique in its namespace, like the ConfigMaps that it names.
pub fn kubernetes_cluster_id(name: &str) -> String {
    name.to_owned()
}

/// Flink's `high-availability.cluster-id`: unique over all namespaces, because they may share a storage directory.
/// A namespace contains no dot, so the first dot separates the two names.
pub fn high_availability_cluster_id(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// Flink's own ConfigMap with leader addresses and job graphs.
pub fn cluster_config_map(cluster_id: &str) -> String {
    format!("{cluster_id}-cluster-config-map")
}

/// Flink's own ConfigMap with checkpoint pointers of one job; `job` is 32 hex digits.
pub fn job_config_map(cluster_id: &str, job: &str) -> String {
    format!("{cluster_id}-{job}-config-map")
}

/// The job of a ConfigMap name made by [`job_config_map`]; `None` for any other name.
pub fn job_of_config_map(cluster_id: &str, config_map: &str) -> Option<String> {
    let job = config_map.strip_prefix(cluster_id)?.strip_prefix('-')?.strip_suffix("-config-map")?;
    let is_job = job.len() == 32 && job.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_job.then(|| job.to_owned())
}

/// The Lease on which the gateways of a cluster elect the leader.
pub fn lease(name: &str) -> String {
    name.to_owned()
}

/// Secret with the key by which the gateways of a cluster authenticate each other.
pub fn peers(name: &str) -> String {
    format!("{name}-peers")
}

/// ConfigMap in which the leading gateway records the cluster's jobs.
pub fn ledger(name: &str) -> String {
    format!("{name}-ledger")
}

/// Service (without selector), EndpointSlice and Ingress of the leading JobManager's REST endpoint.
pub fn rest(name: &str) -> String {
    format!("{name}-rest")
}

/// Further EndpointSlice of that Service, for addresses of IPv6: Kubernetes has one for each family.
pub fn rest_ipv6(name: &str) -> String {
    format!("{name}-rest-ipv6")
}

/// Service over all JobManagers, for port-forward and for Ingress controllers that need a selector.
pub fn job_managers(name: &str) -> String {
    format!("{name}-jobmanagers")
}

/// Deployment, ServiceAccount, Role, RoleBinding and PodDisruptionBudget of the JobManagers.
pub fn job_manager(name: &str) -> String {
    format!("{name}-jobmanager")
}

/// Deployment, ServiceAccount, Role, RoleBinding and PodDisruptionBudget of the TaskManagers.
pub fn task_manager(name: &str) -> String {
    format!("{name}-taskmanager")
}

/// NetworkPolicy of the cluster's pods. A policy that a user made before the operator made any hardly has this name.
pub fn network_policy(name: &str) -> String {
    format!("{name}-flinkha")
}

/// Job that removes the files of a cluster that is being deleted.
pub fn purge(name: &str) -> String {
    format!("{name}-purge")
}

/// ServiceAccount of a component's pods. The Job that removes files uses the JobManagers' ServiceAccount.
pub fn service_account(name: &str, component: &str) -> String {
    if component == TASK_MANAGER { task_manager(name) } else { job_manager(name) }
}

/// ConfigMap with Flink's configuration and log configuration.
pub fn flink_config(name: &str) -> String {
    format!("{name}-flink-config")
}

/// Whether the objects of this kind that belong to the cluster have this name. Labels do not tell whose an object is:
/// anybody may set them.
pub fn is_of_cluster(kind: &str, name: &str, cluster: &str) -> bool {
    let is_one_of = |names: &[fn(&str) -> String]| names.iter().any(|of| of(cluster) == name);
    match kind {
        "Lease" => is_one_of(&[lease]),
        "ConfigMap" => is_one_of(&[ledger, flink_config]),
        "EndpointSlice" => is_one_of(&[rest, rest_ipv6]),
        "Ingress" => is_one_of(&[rest]),
        "Service" => is_one_of(&[rest, job_managers]),
        "Deployment" | "ServiceAccount" | "Role" | "RoleBinding" | "PodDisruptionBudget" => {
            is_one_of(&[job_manager, task_manager])
        }
        "NetworkPolicy" => is_one_of(&[network_policy]),
        // Kubernetes names pods.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_a_config_map_is_read_back_and_others_are_not_taken_for_jobs() {
        let job = "0123456789abcdef0123456789abcdef";
        assert_eq!(job_of_config_map("demo", &job_config_map("demo", job)).as_deref(), Some(job));
        assert_eq!(job_of_config_map("demo", &cluster_config_map("demo")), None);
        assert_eq!(job_of_config_map("demo", "demo2-0123456789abcdef0123456789abcdef-config-map"), None);
        assert_eq!(job_of_config_map("demo", "other"), None);
    }

    #[test]
    fn an_object_belongs_to_a_cluster_only_under_its_own_name() {
        for (kind, name, cluster, expected) in [
            ("Lease", "a", "a", true),
            ("Lease", "a-b", "a", false),
            ("ConfigMap", "a-ledger", "a", true),
            ("ConfigMap", "a-b-ledger", "a", false),
            ("ConfigMap", "a-anything", "a", false),
            ("Role", "a-taskmanager", "a", true),
            ("Service", "a-jobmanagers", "a", true),
            ("Service", "a-jobmanager", "a", false),
            ("NetworkPolicy", "a-flinkha", "a", true),
            ("NetworkPolicy", "a", "a", false),
            ("EndpointSlice", "a-rest", "a", true),
            ("EndpointSlice", "a-rest-ipv6", "a", true),
            ("EndpointSlice", "a-rest-ipv6", "a-rest", false),
            ("Ingress", "a-rest", "a", true),
            ("Ingress", "a-rest-ipv6", "a", false),
            ("Ingress", "a", "a", false),
        ] {
            assert_eq!(is_of_cluster(kind, name, cluster), expected, "{kind} {name} of {cluster}");
        }
    }
}
