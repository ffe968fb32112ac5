//! Serves connections within bounds that a stranger cannot exhaust: the server continues to accept after every error,
//! and it bounds connections, time and bytes.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// Pause after an error that does not belong to one connection, such as too many open files; connections end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Longest body of a request, in bytes.
pub const BODY_LIMIT: usize = 16 << 10;

/// Bytes that hyper reads ahead, and bytes that it buffers for writing; also the longest header of a request.
const BUFFER_LIMIT: usize = 16 << 10;

/// Size in bytes of the kernel's buffer for data that a client has sent and the server has not read.
const RECEIVE_BUFFER: u32 = 32 << 10;
/// Length of the kernel's queue of connections that wait for `accept`.
const BACKLOG: u32 = 4096;

/// Number of the JVM's connections that the gateway serves at a time; the next one waits. Flink opens about ten.
pub const JVM_CONNECTIONS: usize = 256;

/// Bounds for the clients of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of connections at a time. One more ends the oldest of the address that has most.
    pub connections: usize,
    /// Limit from the beginning of a connection, or from the last response, to the end of a request's header.
    pub header: Duration,
    /// Limit from the end of the header to the response; the server reads the body within it.
    pub answer: Duration,
    /// The server closes a connection after this time, so a client that reads no responses does not occupy it for ever.
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

/// Returns the address at which a pod with this address is reached at a port, whichever of its addresses is used. On
/// Linux a socket of IPv6 serves both families; where the pod's address is of IPv4, IPv6 may be switched off.
pub fn all_addresses(own: IpAddr, port: u16) -> SocketAddr {
    let any = if own.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, port)
}

/// Opens a port for [`serve`]. Receive buffers are small, because the kernel's memory counts as the container's and
/// requests are short. The queue is longer than usual, because a client whose first packet finds it full retries only
/// after a second.
///
/// # Errors
/// When another socket uses the port, or when the address is not this machine's.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if address.is_ipv6() {
        // Whatever `net.ipv6.bindv6only` says: a restarting JobManager asks at 127.0.0.1.
        set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts the next connection. It retries after an error: a server without a free file descriptor serves again as soon
/// as one is free.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut is_told = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client has already closed the connection.
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

/// Waits for a permit, then accepts the next connection, which may be long-lived. Dropping the permit frees it.
pub async fn accept_one_of(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // An error would mean that the semaphore is closed; nothing closes it.
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

/// The open connections, oldest first.
struct Crowd {
    most: usize,
    tasks: JoinSet<()>,
    present: VecDeque<(IpAddr, AbortHandle)>,
}

impl Crowd {
    /// Makes room for one more connection. In a flood of connections a kubelet or a peer that has just connected is
    /// still served: probes and questions take milliseconds, so an old connection is idle.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        if self.present.len() < self.most {
            return;
        }
        self.present.retain(|(_, task)| !task.is_finished());
        if self.present.len() >= self.most
            && let Some((busiest, count)) = busiest(self.present.iter().map(|(address, _)| *address))
        {
            // Ends several at once, because searching for them costs more than accepting a connection.
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
        // An aborted task ends when the runtime next polls it. The server does not wait for each one: the kernel's
        // queue of new connections must not overflow.
        while self.tasks.len() >= 2 * self.most {
            self.tasks.join_next().await;
        }
    }
}

/// Returns the address with most connections, and their number.
fn busiest(addresses: impl Iterator<Item = IpAddr>) -> Option<(IpAddr, usize)> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for address in addresses {
        *counts.entry(address).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count)
}

async fn connection(stream: TcpStream, router: Router, limits: Limits) {
    // An error means that the connection is already broken, which shows below.
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
        // The server does not read the body, so the connection cannot carry another request.
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

    /// Sends a request and reads until the connection ends.
    async fn exchange(address: SocketAddr, sent: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(sent).await.expect("sent");
        to_end(&mut stream).await
    }

    async fn to_end(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        // A reset connection has ended too.
        let _ =
            timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("the connection does not end");
        String::from_utf8_lossy(&text).into_owned()
    }

    const ASK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_pod_with_an_address_of_ipv6_is_reached_by_both_families() {
        if !std::path::Path::new("/proc/net/if_inet6").exists() {
            return;
        }
        let listener = listen(all_addresses(Ipv6Addr::LOCALHOST.into(), 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        tokio::spawn(serve(listener, Router::new().route("/ok", get(|| async { "ok" })), QUICK));
        for address in [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()] {
            assert!(exchange((address, port).into(), ASK).await.ends_with("ok"), "{address}");
        }
        assert_eq!(all_addresses(Ipv4Addr::LOCALHOST.into(), 1).to_string(), "0.0.0.0:1");
    }

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
