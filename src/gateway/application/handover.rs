//! What the gateway that makes HA data of another version its own reads and writes besides, with either provider: the
//! ledger and the result stores. What is done with it is decided in [`crate::ha_data::handover`].

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::flink::job_id::JobId;
use crate::flink::pointer;
use crate::flink::result::{Entry, Outcome};
use crate::gateway::gc::ledger::Ledger;
use crate::ha_data::handover::{Plan, begin, later};
use crate::lease::term::Term;
use crate::ledger::application::{Before, Progress, Run};
use crate::ledger::jobs::{self, Job, SUPERSEDED};
use crate::ledger::refusal::Refusal;
use crate::world::storage::Storage;

/// A refusal that cannot be written for so long is written with the next.
const TELLING: Duration = Duration::from_secs(2);

/// Says on the resource why nobody is let lead, if it is for a reason that does not go by itself.
pub async fn tell(ledger: &Ledger, error: &anyhow::Error) {
    let Some(refusal) = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()) else { return };
    if !matches!(timeout(TELLING, ledger.note_refusal(Some(refusal))).await, Ok(Ok(()))) {
        tracing::warn!("failed to write the refusal into the ledger; trying again with the next try to lead");
    }
}

/// What is on record of jobs and of the application.
pub struct Records {
    pub progress: Progress,
    pub jobs: Vec<Job>,
    pub entries: Vec<Entry>,
}

/// What the ledger says, and the entries of the result stores. Notes on the way which savepoint has its answer.
///
/// # Errors
/// When the ledger or the storage cannot be read: then nothing is known.
pub async fn records(ledger: &Ledger, storage: Option<&Storage>) -> anyhow::Result<Records> {
    let (jobs, progress) = (ledger.jobs().await?, ledger.progress().await?);
    if let Some(answer) = progress.savepoint.as_ref().filter(|answer| !answer.at.is_empty()) {
        ledger.signals.savepoint_answered(&answer.id);
    }
    let entries = match storage {
        Some(storage) => storage.entries().await.context("failed to read the result stores")?,
        None => Vec::new(),
    };
    Ok(Records { progress, jobs, entries })
}

/// Says in the ledger that jobs are stored that are none of this application's; returns the sentence.
///
/// # Errors
/// When the ledger cannot be written.
pub async fn refuse_foreign(ledger: &Ledger, term: &Term, jobs: BTreeSet<String>) -> anyhow::Result<String> {
    let ids = jobs.into_iter().collect::<Vec<_>>().join(", ");
    let error = format!(
        "jobs {ids} are stored that this application has not run, perhaps by a session cluster of the same name; nothing is touched: give the \
         application another name"
    );
    ledger.change_progress(term, |progress| progress.error = Some(error.clone())).await?;
    Ok(error)
}

/// All that comes before what is stored is made this version's own: what the ledger says from now on, tombstones of
/// former runs, results that are in the way.
///
/// # Errors
/// When a request fails. It is safe to try again.
pub async fn begin_version(
    ledger: &Ledger,
    storage: Option<&Storage>,
    run: &Run,
    term: &Term,
    plan: &Plan,
    before: Option<Before>,
) -> anyhow::Result<()> {
    tracing::info!(job = %run.job_id, version = run.version, ?before, superseded = ?plan.superseded, "this version of the application begins");
    // Of a version that has begun already, what was there before it stands.
    let progress = ledger.progress().await?;
    // Since it was decided, pods of a later start may have begun.
    if progress.start > run.start {
        bail!(later(run, progress.start));
    }
    let resumed = progress.job == Some(run.job_id) && progress.version == run.version;
    let before = before.or_else(|| progress.before.clone().filter(|_| resumed));
    let now = Timestamp::now().to_string();
    let outcome = Outcome { state: SUPERSEDED, ..Outcome::default() };
    // First: the operator goes back to a run that has begun, and never to one with a tombstone.
    ledger.change_progress(term, |progress| *progress = begin(run, progress, before.clone())).await?;
    if !plan.superseded.is_empty() {
        ledger
            .change_jobs(term, |jobs| {
                plan.superseded.iter().for_each(|id| jobs::bury(jobs, *id, &outcome, &now));
                true
            })
            .await?;
    }
    if let Some(storage) = storage {
        for entry in &plan.entries {
            storage.remove_entry(entry).await.context("failed to remove the result of a former version")?;
        }
    }
    Ok(())
}

/// The last checkpoint of a run, with its directory if that can be told; `None` when it has none.
///
/// # Errors
/// When its pointer or its metadata cannot be read.
pub async fn last_checkpoint(ledger: &Ledger, storage: Option<&Storage>, job: JobId) -> anyhow::Result<Option<Before>> {
    let Some(last) = ledger.pointers.last_checkpoint(job).await? else { return Ok(None) };
    let checkpoint = match last.metadata {
        Some(uri) => directory_of(storage, &uri).await?,
        None => None,
    };
    Ok(Some(Before { job, checkpoint }))
}

/// The directory of a checkpoint, by its metadata that a pointer names; `None` if it has none of its own.
///
/// # Errors
/// When the storage does not answer.
pub async fn directory_of(storage: Option<&Storage>, uri: &str) -> anyhow::Result<Option<String>> {
    match storage {
        Some(storage) => {
            storage.location_of_checkpoint(pointer::name(uri)).await.context("failed to read a checkpoint's metadata")
        }
        None => Ok(None),
    }
}
