//! Servers that a stranger cannot exhaust: accepting goes on after every error, and connections, time and bytes are
//! bounded.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http::Request;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// After an error that does not belong to one connection, such as too many open files: time in which connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest body of a request, in bytes.
pub const BODY_LIMIT: usize = 16 << 10;

/// What hyper reads ahead and buffers for writing, each; also the longest header of a request.
const BUFFER_LIMIT: usize = 16 << 10;

/// The kernel's buffer for what a client has sent and nobody has read, in bytes.
const RECEIVE_BUFFER: u32 = 32 << 10;
/// The kernel's queue of connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// How many connections of the JVM are served at a time; the next one waits. Flink opens about ten.
pub const JVM_CONNECTIONS: usize = 256;

/// What the clients of a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. One more ends the oldest of the address that has most.
    pub connections: usize,
    /// From the beginning of a connection, or from the last answer, to the end of a request's header.
    pub header: Duration,
    /// From there to the answer, the body included.
    pub answer: Duration,
    /// A connection is closed after so long, so that a client that reads no answers keeps no place.
    pub life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            life: Duration::from_secs(60),
        }
    }
}

/// Opens a port for [`serve`]. Short requests need little of the kernel's memory, which counts as the container's; a
/// burst of connections waits in a queue that is longer than usual, because whose first packet finds it full tries
/// again only after a second.
///
/// # Errors
/// When the port is in use, or the address is not this machine's.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Waits for the next connection. Errors are waited out: a server that has no file descriptor left serves again as soon
/// as one is free.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut is_told = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client has gone again.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "failed to accept a connection; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The same for connections that may last: waits for a place first. The permit gives the place back when it is dropped.
pub async fn accept_one_of(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // An error means that the semaphore is closed, which nobody does.
    let place = Arc::clone(places).acquire_owned().await.ok();
    let (stream, peer) = accept(listener).await;
    (stream, peer, place)
}

/// Serves HTTP/1 until the process ends.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits) {
    let mut crowd = Crowd { most: limits.connections, tasks: JoinSet::new(), present: VecDeque::new() };
    loop {
        let (stream, peer) = accept(&listener).await;
        crowd.make_room().await;
        let task = crowd.tasks.spawn(connection(stream, router.clone(), limits));
        crowd.present.push_back((peer.ip(), task));
    }
}

/// The connections that are open, oldest first.
struct Crowd {
    most: usize,
    tasks: JoinSet<()>,
    present: VecDeque<(IpAddr, AbortHandle)>,
}

impl Crowd {
    /// A kubelet or a peer that has just connected gets its place also in a flood: probes and questions take
    /// milliseconds, so what is old is idle.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        if self.present.len() < self.most {
            return;
        }
        self.present.retain(|(_, task)| !task.is_finished());
        if self.present.len() >= self.most
            && let Some((busiest, count)) = busiest(self.present.iter().map(|(address, _)| *address))
        {
            // Several at once: to look for them costs more than to accept a connection.
            let mut to_end = (self.most / 8).min(count / 2).max(1);
            self.present.retain(|(address, task)| {
                let ends = *address == busiest && to_end > 0;
                if ends {
                    task.abort();
                    to_end -= 1;
                }
                !ends
            });
        }
        // What was told to end does so when its turn comes. Not waited for each time: the kernel's queue of new
        // connections must not overflow.
        while self.tasks.len() >= 2 * self.most {
            self.tasks.join_next().await;
        }
    }
}

/// The address with most connections, and how many these are.
fn busiest(addresses: impl Iterator<Item = IpAddr>) -> Option<(IpAddr, usize)> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for address in addresses {
        *counts.entry(address).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count)
}

async fn connection(stream: TcpStream, router: Router, limits: Limits) {
    // An error means that the connection is broken already, which shows below.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(router.clone(), request, limits.answer));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(BUFFER_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = match timeout(limits.life, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(limits.answer, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(router: Router, request: Request<Incoming>, patience: Duration) -> Result<Response, Infallible> {
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_LIMIT as u64) {
        // The body is not read, so nothing else can come on this connection.
        return Ok((StatusCode::PAYLOAD_TOO_LARGE, [(header::CONNECTION, "close")]).into_response());
    }
    let request = request.map(|body| Body::new(Limited::new(body, BODY_LIMIT)));
    match timeout(patience, router.oneshot(request)).await {
        Ok(answered) => answered,
        Err(_) => Ok((StatusCode::REQUEST_TIMEOUT, [(header::CONNECTION, "close")]).into_response()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const QUICK: Limits = Limits {
        connections: 4,
        header: Duration::from_millis(300),
        answer: Duration::from_millis(300),
        life: Duration::from_secs(2),
    };

    async fn server(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new()
            .route("/ok", get(|| async { "ok" }))
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(listener, router, limits));
        address
    }

    /// Sends and reads to the end of the connection.
    async fn exchange(address: SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(sent).await.expect("sent");
        to_end(&mut stream).await
    }

    async fn to_end(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A connection that is reset has ended, too.
        let _ =
            timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("the connection does not end");
        String::from_utf8_lossy(&text).into_owned()
    }

    const ASK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn the_oldest_of_the_busiest_address_go() {
        let address = |last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        let mut crowd = Crowd { most: 16, tasks: JoinSet::new(), present: VecDeque::new() };
        for last in [1, 2, 2, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2] {
            let task = crowd.tasks.spawn(std::future::pending());
            crowd.present.push_back((address(last), task));
        }
        crowd.make_room().await;
        let left: Vec<IpAddr> = crowd.present.iter().map(|(address, _)| *address).collect();
        assert_eq!((left.len(), &left[..3]), (14, &[address(1), address(3), address(2)][..]));
    }

    #[tokio::test]
    async fn an_unfinished_header_an_idle_connection_and_an_unfinished_body_end_in_time() {
        let address = server(QUICK).await;
        assert_eq!(exchange(address, b"GET /ok HT").await, "");
        let idle = exchange(address, b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(idle.starts_with("HTTP/1.1 200") && idle.ends_with("ok"), "{idle}");
        let body = exchange(address, b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234").await;
        assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    }

    #[tokio::test]
    async fn a_long_body_is_refused_whether_its_length_is_told_or_not() {
        let address = server(QUICK).await;
        let told = exchange(address, b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 16385\r\n\r\n").await;
        assert!(told.starts_with("HTTP/1.1 413"), "{told}");
        let chunk = format!("4001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x4001));
        let head = "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        let untold = exchange(address, format!("{head}{chunk}").as_bytes()).await;
        assert!(untold.starts_with("HTTP/1.1 413"), "{untold}");
        let longest = format!(
            "POST /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 16384\r\n\r\n{}",
            "x".repeat(0x4000)
        );
        assert!(exchange(address, longest.as_bytes()).await.ends_with("16384"));
    }

    #[tokio::test]
    async fn beyond_the_bound_a_new_connection_is_served_and_an_old_one_ends() {
        let address = server(Limits { header: Duration::from_secs(60), ..QUICK }).await;
        let mut idle = Vec::new();
        for _ in 0..40 {
            idle.push(TcpStream::connect(address).await.expect("a connection"));
        }
        assert!(exchange(address, ASK).await.ends_with("ok"));
        for stream in &mut idle[..30] {
            assert_eq!(to_end(stream).await, "", "it is closed");
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_keeps_its_place_no_longer_than_a_life() {
        let address =
            server(Limits { life: Duration::from_millis(500), header: Duration::from_secs(60), ..QUICK }).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        assert!(to_end(&mut stream).await.ends_with("ok"));
    }
}
