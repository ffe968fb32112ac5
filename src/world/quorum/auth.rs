//! Authenticates a connection to a ZooKeeper quorum, by ZooKeeper's scheme `digest` or by SASL with the mechanism
//! DIGEST-MD5 (`ZooKeeperServer.processPacket` and `processSasl`, ZooKeeper 3.5 to 3.9).
//!
//! The gateway authenticates before it forwards anything of a client and keeps the server's replies for itself, so the
//! client does not notice.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frames::read_frame;
use crate::api::zookeeper::Scheme;
use crate::flink::digest_md5::{self, Login};
use crate::flink::zookeeper_frames::{self, AUTH_FAILED, AUTH_REQUIRED, AUTHENTICATION, REQUEST, ServerReply};
use crate::world::random::nonce;

/// A reply to a word of ours has a header of 16 bytes, and the word of the server.
const REPLY_LIMIT: usize = 32 + digest_md5::CHALLENGE_LIMIT;

/// Who we are.
pub struct QuorumIdentity {
    pub scheme: Scheme,
    pub username: String,
    pub password: String,
}

impl QuorumIdentity {
    /// Says who we are, and returns when the server believes it. It must be said on each connection anew, whatever its
    /// session.
    ///
    /// # Errors
    /// `PermissionDenied`, with the remedy, when the server rejects the credentials or does not prove that it knows the
    /// password.
    pub async fn tell(&self, server: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized)) -> io::Result<()> {
        match self.scheme {
            Scheme::Digest => {
                let who = format!("{}:{}", self.username, self.password);
                self.ask(server, &zookeeper_frames::authenticate("digest", &who), AUTHENTICATION).await.map(drop)
            }
            Scheme::Sasl => self.converse(server).await,
        }
    }

    async fn converse(&self, server: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized)) -> io::Result<()> {
        // In DIGEST-MD5 the server speaks first, so the client's first token is empty.
        let Some(challenge) = self.ask(server, &zookeeper_frames::sasl(b""), REQUEST).await? else {
            return Err(
                self.refused("the server has no SASL: its JAAS file needs a section Server with DigestLoginModule; or use scheme Digest")
            );
        };
        let login = Login { username: &self.username, password: &self.password, service: digest_md5::ZOOKEEPER };
        let answer = digest_md5::answer(&challenge, login, &nonce().map_err(io::Error::other)?).map_err(|why| {
            self.refused(&format!(
                "the server's challenge is none of DIGEST-MD5, which is all that is spoken here ({why})"
            ))
        })?;
        // A server that admits unauthenticated clients (`zookeeper.allowSaslFailedClients`) returns no token.
        match self.ask(server, &zookeeper_frames::sasl(&answer.token), REQUEST).await? {
            Some(proof) if answer.is_known_to(&proof) => Ok(()),
            Some(_) => Err(self
                .refused("the server does not prove that it knows the password: it may not be the one that is meant")),
            None => Err(self.refused(WRONG)),
        }
    }

    /// Sends a request and returns the server's token.
    async fn ask(
        &self,
        server: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
        request: &[u8],
        number: i32,
    ) -> io::Result<Option<Vec<u8>>> {
        server.write_all(request).await?;
        server.flush().await?;
        let frame = read_frame(server, REPLY_LIMIT).await?;
        match zookeeper_frames::reply(&frame) {
            Some(ServerReply { to, error: 0, body }) if to == number => {
                Ok(zookeeper_frames::token(body).map(<[u8]>::to_vec))
            }
            Some(ServerReply { error: AUTH_FAILED | AUTH_REQUIRED, .. }) => Err(self.refused(WRONG)),
            other => {
                let (to, error) = other.map_or((0, 0), |reply| (reply.to, reply.error));
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a server answers the authentication (reply to {to}) with error {error}"),
                ))
            }
        }
    }

    fn refused(&self, why: &str) -> io::Error {
        let scheme = match self.scheme {
            Scheme::Digest => "Digest",
            Scheme::Sasl => "SASL (DIGEST-MD5)",
        };
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the servers reject user {:?} with scheme {scheme}: {why}", self.username),
        )
    }
}

const WRONG: &str = "check username and password in the Secret of authentication, and the users that the servers know";
