//! User code that writes to the volume of the HA data: links that lead the gateway's program out of the directory.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Got, Target};
use crate::support::https;

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A volume with the directory of the cluster, and something beside it that is not the cluster's.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(volume.at("ha/flink.demo")).unwrap();
        volume
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), text).unwrap();
    }

    /// Runs the program as a container of the operator's does; whether it succeeds, and what it says.
    async fn run(&self, program: &Path, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("timeout");
        command.arg("60").arg(program).args(arguments).args(["--ha-cluster-id", "flink.demo"]);
        command.args(["--storage-dir", &format!("file://{}", self.at("ha").display())]);
        command.env("RUST_LOG", "warn").env_remove("RUST_BACKTRACE").env("SSL_CERT_FILE", self.at("ca.pem"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().replace('\n', " ");
        (output.status.success(), said)
    }
}

/// The Job that removes a deleted cluster's files has the JobManagers' volumes, which a TaskManager need not have.
pub async fn leads_the_purge_out_of_the_directory(target: Target) -> Got {
    let volume = Volume::new();
    let file = format!("other/job_{ID}/blob_p-1");
    volume.write(&file, "theirs");
    symlink(volume.at("other"), volume.at("ha/flink.demo/blob")).unwrap();
    let (done, said) = volume.run(&target.version.program, &["purge", "--owner", "us"]).await;
    assert!(done, "the purge failed: {said}");
    let stays = volume.at(&file).exists();
    Got::of(!stays, if stays { "the other file stays" } else { "the other file is gone" }).with(&said)
}

/// A mount of the container's own at a place where only a sidecar has files.
const MOUNT: &str =
    r#"mount -t tmpfs tmpfs /run && mkdir /run/secrets && printf planted-token > /run/secrets/token && exec "$@""#;

/// The jar is copied to the volume, from where user code in every pod reads it.
pub async fn leads_the_fetch_to_the_sidecars_secrets(target: Target) -> Got {
    let volume = Volume::new();
    symlink("/run/secrets/token", volume.at("app.jar")).unwrap();
    let uri = format!("file://{}", volume.at("app.jar").display());
    let to = volume.at("local.jar").display().to_string();
    let program = target.version.program.display().to_string();
    let mounted = ["--mount", "--propagation", "private", "--", "sh", "-c", MOUNT, "sh", &program];
    let fetch = ["fetch", "--uri", &uri, "--key", "k.jar", "--to", &to];
    let (_, said) = volume.run(Path::new("unshare"), &[&mounted[..], &fetch].concat()).await;
    let copied = std::fs::read_to_string(volume.at("ha/flink.demo/.flinkha-artifacts/k.jar")).unwrap_or_default();
    if copied.contains("planted") { Got::through("a copy on the volume") } else { Got::nothing(&said) }
}

/// The kept copy of the jar becomes a link.
pub async fn leads_the_kept_jar_to_the_sidecars_secrets(target: Target) -> Got {
    let volume = Volume::new();
    volume.write("secret", "planted-secret");
    volume.write("app.jar", "jar");
    std::fs::create_dir_all(volume.at("ha/flink.demo/.flinkha-artifacts")).unwrap();
    symlink(volume.at("secret"), volume.at("ha/flink.demo/.flinkha-artifacts/k.jar")).unwrap();
    let uri = format!("file://{}", volume.at("app.jar").display());
    let to = volume.at("local.jar").display().to_string();
    let (_, said) = volume.run(&target.version.program, &["fetch", "--uri", &uri, "--key", "k.jar", "--to", &to]).await;
    let fetched = std::fs::read_to_string(volume.at("local.jar")).unwrap_or_default();
    if fetched.contains("planted") { Got::through("the secret as the jar") } else { Got::nothing(&said) }
}

/// A named pipe in place of a result would be waited for forever.
pub async fn stops_the_purge_with_a_pipe(target: Target) -> Got {
    let volume = Volume::new();
    let name = volume.at(&format!("ha/job-result-store/flink.demo/{ID}.json"));
    std::fs::create_dir_all(name.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&name).status().unwrap().success());
    let begin = std::time::Instant::now();
    let (_, said) = volume.run(&target.version.program, &["purge", "--owner", "us"]).await;
    let seconds = begin.elapsed().as_secs();
    Got::of(seconds >= 60, &format!("ended after {seconds} s")).with(&said)
}

/// A web server of the user's choice sends on to another one, such as that by which a cloud gives credentials to its
/// machines, which speaks no TLS.
pub async fn leads_the_fetch_to_another_server(target: Target) -> Got {
    let volume = Volume::new();
    let secret = serve_in_clear("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nplanted").await;
    let sent_on = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{secret}/app.jar\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (port, _server) = https::serve(&volume.at("ca.pem"), move |_| sent_on.clone()).await;
    let to = volume.at("local.jar").display().to_string();
    let uri = format!("https://localhost:{port}/app.jar");
    let (_, said) = volume.run(&target.version.program, &["fetch", "--uri", &uri, "--key", "k.jar", "--to", &to]).await;
    let fetched = std::fs::read_to_string(volume.at("local.jar")).unwrap_or_default();
    assert!(!said.contains("UnknownIssuer"), "{said}");
    if fetched == "planted" { Got::through("followed") } else { Got::nothing(&said) }
}

/// Answers every request with the same bytes, as long as the test runs.
async fn serve_in_clear(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}
