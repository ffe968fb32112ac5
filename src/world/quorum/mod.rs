//! Connects to a ZooKeeper quorum: opens a connection to a server that answers, in plain text or by TLS, and ends a
//! session that another process began.

pub mod auth;
pub mod frames;
pub mod latch;
pub mod quarantine;
pub mod znodes;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::auth::QuorumIdentity;
use self::frames::{read_frame, with_length};
use super::server::{JVM_CONNECTIONS, accept_one_of};
use super::tls::TlsDirectory;
use crate::flink::zookeeper_frames::{
    self, AUTH_FAILED, AUTH_REQUIRED, CONNECT_LIMIT, SESSION_EXPIRED, ServerReply, Session,
};
use crate::flink::zookeeper_servers;

/// Limit for a server to accept a connection; after it, the next server is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Limit for a server to answer a handshake; after it, the next server is tried. The server may have to ask the other
/// servers first.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The servers, and how to connect to them.
#[derive(Clone)]
pub struct Quorum {
    /// Addresses of the servers, `host:port`.
    servers: Arc<Vec<String>>,
    tls: Option<Arc<TlsDirectory>>,
    /// Credentials for each connection; `None` without authentication.
    identity: Option<Arc<QuorumIdentity>>,
    /// Index of the server to try first: the one that answered last.
    first: Arc<AtomicUsize>,
    /// Why the last attempt to open a connection failed.
    trouble: Arc<Mutex<Option<String>>>,
}

/// Outcome of the request to end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Now,
    /// The quorum does not know the session: its client closed it, or it has expired.
    Before,
}

impl Quorum {
    /// Makes a quorum from the value of `high-availability.zookeeper.quorum`: `host:port`, separated by commas. The
    /// port is 2181 if it is absent.
    pub fn new(quorum: &str) -> Self {
        let servers = Arc::new(zookeeper_servers::servers(quorum).collect());
        Self { servers, tls: None, identity: None, first: Arc::default(), trouble: Arc::default() }
    }

    /// Connects by TLS. `directory` holds `ca.crt`, and `tls.crt` and `tls.key` if clients must present a certificate.
    /// Each connection uses the certificates that are there when it is opened.
    ///
    /// # Errors
    /// When a file cannot be read, or when it is not PEM.
    pub fn with_tls(mut self, directory: &Path) -> anyhow::Result<Self> {
        let certificates = TlsDirectory::open(directory).context("spec.highAvailability.zookeeper.tls")?;
        self.tls = Some(Arc::new(certificates));
        Ok(self)
    }

    /// Authenticates each connection that is opened.
    pub fn with_identity(mut self, identity: QuorumIdentity) -> Self {
        self.identity = Some(Arc::new(identity));
        self
    }

    /// Why the last attempt to open a connection, by any caller, failed; `None` if it succeeded.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a connection with a client's first frame, at the first server that answers it. Returns that server's
    /// answer. A server without a quorum closes the connection instead.
    ///
    /// # Errors
    /// When no server answers: the error of the last one. `PermissionDenied` when one server rejects the credentials:
    /// all servers of a quorum know the same users.
    pub async fn open(&self, request: &[u8]) -> io::Result<(Box<dyn Stream>, Vec<u8>)> {
        let opened = self.open_any(request).await;
        let trouble = opened.as_ref().err().map(ToString::to_string);
        let before =
            std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble.clone());
        if let (Some(why), true) = (&trouble, trouble != before) {
            tracing::warn!(why, "a connection to ZooKeeper cannot be opened; trying again");
        }
        opened
    }

    async fn open_any(&self, request: &[u8]) -> io::Result<(Box<dyn Stream>, Vec<u8>)> {
        let mut error = io::Error::from(io::ErrorKind::NotConnected);
        for _ in 0..self.servers.len() {
            match timeout(HANDSHAKE_TIMEOUT, self.try_open(request)).await {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(refused)) if refused.kind() == io::ErrorKind::PermissionDenied => return Err(refused),
                Ok(Err(failed)) if failed.kind() == io::ErrorKind::UnexpectedEof => {
                    error =
                        io::Error::new(failed.kind(), "a server takes connections and closes them: it has no quorum");
                }
                Ok(Err(failed)) => error = failed,
                Err(_) => {
                    error = io::Error::new(io::ErrorKind::TimedOut, "a server takes connections and does not answer")
                }
            }
            self.pass_over();
        }
        Err(error)
    }

    async fn try_open(&self, request: &[u8]) -> io::Result<(Box<dyn Stream>, Vec<u8>)> {
        let mut far = self.connect().await?;
        far.write_all(&with_length(request)).await?;
        far.flush().await?;
        let response = read_frame(&mut far, CONNECT_LIMIT).await?;
        if let (Some(identity), Some(_)) = (&self.identity, zookeeper_frames::session_of_response(&response)) {
            identity.tell(&mut far).await?;
        }
        Ok((far, response))
    }

    /// Connects to a server: first to the one that answered last, then to the others in turn.
    ///
    /// # Errors
    /// When no server accepts a connection: the error of the last one.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let first = self.first.load(Ordering::Relaxed);
        let mut error = io::Error::new(io::ErrorKind::InvalidInput, "no ZooKeeper server is named");
        for index in (0..self.servers.len()).map(|step| (first + step) % self.servers.len()) {
            let server = &self.servers[index];
            match timeout(CONNECT_TIMEOUT, self.connect_to(server)).await {
                Ok(Ok(stream)) => {
                    self.first.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Ok(Err(failed)) => error = io::Error::new(failed.kind(), format!("{server}: {failed}")),
                Err(_) => error = io::Error::new(io::ErrorKind::TimedOut, format!("{server}: no answer")),
            }
        }
        Err(error)
    }

    /// Makes the next attempt begin with another server, because the last one did not answer.
    pub fn pass_over(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect_to(&self, server: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(zookeeper_servers::host(server).to_owned()).map_err(io::Error::other)?;
        let connector = tls.connector().map_err(io::Error::other)?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// Attaches to a session and closes it, so its ephemeral znodes vanish at once and not only when it expires.
    ///
    /// # Errors
    /// When no server answers in time. A retry is safe: an ended session stays ended. `PermissionDenied` when a server
    /// rejects the credentials. Every retry then extends the session, because the server attaches the connection before
    /// it checks them.
    pub async fn end(&self, session: &Session) -> io::Result<Ended> {
        let mut error = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..self.servers.len() {
            match timeout(CONNECT_TIMEOUT, self.try_end(session)).await {
                Ok(Ok(ended)) => return Ok(ended),
                Ok(Err(refused)) if refused.kind() == io::ErrorKind::PermissionDenied => return Err(refused),
                Ok(Err(failed)) => error = failed,
                Err(_) => {}
            }
            self.pass_over();
        }
        Err(error)
    }

    async fn try_end(&self, session: &Session) -> io::Result<Ended> {
        let mut stream = self.connect().await?;
        stream.write_all(&zookeeper_frames::attach(session)).await?;
        stream.flush().await?;
        let response = read_frame(&mut stream, CONNECT_LIMIT).await?;
        if zookeeper_frames::session_of_response(&response).is_none_or(|attached| attached.id != session.id) {
            return Ok(Ended::Before);
        }
        // A server that requires authentication for requests requires it for this one too.
        if let Some(identity) = &self.identity {
            identity.tell(&mut stream).await?;
        }
        stream.write_all(&zookeeper_frames::close()).await?;
        stream.flush().await?;
        // The server sends its answer, or ends the connection, only after it has stored the end of the session.
        let answer = read_frame(&mut stream, CONNECT_LIMIT).await?;
        match zookeeper_frames::reply(&answer) {
            Some(ServerReply { error: 0, .. }) => Ok(Ended::Now),
            Some(ServerReply { error: SESSION_EXPIRED, .. }) => Ok(Ended::Before),
            Some(ServerReply { error: AUTH_FAILED | AUTH_REQUIRED, .. }) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the server accepts only clients that authenticate by another scheme: see spec.highAvailability.zookeeper.authentication",
            )),
            other => {
                let error = other.map(|reply| reply.error);
                Err(io::Error::other(format!("a server answers the request to close a session with error {error:?}")))
            }
        }
    }
}

/// Forwards every connection to the quorum until the process ends. The gateway's own client and TaskManagers connect
/// through it, so one place chooses servers, speaks TLS and authenticates.
pub async fn tunnel(listener: TcpListener, quorum: Quorum) {
    let places = Arc::new(Semaphore::new(JVM_CONNECTIONS));
    loop {
        let (near, _, place) = accept_one_of(&listener, &places).await;
        let quorum = quorum.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = pass_on(near, &quorum).await {
                tracing::debug!(%error, "a connection to ZooKeeper has ended");
            }
            // The next connection goes to another server, however this one ended. ZooKeeper's own client does the same.
            quorum.pass_over();
        });
    }
}

async fn pass_on(mut near: TcpStream, quorum: &Quorum) -> io::Result<()> {
    near.set_nodelay(true)?;
    let request = timeout(HANDSHAKE_TIMEOUT, read_frame(&mut near, CONNECT_LIMIT)).await??;
    let (mut far, response) = quorum.open(&request).await?;
    near.write_all(&with_length(&response)).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
}
