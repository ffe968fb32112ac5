//! Somebody who wants to keep a port from serving others: connections that never end their header, bodies that never
//! come, bodies that are too long. On loopback only, and for a bounded time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

/// Connections at a time.
const AT_A_TIME: usize = 2_000;

#[derive(Debug)]
pub struct Flooded {
    /// That were opened.
    pub connections: usize,
    /// Bytes of bodies that the server took, or its kernel did.
    pub sent: usize,
}

/// From one address, which is not that of a test's own client.
pub async fn flood(from: Ipv4Addr, to: SocketAddr, limit: Duration) -> Flooded {
    let end = Instant::now() + limit;
    let (connections, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for index in 0..AT_A_TIME {
        let (connections, sent) = (Arc::clone(&connections), Arc::clone(&sent));
        all.spawn(async move {
            while Instant::now() < end {
                let Some(stream) = timeout_at(end, connect(from, to)).await.ok().flatten() else {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                };
                connections.fetch_add(1, Ordering::Relaxed);
                let _ = timeout_at(end, disturb(stream, index, &sent)).await;
                // Two thousand at once, but not as many as one machine can open: the server's processor is this
                // machine's, too.
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    all.join_all().await;
    Flooded { connections: connections.load(Ordering::Relaxed), sent: sent.load(Ordering::Relaxed) }
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind((from, 0).into()).ok()?;
    socket.connect(to).await.ok()
}

/// Until the server ends the connection.
async fn disturb(mut stream: TcpStream, index: usize, sent: &AtomicUsize) {
    let head = |length: usize| {
        let mac = "0".repeat(64);
        format!(
            "POST /peer HTTP/1.1\r\nhost: a\r\nflinkha-mac: {mac}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let (head, body) = match index % 4 {
        0 => ("GET /livez HTTP/1.1\r\nhost: a\r\n".to_owned(), 0),
        // As long as they were once buffered.
        1 => (head(2 << 20), (2 << 20) - 1),
        2 => (head(1 << 20), (1 << 20) - 1),
        _ => (head(16 << 10), (16 << 10) - 1),
    };
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let chunk = [b' '; 8 << 10];
    let mut left = body;
    while left > 0 {
        match stream.write(&chunk[..left.min(chunk.len())]).await {
            Ok(written) => {
                left -= written;
                sent.fetch_add(written, Ordering::Relaxed);
            }
            Err(_) => return,
        }
    }
    while stream.read(&mut [0; 256]).await.is_ok_and(|read| read > 0) {}
}
