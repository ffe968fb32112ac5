//! `FlinkHaCluster`, version `v1alpha1`: what a user asks for. Comments of fields are what `kubectl explain` prints.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::application::Job;
use super::schema;
use super::status::FlinkHaClusterStatus;
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
    printcolumn = r#"{"name":"Term","type":"integer","jsonPath":".status.leader.term","description":"Counts the changes of leader"}"#,
    printcolumn = r#"{"name":"JobManagers","type":"string","jsonPath":".status.jobManager.ready","description":"JobManagers that lead or can take over, of those asked for"}"#,
    printcolumn = r#"{"name":"TaskManagers","type":"string","jsonPath":".status.taskManager.ready","description":"TaskManagers that are ready, of those asked for"}"#,
    printcolumn = r#"{"name":"Application","type":"string","jsonPath":".status.application.phase","description":"What the operator is doing with spec.job"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Last Failover","type":"date","jsonPath":".status.lastFailover.at","priority":1}"#,
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct FlinkHaClusterSpec {
    /// The application that this cluster runs, in Flink's application mode. Without it the cluster is a session
    /// cluster, which takes jobs over REST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,

    /// Seconds after which a resource whose job has ended is deleted. Without it the resource stays until somebody
    /// deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,

    /// Image with Flink, for JobManagers and TaskManagers, for example `flink:2.3.0`. Flink 1.20 and later are tested.
    #[schemars(length(min = 1))]
    pub image: String,

    /// Secrets of this namespace that the images are pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<SecretReference>,

    /// Flink's configuration: any key that Flink knows, except those that high availability owns. Values are strings or
    /// whole numbers; put quotes around `"true"` and `"0.4"`, as in a ConfigMap. What the image's own configuration
    /// sets stays, unless a key here replaces it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::flink_configuration")]
    pub flink_configuration: BTreeMap<String, Scalar>,

    /// Files of Flink's log configuration that replace those of the image, by file name: `log4j-console.properties` or
    /// `logback-console.xml`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::log_configuration")]
    pub log_configuration: BTreeMap<String, String>,

    /// How leaders are elected and where Flink keeps what a new leader needs.
    pub high_availability: HighAvailability,

    /// What happens to the jobs' high availability data.
    #[serde(default)]
    pub ha_data: HaData,

    /// The JobManagers: one leads, the others are hot standbys.
    #[serde(default)]
    pub job_manager: JobManager,

    /// The TaskManagers.
    #[serde(default)]
    pub task_manager: TaskManager,

    /// The gateway, the sidecar of every JobManager that elects the leader.
    #[serde(default)]
    pub gateway: Gateway,
}

/// A Secret of the resource's own namespace.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1))]
    pub name: String,
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

/// How leaders are elected and where Flink keeps what a new leader needs.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(zookeeper::PROVIDER_RULES)))]
pub struct HighAvailability {
    /// Where the leader is elected and pointers to HA data are kept.
    #[serde(default)]
    pub provider: Provider,

    /// Directory for Flink's HA data (Flink's `high-availability.storageDir`), reachable by all JobManagers and
    /// TaskManagers, for example `s3://bucket/flink-ha`, or `file:///flink/ha` on a volume that the podTemplates mount
    /// there. Clusters may share it: each has its own directory inside.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[a-zA-Z][a-zA-Z0-9+.-]*:/.+')",
        "spec.highAvailability.storageDir must be a URI with its scheme and a path, such as s3://bucket/flink-ha or file:///flink/ha",
    )])), length(max = 1024))]
    pub storage_dir: String,

    /// Timings of the leader's Lease. A dead JobManager is replaced at once, and a lost machine after some four
    /// seconds, whatever they are; they bound how long a silent leader is waited for. With two or more JobManagers no
    /// outage of the API server ends a leadership while all live.
    #[serde(default)]
    pub lease: Lease,

    /// How long a JobManager's JVM may stay silent towards its gateway before the gateway takes it for hung and
    /// restarts it.
    #[serde(default = "default_jvm_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub jvm_timeout: String,

    /// The quorum, with provider ZooKeeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zookeeper: Option<ZooKeeper>,
}

/// Where the leader is elected and pointers to HA data are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum Provider {
    /// A Lease elects; ConfigMaps hold the pointers.
    #[default]
    Kubernetes,
    /// Flink itself elects in a ZooKeeper quorum; znodes hold the pointers.
    ZooKeeper,
}

/// Timings of the leader's Lease.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "duration(self.renewDeadline) < duration(self.duration)",
        "spec.highAvailability.lease.renewDeadline must be shorter than lease.duration, so that a leader stops before another may start: for example renewDeadline 10s and duration 15s",
    ),
    (
        "duration(self.retryPeriod) < duration(self.renewDeadline)",
        "spec.highAvailability.lease.retryPeriod must be shorter than lease.renewDeadline, so that a leader has more than one try: for example retryPeriod 2s and renewDeadline 10s",
    ),
    ("duration(self.retryPeriod) > duration('0s')", "spec.highAvailability.lease.retryPeriod must be longer than zero: for example 2s"),
])))]
pub struct Lease {
    /// How long candidates wait, by their own clocks, for a leader whose machine answers and whose gateway does not, or
    /// which cannot write the Lease while they can, before they take its place.
    #[serde(default = "default_lease_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub duration: String,
    /// How long a leader that cannot renew the Lease goes on leading when no standby vouches for it. With standbys it
    /// writes the Lease only this often. Must be shorter than `duration`.
    #[serde(default = "default_renew_deadline")]
    #[schemars(schema_with = "schema::duration")]
    pub renew_deadline: String,
    /// How often a leader without standbys renews the Lease, and how long a request for it may take. Must be shorter
    /// than `renewDeadline`.
    #[serde(default = "default_retry_period")]
    #[schemars(schema_with = "schema::duration")]
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

/// What happens to the jobs' high availability data.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HaData {
    /// What happens to the data of jobs that have not ended when the resource is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// What happens to files that crashes of Flink have left in the storage directory and that nothing needs.
    #[serde(default)]
    pub orphans: Orphans,
    /// Younger files are no orphans: Flink writes a file before anything names it.
    #[serde(default = "default_orphan_age")]
    #[schemars(schema_with = "schema::orphan_age")]
    pub orphan_age: String,
}

impl Default for HaData {
    fn default() -> Self {
        Self { on_delete: OnDelete::default(), orphans: Orphans::default(), orphan_age: default_orphan_age() }
    }
}

/// What happens to files that crashes of Flink have left in the storage directory and that nothing needs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum Orphans {
    /// They are counted in the status.
    #[default]
    Report,
    /// They are removed.
    Delete,
}

/// What happens to the data of jobs that have not ended when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum OnDelete {
    /// It stays: the same resource applied again resumes the jobs.
    #[default]
    Retain,
    /// It goes, and the jobs with it.
    Delete,
}

/// The JobManagers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobManager {
    /// How many JobManagers: one leads, the others stand by. With one there is no standby, and a failover waits for a
    /// new pod.
    #[serde(default = "default_job_managers")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: i32,
    /// Resources of Flink's container. Flink's memory (`jobmanager.memory.process.size`) follows `limits.memory`, else
    /// `requests.memory`, else is Flink's default of 1600m.
    #[serde(default)]
    pub resources: Resources,
    /// Additions to the JobManagers' pods, merged strategically. Flink's container is called `flink-main-container`;
    /// its volume mounts are mounted in the gateway too.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::pod_template")]
    pub pod_template: Value,
}

impl Default for JobManager {
    fn default() -> Self {
        Self { replicas: default_job_managers(), resources: Resources::default(), pod_template: Value::Null }
    }
}

/// The TaskManagers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TaskManager {
    /// How many TaskManagers. `kubectl scale fhc/<name> --replicas N` sets it too.
    #[serde(default = "default_task_managers")]
    #[schemars(range(min = 1))]
    pub replicas: i32,
    /// Resources of Flink's container. Flink's memory (`taskmanager.memory.process.size`) follows `limits.memory`, else
    /// `requests.memory`, else is Flink's default of 1728m.
    #[serde(default)]
    pub resources: Resources,
    /// Additions to the TaskManagers' pods, merged strategically. Flink's container is called `flink-main-container`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "schema::pod_template")]
    pub pod_template: Value,
}

impl Default for TaskManager {
    fn default() -> Self {
        Self { replicas: default_task_managers(), resources: Resources::default(), pod_template: Value::Null }
    }
}

/// The gateway.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Resources of the gateway's container.
    #[serde(default = "default_gateway_resources")]
    pub resources: Resources,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { resources: default_gateway_resources() }
    }
}

/// Resources of a container, as in a pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside, for example `cpu: 500m` and `memory: 1Gi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Scalar>,
    /// What the container may use at most.
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
