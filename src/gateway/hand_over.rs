//! Hands the leadership over at the end of a pod. The preStop hook runs `flinkha hand-over` in the gateway's container,
//! which makes the gateway give up the leadership long before the gateway itself has to end.
//!
//! It uses a socket in a volume that only the gateway's container mounts. Everybody who reaches the pod reaches its
//! ports, and a hand-over excludes a JobManager from the election. [`super::answers`] answers people's questions at the
//! same socket.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::events::Events;
use crate::lease::elector::Event;
use crate::ledger::asked::{GatewayQuestion, LONGEST_QUESTION};

/// The hook's request and its answer.
const REQUEST: &[u8] = b"hand over\n";
const ANSWER: &[u8] = b"ok\n";

/// Limit of the whole exchange: the end of the pod must not wait longer for the hook.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after an error of the listener.
const PAUSE: Duration = Duration::from_millis(50);

/// Added to the grace period. The kubelet kills a pod at the end of its grace period, but may allow its hooks 2 s more,
/// and may itself be late.
const MARGIN: Duration = Duration::from_secs(10);

/// Flags of `flinkha hand-over`; the operator writes them into the preStop hook.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Socket of the gateway.
    #[arg(long)]
    pub socket: PathBuf,
}

/// Returns the longest time for which a gateway does not campaign after a hand-over.
pub fn patience(termination_grace_period: Duration) -> Duration {
    termination_grace_period.saturating_add(MARGIN)
}

/// Implements `flinkha hand-over`: notifies the gateway that its pod begins to terminate.
///
/// # Errors
/// When the gateway cannot be reached, or does not confirm in time. The kubelet ends the pod all the same.
pub async fn run(Arguments { socket }: Arguments) -> anyhow::Result<()> {
    let asked = async {
        let mut stream = UnixStream::connect(&socket).await?;
        stream.write_all(REQUEST).await?;
        let mut answer = vec![0; ANSWER.len()];
        stream.read_exact(&mut answer).await?;
        if answer == ANSWER { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidData)) }
    };
    let answered = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
    answered.with_context(|| format!("failed to tell the gateway at {} that its pod terminates", socket.display()))
}

/// Opens the socket for this user only. It replaces the socket of an earlier process of this container.
///
/// # Errors
/// When the directory does not exist or is not writable.
pub fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    let new = socket.with_extension("new");
    let opened = || {
        if new.exists() {
            std::fs::remove_file(&new)?;
        }
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        // The socket has its final name only after its permissions are set.
        std::fs::rename(&new, socket)?;
        Ok::<_, io::Error>(listener)
    };
    opened().with_context(|| format!("failed to open the socket {} of the preStop hook", socket.display()))
}

/// A question, and the connection that waits for its answer.
pub struct OpenQuestion {
    pub question: GatewayQuestion,
    pub stream: UnixStream,
}

/// Handles requests, one at a time, until the process ends. Questions are passed on, because their answers take long;
/// one is dropped if too many wait.
pub async fn serve(listener: UnixListener, events: Events, questions: mpsc::Sender<OpenQuestion>) {
    loop {
        let taken = match listener.accept().await {
            Ok((stream, _)) => timeout(PATIENCE, take(stream, &events, &questions))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            Err(error) => {
                sleep(PAUSE).await;
                Err(error)
            }
        };
        if let Err(error) = taken {
            tracing::warn!(%error, "a request of the preStop hook was not understood");
        }
    }
}

async fn take(stream: UnixStream, events: &Events, questions: &mpsc::Sender<OpenQuestion>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.take(LONGEST_QUESTION as u64));
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    let mut stream = reader.into_inner().into_inner();
    if line == REQUEST {
        tracing::info!("the pod begins to terminate: handing over");
        events.tell(Event::PodTerminating);
        return stream.write_all(ANSWER).await;
    }
    let question = serde_json::from_slice(&line).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    questions.try_send(OpenQuestion { question, stream }).map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hook_tells_the_gateway_and_nothing_else_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("gateway.sock");
        assert!(run(Arguments { socket: socket.clone() }).await.is_err(), "nobody listens");
        let (events, mut told) = Events::channel();
        let (questions, mut asked) = mpsc::channel(1);
        // An earlier process has left its socket.
        drop(listen(&socket).expect("a socket"));
        tokio::spawn(serve(listen(&socket).expect("a socket in its place"), events, questions));
        let mode = std::fs::metadata(&socket).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut other = UnixStream::connect(&socket).await.expect("a connection");
        other.write_all(b"something else\n").await.expect("sent");
        assert_eq!(other.read(&mut [0; 8]).await.ok().unwrap_or_default(), 0, "it is closed without an answer");
        assert!(told.try_recv().is_err());
        // A silent client delays the hook for a limited time only.
        let silent = UnixStream::connect(&socket).await.expect("a connection");
        drop(silent);
        run(Arguments { socket: socket.clone() }).await.expect("it is confirmed");
        assert_eq!(told.try_recv(), Ok(Event::PodTerminating));
        assert!(told.try_recv().is_err() && asked.try_recv().is_err());
        let mut person = UnixStream::connect(&socket).await.expect("a connection");
        person.write_all(b"{\"sweep\":{\"removes\":false}}\n").await.expect("sent");
        let open = asked.recv().await.expect("a question is passed on");
        assert_eq!(open.question, GatewayQuestion::Sweep { removes: false });
        assert!(told.try_recv().is_err(), "a question ends no leadership");
    }

    #[test]
    fn a_gateway_stands_back_for_longer_than_its_pod_can_live() {
        assert_eq!(patience(Duration::from_secs(30)), Duration::from_secs(40));
        assert_eq!(patience(Duration::MAX), Duration::MAX);
    }
}
