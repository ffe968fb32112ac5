//! Connects to the quorum: for the gateway's own client, and as the pass-through of a TaskManager.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use zookeeper_client::Client;

use crate::api::names;
use crate::gateway::tasks::told_to_end;
use crate::gateway::zookeeper_arguments::Access;
use crate::world::quorum::{Quorum, tunnel};

/// Session time-out of the gateway's own client. It has no ephemeral znodes, so an expired session costs only a new
/// one.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a tunnel to the quorum for the gateway's own client. Returns its address.
///
/// # Errors
/// When no port can be opened.
pub async fn tunnel_on_loopback(quorum: &Quorum) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("failed to open a port for our own ZooKeeper client")?;
    let address = listener.local_addr()?;
    tokio::spawn(tunnel(listener, quorum.clone()));
    Ok(address)
}

/// Creates a client with its own session, through the tunnel of [`tunnel_on_loopback`].
///
/// # Errors
/// When no server grants a session in time. The error is that of the servers themselves, which says more than a
/// time-out.
pub async fn connect(way: SocketAddr, quorum: &Quorum) -> anyhow::Result<Client> {
    let connected = Client::connector().with_session_timeout(SESSION_TIMEOUT).connect(&way.to_string()).await;
    connected.map_err(|error| match (quorum.trouble(), error) {
        (Some(trouble), _) => anyhow::anyhow!(trouble),
        (None, zookeeper_client::Error::AuthFailed) => {
            anyhow::anyhow!(
                "the servers accept only clients that authenticate, and by another scheme than the configured one: see authentication.scheme"
            )
        }
        (None, error) => error.into(),
    })
}

/// Flags of `flinkha pass-through`.
#[derive(Clone, Debug, clap::Args)]
pub struct PassThrough {
    #[command(flatten)]
    pub access: Access,
    /// Where Flink finds its server.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, names::JVM_PORT)))]
    pub jvm_address: SocketAddr,
}

/// Implements `flinkha pass-through`: forwards a TaskManager's connections to a quorum that requires TLS or
/// authentication.
///
/// # Errors
/// When the port cannot be opened or a certificate cannot be read.
pub async fn pass_through(PassThrough { access, jvm_address: address }: PassThrough) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to open {address}"))?;
    tokio::select! {
        () = tunnel(listener, access.quorum()?) => anyhow::bail!("the pass-through ended"),
        result = told_to_end() => result,
    }
}
