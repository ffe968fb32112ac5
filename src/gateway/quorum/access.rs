//! The way to the quorum: the connection of the gateway's own client, and the pass-through of a TaskManager.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use zookeeper_client::Client;

use crate::api::names;
use crate::gateway::tasks::told_to_end;
use crate::gateway::zookeeper_arguments::Access;
use crate::world::quorum::{Quorum, tunnel};

/// Our own client's session. It has no ephemeral znodes: that it expires costs a new connection.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a way to the quorum for our own client; returns its address.
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

/// A client of its own session, by the way that [`tunnel_on_loopback`] has opened to this quorum.
///
/// # Errors
/// When no server gives a session in time: what the servers themselves did, which says more than that nothing came of
/// it.
pub async fn connect(way: SocketAddr, quorum: &Quorum) -> anyhow::Result<Client> {
    let connected = Client::connector().with_session_timeout(SESSION_TIMEOUT).connect(&way.to_string()).await;
    connected.map_err(|error| match (quorum.trouble(), error) {
        (Some(trouble), _) => anyhow::anyhow!(trouble),
        (None, zookeeper_client::Error::AuthFailed) => {
            anyhow::anyhow!(
                "the servers let only those in who tell who they are, by another scheme than is done here: see authentication.scheme"
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

/// `flinkha pass-through`: the way of a TaskManager to a quorum that is reached by TLS or wants to know who comes.
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
