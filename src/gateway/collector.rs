//! Garbage collection of terminal jobs, by the leading gateway: Flink cleans up its own pointers and files, then we write the
//! tombstone and remove the last entry, the one in the result store that proves the end.
//!
//! Order: decide from what was read in this term, write the tombstones, remove files that a dying leader left, remove the entries, confirm.
//! A crash in between is finished by the next scan of this or the next leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::book::Book;
use super::claim::Claim;
use crate::cluster::collect::{Collectable, Ended, collectable, is_left_over};
use crate::cluster::inventory::Inventory;
use crate::cluster::ledger;
use crate::cluster::sweep::Kind;
use crate::lease::term::Term;
use crate::world::storage::Storage;

/// Between scans when nothing happens; also how often the directory's mark beats. No request to the API server.
const BEAT: Duration = Duration::from_secs(60);

/// The same while the directory is not known to be ours, or does not answer.
const UNCLEAR: Duration = Duration::from_secs(10);

/// For how long after a job's end was noticed there are more scans, and the time between them: at first, when most jobs are gone, and later.
const ENDING: Duration = Duration::from_secs(30);
const FIRST: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(250);
const LATER: Duration = Duration::from_secs(1);

/// Collects while this gateway's JVM leads.
pub struct Collector {
    pub book: Book,
    pub claim: Claim,
}

impl Collector {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        while let Some(term) = self.book.shared.tenure().await {
            let shared = Arc::clone(&self.book.shared);
            tokio::select! {
                () = self.lead(&term) => {}
                // Also in the middle of a scan: a storage that hangs must not keep the next tenure waiting.
                () = shared.deposed(&term) => {}
            }
        }
    }

    /// One tenure.
    async fn lead(&mut self, term: &Term) {
        let mut ending_until = Instant::now() + ENDING;
        let mut next_beat = Instant::now();
        while self.book.shared.leads(term) {
            if Instant::now() >= next_beat {
                if let Err(error) = self.claim.beat(&self.book, term).await {
                    tracing::warn!(error = format!("{error:#}"), "failed to mark the storage directory");
                }
                next_beat = Instant::now() + if self.claim.is_ours { BEAT } else { UNCLEAR };
            }
            if let (Ok(storage), true) = (&self.claim.storage, self.claim.is_ours)
                && let Err(error) = self.scan(storage, term).await
            {
                tracing::warn!(error = format!("{error:#}"), "failed to collect; trying again");
            }
            let now = Instant::now();
            let pause = match ending_until.checked_duration_since(now) {
                Some(left) if left > ENDING - FIRST => now + SOON,
                Some(left) if !left.is_zero() => now + LATER,
                _ => next_beat,
            };
            tokio::select! {
                () = sleep_until(pause) => {}
                () = self.book.shared.job_ended.notified() => ending_until = Instant::now() + ENDING,
            }
        }
    }

    /// Looks through the result stores once. Costs the API server nothing while no job has ended.
    async fn scan(&self, storage: &Storage, term: &Term) -> anyhow::Result<()> {
        let entries = storage.entries().await.context("failed to read the result stores")?;
        if entries.iter().all(|entry| entry.dirty) {
            return Ok(());
        }
        let Some(inventory) = self.book.inventory(term).await? else { return Ok(()) };
        let found = collectable(&entries, &inventory);
        if found.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now().to_string();
        self.book
            .change_jobs(term, |jobs| {
                found.iter().for_each(|entry| ledger::bury(jobs, &entry.id, &entry.outcome, &now));
                true
            })
            .await?;
        let removed = self.remove_left_over(storage, term, &found, &inventory).await.context("failed to remove files that Flink left")?;
        for entry in &found {
            storage.remove(entry.store, &entry.id).await.with_context(|| format!("failed to remove the result of {}", entry.id))?;
            tracing::info!(job = entry.id, state = entry.outcome.state, store = ?entry.store, "the job is terminal; nothing of its HA data is left");
        }
        let now = Timestamp::now().to_string();
        self.book.change_jobs(term, |jobs| ledger::confirm(jobs, &removed, &now)).await?;
        self.book.shared.jobs_changed.notify_one();
        Ok(())
    }

    /// Removes what the cluster's directory still holds of jobs that have ended, and tells how many files of each.
    async fn remove_left_over(
        &self,
        storage: &Storage,
        term: &Term,
        found: &[Collectable],
        inventory: &Inventory,
    ) -> anyhow::Result<BTreeMap<String, usize>> {
        let jobs = self.book.jobs().await?;
        let plan = |id: &str| jobs.iter().find(|job| job.id == id).and_then(|job| job.plan.clone());
        let ended = |entry: &Collectable| Ended { id: entry.id.clone(), plan: plan(&entry.id) };
        let ended: Vec<Ended> = found.iter().map(ended).collect();
        let mut removed: BTreeMap<String, usize> = ended.iter().map(|job| (job.id.clone(), 0)).collect();
        let mut files = storage.files();
        while let Some(file) = files.try_next().await? {
            let unnamed = Kind::of(&file.path) == Kind::Checkpoint && !inventory.named.contains(&file.path);
            let job = if unnamed { storage.job_of_checkpoint(&file.path).await? } else { None };
            let Some(job) = is_left_over(&file.path, job.as_deref(), &ended, inventory) else { continue };
            anyhow::ensure!(self.book.shared.leads(term), "another JobManager leads now");
            storage.remove_file(&file.path).await?;
            tracing::info!(job, file = file.path, "removed a file of an ended job that Flink had left");
            *removed.entry(job).or_default() += 1;
        }
        Ok(removed)
    }
}
