//! A network of the test's own, in which servers can be cut off while they go on living: Linux network namespaces, and
//! two switches between them.
//!
//! The test program runs itself again in a namespace, and starts each server in one more. None of them has a name, so
//! nothing is left to be taken away, not even by a test that was killed: a namespace ends with its last process, and
//! all that is in it ends with it. Nobody else on the machine sees any of it.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use super::process::Program;
use super::script;

/// In the environment of a program that runs in a network of its own.
const MARK: &str = "FLINKHA_TEST_NETWORK";

/// A switch with servers at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Over which clients reach the servers. The test itself is at it, with all its other processes.
    Clients,
    /// Over which servers reach each other.
    Peers,
}

impl Switch {
    const ALL: [Self; 2] = [Self::Clients, Self::Peers];

    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Peers => "peers",
        }
    }

    /// Of the ranges for documentation (RFC 5737): they mean nobody.
    pub fn address(self, number: u8) -> Ipv4Addr {
        match self {
            Self::Clients => Ipv4Addr::new(198, 51, 100, number),
            Self::Peers => Ipv4Addr::new(203, 0, 113, number),
        }
    }
}

/// Does this program run in a network of its own?
pub fn is_own() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs this part of the test program in a network of its own. Panics when it fails.
pub fn run_again(part: &str, version: &str) {
    script("rig/zookeeper-dist", &[]);
    again(&["zookeeper"], &[(MARK, "1"), ("ONLY", part)], version);
}

/// Runs the test program again with these arguments and variables, in a network of its own. Panics when it fails.
pub fn again(arguments: &[&str], environment: &[(&str, &str)], version: &str) {
    // There is no way out of it, so all that is fetched is fetched before.
    for (path, arguments) in [("rig/assets", vec![]), ("rig/flink-dist", vec![version]), ("jobs/build", vec![version])]
    {
        script(path, &arguments);
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--"])
        .arg(program)
        .args(arguments)
        .envs(environment.iter().copied());
    let status = command.status().expect("util-linux is needed for a network namespace");
    assert!(status.success(), "{arguments:?} in a network of its own: {status}; it has to be root to make one");
}

/// Makes the switches, once.
pub fn prepare() {
    run("ip link set lo up");
    for switch in Switch::ALL {
        let name = switch.name();
        // Without an address that is said, it would change with the servers at it.
        run(&format!("ip link add {name} address 02:00:00:00:00:0{} type bridge", switch as u8 + 1));
        run(&format!("ip link set {name} up"));
    }
    run(&format!("ip address add {}/24 dev clients", Switch::Clients.address(254)));
    // A kube-apiserver does not start on a machine without one. It leads nowhere.
    run("ip route add default dev clients");
}

/// The place of a server: the last part of its addresses.
pub fn place() -> u8 {
    static LAST: AtomicU8 = AtomicU8::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// The same program in a namespace of its own, with a line to each switch, and as the same process.
pub fn at(place: u8, program: Program) -> Program {
    const LINES: &str = r#"
        set -e
        place=$1 test=$2
        shift 2
        line() {
            ip link add "$1" type veth peer name "$1-$place" netns "$test"
            ip address add "$2/24" dev "$1"
            ip link set "$1" up
            nsenter --net="/proc/$test/ns/net" ip link set "$1-$place" master "$1" up
        }
        ip link set lo up
        line clients "$1"
        line peers "$2"
        shift 2
        exec "$@""#;
    let addresses = Switch::ALL.map(|switch| switch.address(place).to_string());
    let own =
        ["--net", "--", "sh", "-c", LINES, "sh", &place.to_string(), &std::process::id().to_string()].map(Into::into);
    let arguments = own
        .into_iter()
        .chain(addresses.map(Into::into))
        .chain([program.path.into()])
        .chain(program.arguments)
        .collect();
    Program { path: "unshare".into(), arguments, ..program }
}

/// Pulls a server's line to a switch. Nobody is told: what is sent gets lost.
pub fn unplug(place: u8, switch: Switch) {
    run(&format!("ip link set {}-{place} nomaster", switch.name()));
}

/// Plugs a server's line to a switch in again.
pub fn plug(place: u8, switch: Switch) {
    let name = switch.name();
    run(&format!("ip link set {name}-{place} master {name}"));
}

pub(super) fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("iproute2 is needed");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
