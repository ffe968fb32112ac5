//! The nodes, which are containers of the container engine: their files, and the processes of their pods.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::machine::kubectl;

/// A node; files of shared volumes are the same on all.
pub fn any() -> String {
    kubectl(&["get", "nodes", "--output", "jsonpath={.items[0].metadata.name}"])
}

/// The node where the API server runs.
pub fn control_plane() -> String {
    kubectl(&[
        "get",
        "nodes",
        "--selector",
        "node-role.kubernetes.io/control-plane",
        "--output",
        "jsonpath={.items[0].metadata.name}",
    ])
}

/// Runs a command as root on a node; panics with what it says when it fails.
pub fn run(node: &str, command: &[&str]) -> String {
    docker(&[["exec", node].as_slice(), command].concat())
}

pub fn copy(node: &str, from: &str, to: &Path) {
    docker(&["cp", &format!("{node}:{from}"), &to.display().to_string()]);
}

pub fn put(node: &str, from: &Path, to: &str) {
    docker(&["cp", &from.display().to_string(), &format!("{node}:{to}")]);
}

fn docker(arguments: &[&str]) -> String {
    let output = std::process::Command::new("docker").args(arguments).output().expect("failed to run docker");
    assert!(
        output.status.success(),
        "docker {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The node's machine is gone, with everything on it, until [`start`].
pub fn lose(node: &str) -> Instant {
    let begin = Instant::now();
    docker(&["kill", node]);
    begin
}

/// Returns when the node is Ready.
pub fn start(node: &str) {
    docker(&["start", node]);
    wait_until_ready(node);
}

/// Everything on the node stands still.
pub fn pause(node: &str) -> Instant {
    let begin = Instant::now();
    docker(&["pause", node]);
    begin
}

pub fn unpause(node: &str) {
    docker(&["unpause", node]);
    wait_until_ready(node);
}

/// The processors of this machine that everything on the node may use, such as `0-1`.
pub fn set_processors(node: &str, processors: &str) {
    // With cgroup v1 no group loses a processor that a group in it has, nor gets one that the group around it has not.
    let inner = |order: &str| run(node, &["bash", "-c", SET_INNER, "set", processors, order]);
    inner("-depth");
    docker(&["update", "--cpuset-cpus", processors, node]);
    inner("");
}

const SET_INNER: &str = r#"
[ ! -d /sys/fs/cgroup/cpuset ] || find /sys/fs/cgroup/cpuset -mindepth 1 $2 -type d | while read -r group; do
  echo "$1" 2>/dev/null >"$group/cpuset.cpus" || true
done
"#;

fn wait_until_ready(node: &str) {
    kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &format!("node/{node}")]);
}

pub fn of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).expect("a pod that runs is on a node")
}

/// A signal from the node, aimed and not yet sent, so that finding the process does not count as time of a failover.
/// From inside a container its first process cannot be killed.
pub struct Shot {
    shell: Child,
    output: BufReader<ChildStdout>,
}

const AIM: &str = r#"
for process in /proc/[0-9]*; do
  if [ "$(cat "$process/comm" 2>/dev/null)" = "$2" ] && grep -q "$1" "$process/cgroup" 2>/dev/null; then
    echo "${process#/proc/}"
    read -r _ && now=$EPOCHREALTIME && kill "-$3" "${process#/proc/}" && echo "$now"
    exit
  fi
done
"#;

impl Shot {
    /// Aims a signal (KILL, STOP) at the process of this name in a container of the pod.
    pub async fn aim(pod: &Pod, container: &str, program: &str, signal: &str) -> Self {
        let node = of(pod);
        let id = container_id(pod, container)
            .unwrap_or_else(|| panic!("no running container {container} in {}", pod.name_any()));
        let mut shell = Command::new("docker")
            .args(["exec", "--interactive", &node, "bash", "-c", AIM, "aim", &id, program, signal])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("failed to run docker");
        let output = BufReader::new(shell.stdout.take().expect("a pipe"));
        let mut shot = Self { shell, output };
        let process = shot.line().await;
        assert!(!process.is_empty(), "no process {program} in container {container} of {}", pod.name_any());
        shot
    }

    /// Sends it, and tells when: by the clock of the node, which is this machine's. The way to the node is no time of a
    /// failover.
    pub async fn send(mut self) -> Instant {
        self.shell
            .stdin
            .take()
            .expect("a pipe")
            .write_all(b"now\n")
            .await
            .expect("failed to tell the shell on the node");
        let sent: f64 = self.line().await.parse().expect("the process was gone before it could be killed");
        let since =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs_f64() - sent;
        Instant::now() - Duration::from_secs_f64(since.max(0.0))
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).await.expect("failed to read from the shell on the node");
        line.trim().to_owned()
    }
}

/// Without the name of the container runtime.
fn container_id(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let statuses = [&status.container_statuses, &status.init_container_statuses].into_iter().flatten().flatten();
    let id = statuses.into_iter().find(|status| status.name == container)?.container_id.as_ref()?;
    Some(id.rsplit('/').next().unwrap_or(id).to_owned())
}
