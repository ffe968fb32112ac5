//! Carries out, between the stamping and the grant, what [`crate::ha_data::handover`] decides about what another
//! version stored.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::api::names;
use crate::flink::job_id::JobId;
use crate::flink::result::{Entry, Outcome};
use crate::flink::{ha_data, pointer};
use crate::gateway::gc::final_cleanup;
use crate::gateway::gc::ledger::Ledger;
use crate::ha_data::handover::{Plan, Stored, StoredState, begin, judge, later, raising, unnamed};
use crate::lease::stamp::version;
use crate::lease::term::Term;
use crate::ledger::application::{Before, Progress, Run};
use crate::ledger::jobs::{self, Job, SUPERSEDED};
use crate::ledger::refusal::Refusal;
use crate::world::storage::Storage;

/// An adoption that takes longer is given up, and so is the leadership.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(6);
/// A refusal that cannot be written for so long is written with the next.
const TELLING: Duration = Duration::from_secs(2);

/// Makes what is stored this version's own, and returns the cluster ConfigMap as it is then. `None` when nobody is to
/// lead, because the run has ended, or when it failed: the Lease is given back then.
pub async fn take_over_before_grant(
    ledger: &Ledger,
    storage: Option<&Storage>,
    run: &Run,
    term: &Term,
    cluster: Value,
) -> Option<Value> {
    match timeout(TAKE_OVER_TIMEOUT, take_over(ledger, storage, run, term, cluster)).await {
        Ok(Ok(cluster)) => Some(cluster),
        Ok(Err(error)) => {
            tracing::warn!(error = format!("{error:#}"), job = %run.job_id, "not leading the application");
            tell(ledger, &error).await;
            None
        }
        Err(_) => {
            tracing::warn!(
                job = %run.job_id,
                "not leading the application: the storage directory or the API server does not answer"
            );
            None
        }
    }
}

/// Says on the resource why nobody is let lead, if it is for a reason that does not go by itself.
pub async fn tell(ledger: &Ledger, error: &anyhow::Error) {
    let Some(refusal) = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()) else { return };
    if !matches!(timeout(TELLING, ledger.note_refusal(Some(refusal))).await, Ok(Ok(()))) {
        tracing::warn!("failed to write the refusal into the ledger; trying again with the next try to lead");
    }
}

async fn take_over(
    ledger: &Ledger,
    storage: Option<&Storage>,
    run: &Run,
    term: &Term,
    cluster: Value,
) -> anyhow::Result<Value> {
    let Records { progress, jobs, entries } = records(ledger, storage).await?;
    let stored = Stored::in_config_map(&cluster)?;
    match judge(run, &stored, &progress, &jobs, &entries) {
        StoredState::Ours if stored.start < Some(run.start) => patch(ledger, &cluster, raising(run)).await,
        StoredState::Ours => Ok(cluster),
        StoredState::Later(begun) => bail!(later(run, begun)),
        StoredState::Unnamed(runs) => bail!(unnamed(run, &runs, &names::ledger(&ledger.cluster))),
        StoredState::Finished(outcome) => {
            if ledger.shared.is_being_stopped(run.job_id) {
                // Another run goes on where it is stopped: first it must be known from where.
                ledger.shared.note_ending(term);
                return Ok(cluster);
            }
            if let Some(storage) = storage
                && let Err(error) = final_cleanup::collect(ledger, storage, run, term, outcome).await
            {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "failed to collect what is left of the application; trying again"
                );
            }
            bail!("the job has ended; its JobManagers are about to go")
        }
        StoredState::Finishing => {
            ledger.shared.note_ending(term);
            Ok(cluster)
        }
        StoredState::Foreign(jobs) => bail!(refuse_foreign(ledger, term, jobs).await?),
        StoredState::Supersede(plan) => carry_out(ledger, storage, run, term, &cluster, plan).await,
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
        ledger.shared.savepoint_answered(&answer.id);
    }
    let entries = match storage {
        Some(storage) => storage.entries().await.context("failed to read the result stores")?,
        None => Vec::new(),
    };
    Ok(Records { progress, jobs, entries })
}

async fn carry_out(
    ledger: &Ledger,
    storage: Option<&Storage>,
    run: &Run,
    term: &Term,
    cluster: &Value,
    plan: Plan,
) -> anyhow::Result<Value> {
    let before = match &plan.from {
        Some(job) => last_checkpoint(ledger, storage, *job).await?,
        None => None,
    };
    begin_version(ledger, storage, run, term, &plan, before).await?;
    patch(ledger, cluster, plan.patch(cluster)).await
}

/// Changes the cluster ConfigMap, if it is still as it was read in this term.
async fn patch(ledger: &Ledger, cluster: &Value, mut patch: Value) -> anyhow::Result<Value> {
    patch["metadata"]["resourceVersion"] = json!(version(cluster));
    let name = ledger.shared.names.cluster_config_map();
    let patched = ledger.config_maps().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let mut value = serde_json::to_value(patched.context("failed to take over the cluster ConfigMap")?)?;
    (value["apiVersion"], value["kind"]) = (json!("v1"), json!("ConfigMap"));
    Ok(value)
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

/// The last checkpoint of a run; `None` when it has none.
async fn last_checkpoint(ledger: &Ledger, storage: Option<&Storage>, job: JobId) -> anyhow::Result<Option<Before>> {
    let name = names::job_config_map(&ledger.shared.names.cluster_id, job.as_str());
    let found = ledger.config_maps().get_opt(&name).await.context("failed to read the job's ConfigMap")?;
    let data = found.and_then(|found| found.data).unwrap_or_default();
    // The number in the key has a fixed width.
    let Some((_, pointer)) =
        data.iter().filter(|(key, _)| ha_data::is_checkpoint(key)).max_by_key(|(key, _)| (*key).clone())
    else {
        return Ok(None);
    };
    let checkpoint = match pointer::file(pointer) {
        Ok(uri) => directory_of(storage, &uri).await?,
        Err(_) => None,
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
