//! Sweeps the cluster's directory periodically for files that crashes of Flink have left. [`crate::ha_data::sweep`]
//! decides what is an orphan.
//!
//! It decides twice about every candidate: while it lists the directory, and again with pointers that it reads after
//! the list. Its memory is bounded for any size of the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::ledger::Ledger;
use super::ownership::DirectoryMark;
use crate::flink::ha_file::Kind;
use crate::flink::job_id::JobId;
use crate::ha_data::inventory::Inventory;
use crate::ha_data::sweep::{Evidence, FileVerdict, of_checkpoint, verdict};
use crate::lease::term::Term;
use crate::ledger::asked::{LISTED, OrphanFile, SweepAnswer};
use crate::ledger::jobs::{OrphanCounts, UNENDED};
use crate::world::storage::{File, Storage};

/// Delay of the first sweep; a new leader is busy at first.
const FIRST_SWEEP_DELAY: Duration = Duration::from_secs(60);

/// Number of orphans that one sweep removes; the next one takes the others.
const BATCH: usize = 10_000;

/// Number of orphans between two checks of the marks.
const OFTEN: usize = 100;

/// Names of ConfigMaps or znodes with an unreadable pointer that the ledger says.
const UNREADABLE: usize = 100;

/// Settings of the user.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Orphans are removed and not only counted.
    pub delete: bool,
    /// A younger file stays.
    pub age: Duration,
    pub period: Duration,
}

/// Sweeps while this gateway's JVM leads.
pub struct Sweeper {
    pub ledger: Ledger,
    pub mark: DirectoryMark,
    pub storage: Option<Storage>,
    pub settings: Settings,
    /// Sweeps that people ask for.
    pub requests: mpsc::Receiver<SweepRequest>,
}

/// A sweep that somebody asks for, beside those that are due.
pub struct SweepRequest {
    /// Orphans are removed, and not only counted.
    pub removes: bool,
    /// Closed when nobody waits any more: the request is void then.
    pub answer: oneshot::Sender<Result<SweepAnswer, String>>,
}

/// Jobs without an end in the ledger, with the files of their plans.
type Living = BTreeMap<JobId, Vec<String>>;

/// A file and the decision about it.
struct Judged {
    file: File,
    verdict: FileVerdict,
}

impl Sweeper {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        let tenures = Arc::clone(&self.ledger.tenures);
        tenures.during_each(async |term| self.lead(term).await).await;
    }

    async fn lead(&mut self, term: &Term) {
        let mut due = Instant::now() + FIRST_SWEEP_DELAY.min(self.settings.period);
        loop {
            let request = tokio::select! {
                () = sleep_until(due) => None,
                Some(request) = self.requests.recv() => Some(request),
            };
            if request.is_none() {
                due = Instant::now() + self.settings.period;
            }
            // A request of an earlier tenure, for example.
            if request.as_ref().is_some_and(|request| request.answer.is_closed()) {
                continue;
            }
            let Some(storage) = &self.storage else { continue };
            let removes = request.as_ref().map_or(self.settings.delete, |request| request.removes);
            let swept = self.sweep(storage, term, removes).await;
            match &swept {
                Ok(Some(SweepAnswer { orphans, .. })) => {
                    tracing::info!(?orphans, removes, asked = request.is_some(), "swept the storage directory");
                    self.ledger.signals.note_sweep(orphans.clone());
                }
                Ok(None) => tracing::debug!("the storage directory is not swept: another JobManager leads now"),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "failed to sweep the storage directory"),
            }
            if let Some(request) = request {
                // Whoever has gone away needs no answer.
                let _ = request.answer.send(match swept {
                    Ok(Some(answer)) => Ok(answer),
                    Ok(None) => Err("another JobManager leads now".to_owned()),
                    Err(error) => Err(format!("{error:#}")),
                });
            }
        }
    }

    /// Sweeps once; `None` if this term is over.
    ///
    /// # Errors
    /// When something cannot be read, or when the directory is not known to be ours.
    async fn sweep(&self, storage: &Storage, term: &Term, removes: bool) -> anyhow::Result<Option<SweepAnswer>> {
        let marked = self.mark.confirm(storage, term).await?;
        let Some((inventory, dirty, living)) = self.known(storage, term).await? else { return Ok(None) };
        let known = Evidence { inventory: &inventory, dirty: &dirty, living: &living, age_limit: self.settings.age };
        // With more jobs than the ledger records, it does not say of all which files are theirs.
        let deletes = removes && living.len() < UNENDED;
        let mut answer = SweepAnswer { age_limit_seconds: self.settings.age.as_secs(), ..SweepAnswer::default() };
        if removes && !deletes {
            answer.withheld = Some(format!("more than {UNENDED} jobs have not ended, and the ledger knows no more"));
        }
        let mut orphans = OrphanCounts::default();
        let (mut candidates, mut reads) = (Vec::new(), 0);
        let mut files = storage.files();
        while let Some(file) = files.try_next().await? {
            // The content of files beyond the limit is read by a later sweep; here they are only counted.
            let read = reads < BATCH;
            let judged = judge(storage, file, marked, &known, read).await?;
            reads += usize::from(matches!(judged.verdict, FileVerdict::Orphan | FileVerdict::Protected));
            match judged.verdict {
                FileVerdict::Orphan => {
                    orphans.files += 1;
                    orphans.bytes += judged.file.bytes;
                    if answer.files.len() < LISTED {
                        answer.files.push(listed(&judged.file, marked));
                    }
                    if read && deletes {
                        candidates.push(judged.file);
                    }
                }
                FileVerdict::Foreign => orphans.foreign += 1,
                FileVerdict::Protected => orphans.protected += 1,
                FileVerdict::InUse | FileVerdict::Young => {}
            }
        }
        drop(files);
        let mut removed = 0;
        if !candidates.is_empty()
            && self.mark.confirm(storage, term).await.is_ok()
            && let Some((inventory, dirty, living)) = self.known(storage, term).await?
        {
            let known =
                Evidence { inventory: &inventory, dirty: &dirty, living: &living, age_limit: self.settings.age };
            for (number, file) in candidates.into_iter().enumerate() {
                if number > 0 && number % OFTEN == 0 {
                    self.mark.confirm(storage, term).await?;
                }
                let judged = judge(storage, file, marked, &known, true).await?;
                if judged.verdict == FileVerdict::Orphan && self.ledger.tenures.leads(term) {
                    storage.remove_file(&judged.file.path).await?;
                    tracing::info!(file = judged.file.path, "removed a file that nothing needs");
                    removed += 1;
                    orphans.files -= 1;
                    orphans.bytes -= judged.file.bytes;
                }
            }
        }
        let (found, mut unreadable) = (orphans.clone(), self.ledger.pointers.unreadable(&inventory));
        unreadable.truncate(UNREADABLE);
        self.ledger
            .change_ha_data(term, |ha_data| {
                let before = ha_data.orphans.as_ref().map_or(0, |orphans| orphans.removed);
                ha_data.unreadable.clone_from(&unreadable);
                ha_data.orphans = Some(OrphanCounts { removed: before.saturating_add(removed), ..found.clone() });
            })
            .await?;
        Ok(Some(SweepAnswer { orphans: OrphanCounts { removed, ..orphans }, ..answer }))
    }

    /// Returns what is in use, the jobs that Flink is still cleaning up, and those that have not ended; `None` if this
    /// term is over.
    async fn known(
        &self,
        storage: &Storage,
        term: &Term,
    ) -> anyhow::Result<Option<(Inventory, BTreeSet<JobId>, Living)>> {
        let dirty = storage.entries().await?.into_iter().filter(|entry| entry.dirty).map(|entry| entry.id).collect();
        let jobs = self.ledger.jobs().await?.into_iter();
        let living = jobs.filter(|job| !job.has_ended()).map(|job| (job.id, job.plans)).collect();
        Ok(self.ledger.pointers.inventory(term).await?.map(|inventory| (inventory, dirty, living)))
    }
}

fn listed(file: &File, now: SystemTime) -> OrphanFile {
    OrphanFile { path: file.path.clone(), bytes: file.bytes, age_seconds: file.age(now).as_secs() }
}

/// Decides about a file. Reads it if its content matters and `read` allows it.
async fn judge(
    storage: &Storage,
    file: File,
    now: SystemTime,
    known: &Evidence<'_>,
    read: bool,
) -> anyhow::Result<Judged> {
    let mut verdict = verdict(&file.path, file.age(now), known);
    if verdict == FileVerdict::Orphan && Kind::of(&file.path) == Kind::Checkpoint && read {
        verdict = of_checkpoint(storage.job_of_checkpoint(&file.path).await?, known);
    }
    Ok(Judged { file, verdict })
}
