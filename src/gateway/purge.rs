//! `flinkha purge`: removes all HA files of a cluster that is being deleted with `onDelete: Delete`, and nothing that is not Flink's.

use std::path::PathBuf;

use anyhow::Context;
use futures::TryStreamExt;

use super::flink_configuration;
use crate::cluster::sweep::Kind;
use crate::world::storage::{Storage, owned_directories};

/// Flags of `flinkha purge`; the operator writes them into the Job.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Flink's high-availability.storageDir.
    #[arg(long)]
    pub storage_dir: String,
    /// Flink's high-availability.cluster-id.
    #[arg(long)]
    pub ha_cluster_id: String,
    /// File with Flink's configuration, of which the settings of its file systems matter here.
    #[arg(long)]
    pub flink_configuration: Option<PathBuf>,
    /// How the cluster has signed its directory.
    #[arg(long)]
    pub owner: String,
}

/// Where a container says how it ended.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// Removes, and tells what.
///
/// # Errors
/// When the storage cannot be reached, or when the directory is another cluster's. It is safe to try again.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let configuration = flink_configuration(arguments.flink_configuration.as_deref())?;
    let storage = Storage::new(&arguments.storage_dir, &arguments.ha_cluster_id, &configuration)?;
    let mark = storage.mark().await.context("failed to read the mark of the storage directory")?;
    let message = match mark {
        Some(mark) if mark.owner == arguments.owner => purge(&storage).await?,
        Some(_) => anyhow::bail!("the storage directory is signed by another cluster; its files stay"),
        // An earlier try has got as far as the mark, which goes last.
        None => "no file was left".to_owned(),
    };
    owned_directories(&arguments.storage_dir, &arguments.ha_cluster_id).for_each(remove_empty);
    tracing::info!("{message}");
    // For people only; there is none outside of a container.
    let _ = std::fs::write(TERMINATION_MESSAGE, &message);
    Ok(())
}

async fn purge(storage: &Storage) -> anyhow::Result<String> {
    let (mut removed, mut foreign) = (0, 0);
    let mut files = storage.files();
    while let Some(file) = files.try_next().await.context("failed to list the storage directory")? {
        if Kind::of(&file.path) == Kind::Foreign {
            foreign += 1;
            tracing::info!(file = file.path, "not one of Flink's HA files; it stays");
            continue;
        }
        storage.remove_file(&file.path).await.with_context(|| format!("failed to remove {}", file.path))?;
        removed += 1;
    }
    for entry in storage.entries().await.context("failed to read the result stores")? {
        let remove = async {
            if entry.dirty { storage.remove_dirty(entry.store, &entry.id).await } else { storage.remove(entry.store, &entry.id).await }
        };
        remove.await.with_context(|| format!("failed to remove the result of {}", entry.id))?;
        removed += 1;
    }
    storage.unclaim().await.context("failed to remove the mark")?;
    let stay = if foreign > 0 { format!("; {foreign} files that are not Flink's HA files stay") } else { String::new() };
    Ok(format!("removed {removed} files{stay}"))
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
