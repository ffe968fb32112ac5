//! Who elects the leader, and what of Flink's configuration follows from that. The same tests run with either provider
//! of ours: PROVIDER=zookeeper.

use flinkha::api::names;
use flinkha::flink::config::{SIMULATED_EXPIRATION, TASK_MANAGERS_EXPIRATION};

use super::application;
use super::cluster::Cluster;
use super::cluster::NAME;
use super::cluster::NAMESPACE;
use super::flink::Configuration;
use super::gateway::Timings;
use super::s3::S3;
use super::say;

/// Who elects the leader.
#[derive(Clone)]
pub enum Provider {
    /// Our gateways, by a Lease.
    Kubernetes(Timings),
    /// Flink's own Kubernetes HA, straight to the API server: lease duration, renew deadline, retry period.
    Native([&'static str; 3]),
    /// Flink by ZooKeeper, beside our gateways.
    ZooKeeper(Timings),
    /// Flink's own ZooKeeper HA with its defaults, straight to the quorum.
    NativeZooKeeper,
}

impl Provider {
    /// Ours: the one that PROVIDER names, else Kubernetes.
    pub fn ours() -> Self {
        Self::ours_with(Timings::DEFAULT)
    }

    pub fn ours_with(timings: Timings) -> Self {
        if on_zookeeper() { Self::ZooKeeper(timings) } else { Self::Kubernetes(timings) }
    }

    pub const fn native() -> Self {
        Self::Native(["15 s", "15 s", "5 s"])
    }

    pub const fn native_tuned() -> Self {
        Self::Native(["5 s", "4 s", "1 s"])
    }

    /// Of our gateways, if there are any.
    pub fn timings(&self) -> Option<&Timings> {
        match self {
            Self::Kubernetes(timings) | Self::ZooKeeper(timings) => Some(timings),
            Self::Native(_) | Self::NativeZooKeeper => None,
        }
    }

    pub fn is_zookeeper(&self) -> bool {
        matches!(self, Self::ZooKeeper(_) | Self::NativeZooKeeper)
    }
}

/// Does PROVIDER name ZooKeeper?
pub fn on_zookeeper() -> bool {
    match std::env::var("PROVIDER").as_deref() {
        Ok("zookeeper") => true,
        Ok("kubernetes") | Err(_) => false,
        Ok(other) => panic!("PROVIDER is kubernetes or zookeeper, not {other}"),
    }
}

/// For a test of what only a Lease can do: says so in the column of ZooKeeper, and tells whether to go on.
pub fn needs_a_lease(what: &str) -> bool {
    needs_kubernetes("n/a", what)
}

/// The same for a part of a test.
pub fn needs_config_maps(what: &str) -> bool {
    needs_kubernetes("n/a in part", what)
}

/// For a test of what only a quorum can do: says so in the column of Kubernetes, and tells whether to go on.
pub fn needs_a_quorum(what: &str) -> bool {
    if !on_zookeeper() {
        say(format!("n/a with Kubernetes: {what}"));
    }
    on_zookeeper()
}

fn needs_kubernetes(not_there: &str, what: &str) -> bool {
    if on_zookeeper() {
        say(format!("{not_there} with ZooKeeper: {what}"));
    }
    !on_zookeeper()
}

impl Cluster {
    /// What differs for TaskManagers, as the operator tells them.
    pub(super) fn task_managers_configuration(&self) -> Configuration {
        let mut configuration = self.configuration();
        if let Provider::ZooKeeper(_) = self.provider {
            configuration.insert(SIMULATED_EXPIRATION.to_owned(), TASK_MANAGERS_EXPIRATION.to_owned());
        }
        configuration
    }

    pub fn configuration(&self) -> Configuration {
        let mut configuration = vec![
            ("high-availability.storageDir", self.storage_uri()),
            ("high-availability.cluster-id", names::high_availability_cluster_id(NAMESPACE, NAME)),
            ("execution.checkpointing.dir", format!("file://{}/checkpoints", self.path().display())),
            ("execution.checkpointing.interval", "500 ms".to_owned()),
        ];
        if self.provider.timings().is_some() {
            configuration.push(("job-result-store.delete-on-commit", "false".to_owned()));
            configuration.push(("application-result-store.delete-on-commit", "false".to_owned()));
        }
        if self.application.is_some() {
            configuration.extend(application::configuration());
        }
        if let Some(quorum) = &self.quorum {
            configuration.push(("high-availability.type", "zookeeper".to_owned()));
            configuration.push(("high-availability.zookeeper.quorum", quorum.servers()));
            configuration.push((
                "high-availability.zookeeper.client.acl",
                if quorum.is_secure() { "creator" } else { "open" }.to_owned(),
            ));
            configuration.push(("zookeeper.sasl.disable", (!quorum.is_secure()).to_string()));
            if self.provider.timings().is_some() {
                let ours = flinkha::flink::config::zookeeper("20s", "5s");
                configuration.extend(ours.map(|(key, value)| (key, value.to_owned())));
            }
        } else {
            let [duration, deadline, retry] = match self.provider {
                Provider::Native(timings) => timings,
                // Requests for the lock end at the gateway, so they may come often.
                _ => ["15 s", "15 s", "200 ms"],
            };
            configuration.extend([
                ("high-availability.type", "kubernetes".to_owned()),
                ("kubernetes.cluster-id", names::kubernetes_cluster_id(NAME)),
                ("kubernetes.namespace", NAMESPACE.to_owned()),
                ("high-availability.kubernetes.leader-election.lease-duration", duration.to_owned()),
                ("high-availability.kubernetes.leader-election.renew-deadline", deadline.to_owned()),
                ("high-availability.kubernetes.leader-election.retry-period", retry.to_owned()),
            ]);
        }
        let configuration = configuration.into_iter().map(|(key, value)| (key.to_owned(), value));
        configuration.chain(self.s3.iter().flat_map(S3::configuration)).collect()
    }
}
