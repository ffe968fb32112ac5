//! Implements `flinkha purge`: removes all HA files of a cluster that is being deleted with `onDelete: Delete`, and
//! nothing that Flink did not write.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use futures::TryStreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::quorum::access::{connect, tunnel_on_loopback};
use super::storage_arguments::Place;
use super::zookeeper_arguments::Access;
use crate::flink::ha_file::Kind;
use crate::flink::znodes::Paths;
use crate::ha_data::marks::{Mark, Sharing, SignatureRecords, Standing, Watch, is_of_another};
use crate::world::quorum::znodes;
use crate::world::random::nonce;
use crate::world::storage::{Storage, owned_directories};

/// Flags of `flinkha purge`; the operator writes them into the Job.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub place: Place,
    /// How the cluster has signed its directory.
    #[arg(long)]
    pub owner: String,
    /// Digests of the certificates of this Kubernetes cluster.
    #[arg(long, value_delimiter = ',')]
    pub certificates: Vec<String>,
    /// Gateway processes of the cluster that have signed last, by its ledger.
    #[arg(long, value_delimiter = ',')]
    pub signers: Vec<String>,
    /// Where Flink elects by ZooKeeper, the znodes go too, before the files that they point to.
    #[command(flatten)]
    pub zookeeper: Access,
    /// What belongs to jobs that have not ended stays: only znodes go, of the election and if there are no such jobs
    /// all.
    #[arg(long)]
    pub retain: bool,
}

/// The file in which a container states how it ended.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// Removes the files and znodes, and reports their number.
///
/// # Errors
/// When the storage cannot be reached, or when another cluster has marked the directory too. A retry is safe.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // A signal does not end the first process of a container unless it listens.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        purged = purge_all(&arguments) => purged,
        _ = terminate.recv() => anyhow::bail!("told to end"),
    }
}

async fn purge_all(arguments: &Arguments) -> anyhow::Result<()> {
    let znodes = if arguments.zookeeper.quorum.is_some() { Some(purge_znodes(arguments).await?) } else { None };
    let message = if arguments.retain { String::new() } else { purge_files(arguments).await? };
    let message =
        znodes.into_iter().chain(Some(message).filter(|files| !files.is_empty())).collect::<Vec<_>>().join("; ");
    tracing::info!("{message}");
    // For people only. The kubelet creates the file; elsewhere it is absent.
    if let Ok(mut file) = File::options().write(true).truncate(true).open(TERMINATION_MESSAGE) {
        let _ = file.write_all(message.as_bytes());
    }
    Ok(())
}

/// Longest life of a session whose JobManager is gone.
const SESSION_END_TIMEOUT: Duration = Duration::from_secs(45);

/// Removes the znodes, once all sessions of JobManagers have ended.
async fn purge_znodes(arguments: &Arguments) -> anyhow::Result<String> {
    let paths = Paths::new(&arguments.zookeeper.root, &arguments.place.ha_cluster_id);
    let quorum = arguments.zookeeper.quorum()?;
    let client = connect(tunnel_on_loopback(&quorum).await?, &quorum)
        .await
        .context("no ZooKeeper server gives us a session; the znodes stay")?;
    let found = znodes::mark(&client, &paths, &arguments.owner).await?;
    anyhow::ensure!(
        !is_of_another(&arguments.us(String::new()), found.as_deref(), &SignatureRecords::default()),
        "another Kubernetes cluster has signed the same znode {}; its znodes stay",
        znodes::mark_path(&paths, &arguments.owner)
    );
    let begin = Instant::now();
    // Such a session belongs to a JobManager whose end no gateway saw.
    while begin.elapsed() < SESSION_END_TIMEOUT && !znodes::candidates(&client, &paths).await?.is_empty() {
        tracing::info!("a JobManager's session has not ended yet");
        sleep(Duration::from_secs(1)).await;
    }
    let removed = znodes::purge(&client, &paths, &arguments.owner, arguments.retain).await?;
    Ok(format!("removed {removed} znodes"))
}

async fn purge_files(arguments: &Arguments) -> anyhow::Result<String> {
    let place = &arguments.place;
    let storage = place.storage(&place.configuration()?)?;
    let claim = OwnedDirectory {
        storage: &storage,
        us: arguments.us(nonce()?),
        records: arguments.records(),
        begin: Instant::now(),
    };
    let message = purge(claim).await?;
    owned_directories(&place.storage_dir, &place.ha_cluster_id).for_each(remove_empty);
    Ok(message)
}

/// Number of files between two checks of the marks.
const OFTEN: usize = 100;

/// Interval of checks whether another cluster writes the mark.
const PAUSE: Duration = Duration::from_secs(2);

impl Arguments {
    /// Returns our mark.
    fn us(&self, process: String) -> Mark {
        Mark { owner: self.owner.clone(), certificates: self.certificates.clone(), process, ..Mark::default() }
    }

    fn records(&self) -> SignatureRecords {
        SignatureRecords { signers: self.signers.clone(), ..SignatureRecords::default() }
    }
}

/// The storage directory and our mark.
struct OwnedDirectory<'a> {
    storage: &'a Storage,
    us: Mark,
    records: SignatureRecords,
    begin: Instant,
}

impl OwnedDirectory<'_> {
    /// Checks all marks, and writes ours unless the directory is another's.
    async fn look(&self, watch: &mut Watch) -> anyhow::Result<Standing> {
        let failed = "failed to read the marks of the storage directory";
        let marks = self.storage.marks().await.context(failed)?;
        let others: Vec<String> =
            marks.into_iter().map(|mark| mark.owner).filter(|owner| *owner != self.us.owner).collect();
        if !others.is_empty() {
            return Ok(Standing::Ours.beside(&others));
        }
        let found = self.storage.mark(&self.us.owner).await.context(failed)?;
        let looked = watch.look(&self.us, found.as_deref(), &self.records, self.begin.elapsed(), false);
        if let Some(mark) = looked.write {
            self.storage.sign(&self.us.owner, mark.to_text()).await.context("failed to sign the storage directory")?;
        }
        Ok(looked.standing)
    }

    /// Waits until it is certain that no other cluster uses the directory. Returns the storage's time.
    async fn ours(&self, watch: &mut Watch) -> anyhow::Result<SystemTime> {
        loop {
            match self.look(watch).await? {
                Standing::Ours => break,
                Standing::Settling { left } => {
                    tracing::info!(?left, "waiting whether somebody else signs the storage directory");
                    sleep(left.min(PAUSE)).await;
                }
                Standing::Shared(Sharing::Mark(other)) => {
                    anyhow::bail!(
                        "another cluster has signed the same directory; its files stay: {}",
                        self.storage.uri_of_mark(&other)
                    )
                }
                Standing::Shared(Sharing::Contested) => anyhow::bail!(
                    "another cluster that was restored from the same backup writes the mark of the same directory; its files stay: {}",
                    self.storage.uri_of_mark(&self.us.owner)
                ),
                Standing::Shared(Sharing::Certificate | Sharing::Unidentified) => anyhow::bail!(
                    "another cluster has signed the same directory, in another Kubernetes cluster; its files stay: {}",
                    self.storage.uri_of_mark(&self.us.owner)
                ),
            }
        }
        let mark = self
            .storage
            .mark_of_only(&self.us.owner)
            .await
            .context("failed to read the marks of the storage directory")?;
        Ok(mark.context("another cluster has signed the same directory; its files stay")?.beat)
    }
}

async fn purge(claim: OwnedDirectory<'_>) -> anyhow::Result<String> {
    let (storage, mut watch) = (claim.storage, Watch::default());
    // The mark is new, so a file with a later time was written by a cluster that came after the deleted one.
    let now = claim.ours(&mut watch).await?;
    let (mut removed, mut foreign) = (0, 0);
    let mut files = storage.files();
    while let Some(file) = files.try_next().await.context("failed to list the storage directory")? {
        if matches!(Kind::of(&file.path), Kind::Foreign | Kind::Marker) || file.written > now {
            foreign += usize::from(Kind::of(&file.path) != Kind::Marker);
            continue;
        }
        if removed % OFTEN == 0 {
            claim.ours(&mut watch).await?;
        }
        storage.remove_file(&file.path).await.with_context(|| format!("failed to remove {}", file.path))?;
        removed += 1;
    }
    for entry in storage.entries().await.context("failed to read the result stores")? {
        storage.remove_entry(&entry).await.with_context(|| format!("failed to remove the result of {}", entry.id))?;
        removed += 1;
    }
    storage.remove_artifacts().await.context("failed to remove the copy of the application's jar")?;
    storage.unclaim(&claim.us.owner).await.context("failed to remove the mark")?;
    let stay =
        if foreign > 0 { format!("; {foreign} files that are not Flink's HA files stay") } else { String::new() };
    Ok(format!("removed {removed} files{stay}"))
}

/// Removes a directory and those below it, if they are empty. A symbolic link is no directory.
fn remove_empty(directory: PathBuf) {
    if !std::fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir()) {
        return;
    }
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        remove_empty(entry.path());
    }
    // This fails unless the directory is empty, as intended.
    let _ = std::fs::remove_dir(directory);
}
