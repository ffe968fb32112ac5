//! Flags of `flinkha gateway`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::storage_arguments::Place;
use super::tls_arguments::TlsSecrets;
use super::zookeeper_arguments::Access;
use crate::api::log_format::LogFormat;
use crate::api::names;
use crate::api::rest::IpFamily;
use crate::flink::job_id::JobId;
use crate::world::server::all_addresses;

/// Flags of `flinkha gateway`; the operator writes them into the pod.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Name of the FlinkHaCluster.
    #[arg(long)]
    pub cluster: String,
    #[arg(long)]
    pub namespace: String,
    /// Format of the log, text or json; without it that in the file beside Flink's configuration.
    #[arg(long)]
    pub log_format: Option<LogFormat>,
    /// Flink's kubernetes.cluster-id.
    #[arg(long)]
    pub cluster_id: String,
    #[arg(long)]
    pub pod_name: String,
    #[arg(long)]
    pub pod_uid: String,
    #[arg(long)]
    pub pod_ip: IpAddr,
    /// All addresses of the pod, separated by commas, if clients are to find it by another one than the first too.
    #[arg(long, value_delimiter = ',')]
    pub pod_ips: Vec<IpAddr>,
    /// Families of the addresses by which clients are to find it; by default that of the pod's first address.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub rest_families: Vec<IpFamily>,
    #[command(flatten)]
    pub place: Place,
    /// Flink's REST endpoint as the gateway reaches it; with https instead if Flink's configuration says so.
    #[arg(long, default_value_t = format!("http://127.0.0.1:{}", names::REST_PORT))]
    pub jvm_rest: String,
    /// The version of Flink that the resource declares; a JVM of another one does not lead.
    #[arg(long)]
    pub flink_version: Option<String>,
    /// Flink's id of the application's run; absent for a session cluster.
    #[arg(long, requires = "application_version")]
    pub application: Option<JobId>,
    /// Number of times that the operator has started the application's pods.
    #[arg(long, default_value_t = 1)]
    pub application_start: i64,
    /// Job ids of the runs that this one replaces, separated by commas. Data of any other run stays untouched.
    #[arg(long, value_delimiter = ',', requires = "application")]
    pub application_replaces: Vec<JobId>,
    /// Digest of the application's definition.
    #[arg(long, requires = "application")]
    pub application_version: Option<String>,
    /// What to do with files in the storage directory that nothing refers to, left by crashes of Flink.
    #[arg(long, value_enum, default_value_t = Orphans::Report)]
    pub orphans: Orphans,
    /// Minimum age of an orphan.
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    pub orphan_age: Duration,
    /// Interval of the search for orphans.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub sweep_period: Duration,
    /// A candidate takes the Lease if its holder has not renewed it for this long.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    pub lease_duration: Duration,
    /// A leader that has not renewed for this long stops leading; shorter than the lease duration.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub renew_deadline: Duration,
    /// Interval of renewals.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub retry_period: Duration,
    /// A JobManager that does not request its lock for this long counts as hung.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub jvm_timeout: Duration,
    /// File with the key under which the gateways of a cluster trust each other. Without it the election rests on the
    /// Lease alone.
    #[arg(long)]
    pub peer_key: Option<PathBuf>,
    /// Address at which peers reach this gateway; by default the pod's address and the port of the probes.
    #[arg(long)]
    pub peer_address: Option<SocketAddr>,
    /// Address at which the gateway serves its JVM as API server.
    #[arg(long, default_value_t = SocketAddr::from(([127, 0, 0, 1], names::JVM_PORT)))]
    pub jvm_address: SocketAddr,
    /// For tests that write in the name of a leader: a process whose requests are taken for those of the JVM that
    /// leads.
    #[arg(long, hide = true)]
    pub stand_in: Option<i32>,
    /// Address of probes and metrics; by default port 6181 of all of the pod's addresses.
    #[arg(long)]
    pub probe_address: Option<SocketAddr>,
    /// Socket at which `flinkha hand-over` tells this gateway that its pod terminates. Without it, the gateway is not
    /// told.
    #[arg(long)]
    pub hand_over_socket: Option<PathBuf>,
    /// The pod's terminationGracePeriodSeconds. A gateway that was told that its pod terminates, and still runs some
    /// time after this period, campaigns again.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub termination_grace_period: Duration,
    /// Certificates for Flink's own TLS.
    #[command(flatten)]
    pub tls: TlsSecrets,
    /// Access to the quorum, if Flink elects by ZooKeeper.
    #[command(flatten)]
    pub zookeeper: Access,
}

impl Arguments {
    /// Address of probes, metrics and peers.
    pub fn probes(&self) -> SocketAddr {
        self.probe_address.unwrap_or_else(|| all_addresses(self.pod_ip, names::PROBE_PORT))
    }

    /// Returns the addresses by which clients are to find the leader, at most one of each family.
    pub fn published(&self) -> Vec<IpAddr> {
        let own = if self.pod_ips.is_empty() { vec![self.pod_ip] } else { self.pod_ips.clone() };
        let first = vec![IpFamily::of(self.pod_ip)];
        let families = if self.rest_families.is_empty() { &first } else { &self.rest_families };
        let of_family = |family: &IpFamily| own.iter().find(|address| IpFamily::of(**address) == *family).copied();
        families.iter().filter_map(of_family).collect()
    }
}

/// What the gateway does with orphans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Orphans {
    /// Counts them.
    Report,
    /// Removes them.
    Delete,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(flags: &[&str]) -> Arguments {
        let own = ["gateway", "--cluster", "demo", "--namespace", "flink", "--cluster-id", "demo", "--pod-name", "a"];
        let place = ["--pod-uid", "u", "--ha-cluster-id", "flink.demo", "--storage-dir", "file:///ha"];
        let line = own.iter().chain(&place).chain(flags);
        Line::try_parse_from(line).map(|line| line.arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_port_of_probes_is_open_to_the_family_of_the_pods_address() {
        let probes = |flags: &[&str]| arguments(flags).probes().to_string();
        assert_eq!(probes(&["--pod-ip", "10.0.0.1"]), "0.0.0.0:6181");
        assert_eq!(probes(&["--pod-ip", "fd00::1"]), "[::]:6181");
        assert_eq!(probes(&["--pod-ip", "fd00::1", "--probe-address", "127.0.0.1:1"]), "127.0.0.1:1");
    }

    #[test]
    fn of_the_pods_addresses_those_are_published_whose_families_are_wanted() {
        let published = |flags: &[&str]| {
            let published = arguments(flags).published();
            published.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let of_both = |families: &str| {
            published(&["--pod-ip", "10.0.0.1", "--pod-ips", "10.0.0.1,fd00::1", "--rest-families", families])
        };
        assert_eq!(published(&["--pod-ip", "10.0.0.1"]), "10.0.0.1");
        assert_eq!(published(&["--pod-ip", "fd00::1"]), "fd00::1");
        assert_eq!(of_both("IPv4,IPv6"), "10.0.0.1 fd00::1");
        assert_eq!(of_both("IPv6"), "fd00::1");
        assert_eq!(published(&["--pod-ip", "10.0.0.1", "--pod-ips", "10.0.0.1", "--rest-families", "IPv6"]), "");
    }
}
