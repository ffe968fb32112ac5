//! Handles the JVM as a process: finds it as the owner of a loopback connection, recognizes it by its main class, waits
//! for its end on a pidfd, and ends it by a signal.
//!
//! The pod shares one process namespace and both containers run as the same user, which makes this possible. A restart
//! of the gateway does not affect the JVM. The start time distinguishes two processes with the same id. A process has
//! ended only when the kernel says so. If the gateway cannot examine it, because file descriptors or permissions are
//! missing, that proves nothing, and the gateway examines it again.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal, set_dumpable_behavior,
};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::flink::entry_point::{ENTRY_POINTS, main_class};
use crate::lease::term::Incarnation;

/// Interval between two examinations of a process for which the gateway cannot wait.
const PAUSE: Duration = Duration::from_millis(100);

/// A handle on one living process. It still refers to that process when the kernel reuses the id.
pub struct Process {
    pub incarnation: Incarnation,
    /// The pidfd; `None` if the kernel refused one.
    handle: Option<OwnedFd>,
}

impl Process {
    /// Opens a process; `None` if it has ended, or if its id belongs to another one now.
    ///
    /// # Errors
    /// When the gateway cannot examine the process. It may be alive.
    pub fn open(incarnation: Incarnation) -> io::Result<Option<Self>> {
        if incarnation.pid <= 0 {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(incarnation.pid) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => Some(handle),
            Err(Errno::SRCH) => return Ok(None),
            Err(_) => None,
        };
        Self { incarnation, handle }.if_alive()
    }

    fn if_alive(self) -> io::Result<Option<Self>> {
        // The order matters: the handle pins the process, the start time is read next, and the handle is polled last.
        let stat = Stat::of(self.incarnation.pid)?;
        if self.handle.as_ref().is_some_and(has_ended) {
            return Ok(None);
        }
        match stat {
            Some(stat) if stat.started != self.incarnation.started => Ok(None),
            Some(stat) => Ok((!stat.has_ended).then_some(self)),
            None if self.handle.is_some() => Err(io::Error::other("the process is alive, and /proc does not show it")),
            None => Ok(None),
        }
    }

    /// Returns when the process has ended. It waits on its own thread, because a blocked thread of the runtime would
    /// delay the end of the gateway.
    async fn ended(self) -> io::Result<()> {
        let handle = self.handle.ok_or(ErrorKind::Unsupported)?;
        let (tell, told) = oneshot::channel();
        thread::Builder::new().name("await-jvm".to_owned()).spawn(move || {
            let result = loop {
                match poll(&mut [PollFd::new(&handle, PollFlags::IN)], None) {
                    Err(Errno::INTR) => {}
                    Ok(_) if !has_ended(&handle) => {
                        break Err(io::Error::other("the watch of the process ended before it"));
                    }
                    result => break result.map(drop).map_err(io::Error::from),
                }
            };
            // The receiver is gone only while the gateway ends.
            let _ = tell.send(result);
        })?;
        told.await.map_err(io::Error::other)?
    }

    /// Sends SIGKILL. A process that has ended already is a success.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    fn kill(&self) -> io::Result<()> {
        let sent = match (&self.handle, Pid::from_raw(self.incarnation.pid)) {
            (Some(handle), _) => pidfd_send_signal(handle, Signal::KILL),
            (None, Some(pid)) => kill_process(pid, Signal::KILL),
            (None, None) => Ok(()),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Denies other processes of this user access to this one. Containers of a JobManager's pod share a process namespace,
/// and Flink runs as the same user. Otherwise a job could read, through `/proc/<pid>/root`, what only this container
/// mounts (the peers' key, the socket of the preStop hook), and its memory and environment.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_to_itself() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Returns when the process has ended, and not before. If the wait fails, it examines the process and waits again.
pub async fn end_of(incarnation: Incarnation) {
    let mut told = false;
    loop {
        let failed = match Process::open(incarnation) {
            Ok(None) => return,
            Ok(Some(process)) => match process.ended().await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(jvm = %incarnation, error = %failed, "cannot wait for the end of the JobManager's process; looking at it again and again");
        }
        sleep(PAUSE).await;
    }
}

/// Is the process alive? Returns as soon as that is known.
pub async fn is_alive(incarnation: Incarnation) -> bool {
    let mut told = false;
    loop {
        match Process::open(incarnation) {
            Ok(process) => return process.is_some(),
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(jvm = %incarnation, %error, "cannot look whether the JobManager's process is alive; trying again");
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// Ends the process unless it has ended already. Retries until the signal is sent.
pub async fn end(incarnation: Incarnation) {
    let mut told = false;
    while let Err(error) = try_end(incarnation) {
        if !std::mem::replace(&mut told, true) {
            tracing::error!(jvm = %incarnation, %error, "failed to end the JobManager's process; trying again");
        }
        sleep(PAUSE).await;
    }
}

/// Ends the process with a single attempt.
///
/// # Errors
/// When the gateway cannot examine the process, or cannot send the signal.
pub fn try_end(incarnation: Incarnation) -> io::Result<()> {
    Process::open(incarnation)?.map_or(Ok(()), |process| process.kill())
}

/// Returns the names of the files that the process has opened, without their directories.
///
/// # Errors
/// When the gateway cannot examine the process.
pub fn open_files(incarnation: Incarnation) -> io::Result<Vec<String>> {
    let links = fs::read_dir(format!("/proc/{}/fd", incarnation.pid))?.flatten();
    // A descriptor may be closed meanwhile.
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    let names = targets.filter_map(|target| Some(target.file_name()?.to_str()?.to_owned())).collect();
    // The order matters: the descriptors were this process's if it is alive now.
    match Process::open(incarnation)? {
        Some(_) => Ok(names),
        None => Err(ErrorKind::NotFound.into()),
    }
}

fn has_ended(handle: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::new(handle, PollFlags::IN)];
    matches!(poll(&mut asked, Some(&now)), Ok(1)) && asked[0].revents().contains(PollFlags::IN)
}

/// The process at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A JVM whose main class is one of Flink's entry points.
    Flink(Incarnation),
    /// Another process. `program`: the main class if it is a JVM that has one, otherwise the first word of its command
    /// line.
    Stranger { process: Incarnation, program: String, is_java: bool },
}

impl Owner {
    /// Examines a living process.
    fn of(pid: i32) -> Result<Self, String> {
        let unseen = |error: io::Error| format!("cannot look at process {pid}: {error}");
        // The order matters: a process that takes over the id in between has a later start time.
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).map_err(unseen)?;
        let stat = Stat::of(pid).map_err(unseen)?;
        let stat = stat.filter(|stat| !stat.has_ended).ok_or_else(|| format!("process {pid} has just ended"))?;
        let incarnation = Incarnation { pid, started: stat.started };
        let class = main_class(&command_line);
        if class.as_deref().is_some_and(|class| ENTRY_POINTS.contains(&class)) {
            return Ok(Self::Flink(incarnation));
        }
        let program =
            String::from_utf8_lossy(command_line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let is_java = program.rsplit('/').next() == Some("java");
        Ok(Self::Stranger { process: incarnation, program: class.filter(|_| is_java).unwrap_or(program), is_java })
    }
}

/// Returns the process at the other end of an accepted loopback connection. If several hold the connection, it returns
/// Flink's.
///
/// # Errors
/// A sentence for the log, when no process of this user holds the connection or the gateway cannot examine the holder.
pub fn owner_of(local: SocketAddr, peer: SocketAddr) -> Result<Owner, String> {
    let inode = socket_inode(peer.port(), local.port())?
        .ok_or_else(|| format!("no connection from port {} to port {} in /proc/net/tcp", peer.port(), local.port()))?;
    let target = format!("socket:[{inode}]");
    let (mut stranger, mut unseen) = (None, None);
    for pid in process_ids() {
        let owns = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == target.as_str()));
        if owns {
            match Owner::of(pid) {
                Ok(Owner::Flink(incarnation)) => return Ok(Owner::Flink(incarnation)),
                Ok(other) => stranger = stranger.or(Some(other)),
                // The process that cannot be examined may be Flink's.
                Err(why) => unseen = Some(why),
            }
        }
    }
    let nobody = || {
        "the process that asks cannot be seen: the pod needs shareProcessNamespace, and one user for both containers"
            .to_owned()
    };
    match unseen {
        Some(why) => Err(why),
        None => stranger.ok_or_else(nobody),
    }
}

/// A connection whose owner is looked up on each call until it is found.
pub struct Connection {
    local: SocketAddr,
    peer: SocketAddr,
    owner: OnceLock<Owner>,
}

impl Connection {
    pub fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        Self { local, peer, owner: OnceLock::new() }
    }

    /// Returns the process at the other end.
    ///
    /// # Errors
    /// A sentence for the log, when the owner cannot be determined now.
    pub async fn owner(&self) -> Result<Owner, String> {
        if let Some(owner) = self.owner.get() {
            return Ok(owner.clone());
        }
        let (local, peer) = (self.local, self.peer);
        let found =
            tokio::task::spawn_blocking(move || owner_of(local, peer)).await.map_err(|error| error.to_string())??;
        Ok(self.owner.get_or_init(|| found).clone())
    }
}

fn process_ids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns the inode of the IPv4 or IPv6 socket with these local and remote ports.
fn socket_inode(local: u16, remote: u16) -> Result<Option<String>, String> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            // Without IPv6 the table does not exist.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("failed to read {table}: {error}")),
        };
        let found = text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
            (port(fields.get(1)?)? == local && port(fields.get(2)?)? == remote)
                .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The fields of `/proc/<pid>/stat` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// Start time in clock ticks since boot.
    started: u64,
    /// No thread runs any more, though the parent has not reaped the process yet.
    has_ended: bool,
}

impl Stat {
    /// `None` if there is no such process.
    fn of(pid: i32) -> io::Result<Option<Self>> {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| ErrorKind::InvalidData.into()),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            // If `/proc` shows this process, it shows every living one.
            Err(error) if error.kind() == ErrorKind::NotFound => fs::metadata("/proc/self/stat").map(|_| None),
            Err(error) => Err(error),
        }
    }

    /// Parses the line. The command name may contain anything, so the fields count from its closing parenthesis. A
    /// process whose first thread has ended may still run others.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let threads: u64 = fields.get(17)?.parse().ok()?;
        let has_ended = ["Z", "X", "x"].contains(fields.first()?) && threads <= 1;
        Some(Self { started: fields.get(19)?.parse().ok()?, has_ended })
    }
}

#[cfg(test)]
mod tests;
