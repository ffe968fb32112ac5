//! Somebody on the network, who reaches the gateway's port: what it gets there without the cluster's key.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flinkha::api::names;
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pod::{KEY, Pod};
use super::{Got, Target};
use crate::support::flood::flood;
use crate::support::host::address;
use crate::support::seconds;

/// A question for a promise not to take the Lease.
fn question(term: u64, asked: u64) -> Value {
    let term = format!("{term}.uid-b.process.1-1");
    json!({ "promise": { "cluster": "flink/demo", "to": "uid-a", "term": term, "millis": 4000, "asked": asked } })
}

/// Sends a question with the code by this key; the status.
async fn ask(pod: &Pod, key: &str, question: &Value) -> u16 {
    let body = question.to_string();
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), body.as_bytes());
    let code: String = code.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let client = reqwest::Client::builder().no_proxy().timeout(seconds(5)).build().unwrap();
    let url = format!("http://{}:{}/peer", pod.address, names::PROBE_PORT);
    let sent = client.post(url).header("flinkha-mac", code).body(body).send().await;
    sent.map_or(0, |answer| answer.status().as_u16())
}

pub async fn hands_over_through_the_port(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    let code = pod.get("/pre-stop").await.map_or(0, |answer| answer.0);
    Got::of(code == 200, &format!("HTTP {code}"))
}

pub async fn forges_a_promise(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    let forged = ask(&pod, "a guess", &question(7, 1)).await;
    // What is refused above is what the key alone makes true.
    assert_eq!(ask(&pod, KEY, &question(7, 1)).await, 200, "the same question with the key");
    Got::of(forged == 200, &format!("HTTP {forged}"))
}

/// Sends again what it has seen between two gateways. As long as that counts, nobody takes the Lease of a dead leader.
pub async fn replays_promises(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    let recorded = [question(7, 10), question(8, 20)];
    for question in &recorded {
        assert_eq!(ask(&pod, KEY, question).await, 200);
    }
    let mut taken = 0;
    for _ in 0..5 {
        ask(&pod, KEY, &recorded[0]).await;
        taken += u32::from(ask(&pod, KEY, &recorded[1]).await == 200);
    }
    Got::of(taken > 0, &format!("{taken} of 5 replays counted"))
}

/// Too many connections, headers that never end, bodies that never come or are too long.
pub async fn floods_the_port(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    let before = pod.sidecar.memory("VmHWM");
    let port = SocketAddr::from((pod.address, names::PROBE_PORT));
    let flood = tokio::spawn(flood(address(), port, seconds(5)));
    let (begin, mut slowest) = (Instant::now(), Duration::ZERO);
    while begin.elapsed() < seconds(5) {
        let asking = Instant::now();
        if pod.get("/livez").await.is_none() {
            slowest = slowest.max(seconds(5));
        }
        slowest = slowest.max(asking.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let flooded = flood.await.unwrap();
    let grown = pod.sidecar.memory("VmHWM").saturating_sub(before) >> 10;
    let what =
        format!("{} connections: +{grown} MiB, slowest probe {:.1} s", flooded.connections, slowest.as_secs_f32());
    // A kubelet restarts a container after three probes that take longer than 5 s; its memory ends at 128 MiB.
    Got::of(slowest >= seconds(5) || grown > 64, &what)
}

/// Requests that a server may understand in another way than whoever forwards them: two lengths, a length and chunks, a
/// header of a megabyte.
pub async fn sends_requests_with_two_meanings(target: Target) -> Got {
    let pod = Pod::job_manager(&target.version).await;
    let long = "x".repeat(1 << 20);
    let requests = [
        "POST /peer HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd".to_owned(),
        "POST /peer HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
    ];
    let mut answers = Vec::new();
    for request in requests {
        let mut stream = TcpStream::connect((pod.address, names::PROBE_PORT)).await.unwrap();
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = vec![0; 12];
        let read = tokio::time::timeout(seconds(10), stream.read(&mut answer)).await;
        let read = read.ok().and_then(Result::ok).unwrap_or_default();
        answers.push(String::from_utf8_lossy(&answer[..read]).replace("HTTP/1.1 ", ""));
    }
    let lives = pod.get("/livez").await.is_some();
    Got::of(!lives || answers.iter().any(|answer| answer == "200"), &answers.join(", "))
}
