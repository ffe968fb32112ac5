//! The servers of a quorum, one by one: where each is, what it says of itself, and its lines to the others.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zookeeper_client::{Acls, Client, CreateMode};

use super::eventually;
use super::host::address;
use super::network;
use super::network::Switch;
use super::seconds;
use super::zookeeper::Quorum;

pub struct Member {
    /// As in its file `myid`. Of servers with equal data the one with the highest becomes the quorum's leader.
    pub id: u8,
    /// Where clients reach it.
    pub address: Ipv4Addr,
    /// Where other servers reach it.
    pub peer: Ipv4Addr,
    /// In a network of the test's own.
    pub place: Option<u8>,
}

impl Member {
    pub fn new(id: u8) -> Self {
        if network::is_own() {
            let place = network::place();
            let [address, peer] = [Switch::Clients, Switch::Peers].map(|switch| switch.address(place));
            return Self { id, address, peer, place: Some(place) };
        }
        let address = address();
        Self { id, address, peer: address, place: None }
    }
}

impl Quorum {
    /// The server that leads the quorum, or one that follows, by what each says of itself.
    pub async fn server(&self, mode: &str) -> usize {
        let what = format!("a server that is {mode}");
        let found = eventually(&what, seconds(30), async || {
            for index in 0..self.members.len() {
                if self.mode(index).await.as_deref() == Some(mode) {
                    return Some(index);
                }
            }
            None
        });
        found.await
    }

    /// `leader` or `follower`; `None` when it does not answer or has no quorum.
    pub async fn mode(&self, server: usize) -> Option<String> {
        let said = four_letters(self.members[server].address, "srvr").await?;
        said.lines().find_map(|line| line.strip_prefix("Mode: ").map(str::to_owned))
    }

    /// The server that has the connection of a session.
    pub async fn server_of(&self, session: i64) -> Option<usize> {
        for (index, member) in self.members.iter().enumerate() {
            let connections = four_letters(member.address, "cons").await.unwrap_or_default();
            if connections.contains(&format!("sid=0x{session:x},")) {
                return Some(index);
            }
        }
        None
    }

    /// Clients are told of a server in this mode first, and those that come after try it first.
    pub async fn put_first(&mut self, mode: &str) {
        let first = self.server(mode).await;
        self.members.swap(0, first);
        self.servers.swap(0, first);
    }

    /// Pulls the server's line to a switch.
    pub fn unplug(&self, server: usize, switch: Switch) {
        network::unplug(self.place(server), switch);
    }

    /// Plugs the server's line to a switch in again.
    pub fn plug(&self, server: usize, switch: Switch) {
        network::plug(self.place(server), switch);
    }

    fn place(&self, server: usize) -> u8 {
        self.members[server].place.expect("a network of the test's own")
    }

    /// Each server has its place in the quorum, gives sessions, and takes writes.
    pub async fn all_serve(&self) -> bool {
        for (index, member) in self.members.iter().enumerate() {
            let connected = Client::connector().with_session_timeout(seconds(10)).with_fail_eagerly();
            let connected = async {
                let address = format!("{}:2181", member.address);
                let client = connected.connect(&address).await.ok()?;
                let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
                client.create("/serves-", b"", &options).await.ok()
            };
            let written = tokio::time::timeout(seconds(3), connected).await.ok().flatten();
            if written.is_none() || self.mode(index).await.is_none() {
                return false;
            }
        }
        true
    }
}

/// One of ZooKeeper's commands of four letters.
async fn four_letters(address: Ipv4Addr, command: &str) -> Option<String> {
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect((address, 2181)).await.ok()?;
        stream.write_all(command.as_bytes()).await.ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.ok()?;
        Some(said)
    };
    tokio::time::timeout(seconds(1), asked).await.ok()?
}
