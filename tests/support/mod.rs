//! What the integration tests stand on: a real etcd, real kube-apiservers, real Flink JVMs and our gateway, all as
//! processes on loopback.
//!
//! Nothing here imitates anything: every byte that a test judges was written by the program that will write it in
//! production.
#![allow(dead_code)] // each test program uses a part

pub mod application;
pub mod audit;
pub mod by_hand;
pub mod classes;
pub mod cluster;
pub mod control_plane;
pub mod everything;
pub mod failover;
pub mod flink;
pub mod flood;
pub mod gateway;
pub mod host;
pub mod https;
pub mod identity;
pub mod jobs;
pub mod ledger;
pub mod left;
pub mod machine;
pub mod members;
pub mod network;
pub mod operator;
pub mod planes;
pub mod pods;
pub mod process;
pub mod provider;
pub mod report;
pub mod rest;
pub mod s3;
pub mod terms;
pub mod tls;
pub mod zookeeper;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks of [`measured`], and of [`eventually`] at first.
const SHORT_INTERVAL: Duration = Duration::from_millis(20);
/// What has not come after so long is looked for at [`LONG_INTERVAL`]: the answers cost the processors that the JVMs
/// want to start on.
const SHORT_INTERVALS_FOR: Duration = Duration::from_millis(500);
const LONG_INTERVAL: Duration = Duration::from_millis(100);

/// Polls until the probe gives a value; panics with the sentence when it takes longer than `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, probe: impl AsyncFnMut() -> Option<T>) -> T {
    poll(what, limit, LONG_INTERVAL, probe).await
}

/// The same at short intervals all the time: for a wait whose length is a result.
pub async fn measured<T>(what: &str, limit: Duration, probe: impl AsyncFnMut() -> Option<T>) -> T {
    poll(what, limit, SHORT_INTERVAL, probe).await
}

async fn poll<T>(what: &str, limit: Duration, later: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        let elapsed = begin.elapsed();
        assert!(elapsed < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(if elapsed < SHORT_INTERVALS_FOR { SHORT_INTERVAL } else { later }).await;
    }
}

/// What the API server answers; it may be away for a moment on a machine that is busy.
pub async fn answered<T>(what: &str, mut ask: impl AsyncFnMut() -> kube::Result<T>) -> T {
    let begin = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begin.elapsed() < seconds(30), "failed to read {what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs a script of the repository and returns what it prints; its progress goes to our standard error.
pub fn script(path: &str, arguments: &[&str]) -> String {
    attempt(path, arguments).unwrap_or_else(|printed| panic!("{path} {arguments:?} failed: {printed}"))
}

/// The same; what it printed is the error when it fails.
fn attempt(path: &str, arguments: &[&str]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut command = Command::new(&script);
    // What cargo tells this test about its package would make a cargo that the script calls build the dependencies
    // anew.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    let output = command.args(arguments).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("failed to run {}: {error}", script.display()));
    let printed = String::from_utf8(output.stdout).expect("a script prints text").trim().to_owned();
    if output.status.success() { Ok(printed) } else { Err(printed) }
}

/// Proves that a job's output is exactly-once, as `lines` or "any". `find` tells where it is, or makes a copy of it,
/// each time anew: each subtask of a running job commits by itself, and who looks in between sees a gap that is none. A
/// real one stays.
pub fn verify<T>(lines: &str, find: impl Fn() -> (T, PathBuf)) {
    let begin = Instant::now();
    loop {
        let (_keep, output) = find();
        match attempt("jobs/verify", &[&output.display().to_string(), lines]) {
            Ok(printed) => return say(printed),
            Err(printed) => assert!(begin.elapsed() < seconds(20), "jobs/verify {}: {printed}", output.display()),
        }
        std::thread::sleep(seconds(1));
    }
}

/// A line of progress, with the name of the test whose thread this is: tests run beside each other, with `--nocapture`.
pub fn say(text: impl std::fmt::Display) {
    let thread = std::thread::current();
    match thread.name().filter(|name| name.contains("::")) {
        Some(test) => eprintln!("    {test}: {text}"),
        None => eprintln!("    {text}"),
    }
}
