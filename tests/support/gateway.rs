//! Our gateway as a process beside a JobManager's JVM, started as the operator starts it in a pod.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use flinkha::api::names;
use kube::config::Kubeconfig;

use super::flink::Configuration;
use super::host::port;
use super::pods;
use super::process::Process;
use super::process::Program;
use super::zookeeper::Quorum;

pub struct Pod<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub address: Ipv4Addr,
    pub directory: PathBuf,
    /// More flags of the gateway.
    pub flags: Vec<String>,
}

/// The durations of an election and of a sweep, in the words of the command line.
#[derive(Clone, Debug)]
pub struct Timings {
    pub lease_duration: &'static str,
    pub renew_deadline: &'static str,
    pub retry_period: &'static str,
    pub jvm_timeout: &'static str,
    /// `report` or `delete`.
    pub orphans: &'static str,
    pub orphan_age: &'static str,
    pub sweep_period: &'static str,
}

impl Timings {
    pub const DEFAULT: Self = Self {
        lease_duration: "15s",
        renew_deadline: "10s",
        retry_period: "2s",
        jvm_timeout: "10s",
        orphans: "report",
        orphan_age: "24h",
        sweep_period: "1h",
    };
}

/// What the gateway publishes as its pod's address: the API server refuses loopback addresses as endpoints, so this one
/// stands for it, and nobody connects to it.
pub fn published(address: Ipv4Addr) -> String {
    if pods::are_of_ipv6() {
        return pods::address(address).to_string();
    }
    let [_, second, third, last] = address.octets();
    Ipv4Addr::new(10, second, third, last).to_string()
}

/// Where the JVM finds the gateway. A gateway tells its JVM by the ports of a connection, which are unique on the
/// loopback of a pod; on the one loopback that all pods of a test share, only different ports make them unique.
pub fn jvm_url(address: Ipv4Addr) -> String {
    format!("http://{}", jvm_address(address))
}

/// The same without a scheme: the JVM's ZooKeeper server.
pub fn jvm_address(address: Ipv4Addr) -> String {
    if pods::are_of_ipv6() { names::jvm_address() } else { format!("{address}:{}", port(address)) }
}

/// Where probes, metrics and peers are answered.
pub fn probe_url(address: Ipv4Addr) -> String {
    format!("http://{}", SocketAddr::new(pods::address(address), names::PROBE_PORT))
}

/// Where the preStop hook of a pod finds its gateway.
pub fn hand_over_socket(directory: &Path) -> PathBuf {
    directory.join("gateway.sock")
}

/// The program that gateways run.
#[derive(Clone, Debug)]
pub enum Build {
    /// Of this working tree, as the tests are built.
    Tested,
    /// Of this working tree, built in another way.
    At(PathBuf),
    /// Of the former version (`rig/former`).
    Former(PathBuf),
}

impl Build {
    /// Flags that the former version has not.
    const NEW_FLAGS: [&str; 2] = ["--hand-over-socket", "--stand-in"];

    fn path(&self) -> &Path {
        match self {
            Self::Tested => Path::new(env!("CARGO_BIN_EXE_flinkha")),
            Self::At(path) | Self::Former(path) => path,
        }
    }

    fn knows(&self, flag: &str) -> bool {
        !matches!(self, Self::Former(_)) || !Self::NEW_FLAGS.contains(&flag)
    }
}

/// What goes for all gateways of a cluster.
pub struct Settings<'a> {
    pub build: &'a Build,
    pub timings: &'a Timings,
    pub storage: &'a str,
    pub configuration: &'a Configuration,
    /// The ZooKeeper quorum, if Flink elects there.
    pub quorum: Option<&'a Quorum>,
}

pub fn start(cluster: (&str, &str), pod: &Pod<'_>, settings: &Settings<'_>, kubeconfig: &Kubeconfig) -> Process {
    let (namespace, name) = cluster;
    let Settings { build, timings, storage, configuration, quorum } = settings;
    let config = pod.directory.join("kubeconfig");
    std::fs::write(&config, serde_yaml::to_string(kubeconfig).expect("a kubeconfig in YAML"))
        .expect("failed to write a kubeconfig");
    let flink = pod.directory.join("gateway-flink.yaml");
    std::fs::write(&flink, flinkha::flink::config::render(configuration))
        .expect("failed to write Flink's configuration");
    let flink = flink.display().to_string();
    let published = published(pod.address);
    let jvm_address = jvm_address(pod.address);
    let probe_address = format!("{}:{}", pod.address, names::PROBE_PORT);
    // The same key for all gateways of a test, in a file of each, as kubelets deliver the Secret of a cluster.
    let key = pod.directory.join("peer-key");
    std::fs::write(&key, "the key of this test's gateways").expect("failed to write the gateways' key");
    let key = key.display().to_string();
    let socket = hand_over_socket(&pod.directory).display().to_string();
    let stand_in = std::process::id().to_string();
    let high_availability = names::high_availability_cluster_id(namespace, name);
    let flags = [
        ("--cluster", name),
        ("--namespace", namespace),
        ("--cluster-id", &names::kubernetes_cluster_id(name)),
        ("--ha-cluster-id", &high_availability),
        ("--pod-name", pod.name),
        ("--pod-uid", pod.uid),
        ("--pod-ip", &published),
        ("--lease-duration", timings.lease_duration),
        ("--renew-deadline", timings.renew_deadline),
        ("--retry-period", timings.retry_period),
        ("--jvm-timeout", timings.jvm_timeout),
        ("--storage-dir", storage),
        ("--flink-configuration", &flink),
        ("--jvm-rest", &format!("http://{}:{}", pod.address, names::REST_PORT)),
        ("--orphans", timings.orphans),
        ("--orphan-age", timings.orphan_age),
        ("--sweep-period", timings.sweep_period),
        ("--jvm-address", &jvm_address),
        ("--probe-address", &probe_address),
        ("--peer-address", &probe_address),
        ("--peer-key", &key),
        ("--hand-over-socket", &socket),
        // Tests write in the name of a leader, from this very process.
        ("--stand-in", &stand_in),
    ];
    let of_quorum = quorum.map(Quorum::flags).unwrap_or_default();
    let of_pod = pod.flags.iter().map(Into::into);
    // A pod of its own has the addresses and ports of production.
    let of_one_loopback = ["--jvm-rest", "--jvm-address", "--probe-address", "--peer-address"];
    let needs = |flag: &str| build.knows(flag) && !(pods::are_of_ipv6() && of_one_loopback.contains(&flag));
    let flags = flags.into_iter().filter(|(flag, _)| needs(flag));
    let flags = flags.flat_map(|(flag, value)| [flag.into(), value.into()]).chain(of_pod);
    let program = Program {
        path: build.path().into(),
        arguments: std::iter::once("gateway".into())
            .chain(flags)
            .chain(of_quorum.into_iter().map(Into::into))
            .collect(),
        environment: vec![
            ("KUBECONFIG".to_owned(), config.display().to_string()),
            (
                "RUST_LOG".to_owned(),
                std::env::var("FLINKHA_TEST_LOG").unwrap_or_else(|_| "info,flinkha=debug".to_owned()),
            ),
        ],
        log: pod.directory.join("gateway.log"),
    };
    Process::start(pods::inside(pod.address, program))
}
