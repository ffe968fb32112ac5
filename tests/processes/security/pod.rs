//! A pod as the kernel sees it: processes of one user in one process namespace, each container with mounts of its own.
//! The gateway's container is made as the operator's image and the kubelet make it: its program has the mode that
//! `rig/image` gives it, and what only it mounts is nowhere else. User code is a process of the same user beside it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output};

use flinkha::api::names;
use tempfile::TempDir;

use super::Version;
use crate::support::host::{address, port};
use crate::support::process::{Process, Program};
use crate::support::{eventually, seconds};

/// The user of Flink's images.
const USER: &str = "9999";

/// What only a sidecar has. Whoever attacks and prints one of them has got through.
pub const KEY: &str = "planted-key-of-the-peers";
pub const TOKEN: &str = "planted-token-of-the-account";
pub const PASSWORD: &str = "planted-password-of-the-quorum";
pub const STORAGE_SECRET: &str = "planted-secret-of-the-storage";

/// Becomes the user that a container runs as, for user code.
const AS_USER: [&str; 10] = [
    "setpriv",
    "--reuid",
    USER,
    "--regid",
    USER,
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--",
];

/// The same for a sidecar, as a container runtime does: without any capability in the moment in which the program
/// begins, for then the kernel decides who may look at it. (`setpriv` still has some.) It is killed with the test.
const BECOME_USER: &str = r#"
use POSIX;
$) = "9999 9999";
POSIX::setgid(9999);
POSIX::setuid(9999);
die "still root\n" if $< == 0 || $> == 0;
my $prctl = {x86_64 => 157, aarch64 => 167}->{(POSIX::uname())[4]} or die "unknown machine\n";
syscall($prctl, 1, 9, 0, 0, 0) == 0 or die "prctl: $!\n";
exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!\n"
"#;

/// Mounts what only this container has, as a kubelet does: Secrets of root's that its group may read, and a directory.
const MOUNTS: &str = r#"
set -e
mounted=$1 secrets=$2
shift 2
mount -t tmpfs -o mode=0755 tmpfs "$mounted"
mkdir "$mounted/run"
cp "$secrets"/* "$mounted"
chown root:9999 "$mounted"/*
chmod 0440 "$mounted/key" "$mounted/kubeconfig"
chmod 0770 "$mounted/run"
exec "$@""#;

pub struct Pod {
    pub sidecar: Process,
    pub address: Ipv4Addr,
    directory: TempDir,
}

impl Pod {
    /// The gateway of a JobManager. No API server answers it.
    pub async fn job_manager(version: &Version) -> Self {
        let (directory, address) = (Self::directory(version), address());
        let mounted = |name: &str| directory.path().join("mounted").join(name).display().to_string();
        let probe = format!("{address}:{}", names::PROBE_PORT);
        let mut flags = vec![
            ("--cluster", "demo".to_owned()),
            ("--namespace", "flink".to_owned()),
            ("--cluster-id", "demo".to_owned()),
            ("--ha-cluster-id", "flink.demo".to_owned()),
            ("--pod-name", "demo-jobmanager-a".to_owned()),
            ("--pod-uid", "uid-a".to_owned()),
            ("--pod-ip", address.to_string()),
            ("--storage-dir", format!("file://{}", directory.path().join("storage").display())),
            ("--jvm-address", format!("{address}:{}", port(address))),
            ("--probe-address", probe.clone()),
            ("--peer-address", probe),
            ("--peer-key", mounted("key")),
        ];
        if !version.former {
            flags.push(("--hand-over-socket", mounted("run/gateway.sock")));
        }
        let arguments = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let environment = vec![
            ("KUBECONFIG".to_owned(), mounted("kubeconfig")),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), STORAGE_SECRET.to_owned()),
        ];
        let sidecar = start(&directory, "gateway", arguments.collect(), environment);
        let pod = Self { sidecar, address, directory };
        eventually("a gateway that answers", seconds(20), async || pod.get("/livez").await).await;
        pod
    }

    /// The sidecar of a TaskManager, on the way to a quorum that wants a password.
    pub async fn task_manager(version: &Version) -> Self {
        let (directory, address) = (Self::directory(version), address());
        let arguments = ["--zookeeper-quorum", "127.0.0.1:1", "--jvm-address", &format!("{address}:6180")];
        let environment = vec![
            ("ZOOKEEPER_USERNAME".to_owned(), "flink".to_owned()),
            ("ZOOKEEPER_PASSWORD".to_owned(), PASSWORD.to_owned()),
        ];
        let sidecar = start(&directory, "pass-through", arguments.map(str::to_owned).into(), environment);
        let open = async || tokio::net::TcpStream::connect((address, 6180)).await.ok();
        eventually("a sidecar that listens", seconds(20), open).await;
        Self { sidecar, address, directory }
    }

    fn directory(version: &Version) -> TempDir {
        // Not below a home directory, which a user without rights does not reach.
        let directory = tempfile::Builder::new().prefix("flinkha-pod-").tempdir_in("/tmp").expect("a directory");
        let (path, mode) = (directory.path(), format!("{:o}", version.mode));
        for sub in ["mounted", "secrets", "storage"] {
            std::fs::create_dir(path.join(sub)).expect("a directory");
        }
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "none", "cluster": { "server": "http://127.0.0.1:1" } }],
            "users": [{ "name": "pod", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "none", "context": { "cluster": "none", "user": "pod" } }],
            "current-context": "none",
        });
        std::fs::write(path.join("secrets/key"), KEY).expect("a file");
        std::fs::write(path.join("secrets/kubeconfig"), kubeconfig.to_string()).expect("a file");
        std::fs::copy(&version.program, path.join("flinkha")).expect("a copy of the program");
        let path = |name: &str| path.join(name).display().to_string();
        for command in [
            vec!["chmod", "0755", &path("")],
            vec!["chmod", "0700", &path("secrets")],
            vec!["chown", "9999:9999", &path("storage")],
            vec!["chown", "root:root", &path("flinkha")],
            vec!["chmod", &mode, &path("flinkha")],
        ] {
            let done = Command::new(command[0]).args(&command[1..]).status().expect("coreutils");
            assert!(done.success(), "{command:?}: this test has to be root, to become another user");
        }
        directory
    }

    /// What only the sidecar mounts: where it is for the sidecar.
    pub fn mounted(&self, name: &str) -> PathBuf {
        self.directory.path().join("mounted").join(name)
    }

    /// A file that is there once [`Self::say_over`] has made it.
    pub fn over(&self) -> PathBuf {
        self.directory.path().join("over")
    }

    pub fn say_over(&self) {
        std::fs::write(self.over(), "").expect("a file");
    }

    pub fn pid(&self) -> String {
        self.sidecar.pid().as_raw_nonzero().to_string()
    }

    /// Runs a Perl program as user code in Flink's container does, for a minute at most; returns what it prints.
    pub async fn user_code(&self, script: &str, arguments: &[&str]) -> String {
        as_user(script, arguments).await
    }

    /// Runs the program in the sidecar's container, as the kubelet runs the preStop hook.
    pub fn run_hook(&self) -> Output {
        let program = self.directory.path().join("flinkha");
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.pid(), "--", "perl", "-e", BECOME_USER]).arg(program);
        command.args(["hand-over", "--socket"]).arg(self.mounted("run/gateway.sock")).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.output().expect("util-linux is needed")
    }

    /// Status and text of an answer of the gateway's port; `None` without one.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(seconds(5)).build().expect("a client");
        let answer = client.get(format!("http://{}:{}{path}", self.address, names::PROBE_PORT)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }
}

/// Runs a Perl program, which every image that is made from Debian's has, as the user of Flink's images.
pub async fn as_user(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").args(AS_USER).args(["perl", "-e", script]).args(arguments).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    let output =
        tokio::task::spawn_blocking(move || command.output().expect("perl is needed")).await.expect("a thread");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim().replace(['\n', '\0'], " ")
}

fn start(directory: &TempDir, role: &str, arguments: Vec<String>, environment: Vec<(String, String)>) -> Process {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let own =
        ["--mount", "--propagation", "private", "--", "sh", "-c", MOUNTS, "sh", &path("mounted"), &path("secrets")];
    let own = own.iter().chain(&["perl", "-e", BECOME_USER]).map(|word| (*word).to_owned());
    Process::start(Program {
        path: "unshare".into(),
        arguments: own.chain([path("flinkha"), role.to_owned()]).chain(arguments).map(Into::into).collect(),
        environment: environment.into_iter().chain([("RUST_LOG".to_owned(), "info".to_owned())]).collect(),
        log: directory.path().join("log"),
    })
}
