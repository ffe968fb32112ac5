//! Removes everything that an application's finished run has left. The holder of the Lease, or of the leader's latch in
//! ZooKeeper, does it without granting its JVM leadership: once the tombstone is written, no JVM leads again.
//!
//! A JVM that began to lead as the run ended may have run the main method once more. Its job was refused, but the files
//! of that attempt exist, and no pointer and no ledger names them.

use anyhow::Context;
use futures::TryStreamExt;
use jiff::Timestamp;

use super::ownership::DirectoryMark;
use super::pointer_store::TERM_IS_OVER;
use crate::flink::ha_file::Kind;
use crate::flink::result::Outcome;
use crate::lease::term::Term;
use crate::ledger::application::Run;
use crate::ledger::jobs;
use crate::world::storage::Storage;

/// Writes the tombstone, unless it exists. Then removes all of Flink's files from the directory, if none is in use and
/// the directory is this cluster's alone.
///
/// # Errors
/// When a request fails, or when a file is still in use. A retry is safe.
pub async fn collect(
    mark: &DirectoryMark,
    storage: &Storage,
    run: &Run,
    term: &Term,
    outcome: Option<Outcome>,
) -> anyhow::Result<()> {
    let ledger = &mark.ledger;
    let now = || Timestamp::now().to_string();
    if let Some(outcome) = outcome {
        ledger
            .change_jobs(term, |jobs| {
                jobs::bury(jobs, run.job_id, &outcome, &now());
                true
            })
            .await?;
    }
    mark.confirm(storage, term).await?;
    let inventory = ledger.pointers.inventory(term).await?.context(TERM_IS_OVER)?;
    let in_use = !inventory.stored.is_empty() || !inventory.with_config_map.is_empty() || inventory.unreadable_plan;
    anyhow::ensure!(!in_use, "something is still stored: {:?} {:?}", inventory.stored, inventory.with_config_map);
    let led = ledger.pointers.remove_empty(inventory.remnants.iter().copied().filter(|id| *id == run.job_id)).await?;
    anyhow::ensure!(led.is_empty(), "a JobManager still leads {}", run.job_id);
    let mut removed = 0;
    let mut files = storage.files();
    while let Some(file) = files.try_next().await.context("failed to list the storage directory")? {
        if matches!(Kind::of(&file.path), Kind::Foreign | Kind::Marker) {
            continue;
        }
        storage.remove_file(&file.path).await.with_context(|| format!("failed to remove {}", file.path))?;
        tracing::info!(file = file.path, "removed a file of the application that has ended");
        removed += 1;
    }
    for entry in storage.entries().await?.into_iter().filter(|entry| entry.id == run.job_id) {
        storage.remove_entry(&entry).await.with_context(|| format!("failed to remove the result of {}", entry.id))?;
    }
    if !ledger.signals.is_asked_to_stop(run.job_id) {
        storage.remove_artifacts().await.context("failed to remove the copy of the application's jar")?;
    }
    let removed = [(run.job_id, removed)].into();
    ledger.change_jobs(term, |jobs| jobs::confirm(jobs, &removed, &now())).await
}
