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
    #[arg(long = "zookeeper-scheme", value_enum, default_value_t)]
    pub scheme: Scheme,
    /// Directory with the files username and password. Environment variables are for people: other processes of the
    /// same user can read them.
    #[arg(long = "zookeeper-credentials")]
    pub credentials: Option<PathBuf>,
    /// Credentials for the quorum; `None` without any.
    #[arg(long = "zookeeper-username", env = "ZOOKEEPER_USERNAME")]
    pub username: Option<String>,
    #[arg(long = "zookeeper-password", env = "ZOOKEEPER_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl Access {
    /// # Errors
    /// When a certificate or the credentials cannot be read.
    pub fn quorum(&self) -> anyhow::Result<Quorum> {
        let quorum = Quorum::new(self.quorum.as_deref().context("--zookeeper-quorum is missing")?);
        let quorum = match &self.tls {
            Some(directory) => quorum.with_tls(directory)?,
            None => quorum,
        };
        Ok(match self.user()? {
            Some((username, password)) => {
                quorum.with_identity(QuorumIdentity { scheme: self.scheme, username, password })
            }
            None => quorum,
        })
    }

    /// Name and password, as a Secret holds them.
    fn user(&self) -> anyhow::Result<Option<(String, String)>> {
        let Some(directory) = &self.credentials else { return Ok(self.username.clone().zip(self.password.clone())) };
        let read = |name: &str| {
            let read = std::fs::read_to_string(directory.join(name));
            read.with_context(|| format!("failed to read {name} of the Secret of authentication"))
        };
        Ok(Some((read("username")?, read("password")?)))
    }

    pub fn acls(&self) -> zookeeper_client::Acls<'static> {
        if self.creator_only { zookeeper_client::Acls::creator_all() } else { zookeeper_client::Acls::anyone_all() }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        access: Access,
    }

    fn user(arguments: &[&str]) -> anyhow::Result<Option<(String, String)>> {
        Program::try_parse_from(std::iter::once("program").chain(arguments.iter().copied()))?.access.user()
    }

    #[test]
    fn name_and_password_come_from_files_or_as_before_from_flags() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display().to_string();
        let error = user(&["--zookeeper-credentials", &path]).expect_err("no files").to_string();
        assert!(error.contains("failed to read username of the Secret"), "{error}");
        std::fs::write(directory.path().join("username"), "flink").expect("a file");
        std::fs::write(directory.path().join("password"), "p w").expect("a file");
        let known = Some(("flink".to_owned(), "p w".to_owned()));
        assert_eq!(user(&["--zookeeper-credentials", &path]).expect("files"), known);
        assert_eq!(
            user(&["--zookeeper-username", "flink", "--zookeeper-password", "p w"]).expect("flags"),
            known,
            "pods of an earlier version have them so"
        );
        assert_eq!(user(&[]).expect("nothing"), None);
    }
}
