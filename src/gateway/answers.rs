//! Answers people's questions ([`crate::ledger::asked`]), and implements `flinkha ask`, which passes one on to the
//! gateway of the same container.
//!
//! The socket is that of the preStop hook: only the gateway's container mounts it, and only the gateway's user may open
//! it. Whoever may run a program there has the gateway's rights and credentials anyway.

use std::io::{BufRead, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::future::join_all;
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::gc::ledger::Ledger;
use super::gc::ownership::DirectoryMark;
use super::gc::sweeper::SweepRequest;
use super::hand_over::OpenQuestion;
use crate::flink::result::Entry;
use crate::ledger::asked::{
    ADDRESSES, ExaminedGateway, FILES, GatewayAnswer, GatewayQuestion, LONGEST_QUESTION, ReachedAddress, StoredFile,
    StoredFiles, StoredMark, StoredResult, SweepAnswer, TimedResult,
};
use crate::world::storage::reach::NotCollectable;
use crate::world::storage::{MarkFile, Storage};

/// Questions that wait to be taken.
pub const WAITING: usize = 4;
/// Questions that are answered at the same time.
const PARALLEL: usize = 4;
/// Limit for a connection to an address.
const REACHED: Duration = Duration::from_secs(2);
/// Limit for reading or writing what belongs to one answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Flags of `flinkha ask`.
#[derive(Clone, Debug, clap::Args)]
pub struct AskArguments {
    /// Socket of the gateway.
    #[arg(long)]
    pub socket: PathBuf,
}

/// Implements `flinkha ask`: reads a question as a line of JSON from standard input, and prints the answer.
///
/// # Errors
/// When the gateway cannot be reached, or closes the connection without an answer.
pub async fn ask(AskArguments { socket }: AskArguments) -> anyhow::Result<()> {
    let mut question = Vec::new();
    // Nothing else runs in this process.
    std::io::stdin().lock().take(LONGEST_QUESTION as u64).read_until(b'\n', &mut question)?;
    let mut stream = UnixStream::connect(&socket)
        .await
        .with_context(|| format!("failed to reach the gateway at {}", socket.display()))?;
    stream.write_all(&question).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(!answer.is_empty(), "the gateway does not understand the question, or is asked too much at once");
    print!("{answer}");
    Ok(())
}

/// Answers with what this gateway reaches.
pub struct Respondent {
    pub ledger: Ledger,
    pub mark: DirectoryMark,
    pub storage: Result<Storage, NotCollectable>,
    /// To the sweeper.
    pub sweeps: mpsc::Sender<SweepRequest>,
}

impl Respondent {
    /// Answers until the process ends.
    pub async fn run(self, mut questions: mpsc::Receiver<OpenQuestion>) {
        let (respondent, free) = (Arc::new(self), Arc::new(Semaphore::new(PARALLEL)));
        while let Some(open) = questions.recv().await {
            // Whoever waits beside a sweep has asked for another one.
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { break };
            let respondent = Arc::clone(&respondent);
            tokio::spawn(async move {
                let _permit = permit;
                respondent.answer(open).await;
            });
        }
        // Without the socket of the hook nobody asks.
        std::future::pending().await
    }

    async fn answer(&self, OpenQuestion { question, mut stream }: OpenQuestion) {
        tracing::info!(?question, "somebody asks");
        let answer = match question {
            GatewayQuestion::Examine { addresses } => GatewayAnswer::Examined(self.examine(addresses).await),
            GatewayQuestion::LookUp { files } => match &self.storage {
                Ok(storage) => GatewayAnswer::Found(look_up(storage, files).await),
                Err(why) => GatewayAnswer::Refused(why.to_string()),
            },
            GatewayQuestion::Sweep { removes } => match self.sweep(removes).await {
                Ok(answer) => GatewayAnswer::Swept(answer),
                Err(why) => GatewayAnswer::Refused(why),
            },
        };
        let line = serde_json::to_string(&answer).unwrap_or_default() + "\n";
        if let Err(error) = stream.write_all(line.as_bytes()).await {
            tracing::debug!(%error, "whoever asked has gone away");
        }
    }

    async fn examine(&self, addresses: Vec<SocketAddr>) -> ExaminedGateway {
        let term = self.ledger.tenures.term();
        let storage = async {
            let storage = self.storage.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
            match &term {
                Some(term) => self.mark.confirm(storage, term).await.map(drop),
                None => Ok(storage.marks().await.map(drop)?),
            }
        };
        let pointers = async { self.ledger.pointers.stored_now().await.map(drop) };
        let ledger = async { self.ledger.object().await.map(drop) };
        let reached = join_all(addresses.into_iter().take(ADDRESSES).map(reach));
        let (storage, pointers, ledger, addresses) =
            tokio::join!(timed(PATIENCE, storage), timed(PATIENCE, pointers), timed(PATIENCE, ledger), reached);
        ExaminedGateway {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: format!("{:.3}", Timestamp::now()),
            leads: term.is_some(),
            storage,
            pointers,
            ledger,
            addresses,
        }
    }

    /// Asks the sweeper of this gateway, which sweeps only in its own term and by its own rules.
    async fn sweep(&self, removes: bool) -> Result<SweepAnswer, String> {
        if let Err(why) = &self.storage {
            return Err(why.to_string());
        }
        let no_leader = "this JobManager does not lead, and only the leader sweeps";
        let term = self.ledger.tenures.term().ok_or(no_leader)?;
        let (answer, answered) = oneshot::channel();
        let request = SweepRequest { removes, answer };
        self.sweeps.try_send(request).map_err(|_| "another sweep has been asked for already".to_owned())?;
        let mut swept = Err("this JobManager leads no longer, and the sweep has ended with its term".to_owned());
        let waits = async {
            if let Ok(answer) = answered.await {
                swept = answer;
            }
        };
        self.ledger.tenures.while_leading(&term, waits).await;
        swept
    }
}

async fn reach(address: SocketAddr) -> ReachedAddress {
    let connected = async { Ok(TcpStream::connect(address).await.map(drop)?) };
    ReachedAddress { address, result: timed(REACHED, connected).await }
}

/// Measures something that may fail or take too long.
async fn timed(limit: Duration, work: impl Future<Output = anyhow::Result<()>>) -> TimedResult {
    let begin = Instant::now();
    let failed = match timeout(limit, work).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some(format!("no answer within {} s", limit.as_secs())),
    };
    TimedResult { milliseconds: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX), failed }
}

async fn look_up(storage: &Storage, files: Vec<String>) -> StoredFiles {
    let mut found = StoredFiles::default();
    for (file, answer) in storage.look_up(files.into_iter().take(FILES)).await {
        let mut stored = StoredFile { file, ..StoredFile::default() };
        match answer {
            Ok(Some(there)) => (stored.bytes, stored.written) = (Some(there.bytes), Some(told(there.written))),
            Ok(None) => {}
            Err(error) => stored.failed = Some(error.to_string()),
        }
        found.files.push(stored);
    }
    match storage.entries().await {
        Ok(entries) => found.results = entries.iter().map(result).collect(),
        Err(error) => found.failed.push(format!("the result stores cannot be read: {error}")),
    }
    match storage.marks().await {
        Ok(marks) => {
            let mark = |mark: &MarkFile| StoredMark { owner: mark.owner.clone(), written: told(mark.beat) };
            found.marks = marks.iter().map(mark).collect();
        }
        Err(error) => found.failed.push(format!("the marks cannot be read: {error}")),
    }
    found
}

fn result(entry: &Entry) -> StoredResult {
    StoredResult {
        store: entry.store.directory().to_owned(),
        id: entry.id.to_string(),
        is_dirty: entry.dirty,
        state: entry.outcome.as_ref().map(|outcome| format!("{:?}", outcome.state)),
    }
}

fn told(at: SystemTime) -> String {
    Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_result_stores_and_marks_are_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().display().to_string();
        let storage = Storage::new(&root, "ns.demo", &Default::default()).expect("file storage");
        storage.sign("owner", "text".to_owned()).await.expect("signed");
        std::fs::write(directory.path().join("ns.demo/completedCheckpoint1"), "12345").expect("a file");
        let store = directory.path().join("job-result-store/ns.demo");
        std::fs::create_dir_all(&store).expect("a directory");
        std::fs::write(store.join("00000000000000000000000000000001_DIRTY.json"), "{").expect("an entry");
        let found = look_up(&storage, vec!["completedCheckpoint1".to_owned(), "none".to_owned()]).await;
        assert_eq!((found.files[0].bytes, found.files[0].written.is_some()), (Some(5), true));
        assert_eq!(found.files[1], StoredFile { file: "none".to_owned(), ..StoredFile::default() });
        assert!(found.results[0].is_dirty && found.results[0].state.is_none() && found.failed.is_empty());
        assert_eq!(found.marks[0].owner, "owner");
    }

    #[tokio::test]
    async fn what_takes_too_long_or_fails_is_told_with_its_time() {
        let never = timed(Duration::from_millis(20), std::future::pending()).await;
        assert!(never.milliseconds >= 20 && never.failed.is_some_and(|why| why.starts_with("no answer within")));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        assert_eq!(reach(address).await.result.failed, None);
        drop(listener);
        assert!(reach(address).await.result.failed.is_some());
    }
}
