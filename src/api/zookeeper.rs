//! `spec.highAvailability.zookeeper`: the quorum in which Flink elects its leader, and how clients connect to it.
//! `kubectl explain` prints the comments of the fields.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::durations;
use super::schema;
use super::secret::SecretReference;

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
        durations::SESSION_TIMEOUT_PROBLEM,
    ),
    (
        "duration(self.connectionTimeout) > duration('0s') && duration(self.connectionTimeout) < duration(self.sessionTimeout)",
        durations::CONNECTION_TIMEOUT_PROBLEM,
    ),
])))]
pub struct ZooKeeper {
    /// Servers of the quorum, separated by commas, for example
    /// `zookeeper-0.zookeeper:2181,zookeeper-1.zookeeper:2181,zookeeper-2.zookeeper:2181`. The default port is 2181. An
    /// address of IPv6 is in brackets: `[fd00::1]:2181`.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^([-a-zA-Z0-9._]+|\\\\[[0-9a-fA-F:.]+\\\\])(:[0-9]{1,5})?(,([-a-zA-Z0-9._]+|\\\\[[0-9a-fA-F:.]+\\\\])(:[0-9]{1,5})?)*$')",
        "spec.highAvailability.zookeeper.quorum must be servers as host:port with commas between, without spaces and with addresses of IPv6 in brackets: for example zk-0.zk:2181,zk-1.zk:2181,[fd00::1]:2181",
    )])), length(max = 2048))]
    pub quorum: String,

    /// Parent znode of all clusters (Flink's `high-availability.zookeeper.path.root`). Clusters may share it: each has
    /// its own znode `<namespace>.<name>` below. Cannot be changed.
    #[serde(default = "default_root_path")]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[(
        "self.matches('^(/[-a-zA-Z0-9._]+)+$') && !self.startsWith('/zookeeper')",
        "spec.highAvailability.zookeeper.rootPath must be a path such as /flink, without a slash at its end; /zookeeper is ZooKeeper's own",
    )])), length(max = 256))]
    pub root_path: String,

    /// Access to Flink's znodes. `Open`: everybody. `Creator`: only clients that authenticate with the same
    /// credentials; needs `authentication`.
    #[serde(default)]
    pub acl: Acl,

    /// Secret with `ca.crt`, and with `tls.crt` and `tls.key` if the servers require client certificates. The sidecar
    /// of each pod then connects to the quorum with TLS. The servers' certificates must name the hosts in `quorum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretReference>,

    /// Credentials with which the sidecars authenticate to ZooKeeper. Flink does not see them and needs no JAAS file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,

    /// ZooKeeper session timeout: time without a heartbeat after which the quorum expires a JobManager's session. A
    /// lost machine or a frozen JobManager leads for this long; a dead JobManager is replaced immediately. Servers
    /// grant at most 20 ticks, 40s by default.
    #[serde(default = "default_session_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub session_timeout: String,

    /// Time that Flink waits for a connection to the quorum.
    #[serde(default = "default_connection_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub connection_timeout: String,
}

/// Credentials with which the sidecars authenticate to ZooKeeper.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct Authentication {
    /// Name of a Secret with `username` and `password`.
    #[schemars(length(min = 1))]
    pub name: String,

    /// Authentication scheme. `Digest`: ZooKeeper's scheme `digest`, which every server supports. `SASL`: the mechanism
    /// DIGEST-MD5, for servers with `DigestLoginModule` in their JAAS file, also those that require SASL
    /// (`sessionRequireClientSASLAuth`, `enforce.auth.schemes=sasl`). Kerberos (GSSAPI) is not supported. Do not change
    /// it with acl `Creator`: a client of one scheme has no access to znodes that a client of the other created.
    #[serde(default)]
    pub scheme: Scheme,
}

/// Authentication scheme.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// ZooKeeper's scheme `digest`.
    #[default]
    Digest,
    /// SASL with the mechanism DIGEST-MD5.
    #[serde(rename = "SASL")]
    Sasl,
}

/// Access to Flink's znodes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
pub enum Acl {
    /// Everybody.
    #[default]
    Open,
    /// Only clients that authenticate with the same credentials.
    Creator,
}

/// Rules of `spec.highAvailability` that differ between the providers. A setting that only a Lease supports is rejected
/// by name with provider ZooKeeper, not ignored.
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
