//! Removes what terminal jobs leave, in the leading gateway. Flink cleans up its own pointers and files first. Then the
//! gateway writes the tombstone, and removes the last entry, the one in the result store that proves the end.
//!
//! The order is: decide from what was read in this term, write the tombstones, remove files that a dying leader left,
//! remove the entries, confirm. After a crash in between, the next scan of this or the next leader finishes the work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::ledger::Ledger;
use super::ownership::Ownership;
use crate::flink::ha_file::Kind;
use crate::flink::job_id::JobId;
use crate::ha_data::collect::{EndedJob, collectable, is_left_over, with_room};
use crate::ha_data::inventory::Inventory;
use crate::ha_data::marks::LOOK;
use crate::lease::term::Term;
use crate::ledger::application::Run;
use crate::ledger::jobs;
use crate::world::process;
use crate::world::storage::Storage;

/// Interval of scans without a job's end. A scan costs no request to the API server.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Period of frequent scans after a job's end, and their interval: in the first part, in which Flink finishes most
/// clean-ups, and later.
const JOB_END_WINDOW: Duration = Duration::from_secs(30);
const EARLY_SCANS_WINDOW: Duration = Duration::from_secs(5);
const EARLY_SCAN_INTERVAL: Duration = Duration::from_millis(250);
const LATE_SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// Collects while this gateway's JVM leads.
pub struct Collector {
    pub ledger: Ledger,
    pub ownership: Ownership,
    /// The run of the cluster's application.
    pub run: Option<Run>,
}

impl Collector {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        let tenures = Arc::clone(&self.ledger.tenures);
        tenures.during_each(async |term| self.lead(term).await).await;
    }

    /// Serves one tenure.
    async fn lead(&mut self, term: &Term) {
        let mut ending_until = Instant::now() + JOB_END_WINDOW;
        let (mut next_look, mut next_scan) = (Instant::now(), Instant::now());
        // Runs are superseded only before a tenure begins, jobs are dropped rarely, and unconfirmed removals are left
        // only by leaders that died.
        let mut inherited = true;
        while self.ledger.tenures.leads(term) {
            if Instant::now() >= next_look {
                let was_ours = self.ownership.is_ours;
                if let Err(error) = self.ownership.refresh(term).await {
                    tracing::warn!(error = format!("{error:#}"), "failed to mark the storage directory");
                }
                next_look = Instant::now() + LOOK;
                if self.ownership.is_ours && !was_ours {
                    next_scan = Instant::now();
                }
            }
            let is_due = Instant::now() >= next_scan;
            if let (Ok(storage), true, true) = (&self.ownership.storage, self.ownership.is_ours, is_due) {
                let collected = async {
                    let mut is_complete = true;
                    if inherited {
                        is_complete = self.collect_superseded(storage, term).await?;
                        self.confirm_inherited(storage, term).await?;
                    }
                    self.scan(storage, term).await?;
                    anyhow::Ok(is_complete)
                };
                let collected = collected.await;
                let result = if collected.is_ok() { "success" } else { "error" };
                self.ledger.signals.counters.collections.inc(result);
                match collected {
                    Ok(is_complete) => inherited = inherited && !is_complete,
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to collect; trying again"),
                }
            }
            let now = Instant::now();
            let pace = match ending_until.checked_duration_since(now) {
                Some(left) if left > JOB_END_WINDOW - EARLY_SCANS_WINDOW => EARLY_SCAN_INTERVAL,
                Some(left) if !left.is_zero() => LATE_SCAN_INTERVAL,
                _ => REFRESH_INTERVAL,
            };
            next_scan = if is_due { now + pace } else { next_scan.min(now + pace) };
            tokio::select! {
                () = sleep_until(next_scan.min(next_look)) => {}
                () = self.ledger.signals.job_ended.notified() => {
                    (ending_until, next_scan) = (Instant::now() + JOB_END_WINDOW, Instant::now());
                }
                () = self.ledger.signals.job_dropped.notified() => (inherited, next_scan) = (true, Instant::now()),
            }
        }
    }

    /// Scans the result stores once. It costs no request to the API server while no job has ended.
    async fn scan(&self, storage: &Storage, term: &Term) -> anyhow::Result<()> {
        let entries = storage.entries().await.context("failed to read the result stores")?;
        if entries.iter().all(|entry| entry.dirty) && !self.ledger.pointers.may_hold_empty() {
            return Ok(());
        }
        let Some(inventory) = self.ledger.pointers.inventory(term).await? else { return Ok(()) };
        // These jobs have had their tombstone for some time; Flink may write late.
        let long_ended = self.ledger.signals.ended();
        self.ledger
            .pointers
            .remove_empty(inventory.remnants.iter().copied().filter(|id| long_ended.contains(id)))
            .await?;
        let mut found = collectable(&entries, &inventory);
        found.retain(|entry| !self.ledger.signals.is_being_stopped(entry.id));
        let of_run = |id: JobId| self.run.as_ref().is_some_and(|run| run.job_id == id);
        if self.ledger.tenures.is_ending(term) && found.iter().any(|entry| of_run(entry.id)) {
            return end_leader(term);
        }
        if found.is_empty() {
            return Ok(());
        }
        let all = found.len();
        found = with_room(found, &self.ledger.jobs().await?);
        let waiting = all - found.len();
        if waiting > 0 {
            tracing::warn!(
                waiting,
                "results of ended jobs wait, because files of too many others could not be removed"
            );
        }
        self.ownership.mark.confirm(storage, term).await?;
        let now = Timestamp::now().to_string();
        self.ledger
            .change_jobs(term, |jobs| {
                found.iter().for_each(|entry| jobs::bury(jobs, entry.id, &entry.outcome, &now));
                true
            })
            .await?;
        let ids: Vec<JobId> = found.iter().map(|entry| entry.id).collect();
        let mut removed = self
            .remove_left_over(storage, term, &ids, &inventory)
            .await
            .context("failed to remove files that Flink left")?;
        // These jobs have just got their tombstone. The result still exists, so a crash here is finished by the next
        // scan, and so is what a JobManager still leads.
        let remnants = inventory.remnants.iter().copied().filter(|id| ids.contains(id));
        let led = self.ledger.pointers.remove_empty(remnants).await?;
        found.retain(|entry| !led.contains(&entry.id));
        removed.retain(|id, _| !led.contains(id));
        for entry in &found {
            storage
                .remove(entry.store, entry.id)
                .await
                .with_context(|| format!("failed to remove the result of {}", entry.id))?;
            tracing::info!(job = %entry.id, state = %entry.outcome.state, store = ?entry.store, "the job is terminal; nothing of its HA data is left");
        }
        let is_over =
            |run: &Run| removed.contains_key(&run.job_id) && !self.ledger.signals.is_asked_to_stop(run.job_id);
        if self.run.as_ref().is_some_and(is_over) {
            storage.remove_artifacts().await.context("failed to remove the copy of the application's jar")?;
        }
        let now = Timestamp::now().to_string();
        self.ledger.change_jobs(term, |jobs| jobs::confirm(jobs, &removed, &now)).await?;
        self.ledger.signals.jobs_changed.notify_one();
        Ok(())
    }

    /// Removes what is left of superseded runs and of dropped jobs; nothing else does. Returns false while another
    /// JobManager still leads one of them: its address goes with its session.
    async fn collect_superseded(&self, storage: &Storage, term: &Term) -> anyhow::Result<bool> {
        let jobs = self.ledger.jobs().await?;
        let left = jobs.iter().filter(|job| job.ended_without_result() && job.collected.is_none());
        let ids: Vec<JobId> = left.map(|job| job.id).collect();
        if ids.is_empty() {
            return Ok(true);
        }
        self.ownership.mark.confirm(storage, term).await?;
        let Some(before) = self.ledger.pointers.inventory(term).await? else { return Ok(true) };
        let mut removed_runs = Vec::new();
        // What Flink finds stored may run, whatever the ledger says.
        for id in ids.iter().filter(|id| !before.stored.contains(*id)) {
            if self.ledger.pointers.remove_run(*id, term).await? {
                removed_runs.push(*id);
            }
        }
        let is_complete = removed_runs.len() == ids.len();
        let Some(inventory) = self.ledger.pointers.inventory(term).await? else { return Ok(true) };
        let gone: Vec<JobId> = removed_runs.into_iter().filter(|id| !inventory.may_live(*id)).collect();
        let removed = self
            .remove_left_over(storage, term, &gone, &inventory)
            .await
            .context("failed to remove files of a former run")?;
        if !gone.is_empty() {
            tracing::info!(jobs = ?gone, "nothing is left of the HA data of former runs and dropped jobs");
        }
        let now = Timestamp::now().to_string();
        self.ledger.change_jobs(term, |jobs| jobs::confirm(jobs, &removed, &now)).await?;
        Ok(is_complete)
    }

    /// Confirms what a former leader has finished and not confirmed. A job's result is removed last, so without it
    /// nothing else is left. Removes nothing.
    async fn confirm_inherited(&self, storage: &Storage, term: &Term) -> anyhow::Result<()> {
        let jobs = self.ledger.jobs().await?;
        let open = jobs.iter().filter(|job| job.has_ended() && job.collected.is_none());
        let open = open.filter(|job| !job.ended_without_result());
        let open: Vec<JobId> = open.map(|job| job.id).collect();
        if open.is_empty() {
            return Ok(());
        }
        let entries = storage.entries().await.context("failed to read the result stores")?;
        let Some(inventory) = self.ledger.pointers.inventory(term).await? else { return Ok(()) };
        let finished =
            open.into_iter().filter(|id| !inventory.may_live(*id) && !entries.iter().any(|entry| entry.id == *id));
        let finished: BTreeMap<JobId, usize> = finished.map(|id| (id, 0)).collect();
        let now = Timestamp::now().to_string();
        self.ledger.change_jobs(term, |jobs| jobs::confirm(jobs, &finished, &now)).await
    }

    /// Removes the files of ended jobs from the cluster's directory, and returns their number for each job.
    async fn remove_left_over(
        &self,
        storage: &Storage,
        term: &Term,
        ids: &[JobId],
        inventory: &Inventory,
    ) -> anyhow::Result<BTreeMap<JobId, usize>> {
        let jobs = self.ledger.jobs().await?;
        let plans = |id: JobId| jobs.iter().find(|job| job.id == id).map(|job| job.plans.clone()).unwrap_or_default();
        let ended: Vec<EndedJob> = ids.iter().map(|id| EndedJob { id: *id, plans: plans(*id) }).collect();
        let mut removed: BTreeMap<JobId, usize> = ids.iter().map(|id| (*id, 0)).collect();
        let mut files = storage.files();
        while let Some(file) = files.try_next().await? {
            let unnamed = Kind::of(&file.path) == Kind::Checkpoint && !inventory.named.contains(&file.path);
            let job = if unnamed { storage.job_of_checkpoint(&file.path).await? } else { None };
            let Some(job) = is_left_over(&file.path, job, &ended, inventory) else { continue };
            anyhow::ensure!(self.ledger.tenures.leads(term), "another JobManager leads now");
            storage.remove_file(&file.path).await?;
            tracing::info!(%job, file = file.path, "removed a file of an ended job that Flink had left");
            *removed.entry(job).or_default() += 1;
        }
        Ok(removed)
    }
}

/// Ends the JVM after Flink has cleaned up after a run that had ended before the JVM began to lead. It may be about to
/// run the main method, and would run the job again if the result were missing. The next holder of the Lease collects
/// without a JVM that leads.
fn end_leader(term: &Term) -> anyhow::Result<()> {
    tracing::info!(jvm = %term.jvm, "the application has ended and Flink has cleaned up: ending the JobManager, nobody leads any more");
    process::try_end(term.jvm).context("failed to end the JobManager's process")
}
