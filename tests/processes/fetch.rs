//! The jar of an application from a web server, by HTTPS under an authority of the user's own: fetched once, and only
//! what was meant.

use std::path::Path;
use std::process::{Command, Output};
use tokio::task::JoinHandle;

use crate::support::https;

const JAR: &str = "the bytes of a jar";

/// Serves `/app.jar` and nothing else; writes its authority's certificate.
async fn serve(authority: &Path) -> (u16, JoinHandle<()>) {
    let answer = |request: &str| {
        let found = request.starts_with("GET /app.jar ");
        let (status, body) = if found { ("200 OK", JAR) } else { ("404 Not Found", "<html>nothing here</html>") };
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    };
    https::serve(authority, answer).await
}

struct Fetch<'a> {
    directory: &'a Path,
    authority: Option<&'a Path>,
}

impl Fetch<'_> {
    /// Runs the program as the init container does.
    async fn run(&self, uri: &str, key: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flinkha"));
        let storage = format!("file://{}/ha", self.directory.display());
        let to = self.directory.join("app.jar");
        command
            .args([
                "fetch",
                "--uri",
                uri,
                "--key",
                key,
                "--storage-dir",
                &storage,
                "--ha-cluster-id",
                "ns.demo",
                "--to",
            ])
            .arg(to);
        command.args(more).env("RUST_LOG", "off").env_remove("RUST_BACKTRACE").env_remove("SSL_CERT_FILE");
        if let Some(authority) = self.authority {
            command.env("SSL_CERT_FILE", authority);
        }
        tokio::task::spawn_blocking(move || command.output().expect("flinkha")).await.unwrap()
    }

    fn fetched(&self) -> String {
        std::fs::read_to_string(self.directory.join("app.jar")).unwrap()
    }
}

fn said(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jar_comes_from_a_web_server_once_and_only_if_it_is_the_right_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("ha")).unwrap();
    let authority = directory.path().join("ca.pem");
    let (port, server) = serve(&authority).await;
    let uri = |name: &str| format!("https://localhost:{port}/{name}");
    let stranger = Fetch { directory: directory.path(), authority: None };
    assert!(said(&stranger.run(&uri("app.jar"), "one", &[]).await).contains("UnknownIssuer"));
    let fetch = Fetch { authority: Some(&authority), ..stranger };
    let missing = said(&fetch.run(&uri("none.jar"), "one", &[]).await);
    assert_eq!(missing.trim(), format!("Error: failed to fetch {}: there is no such file", uri("none.jar")));
    let wrong = said(&fetch.run(&uri("app.jar"), "one", &["--sha256", &"0".repeat(64)]).await);
    assert!(wrong.contains("and not 0000") && wrong.contains("spec.job.sha256"), "{wrong}");
    assert!(fetch.run(&uri("app.jar"), "one", &[]).await.status.success());
    assert_eq!(fetch.fetched(), JAR);
    // Whatever becomes of the server.
    server.abort();
    std::fs::remove_file(directory.path().join("app.jar")).unwrap();
    assert!(fetch.run(&uri("app.jar"), "one", &[]).await.status.success());
    assert_eq!(fetch.fetched(), JAR);
}
