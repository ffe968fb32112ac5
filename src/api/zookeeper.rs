//! `spec.highAvailability.zookeeper`: the quorum in which Flink elects, and how it is reached. Comments of fields are
//! what `kubectl explain` prints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;
use super::v1alpha1::SecretReference;

/// The ZooKeeper quorum in which Flink elects its leader and keeps pointers to HA data.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rules(&[
    (
        "self.acl != 'Creator' || has(self.authentication)",
        "spec.highAvailability.zookeeper.acl Creator needs zookeeper.authentication: without it znodes would have no creator; name a Secret there, or use Open",
    ),
    (
        "duration(self.sessionTimeout) >= duration('4s')",
        "spec.highAvailability.zookeeper.sessionTimeout must be at least 4s, which is the least that ZooKeeper grants by default: for example 20s",
    ),
    (
        "duration(self.connectionTimeout) > duration('0s') && duration(self.connectionTimeout) < duration(self.sessionTimeout)",
        "spec.highAvailability.zookeeper.connectionTimeout must be longer than zero and shorter than zookeeper.sessionTimeout: for example 5s and 20s",
    ),
])))]
pub struct ZooKeeper {
    /// Servers of the quorum with commas between, for example
    /// `zookeeper-0.zookeeper:2181,zookeeper-1.zookeeper:2181,zookeeper-2.zookeeper:2181`. The port is 2181 if it is
    /// not said.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^[-a-zA-Z0-9._]+(:[0-9]{1,5})?(,[-a-zA-Z0-9._]+(:[0-9]{1,5})?)*$')",
        "spec.highAvailability.zookeeper.quorum must be servers as host:port with commas between, without spaces: for example zk-0.zk:2181,zk-1.zk:2181,zk-2.zk:2181",
    )])), length(max = 2048))]
    pub quorum: String,

    /// The znode below which all clusters have theirs (Flink's `high-availability.zookeeper.path.root`). Clusters may
    /// share it: each has its own znode `<namespace>.<name>` inside.
    #[serde(default = "default_root_path")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^(/[-a-zA-Z0-9._]+)+$') && !self.startsWith('/zookeeper')",
        "spec.highAvailability.zookeeper.rootPath must be a path such as /flink, without a slash at its end; /zookeeper is ZooKeeper's own",
    )])), length(max = 256))]
    pub root_path: String,

    /// Who may read and change Flink's znodes.
    #[serde(default)]
    pub acl: Acl,

    /// Secret with `ca.crt`, and `tls.crt` and `tls.key` if the servers ask for a certificate: the quorum is reached by
    /// TLS, from the sidecar of each pod. The servers' certificates must name the hosts in `quorum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretReference>,

    /// By what name and password the quorum is told who comes. Only the sidecars have them; Flink does not see them,
    /// and needs no JAAS file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,

    /// After how long without a sign of life the quorum gives a JobManager up. This is how long a lost machine or a
    /// frozen JobManager leads; one that dies is replaced at once, whatever this is. Servers grant no more than 20 of
    /// their ticks, which are 40s by default.
    #[serde(default = "default_session_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub session_timeout: String,

    /// How long Flink waits for a connection to the quorum.
    #[serde(default = "default_connection_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub connection_timeout: String,
}

/// By what name and password the quorum is told who comes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct Authentication {
    /// Name of a Secret with `username` and `password`.
    #[schemars(length(min = 1))]
    pub name: String,

    /// How they are told. `Digest`: by ZooKeeper's own scheme `digest`, which every server knows. `SASL`: by its
    /// mechanism DIGEST-MD5, for servers with `DigestLoginModule` in their JAAS file, also those that let nobody else
    /// in (`sessionRequireClientSASLAuth`, `enforce.auth.schemes=sasl`). Kerberos (GSSAPI) is not spoken. With acl
    /// `Creator` do not change it: who comes by one scheme may not touch what was created by the other.
    #[serde(default)]
    pub scheme: Scheme,
}

/// How the quorum is told who comes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// ZooKeeper's own scheme `digest`.
    #[default]
    Digest,
    /// SASL's mechanism DIGEST-MD5.
    #[serde(rename = "SASL")]
    Sasl,
}

/// Who may read and change Flink's znodes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum Acl {
    /// Everybody.
    #[default]
    Open,
    /// Who authenticates as Flink does.
    Creator,
}

/// Rules of `spec.highAvailability` that tell the providers apart. What only a Lease can do is refused by name, and not
/// ignored.
pub const PROVIDER_RULES: &[(&str, &str)] = &[
    (
        "self.provider != 'ZooKeeper' || has(self.zookeeper)",
        "spec.highAvailability.zookeeper is needed with provider ZooKeeper: name the servers in zookeeper.quorum",
    ),
    (
        "self.provider == 'ZooKeeper' || !has(self.zookeeper)",
        "spec.highAvailability.zookeeper has no meaning with provider Kubernetes; remove it, or set provider: ZooKeeper",
    ),
    (
        "self.provider != 'ZooKeeper' || (self.lease.duration == '15s' && self.lease.renewDeadline == '10s' && self.lease.retryPeriod == '2s')",
        "spec.highAvailability.lease has no meaning with provider ZooKeeper, where there is no Lease; remove it and use zookeeper.sessionTimeout",
    ),
    (
        "self.provider != 'ZooKeeper' || self.jvmTimeout == '10s'",
        "spec.highAvailability.jvmTimeout has no meaning with provider ZooKeeper, where a silent JobManager is given up by the quorum; remove it and use zookeeper.sessionTimeout",
    ),
    (
        "self.provider == oldSelf.provider",
        "spec.highAvailability.provider cannot be changed: the jobs' HA data are where the old one keeps them; stop the jobs with savepoints and make a new resource",
    ),
    (
        "!has(self.zookeeper) || !has(oldSelf.zookeeper) || self.zookeeper.rootPath == oldSelf.zookeeper.rootPath",
        "spec.highAvailability.zookeeper.rootPath cannot be changed: the jobs' HA data are under the old one; stop the jobs with savepoints and make a new resource",
    ),
];

fn default_root_path() -> String {
    "/flink".to_owned()
}

fn default_session_timeout() -> String {
    "20s".to_owned()
}

fn default_connection_timeout() -> String {
    "5s".to_owned()
}
