//! Reads and writes the ledger and the result stores when a gateway takes over the HA data of another version, with
//! either provider. [`crate::ha_data::entrance`] makes the decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::time::timeout;

use crate::flink::job_id::JobId;
use crate::flink::pointer;
use crate::gateway::gc::ledger::Ledger;
use crate::ha_data::entrance::{self, BeginWrite, Records, begun};
use crate::ha_data::handover::HandoverPlan;
use crate::lease::term::Term;
use crate::ledger::application::{Before, Run};
use crate::ledger::jobs;
use crate::ledger::refusal::Refusal;
use crate::world::storage::Storage;

/// Limit for the write of a refusal; after it, the next attempt writes the refusal.
const TELLING: Duration = Duration::from_secs(2);

/// Notes on the resource why no JobManager leads, if a person has to remove the reason.
pub async fn tell(ledger: &Ledger, error: &anyhow::Error) {
    let Some(refusal) = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()) else { return };
    if !matches!(timeout(TELLING, ledger.note_refusal(Some(refusal))).await, Ok(Ok(()))) {
        tracing::warn!("failed to write the refusal into the ledger; trying again with the next try to lead");
    }
}

/// Reads the ledger, and the entries of the result stores. It also notes which savepoint already has its answer.
///
/// # Errors
/// When the ledger or the storage cannot be read; nothing is known then.
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

/// Notes in the ledger that stored jobs belong to no application of this resource. Returns the sentence.
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

/// Prepares the take-over of stored HA data: writes the new progress into the ledger, writes tombstones of former runs,
/// and removes results that are in the way.
///
/// # Errors
/// When a request fails. A retry is safe.
pub async fn begin_version(
    ledger: &Ledger,
    storage: Option<&Storage>,
    run: &Run,
    term: &Term,
    plan: &HandoverPlan,
    before: Option<Before>,
) -> anyhow::Result<()> {
    tracing::info!(job = %run.job_id, version = run.version, ?before, superseded = ?plan.superseded, "this version of the application begins");
    let now = Timestamp::now().to_string();
    for write in entrance::begin_version(plan) {
        match (write, storage) {
            (BeginWrite::Progress, _) => {
                ledger.replace_progress(term, |progress| begun(run, progress, before.clone())).await?;
            }
            (BeginWrite::Tombstones(superseded), _) => {
                ledger
                    .change_jobs(term, |jobs| {
                        superseded.iter().for_each(|id| jobs::supersede(jobs, *id, &now));
                        true
                    })
                    .await?;
            }
            (BeginWrite::Entry(entry), Some(storage)) => {
                storage.remove_entry(entry).await.context("failed to remove the result of a former version")?;
            }
            (BeginWrite::Entry(_), None) => {}
        }
    }
    Ok(())
}

/// Returns the last checkpoint of a run, with its directory if that is known; `None` if there is none.
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

/// Returns the directory of a checkpoint, from the metadata that a pointer names; `None` if it has no directory of its
/// own.
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
