//! A way from this machine to a port of a pod, by the container engine and the pod's node, so it is there in an outage
//! of the API server too.

use std::process::Stdio;

use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::{JoinHandle, JoinSet};

/// Copies what comes both ways; the end of either ends it.
const CONNECT: &str = r#"exec 3<>"/dev/tcp/$1/$2"; { cat; kill $$; } <&0 >&3 2>/dev/null & exec cat <&3"#;

/// An address of a pod, seen from its node.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PodPort {
    pub node: String,
    pub address: String,
    pub port: i32,
}

/// A port of this machine that leads there, until it is dropped.
pub struct Relay {
    pub address: String,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub async fn start(to: PodPort) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(pass(connection, to.clone()));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut connection: TcpStream, PodPort { node, address, port }: PodPort) {
    let mut there = Command::new("docker")
        .args(["exec", "--interactive", &node, "bash", "-c", CONNECT, "relay", &address, &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("failed to run docker");
    let (mut input, mut output) = (there.stdin.take().expect("a pipe"), there.stdout.take().expect("a pipe"));
    let (mut received, mut sent) = connection.split();
    tokio::select! {
        _ = copy(&mut received, &mut input) => {}
        _ = copy(&mut output, &mut sent) => {}
    }
}
