//! Where a gateway is cut: every request of it that writes passes here on its way to a real server, whichever server
//! that is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use flinkha::world::quorum::frames::{read_frame, with_length};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Where a write stands when its gateway dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It has not arrived.
    Before,
    /// It is carried out, and nobody has heard the answer.
    After,
}

/// Counts writes, and holds the one that is to be the last, with all that would follow.
pub struct Gate {
    last: Option<(usize, Cut)>,
    writes: Mutex<Vec<String>>,
    reached: watch::Sender<bool>,
    opened: watch::Sender<bool>,
    /// Writes that the server has answered.
    answered: watch::Sender<usize>,
}

impl Gate {
    /// `last`: the number of the last write, from 1 on. Without it nothing is held.
    pub fn new(last: Option<(usize, Cut)>) -> Arc<Self> {
        Arc::new(Self {
            last,
            writes: Mutex::default(),
            reached: watch::Sender::default(),
            opened: watch::Sender::default(),
            answered: watch::Sender::default(),
        })
    }

    /// Returns when the write that is to be the last has come so far.
    pub async fn reached(&self) {
        wait(&self.reached).await;
    }

    /// What is held goes on, and whatever comes after it.
    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    /// All writes so far, in their order.
    pub fn writes(&self) -> Vec<String> {
        self.writes.lock().unwrap().clone()
    }

    pub fn answered(&self) -> usize {
        *self.answered.borrow()
    }

    /// Returns when one more write was answered.
    pub async fn answered_since(&self, before: usize) {
        self.answered.subscribe().wait_for(|now| *now > before).await.unwrap();
    }

    /// Carries a write out when and as far as it is its turn.
    async fn pass<T>(&self, what: String, carry_out: impl Future<Output = T>) -> T {
        let number = {
            let mut writes = self.writes.lock().unwrap();
            writes.push(what);
            writes.len()
        };
        let is_last = self.last == Some((number, Cut::After));
        if self.last.is_some_and(|(last, _)| number >= last) && !is_last {
            self.hold().await;
        }
        let answer = carry_out.await;
        self.answered.send_modify(|answered| *answered += 1);
        if is_last {
            self.hold().await;
        }
        answer
    }

    async fn hold(&self) {
        self.reached.send_replace(true);
        wait(&self.opened).await;
    }
}

async fn wait(flag: &watch::Sender<bool>) {
    flag.subscribe().wait_for(|set| *set).await.unwrap();
}

/// A way of one gateway to a server; what still goes over it ends with it.
pub struct Way {
    pub address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// To the API server.
pub fn to_kubernetes(client: kube::Client, namespace: &str, gate: &Arc<Gate>) -> kube::Client {
    let gate = Arc::clone(gate);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, gate) = (client.clone(), Arc::clone(&gate));
        async move {
            let what = format!("{} {}", request.method(), request.uri().path());
            let sent = client.send(request);
            if what.starts_with("GET") { sent.await } else { gate.pass(what, sent).await }
        }
    });
    kube::Client::new(service, namespace)
}

/// To an S3 server; `endpoint` is its URL.
pub async fn to_storage(client: &reqwest::Client, endpoint: String, gate: &Arc<Gate>) -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gate, client) = (Arc::clone(gate), client.clone());
    let handler = move |request: Request| {
        let (gate, client, endpoint) = (Arc::clone(&gate), client.clone(), endpoint.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            // Several objects are removed by a document that names them.
            let named = String::from_utf8_lossy(&body)
                .split("<Key>")
                .skip(1)
                .filter_map(|key| Some(key.split_once('<')?.0.to_owned()))
                .collect::<Vec<_>>();
            let what = format!("{} {} {}", head.method, head.uri, named.join(" "));
            let passed = pass_request(client, endpoint, head, body);
            let answer = if what.starts_with("GET") || what.starts_with("HEAD") {
                passed.await
            } else {
                gate.pass(what, passed).await
            };
            Ok::<_, Infallible>(answer)
        }
    };
    let task = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await.unwrap() });
    Way { address, task: task.abort_handle() }
}

/// With the headers as they are: they are signed.
async fn pass_request(client: reqwest::Client, endpoint: String, head: Parts, body: Bytes) -> Response {
    let sent = client.request(head.method, format!("{endpoint}{}", head.uri)).headers(head.headers).body(body).send();
    let answer = sent.await.unwrap();
    let mut response = Response::builder().status(answer.status());
    *response.headers_mut().unwrap() = answer.headers().clone();
    response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}

/// To a ZooKeeper server.
pub async fn to_zookeeper(server: String, gate: &Arc<Gate>) -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::clone(gate);
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            let (gate, server) = (Arc::clone(&gate), server.clone());
            connections.spawn(async move {
                let far = TcpStream::connect(server).await.unwrap();
                // Either end ends both.
                let _ = pass_frames(near, far, &gate).await;
            });
        }
    });
    Way { address, task: task.abort_handle() }
}

/// Longer than any frame of these tests.
const FRAME: usize = 1 << 20;

/// Requests go on one at a time, a write with its answer: then it is known when it was carried out. Behind the answer
/// to the connect request the client may get notifications at any time, but these tests watch nothing.
async fn pass_frames(mut near: TcpStream, mut far: TcpStream, gate: &Gate) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let connected = exchange(&mut far, &read_frame(&mut near, FRAME).await?).await?;
    near.write_all(&with_length(&connected)).await?;
    loop {
        let request = read_frame(&mut near, FRAME).await?;
        let answer = exchange(&mut far, &request);
        let answer = match write(&request) {
            Some(what) => gate.pass(what, answer).await?,
            None => answer.await?,
        };
        near.write_all(&with_length(&answer)).await?;
    }
}

async fn exchange(far: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> std::io::Result<Vec<u8>> {
    far.write_all(&with_length(request)).await?;
    let length = far.read_u32().await?;
    let mut answer = vec![0; length as usize];
    far.read_exact(&mut answer).await?;
    Ok(answer)
}

/// What a request writes, by its type (`org.apache.zookeeper.ZooDefs.OpCode`, ZooKeeper 3.9) behind the number that it
/// has in its connection.
fn write(request: &[u8]) -> Option<String> {
    let kind = i32::from_be_bytes(request.get(4..8)?.try_into().unwrap());
    let named = |kind: &str| format!("{kind} {}", printable(&request[8..]));
    match kind {
        1 | 15 | 19 | 21 => Some(named("create")),
        2 | 20 => Some(named("delete")),
        5 => Some(named("setData")),
        7 => Some(named("setACL")),
        14 => Some(named("multi")),
        _ => None,
    }
}

/// The paths in a request, for people: each stands behind its length, and ends with its last letter.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let parts = text.split(|letter: char| !letter.is_ascii_graphic());
    let paths = parts.filter_map(|part| Some(&part[part.find("/flink")?..]));
    paths.collect::<Vec<_>>().join(" ")
}
