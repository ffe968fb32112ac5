//! The JVM as a process: found as the owner of a loopback connection, awaited on a pidfd, ended by a signal.
//!
//! Works because the pod shares one process namespace and both containers run as the same user. A restart of the gateway does
//! nothing to the JVM; a process id that is used again is told apart by its start time.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use crate::lease::term::Incarnation;

/// A handle on one living process; it keeps meaning that process when the id is used again.
pub struct Process {
    pub incarnation: Incarnation,
    handle: OwnedFd,
}

impl Process {
    /// `None` when the process is gone, or its id belongs to another one now.
    pub fn open(incarnation: Incarnation) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(incarnation.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // In this order: the handle pins the process whose start time is read afterwards.
        (start_time(incarnation.pid)? == incarnation.started).then_some(Self { incarnation, handle })
    }

    /// Returns when the process has ended. A thread of its own waits, because a runtime's thread would hold up the end of the gateway.
    pub async fn ended(self) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        thread::Builder::new().name("await-jvm".to_owned()).spawn(move || {
            let result = loop {
                match poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], None) {
                    Err(Errno::INTR) => {}
                    result => break result,
                }
            };
            // Nobody listens only while the gateway ends.
            let _ = tell.send(result);
        })?;
        told.await.map_err(io::Error::other)?.map(|_| ()).map_err(io::Error::from)
    }

    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.handle, Signal::KILL)?)
    }
}

/// The process at the other end of an accepted loopback connection.
///
/// # Errors
/// A sentence for the log when no process of this user owns it.
pub fn owner_of(local: SocketAddr, peer: SocketAddr) -> Result<Incarnation, String> {
    let inode = socket_inode(peer.port(), local.port())
        .ok_or_else(|| format!("no connection from port {} to port {} in /proc/net/tcp", peer.port(), local.port()))?;
    let target = format!("socket:[{inode}]");
    for pid in process_ids() {
        let owns = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == target.as_str()));
        if owns {
            let started = start_time(pid).ok_or_else(|| format!("process {pid} has just ended"))?;
            return Ok(Incarnation { pid, started });
        }
    }
    Err("the process that asks for the lock cannot be seen: the pod needs shareProcessNamespace, and one user for both containers"
        .to_owned())
}

fn process_ids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Inode of the IPv4 or IPv6 socket with these local and remote ports on loopback.
fn socket_inode(local: u16, remote: u16) -> Option<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
            (port(fields.get(1)?)? == local && port(fields.get(2)?)? == remote).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
    })
}

/// Clock ticks since boot; `None` when there is no such process. The command name may contain anything, so parse behind it.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::process::Command;

    #[test]
    fn the_owner_of_a_loopback_connection_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (accepted, peer) = listener.accept().expect("accept");
        let found = owner_of(accepted.local_addr().expect("address"), peer).expect("owner");
        assert_eq!(found.pid, std::process::id() as i32);
        drop(client);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_and_its_id_is_not_enough_to_be_it() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = child.id() as i32;
        let incarnation = Incarnation { pid, started: start_time(pid).expect("start time") };
        assert!(Process::open(Incarnation { started: incarnation.started + 1, ..incarnation }).is_none());
        Process::open(incarnation).expect("alive").kill().expect("kill");
        let process = Process::open(incarnation);
        child.wait().expect("wait");
        if let Some(process) = process {
            process.ended().await.expect("ended");
        }
        assert!(Process::open(incarnation).is_none());
    }
}
