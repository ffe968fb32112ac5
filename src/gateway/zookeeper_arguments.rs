//! Flags that tell where the ZooKeeper quorum is, and with which credentials it is reached.

use std::path::PathBuf;

use anyhow::Context;

use crate::api::zookeeper::Scheme;
use crate::world::quorum::Quorum;
use crate::world::quorum::auth::QuorumIdentity;

/// Access to the quorum: flags of `flinkha gateway`, `flinkha purge` and `flinkha pass-through`.
#[derive(Clone, Debug, clap::Args)]
pub struct Access {
    /// Servers of the ZooKeeper quorum, `host:port`, separated by commas.
    #[arg(long = "zookeeper-quorum")]
    pub quorum: Option<String>,
    /// Flink's high-availability.zookeeper.path.root.
    #[arg(long = "zookeeper-root", default_value = "/flink")]
    pub root: String,
    /// Directory with ca.crt and, optionally, tls.crt and tls.key. With it the connection to the quorum uses TLS.
    #[arg(long = "zookeeper-tls")]
    pub tls: Option<PathBuf>,
    /// Creates znodes that only their creator may access, as Flink does with `client.acl: creator`.
    #[arg(long = "zookeeper-creator-only")]
    pub creator_only: bool,
    /// Credentials for the quorum; `None` without any.
    #[arg(long = "zookeeper-scheme", value_enum, default_value_t)]
    pub scheme: Scheme,
    #[arg(long = "zookeeper-username", env = "ZOOKEEPER_USERNAME")]
    pub username: Option<String>,
    #[arg(long = "zookeeper-password", env = "ZOOKEEPER_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl Access {
    /// # Errors
    /// When a certificate cannot be read.
    pub fn quorum(&self) -> anyhow::Result<Quorum> {
        let quorum = Quorum::new(self.quorum.as_deref().context("--zookeeper-quorum is missing")?);
        let quorum = match &self.tls {
            Some(directory) => quorum.with_tls(directory)?,
            None => quorum,
        };
        Ok(match (&self.username, &self.password) {
            (Some(username), Some(password)) => quorum.with_identity(QuorumIdentity {
                scheme: self.scheme,
                username: username.clone(),
                password: password.clone(),
            }),
            _ => quorum,
        })
    }

    pub fn acls(&self) -> zookeeper_client::Acls<'static> {
        if self.creator_only { zookeeper_client::Acls::creator_all() } else { zookeeper_client::Acls::anyone_all() }
    }
}
