//! Limits of durations in the resource. The CRD's rules and the operator's own check are made from them, so that a
//! resource that an earlier definition let through is refused with the same words.

/// Characters of a duration: the API server and the gateway read no such text as more than they can count.
pub const FORMAT: &str = "^([0-9]{1,8}(ms|s|m))+$";
/// What a text of another format is told.
pub const FORMAT_PROBLEM: &str = "must be a duration such as 15s, 1500ms or 1m30s";

/// The least that a field may say.
#[derive(Debug)]
pub struct AtLeast {
    /// The limit, in the format of the fields.
    pub least: &'static str,
    /// Why, and an example. It follows "must be at least …, ".
    pub why: &'static str,
}

impl AtLeast {
    /// What a user is told whose value is less.
    pub fn problem(&self) -> String {
        format!("must be at least {}, {}", self.least, self.why)
    }
}

/// `spec.highAvailability.jvmTimeout`: the gateway holds a standby's request for 5 s, and the JVM sends no other one
/// meanwhile.
pub const JVM_TIMEOUT: AtLeast = AtLeast {
    least: "6s",
    why: "because a standby's JVM that waits for the leader's lock is silent for up to 5s: for example 10s",
};

/// `spec.highAvailability.lease.retryPeriod`: a request that gets no longer than that often fails.
pub const RETRY_PERIOD: AtLeast =
    AtLeast { least: "500ms", why: "because it is also the timeout of each request for the Lease: for example 2s" };

/// `spec.job.upgradeDeadline`: within it JobManagers and TaskManagers start and the job is deployed.
pub const UPGRADE_DEADLINE: AtLeast = AtLeast {
    least: "10s",
    why: "because no job comes up sooner, and each upgrade would be taken back: for example 5m",
};

/// `spec.job.savepoints.interval`: each savepoint writes the whole state.
pub const SAVEPOINT_INTERVAL: AtLeast =
    AtLeast { least: "10s", why: "because each savepoint writes the whole state: for example 24h" };

/// `spec.job.savepoints.retain.age`.
pub const SAVEPOINT_AGE: AtLeast =
    AtLeast { least: "10s", why: "because savepoints younger than that help nobody: for example 168h" };

/// `spec.job.savepoints.onDeleteDeadline`.
pub const SAVEPOINT_ON_DELETE_DEADLINE: AtLeast =
    AtLeast { least: "10s", why: "because hardly any savepoint is complete sooner: for example 10m" };

/// Characters of a duration that may have hours.
pub const FORMAT_WITH_HOURS: &str = "^([0-9]{1,6}(h|m|s))+$";
/// What a text of another format is told.
pub const FORMAT_WITH_HOURS_PROBLEM: &str = "must be a duration such as 24h, 90m or 1h30m";

/// `spec.highAvailability.lease.duration`: the most.
pub const LONGEST_LEASE: &str = "1440m";
/// What a user is told whose Lease is longer.
pub const LONGEST_LEASE_PROBLEM: &str = "spec.highAvailability.lease.duration must be at most 1440m, a day, because no standby replaces a silent leader before: for example 15s";

/// `spec.highAvailability.lease.renewDeadline` and `duration`.
pub const RENEW_DEADLINE_PROBLEM: &str = "spec.highAvailability.lease.renewDeadline must be shorter than lease.duration, so that a leader stops before another may start: for example renewDeadline 10s and duration 15s";
/// `spec.highAvailability.lease.retryPeriod` and `renewDeadline`.
pub const RETRY_PERIOD_PROBLEM: &str = "spec.highAvailability.lease.retryPeriod must be shorter than lease.renewDeadline, so that a leader has more than one try: for example retryPeriod 2s and renewDeadline 10s";

/// `spec.haData.orphanAge`.
pub const ORPHAN_AGE: &str = "1h";
/// What a user is told whose orphans are younger.
pub const ORPHAN_AGE_PROBLEM: &str = "spec.haData.orphanAge must be a duration of at least an hour, such as 24h";

/// `spec.highAvailability.zookeeper.sessionTimeout`.
pub const SESSION_TIMEOUT: &str = "4s";
/// What a user is told whose sessions end sooner.
pub const SESSION_TIMEOUT_PROBLEM: &str = "spec.highAvailability.zookeeper.sessionTimeout must be at least 4s, which is the least that ZooKeeper grants by default: for example 20s";
/// `spec.highAvailability.zookeeper.connectionTimeout` and `sessionTimeout`.
pub const CONNECTION_TIMEOUT_PROBLEM: &str = "spec.highAvailability.zookeeper.connectionTimeout must be longer than zero and shorter than zookeeper.sessionTimeout: for example 5s and 20s";
