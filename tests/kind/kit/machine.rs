//! The kind cluster and its clients, set up by the project's own scripts, once per test program.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::support::process::Process;
use crate::support::process::Program;
use crate::support::say;
use crate::support::script;
use crate::support::seconds;

/// The version of Flink that runs; `FLINK_VERSION` chooses another.
pub fn flink_version() -> String {
    std::env::var("FLINK_VERSION").unwrap_or_else(|_| "2.3.0".to_owned())
}

/// `FLINK_IMAGE`, such as one with class-data archives (`rig/flink-classes`), or Flink's own.
pub fn flink_image() -> String {
    std::env::var("FLINK_IMAGE").unwrap_or_else(|_| format!("flink:{}", flink_version()))
}

pub(super) struct Machine {
    /// kubectl, helm and kind.
    bin: PathBuf,
    kubeconfig: String,
    /// `kubectl proxy`: the way to Flink's REST interface. It ends with the test program.
    _proxy: Process,
    proxy: String,
    /// Programs that use the cluster take turns: they would delete each other's namespaces, and disturb each other's
    /// times.
    _turn: File,
}

pub(super) fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let kubeconfig = script("rig/up", &[]);
        let turn = File::create(format!("{kubeconfig}.turn")).expect("a file next to the kubeconfig");
        if turn.try_lock().is_err() {
            say("waiting for another program that uses the cluster");
            turn.lock().expect("failed to wait for our turn");
        }
        let bin = PathBuf::from(script("rig/tools", &["clients"]));
        script("rig/flink-image", &[&flink_version()]);
        script("rig/load", &[&flink_image()]);
        let log = std::env::temp_dir().join(format!("flinkha-kubectl-proxy-{}", std::process::id()));
        let program = Program {
            path: bin.join("kubectl"),
            arguments: ["proxy", "--port=0"].map(Into::into).into(),
            environment: vec![("KUBECONFIG".to_owned(), kubeconfig.clone())],
            log: log.clone(),
        };
        let process = Process::start(program);
        let proxy = proxy_address(&process);
        let _ = std::fs::remove_file(log);
        Machine { bin, kubeconfig, _proxy: process, proxy, _turn: turn }
    })
}

fn proxy_address(process: &Process) -> String {
    let begin = Instant::now();
    while begin.elapsed() < seconds(20) {
        let log = process.log();
        if let Some(address) = log.lines().find_map(|line| line.strip_prefix("Starting to serve on ")) {
            return format!("http://{address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("kubectl proxy does not start: {}", process.log());
}

/// The address of a port of a pod, through the API server.
pub fn pod_url(namespace: &str, pod: &str, port: u16) -> String {
    format!("{}/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy", machine().proxy)
}

pub fn kubeconfig() -> &'static str {
    &machine().kubeconfig
}

/// A client with the rights of the cluster's administrator: it looks at what happens, the product never uses it.
pub async fn client() -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(&machine().kubeconfig).expect("the kubeconfig of rig/up");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.expect("the kubeconfig of rig/up")).expect("a client")
}

/// What a command has printed: standard output, or standard error when it failed.
pub type Printed = Result<String, String>;

/// Runs one of the clients with the kubeconfig of the rig.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Printed {
    let mut command = Command::new(machine().bin.join(program));
    command.args(arguments).env("KUBECONFIG", &machine().kubeconfig);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to run {program}: {error}"));
    // A program that does not read its input to the end tells why in its output.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("a child of ours");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs kubectl; panics with what it says when it fails.
pub fn kubectl(arguments: &[&str]) -> String {
    kubectl_with(arguments, "")
}

pub fn kubectl_with(arguments: &[&str], input: &str) -> String {
    run("kubectl", arguments, input).unwrap_or_else(|error| panic!("kubectl {} failed: {error}", arguments.join(" ")))
}
