//! `FlinkHaCluster`, version `v1alpha1`: its spec. `kubectl explain` prints the comments of the fields.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::application::JobSpec;
use super::configuration_source::ConfigurationSource;
use super::durations;
use super::jvm_options::JvmOptions;
use super::metadata::{self, CommonMetadata, ServiceAccounts};
use super::network_policy::NetworkPolicy;
use super::rest::{Ingress, RestService};
use super::schema;
use super::secret::SecretReference;
use super::status::FlinkHaClusterStatus;
use super::tls::Tls;
use super::zookeeper::{self, ZooKeeper};

/// A highly available Flink cluster: one leading JobManager with hot standbys, and TaskManagers, all of unmodified
/// Flink.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "flinkha.dev",
    version = "v1alpha1",
    kind = "FlinkHaCluster",
    plural = "flinkhaclusters",
    shortname = "fhc",
    category = "flink",
    namespaced,
    status = "FlinkHaClusterStatus",
    derive = "PartialEq",
    doc = "A highly available Flink cluster: one leading JobManager with hot standbys, and TaskManagers, all of unmodified Flink.",
    validation = ("self.metadata.name.size() <= 45 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')", "metadata.name must have at most 45 characters, start with a letter and hold only a-z, 0-9 and '-': names of Services and labels are made from it"),
    validation = ("has(self.spec.job) == has(oldSelf.spec.job)", "spec.job cannot be added to or removed from a cluster: delete the resource and create another one"),
    validation = ("!has(self.spec.ttlSecondsAfterFinished) || has(self.spec.job)", "spec.ttlSecondsAfterFinished is for clusters with spec.job; a session cluster does not end"),
    scale = r#"{"specReplicasPath":".spec.taskManager.replicas","statusReplicasPath":".status.taskManager.replicas","labelSelectorPath":".status.taskManager.selector"}"#,
    printcolumn = r#"{"name":"Leader","type":"string","jsonPath":".status.leader.pod","description":"The pod of the leading JobManager"}"#,
    printcolumn = r#"{"name":"Term","type":"integer","jsonPath":".status.leader.term","description":"Number of the leader's term; rises with each change of leader"}"#,
    printcolumn = r#"{"name":"JobManagers","type":"string","jsonPath":".status.jobManager.ready","description":"JobManagers that lead or can take over, of those desired"}"#,
    printcolumn = r#"{"name":"TaskManagers","type":"string","jsonPath":".status.taskManager.ready","description":"Ready TaskManagers, of those desired"}"#,
    printcolumn = r#"{"name":"Application","type":"string","jsonPath":".status.application.phase","description":"What the operator is doing with spec.job"}"#,
    printcolumn = r#"{"name":"Checkpoint","type":"date","jsonPath":".status.jobs[?(@.state==\"Running\")].lastCheckpoint.completed","description":"Age of the last completed checkpoint of the oldest running job that has one; there may be one up to a minute younger"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Last Failover","type":"date","jsonPath":".status.lastFailover.at","priority":1}"#,
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FlinkHaClusterSpec {
    /// Application that this cluster runs, in Flink's application mode. Without it the cluster is a session cluster,
    /// which accepts jobs over REST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobSpec>,

    /// Seconds after the end of the job at which the operator deletes this resource. Without it the resource stays
    /// until somebody deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,

    /// Flink's image for JobManagers and TaskManagers, for example `flink:2.3.0`. Tested with Flink 1.20 and later.
    #[schemars(length(min = 1))]
    pub image: String,

    /// The version of Flink in `image`, such as `2.3.0`, or its line of versions, such as `2.3`. With it, a change of
    /// the image that would lose jobs is refused before any pod is replaced, and a JobManager of another version never
    /// leads. Without it, gateways read the version from their JobManagers, so that this shows only when the new pods
    /// are there. Change it together with `image`; setting it alone replaces the JobManagers, the leader last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::flink_version")]
    pub flink_version: Option<String>,

    /// Secrets in the resource's namespace with which the kubelet pulls the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<SecretReference>,

    /// Flink's configuration: any key that Flink knows, except those that high availability owns. Values are strings or
    /// whole numbers; quote others, such as `"true"` and `"0.4"`, as in a ConfigMap. A key here overrides the image's
    /// own configuration, whose other keys stay. Credentials belong into `flinkConfigurationFrom`: here everybody can
    /// read them who may read the resource or its ConfigMap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::flink_configuration")]
    pub flink_configuration: BTreeMap<String, Scalar>,

    /// Secrets in the resource's namespace whose keys are keys of Flink's configuration: the place for credentials,
    /// which then stand in no other object. Pods mount them. A key of `flinkConfiguration` has precedence over that of
    /// a Secret, and a later Secret over an earlier one. A changed Secret replaces the pods one by one, and is no other
    /// version of an application. Newlines at the end of a value do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub flink_configuration_from: Vec<ConfigurationSource>,

    /// Log configuration files that replace those of the image, by file name: for example `log4j-console.properties` or
    /// `logback-console.xml`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::log_configuration")]
    pub log_configuration: BTreeMap<String, String>,

    /// Restarts all pods of the cluster whenever it changes, also when it is set first or removed: JobManagers one by
    /// one, standbys first and the leader last, and TaskManagers. Jobs resume from their last checkpoint; the version
    /// of an application stays the same. A suspended cluster has no pods to restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_nonce: Option<i64>,

    /// The ServiceAccounts of the cluster's pods.
    #[serde(default, skip_serializing_if = "metadata::is_default")]
    pub service_account: ServiceAccounts,

    /// Labels and annotations of all objects that the operator makes for this cluster, except its pods.
    #[serde(default, skip_serializing_if = "metadata::is_default")]
    pub common_metadata: CommonMetadata,

    /// Who may open connections to the cluster's pods. The operator makes the NetworkPolicy `<name>-flinkha`, which
    /// closes to all others the ports that only the cluster's own pods need: Flink's RPC, blob, data and dynamic ports,
    /// and the gateways' port. Other ports stay open, and so do those that a podTemplate names as `containerPort`. It
    /// takes effect where the network plugin enforces NetworkPolicies; your own ones add to it.
    #[serde(default, skip_serializing_if = "metadata::is_default")]
    pub network_policy: NetworkPolicy,

    /// The Service of Flink's REST interface. Whoever reaches that may run code in the cluster.
    #[serde(default, skip_serializing_if = "metadata::is_default")]
    pub rest: RestService,

    /// The Ingress to Flink's REST and web interface. Whoever reaches them may run code in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,

    /// How leaders are elected, and where Flink keeps the data that a new leader needs.
    pub high_availability: HighAvailability,

    /// Certificates with which Flink encrypts its own traffic. Without it Flink uses plain text, unless
    /// `flinkConfiguration` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// When the high availability data (HA data) of jobs is removed.
    #[serde(default)]
    pub ha_data: HaDataSpec,

    /// The JobManagers: one leads, the others are hot standbys.
    #[serde(default)]
    pub job_manager: JobManager,

    /// The TaskManagers.
    #[serde(default)]
    pub task_manager: TaskManager,

    /// The gateway, a sidecar of every JobManager. It elects the leader and fences writes of HA data.
    #[serde(default)]
    pub gateway: Gateway,
}

/// A string or a whole number, as YAML has them.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(untagged)]
pub enum Scalar {
    /// A whole number.
    Number(i64),
    /// A string.
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scalar::Number(number) => number.fmt(formatter),
            Scalar::Text(text) => text.fmt(formatter),
        }
    }
}

/// How leaders are elected, and where Flink keeps the data that a new leader needs.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(zookeeper::PROVIDER_RULES)))]
pub struct HighAvailability {
    /// System that elects the leader and holds the pointers to HA data. `Kubernetes`: a Lease and ConfigMaps.
    /// `ZooKeeper`: Flink's own election and znodes in a ZooKeeper quorum. Cannot be changed.
    #[serde(default)]
    pub provider: Provider,

    /// Directory for Flink's HA data (Flink's `high-availability.storageDir`). All JobManagers and TaskManagers must
    /// reach it: for example `s3://bucket/flink-ha`, or `file:///flink/ha` on a volume that the podTemplates mount
    /// there. Clusters may share it; each has its own directory inside. Cannot be changed while jobs are stored in it.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[a-zA-Z][a-zA-Z0-9+.-]*:/.+')",
        "spec.highAvailability.storageDir must be a URI with its scheme and a path, such as s3://bucket/flink-ha or file:///flink/ha",
    )])), length(max = 1024))]
    pub storage_dir: String,

    /// Timings of the leader's Lease. They bound how long standbys wait for a leader that is silent. They do not delay
    /// the replacement of a dead JobManager (immediate) or of a lost machine (about four seconds). With two or more
    /// JobManagers, no outage of the API server ends a leadership while all of them live.
    #[serde(default)]
    pub lease: Lease,

    /// Time for which a JobManager's JVM may be silent towards its gateway. After it the gateway takes the JVM for hung
    /// and restarts it. At least 6s.
    #[serde(default = "default_jvm_timeout")]
    #[schemars(schema_with = "schema::jvm_timeout")]
    pub jvm_timeout: String,

    /// The ZooKeeper quorum. Required with provider ZooKeeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zookeeper: Option<ZooKeeper>,
}

/// System that elects the leader and holds the pointers to HA data.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum Provider {
    /// A Lease elects the leader; ConfigMaps hold the pointers.
    #[default]
    Kubernetes,
    /// Flink itself elects the leader in a ZooKeeper quorum; znodes hold the pointers.
    ZooKeeper,
}

/// Timings of the leader's Lease.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    ("duration(self.renewDeadline) < duration(self.duration)", durations::RENEW_DEADLINE_PROBLEM),
    ("duration(self.retryPeriod) < duration(self.renewDeadline)", durations::RETRY_PERIOD_PROBLEM),
    ("duration(self.duration) <= duration('1440m')", durations::LONGEST_LEASE_PROBLEM),
])))]
pub struct Lease {
    /// Time without a renewal after which a standby takes over. Applies when the leader's machine answers but its
    /// gateway is silent, or when the leader cannot write the Lease although the standby can. A dead JobManager or a
    /// lost machine is replaced sooner. Measured on the standby's own clock. At most 1440m.
    #[serde(default = "default_lease_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub duration: String,
    /// Time after its last renewal at which a leader without standbys stops leading. A leader with standbys renews the
    /// Lease at this interval; the standbys' promises keep it leading in between. Must be shorter than `duration`.
    #[serde(default = "default_renew_deadline")]
    #[schemars(schema_with = "schema::duration")]
    pub renew_deadline: String,
    /// Interval at which a leader without standbys renews the Lease, and timeout of each request for the Lease. Must be
    /// shorter than `renewDeadline`, and at least 500ms.
    #[serde(default = "default_retry_period")]
    #[schemars(schema_with = "schema::retry_period")]
    pub retry_period: String,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            duration: default_lease_duration(),
            renew_deadline: default_renew_deadline(),
            retry_period: default_retry_period(),
        }
    }
}

/// When the high availability data (HA data) of jobs is removed.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HaDataSpec {
    /// HA data of jobs that have not ended, when this resource is deleted. `Retain`: it stays, and the same resource
    /// applied again resumes the jobs. `Delete`: it is removed, and the jobs are lost. Neither touches savepoints or
    /// retained checkpoints.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// Orphans: files that crashes of Flink have left in the storage directory and that no HA data refers to. `Report`:
    /// the status counts them. `Delete`: the leading gateway removes them.
    #[serde(default)]
    pub orphans: OrphanPolicy,
    /// Minimum age of an orphan. Flink writes a file before any pointer names it, so a younger file may still be in
    /// use.
    #[serde(default = "default_orphan_age")]
    #[schemars(schema_with = "schema::orphan_age")]
    pub orphan_age: String,
}

impl Default for HaDataSpec {
    fn default() -> Self {
        Self { on_delete: OnDelete::default(), orphans: OrphanPolicy::default(), orphan_age: default_orphan_age() }
    }
}

/// What happens to orphans in the storage directory.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum OrphanPolicy {
    /// The status counts them.
    #[default]
    Report,
    /// The leading gateway removes them.
    Delete,
}

/// What happens to the HA data of jobs that have not ended when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum OnDelete {
    /// It stays; the same resource applied again resumes the jobs.
    #[default]
    Retain,
    /// It is removed, and the jobs are lost.
    Delete,
}

/// The JobManagers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobManager {
    /// Number of JobManagers: one leads, the others stand by. A single JobManager has no standby, so a failover waits
    /// for a new pod.
    #[serde(default = "default_job_managers")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,
    /// Resources of Flink's container. Flink's memory (`jobmanager.memory.process.size`) is `limits.memory`, else
    /// `requests.memory`, else Flink's default of 1600m.
    #[serde(default)]
    pub resources: Resources,
    /// Options of the JobManagers' JVMs. `Default`, also without this field: up to 4Gi of memory they use the serial
    /// collector, and in a session cluster the compiler C1 alone, which makes a recovery shorter. Options of the image,
    /// of `flinkConfiguration` and of the podTemplate have precedence. `None`: only those.
    #[serde(default, skip_serializing_if = "metadata::is_default")]
    pub jvm_options: JvmOptions,
    /// Additions to the JobManagers' pods, merged as by a strategic merge patch. Flink's container is
    /// `flink-main-container`; the gateway gets its volume mounts too.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::pod_template")]
    pub pod_template: Value,
}

impl Default for JobManager {
    fn default() -> Self {
        Self {
            replicas: default_job_managers(),
            resources: Resources::default(),
            jvm_options: JvmOptions::default(),
            pod_template: Value::Null,
        }
    }
}

/// The TaskManagers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TaskManager {
    /// Number of TaskManagers. `kubectl scale fhc/<name> --replicas N` and a HorizontalPodAutoscaler set it too. With
    /// 0, jobs wait for TaskManagers, and the JobManagers stay.
    #[serde(default = "default_task_managers")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Resources of Flink's container. Flink's memory (`taskmanager.memory.process.size`) is `limits.memory`, else
    /// `requests.memory`, else Flink's default of 1728m.
    #[serde(default)]
    pub resources: Resources,
    /// Number or percentage of TaskManagers that evictions may take at a time, such as `1` or `25%`: the operator makes
    /// the PodDisruptionBudget `<name>-taskmanager`, so that a drain of several nodes waits in between. Without it,
    /// evictions may take all. TaskManagers that are not ready do not hold up a drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::max_unavailable")]
    pub max_unavailable: Option<Scalar>,
    /// Additions to the TaskManagers' pods, merged as by a strategic merge patch. Flink's container is
    /// `flink-main-container`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::pod_template")]
    pub pod_template: Value,
}

impl Default for TaskManager {
    fn default() -> Self {
        Self {
            replicas: default_task_managers(),
            resources: Resources::default(),
            max_unavailable: None,
            pod_template: Value::Null,
        }
    }
}

/// The gateway, a sidecar of every JobManager.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Resources of the gateway's container.
    #[serde(default = "default_gateway_resources")]
    pub resources: Resources,
    /// Log filter of the JobManagers' gateways: a level (`off`, `error`, `warn`, `info`, `debug` or `trace`), or levels
    /// of modules such as `info,flinkha=debug`. Default: the chart's `log.gateway`. A change reaches running gateways
    /// within about two minutes and restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::log_filter")]
    pub log: Option<String>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { resources: default_gateway_resources(), log: None }
    }
}

/// Resources of a container, as in a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Resources that the scheduler reserves, for example `cpu: 500m` and `memory: 1Gi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Scalar>,
    /// Resources that the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Scalar>,
}

fn default_job_managers() -> i32 {
    2
}

fn default_task_managers() -> i32 {
    1
}

fn default_lease_duration() -> String {
    "15s".to_owned()
}

fn default_renew_deadline() -> String {
    "10s".to_owned()
}

fn default_retry_period() -> String {
    "2s".to_owned()
}

fn default_orphan_age() -> String {
    "24h".to_owned()
}

fn default_jvm_timeout() -> String {
    "10s".to_owned()
}

fn default_gateway_resources() -> Resources {
    let quantity = |name: &str, value: &str| (name.to_owned(), Scalar::Text(value.to_owned()));
    Resources {
        requests: BTreeMap::from([quantity("cpu", "50m"), quantity("memory", "32Mi")]),
        limits: BTreeMap::from([quantity("memory", "128Mi")]),
    }
}
