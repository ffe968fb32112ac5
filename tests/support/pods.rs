//! Pods whose only address beside loopback is of IPv6, as in a Kubernetes cluster that has no IPv4: a network namespace
//! for each, and a switch between them, in a network of the test's own. The test program runs itself again there.
//!
//! What stands for a pod is known by an address of [`super::host`] elsewhere too; here it is only its name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flinkha::api::FlinkHaCluster;
use flinkha::api::rest::IpFamily;
use flinkha::cluster::build::{Environment, build};
use flinkha::cluster::validate::validate;
use serde_json::json;

use super::network::{again, run};
use super::operator;
use super::process::{Process, Program};

/// In the environment of a program that runs in such a network.
const MARK: &str = "FLINKHA_TEST_PODS";
/// Name of the API server in its own certificate.
const API_SERVER: &str = "kubernetes.default.svc";

/// The pods' namespaces: each lives as long as a process that does nothing.
static PODS: Mutex<BTreeMap<Ipv4Addr, Process>> = Mutex::new(BTreeMap::new());
/// Where API servers are reached.
static SERVERS: Mutex<Vec<IpAddr>> = Mutex::new(Vec::new());

/// Do pods have addresses of IPv6 in the network of this program?
pub fn are_of_ipv6() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs a test of this program in such a network. Panics when it fails.
pub fn run_again(test: &str, version: &str) {
    again(&["--exact", test, "--nocapture"], &[(MARK, "1")], version);
}

/// Makes the switch, once.
pub fn prepare() {
    run("ip link set lo up");
    // Without an address that is said, it would change with the pods at it.
    run("ip link add pods address 02:00:00:00:00:01 type bridge");
    run("ip link set pods up");
    // A kube-apiserver does not start on a machine without one. It leads nowhere.
    run("ip -6 route add default dev pods");
}

/// The address that a pod, or a server, really has.
pub fn address(name: Ipv4Addr) -> IpAddr {
    if !are_of_ipv6() {
        return name.into();
    }
    let [_, second, third, last] = name.octets();
    // Of the range for documentation (RFC 3849): it means nobody.
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, second.into(), u16::from_be_bytes([third, last])).into()
}

/// Gives the test itself an address at the switch, for an API server.
pub fn reach(server: Ipv4Addr) {
    if are_of_ipv6() {
        run(&format!("ip -6 address add {}/64 dev pods nodad", address(server)));
        SERVERS.lock().unwrap_or_else(PoisonError::into_inner).push(address(server));
    }
}

/// The same program in the namespace of a pod, as the same process. The first one makes the pod.
pub fn inside(name: Ipv4Addr, program: Program) -> Program {
    if !are_of_ipv6() {
        return program;
    }
    let mut pods = PODS.lock().unwrap_or_else(PoisonError::into_inner);
    let number = pods.len();
    let namespace = namespace_of(pods.entry(name).or_insert_with(|| make(name, number)));
    let own = [format!("--net={namespace}"), "--".to_owned()].map(Into::into);
    let arguments = own.into_iter().chain([program.path.into()]).chain(program.arguments).collect();
    Program { path: "nsenter".into(), arguments, ..program }
}

/// What a script of bash prints in the namespace of a pod that was made.
pub fn output_inside(name: Ipv4Addr, script: &str) -> String {
    let pods = PODS.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = format!("--net={}", namespace_of(pods.get(&name).expect("a pod")));
    let output = Command::new("nsenter").args([&namespace, "--", "bash", "-c", script]).output();
    String::from_utf8_lossy(&output.expect("util-linux is needed for a network namespace").stdout).into_owned()
}

fn namespace_of(pod: &Process) -> String {
    format!("/proc/{}/ns/net", pod.pid().as_raw_nonzero())
}

fn make(name: Ipv4Addr, number: usize) -> Process {
    let nothing = ["--net", "--", "sleep", "infinity"].map(Into::into).to_vec();
    let log = Path::new("/dev/null").into();
    let pod = Process::start(Program { path: "unshare".into(), arguments: nothing, log, ..Program::default() });
    let namespace = namespace_of(&pod);
    let is_own = || {
        let [own, ours] = [namespace.as_str(), "/proc/self/ns/net"].map(|path| std::fs::read_link(path).ok());
        own.is_some() && own != ours
    };
    while !is_own() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = pod.pid().as_raw_nonzero();
    run(&format!("ip link add pod-{number} type veth peer name eth0 netns {pid}"));
    run(&format!("ip link set pod-{number} master pods up"));
    for command in ["ip link set lo up", "ip link set eth0 up"] {
        run(&format!("nsenter --net={namespace} {command}"));
    }
    run(&format!("nsenter --net={namespace} ip -6 address add {}/64 dev eth0 nodad", address(name)));
    pod
}

/// Where a TaskManager finds the API server, as the operator says it to one whose address is of IPv6. A kubelet would
/// say the address.
pub fn master(url: String) -> String {
    if !are_of_ipv6() {
        return url;
    }
    let mut resource = operator::cluster(json!({}));
    resource["metadata"]["uid"] = "4b1d".into();
    let resource: FlinkHaCluster = serde_json::from_value(resource).expect("a resource");
    let cluster = validate(&resource).expect("a valid resource");
    let objects = build(&cluster, &Environment { ip_family: Some(IpFamily::IPv6), ..Environment::default() });
    let container = &objects.task_managers["spec"]["template"]["spec"]["containers"][0];
    let mut environment = container["env"].as_array().into_iter().flatten();
    let master = environment.find(|variable| variable["name"] == "KUBERNETES_MASTER");
    // The port of the Service is another one than that of the server.
    master.and_then(|variable| variable["value"].as_str()).map_or(url, |name| format!("{name}:6443"))
}

/// Options by which a JVM resolves the name of the API server, and its own, as it would by the cluster's DNS and its
/// pod's `/etc/hosts`.
pub fn java_options(name: Ipv4Addr, directory: &Path) -> Vec<String> {
    if !are_of_ipv6() {
        return Vec::new();
    }
    let servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let servers = servers.iter().map(|server| format!("{server} {API_SERVER}\n")).collect::<String>();
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hosts = directory.join("hosts");
    let own = format!("127.0.0.1 localhost\n{} {}\n{servers}", address(name), machine.trim());
    std::fs::write(&hosts, own).expect("failed to write a file");
    vec![format!("-Djdk.net.hosts.file={}", hosts.display())]
}
