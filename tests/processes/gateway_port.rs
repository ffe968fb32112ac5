//! The gateway's port, which everybody reaches who reaches the pod: strangers cost a gateway neither its life, nor its
//! memory, nor its answers to others. A gateway alone; no API server answers it. What a stranger cannot do to a leader:
//! `tests/processes/failover.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::cluster::{NAME, NAMESPACE};
use crate::support::flood::flood;
use crate::support::gateway::{self, Build, Pod, Settings, Timings};
use crate::support::host::{Directory, address, port};
use crate::support::process::Process;
use crate::support::{eventually, seconds};
use flinkha::api::names;
use kube::config::Kubeconfig;
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

struct Gateway {
    process: Process,
    address: Ipv4Addr,
    directory: Directory,
}

impl Gateway {
    async fn start(name: &str) -> Self {
        // An error means that it is installed already; no TLS is spoken here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (directory, address) = (Directory::new(name), address());
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "none", "cluster": { "server": "http://127.0.0.1:1" } }],
            "users": [{ "name": "nobody", "user": {} }],
            "contexts": [{ "name": "none", "context": { "cluster": "none", "user": "nobody" } }],
            "current-context": "none",
        }))
        .expect("a kubeconfig");
        let storage = format!("file://{}", directory.sub("storage").display());
        let settings = Settings {
            build: &Build::Tested,
            timings: &Timings::DEFAULT,
            storage: &storage,
            configuration: &Default::default(),
            quorum: None,
        };
        let pod = Pod { name: "one", uid: "uid-one", address, directory: directory.sub("one"), flags: Vec::new() };
        let gateway =
            Self { process: gateway::start((NAMESPACE, NAME), &pod, &settings, &kubeconfig), address, directory };
        eventually("a gateway that answers", seconds(20), async || gateway.get("/livez", seconds(1)).await).await;
        gateway
    }

    fn port(&self) -> SocketAddr {
        (self.address, names::PROBE_PORT).into()
    }

    /// Status and text; `None` without an answer in time.
    async fn get(&self, path: &str, patience: Duration) -> Option<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().timeout(patience).build().expect("a client");
        let answer = client.get(format!("http://{}{path}", self.port())).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    fn hook(&self) -> std::process::Output {
        let mut hook = std::process::Command::new(env!("CARGO_BIN_EXE_flinkha"));
        hook.args(["hand-over", "--socket"]).arg(gateway::hand_over_socket(&self.directory.path().join("one")));
        hook.output().expect("failed to run the preStop hook")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_serves_probes_metrics_and_peers_and_hands_over_nothing() {
    let gateway = Gateway::start("gateway-port").await;
    for path in ["/pre-stop", "/", "/hand-over"] {
        let answer = gateway.get(path, seconds(1)).await.map(|answer| answer.0);
        assert_eq!(answer, Some(404), "{path}");
    }
    let unready = gateway.get("/readyz", seconds(1)).await.unwrap();
    assert_eq!(unready, (503, "the JobManager has not asked for the lock yet".to_owned()));
    assert_eq!(gateway.get("/peer", seconds(1)).await.unwrap().0, 405, "it is asked by POST, and with a code");
    let hook = gateway.hook();
    assert!(hook.status.success(), "{hook:?}");
    let terminates =
        async || gateway.get("/readyz", seconds(1)).await.filter(|answer| answer.1 == "the pod is terminating");
    eventually("a gateway that stands back", seconds(5), terminates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_free_file_descriptor_goes_on_when_there_is_one() {
    let mut gateway = Gateway::start("gateway-files").await;
    let pid = gateway.process.pid();
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count() as u64;
    let before =
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(open + 4), maximum: Some(20_000) }).unwrap();
    let jvm_port = SocketAddr::from((gateway.address, port(gateway.address)));
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(TcpStream::connect(jvm_port).await.unwrap());
        held.push(TcpStream::connect(gateway.port()).await.unwrap());
    }
    let failed = async || gateway.process.log().contains("failed to accept a connection").then_some(());
    tokio::time::timeout(seconds(5), eventually("accepting to fail", seconds(60), failed)).await.ok();
    assert!(gateway.process.is_running(), "the gateway has ended: {}", gateway.process.log());
    drop(held);
    eventually("an answer afterwards", seconds(10), async || gateway.get("/livez", seconds(1)).await).await;
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    assert!(gateway.process.log().contains("failed to accept a connection; trying again"), "{}", gateway.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_costs_neither_memory_nor_the_answers_to_others() {
    let gateway = Gateway::start("gateway-flood").await;
    let before = gateway.process.memory("VmRSS");
    let stranger = address();
    let flood = tokio::spawn(flood(stranger, gateway.port(), seconds(8)));
    let (begin, mut slowest, mut asked) = (Instant::now(), Duration::ZERO, 0);
    while begin.elapsed() < seconds(8) {
        let asking = Instant::now();
        // A kubelet waits for a second, on a machine that does not open all these connections itself.
        let answer = gateway.get("/livez", seconds(10)).await;
        assert_eq!(answer.map(|answer| answer.0), Some(200), "after {:?} of the flood", begin.elapsed());
        (slowest, asked) = (slowest.max(asking.elapsed()), asked + 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let flooded = flood.await.unwrap();
    let most = gateway.process.memory("VmHWM");
    crate::support::say(format!(
        "{flooded:?}; {asked} probes, the slowest took {slowest:?}; {before} kB resident before, at most {most} kB"
    ));
    assert!(flooded.connections >= 2_000, "{flooded:?}");
    assert!(most < before + (48 << 10), "{before} kB before the flood, {most} kB at most");
    // From the stranger's own address, too, once it has gone.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from(stranger), 0).into()).unwrap();
    drop(socket.connect(gateway.port()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_follows_its_log_filter() {
    let gateway = Gateway::start("gateway-log").await;
    let file = gateway.directory.path().join("one").join(names::GATEWAY_LOG_FILE);
    let says = async |words: &str| {
        eventually(words, seconds(30), async || gateway.process.log().contains(words).then_some(())).await
    };
    // As the kubelet writes a key of the ConfigMap.
    std::fs::write(&file, "warn,flinkha=trace").unwrap();
    says("the log filter has changed filter=\"warn,flinkha=trace\"").await;
    says("TRACE").await;
    std::fs::write(&file, "flinkha=much").unwrap();
    says("this log filter is not understood, so the filter stays filter=\"flinkha=much\"").await;
    std::fs::remove_file(&file).unwrap();
    says("the log filter has changed filter=\"info,flinkha=debug\"").await;
}
