//! `flinkha purge`: removes all HA files of a cluster that is being deleted with `onDelete: Delete`, and nothing that is not Flink's.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use futures::TryStreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::place::Place;
use super::zookeeper::{Access, connect, own_way};
use crate::cluster::sweep::Kind;
use crate::flink::zookeeper::Paths;
use crate::world::storage::{Storage, owned_directories};
use crate::world::zookeeper;

/// Flags of `flinkha purge`; the operator writes them into the Job.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub place: Place,
    /// How the cluster has signed its directory.
    #[arg(long)]
    pub owner: String,
    /// Where Flink elects by ZooKeeper, the znodes go too, before the files that they point to.
    #[command(flatten)]
    pub zookeeper: Access,
    /// What belongs to jobs that have not ended stays: only znodes go, of the election and if there are no such jobs all.
    #[arg(long)]
    pub retain: bool,
}

/// Where a container says how it ended.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// Removes, and tells what.
///
/// # Errors
/// When the storage cannot be reached, or when another cluster has signed the directory too. It is safe to try again.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // The first process of a container is not ended by a signal unless it listens.
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        purged = purge_all(&arguments) => purged,
        _ = terminate.recv() => anyhow::bail!("told to end"),
    }
}

async fn purge_all(arguments: &Arguments) -> anyhow::Result<()> {
    let znodes = if arguments.zookeeper.quorum.is_some() { Some(purge_znodes(arguments).await?) } else { None };
    let message = if arguments.retain { String::new() } else { purge_files(arguments).await? };
    let message = znodes.into_iter().chain(Some(message).filter(|files| !files.is_empty())).collect::<Vec<_>>().join("; ");
    tracing::info!("{message}");
    // For people only; the kubelet makes the file, and elsewhere there is none.
    if let Ok(mut file) = File::options().write(true).truncate(true).open(TERMINATION_MESSAGE) {
        let _ = file.write_all(message.as_bytes());
    }
    Ok(())
}

/// For so long a session of a JobManager that is gone may live on.
const SESSIONS: Duration = Duration::from_secs(45);

/// Removes the znodes, once all sessions of JobManagers have ended.
async fn purge_znodes(arguments: &Arguments) -> anyhow::Result<String> {
    let paths = Paths::new(&arguments.zookeeper.root, &arguments.place.ha_cluster_id);
    let quorum = arguments.zookeeper.quorum()?;
    let client = connect(own_way(&quorum).await?, &quorum).await.context("no ZooKeeper server gives us a session; the znodes stay")?;
    let begin = Instant::now();
    // Of a JobManager whose end nobody saw.
    while begin.elapsed() < SESSIONS && !zookeeper::candidates(&client, &paths).await?.is_empty() {
        tracing::info!("a JobManager's session has not ended yet");
        sleep(Duration::from_secs(1)).await;
    }
    let removed = zookeeper::purge(&client, &paths, &arguments.owner, arguments.retain).await?;
    Ok(format!("removed {removed} znodes"))
}

async fn purge_files(arguments: &Arguments) -> anyhow::Result<String> {
    let place = &arguments.place;
    let storage = place.storage(&place.configuration()?)?;
    let message = purge(&storage, &arguments.owner).await?;
    owned_directories(&place.storage_dir, &place.ha_cluster_id).for_each(remove_empty);
    Ok(message)
}

/// Files between two looks at who else uses the directory.
const OFTEN: usize = 100;

async fn purge(storage: &Storage, owner: &str) -> anyhow::Result<String> {
    // Signed anew: what is written after this was written by a cluster that came after the deleted one.
    storage.claim(owner).await.context("failed to sign the storage directory")?;
    let now = ours(storage, owner).await?;
    let (mut removed, mut foreign) = (0, 0);
    let mut files = storage.files();
    while let Some(file) = files.try_next().await.context("failed to list the storage directory")? {
        if matches!(Kind::of(&file.path), Kind::Foreign | Kind::Marker) || file.written > now {
            foreign += usize::from(Kind::of(&file.path) != Kind::Marker);
            continue;
        }
        if removed % OFTEN == 0 {
            ours(storage, owner).await?;
        }
        storage.remove_file(&file.path).await.with_context(|| format!("failed to remove {}", file.path))?;
        removed += 1;
    }
    for entry in storage.entries().await.context("failed to read the result stores")? {
        storage.remove_entry(&entry).await.with_context(|| format!("failed to remove the result of {}", entry.id))?;
        removed += 1;
    }
    storage.remove_artifacts().await.context("failed to remove the copy of the application's jar")?;
    storage.unclaim(owner).await.context("failed to remove the mark")?;
    let stay = if foreign > 0 { format!("; {foreign} files that are not Flink's HA files stay") } else { String::new() };
    Ok(format!("removed {removed} files{stay}"))
}

/// The time of the storage, if nobody else has signed the directory.
async fn ours(storage: &Storage, owner: &str) -> anyhow::Result<SystemTime> {
    let mark = storage.mark_of_only(owner).await.context("failed to read the marks of the storage directory")?;
    Ok(mark.context("another cluster has signed the same directory; its files stay")?.beat)
}

/// Removes a directory and those below it as far as they are empty.
fn remove_empty(directory: PathBuf) {
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(entry.path());
        }
    }
    // Fails unless it is empty, as it should.
    let _ = std::fs::remove_dir(directory);
}
