//! What `kubectl flinkha` costs beside many clusters: the requests, the time and the memory of `status -A`, and how
//! long the program takes to start.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::host::Directory;
use crate::support::identity::{create_all, token};
use crate::support::operator::{Installation, NAMESPACE, PROGRAM};
use crate::support::report::percentile;
use crate::support::{eventually, say, seconds};
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// However many clusters there are.
const MOST_REQUESTS: usize = 5;
const LONGEST_START: Duration = Duration::from_millis(50);
const STARTS: usize = 25;

/// Who runs it: no other request is theirs.
const READER: &str = "reader";

/// The program, as kubectl finds it.
struct Plugin {
    program: PathBuf,
    kubeconfig: PathBuf,
    directory: Directory,
}

impl Plugin {
    /// Of a user with the rights that `status -A` needs.
    async fn new(installation: &Installation, program: &Path) -> Self {
        let rules = json!([
            { "apiGroups": ["flinkha.dev"], "resources": ["flinkhaclusters"], "verbs": ["list"] },
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"] },
        ]);
        let (group, kind) = ("rbac.authorization.k8s.io", |kind: &str| json!({ "kind": kind, "name": READER }));
        let mut subject = kind("ServiceAccount");
        subject["namespace"] = NAMESPACE.into();
        let mut role = kind("ClusterRole");
        role["apiGroup"] = group.into();
        let (version, metadata) = (format!("{group}/v1"), json!({ "name": READER }));
        for object in [
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": READER, "namespace": NAMESPACE } }),
            json!({ "apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules }),
            json!({
                "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": role,
                "subjects": [subject],
            }),
        ] {
            create_all(&installation.admin, &object.to_string()).await;
        }
        let token = token(&installation.admin, NAMESPACE, READER, None).await;
        let directory = Directory::new("plugin");
        let kubeconfig = serde_yaml::to_string(&installation.plane.servers[0].kubeconfig(&token));
        let kubeconfig = directory.write("kubeconfig", kubeconfig.expect("a kubeconfig in YAML"));
        let link = directory.path().join("kubectl-flinkha");
        symlink(std::path::absolute(program).expect("a path"), &link).expect("a link to the program");
        Self { program: link, kubeconfig, directory }
    }

    /// Returns what it prints, how long it takes, and the most memory that it was seen to have, in KiB.
    fn run(&self, words: &[&str]) -> (String, Duration, u64) {
        let printed = self.directory.path().join("printed");
        let mut command = Command::new(&self.program);
        command.args(words).env_clear().env("HOME", self.directory.path()).env("KUBECONFIG", &self.kubeconfig);
        command.stdout(File::create(&printed).expect("a file"));
        let (begin, mut most) = (Instant::now(), 0);
        let mut process = command.spawn().expect("the plugin starts");
        let status = loop {
            if let Some(status) = process.try_wait().expect("a child of ours") {
                break status;
            }
            most = most.max(peak(process.id()));
            std::thread::sleep(Duration::from_micros(500));
        };
        let took = begin.elapsed();
        assert!(status.success(), "{words:?}: {status}");
        (std::fs::read_to_string(&printed).expect("text"), took, most)
    }
}

/// The most resident memory of a process so far, in KiB; 0 when it has ended.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// Runs it beside so many clusters. Times are of `program`, and are judged only if it is not the one of the test build.
pub async fn measure(installation: &Installation, program: &Path, clusters: usize) -> Value {
    let plugin = Plugin::new(installation, program).await;
    let mut log = installation.plane.servers[0].audit().follow();
    let (text, took, most) = block_in_place(|| plugin.run(&["status", "-A"]));
    assert!(text.contains(&format!("{clusters} clusters:")), "{}", text.lines().last().unwrap_or_default());
    let user = format!("system:serviceaccount:{NAMESPACE}:{READER}");
    let mut requests = 0;
    // What is answered is in the log soon.
    eventually("the plugin's requests", seconds(10), async || {
        tokio::time::sleep(seconds(1)).await;
        let more = log.more().iter().filter(|one| one.user == user).count();
        requests += more;
        (requests > 0 && more == 0).then_some(())
    })
    .await;
    let starts: Vec<Duration> = (0..STARTS).map(|_| block_in_place(|| plugin.run(&["--help"]).1)).collect();
    let start = percentile(&starts, 50).expect("starts");
    say(format!(
        "status -A of {clusters} clusters: {requests} requests, {:.2} s, {} MiB; the plugin starts and ends in {:.1} ms",
        took.as_secs_f64(),
        most / 1024,
        start.as_secs_f64() * 1000.0
    ));
    assert!(requests <= MOST_REQUESTS, "{requests} requests");
    assert!(start <= LONGEST_START || program == Path::new(PROGRAM), "the plugin needs {start:?} to start");
    json!({
        "status_all_requests": requests,
        "status_all_s": (took.as_secs_f64() * 100.0).round() / 100.0,
        "status_all_mib": most / 1024,
        "plugin_start_ms": (start.as_secs_f64() * 10_000.0).round() / 10.0,
    })
}
