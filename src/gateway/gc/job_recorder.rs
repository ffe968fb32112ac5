//! Records in the ledger which jobs run, when one is stored, and how large the HA ConfigMaps are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use super::pointer_store::TERM_IS_OVER;
use crate::flink::job_id::JobId;
use crate::lease::term::Term;
use crate::ledger::bounds;
use crate::ledger::jobs::{Begun, HaData, Size, note};
use crate::ledger::quarantine::{note_jars, note_quarantined};
use crate::world::flink_rest::Rest;
use crate::world::storage::Storage;

/// Limit for Flink to list a job, which it does only after the job is stored. After it the job is recorded without its
/// name, and the next check of the sizes asks for the name again.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);
const NAME_INTERVAL: Duration = Duration::from_millis(500);
/// Interval of checks of the sizes. A check costs no request.
const SIZE_INTERVAL: Duration = Duration::from_secs(10);

/// Number of plans that are read at the same time.
const PARALLEL: usize = 8;

/// Records while this gateway's JVM leads.
pub struct JobRecorder {
    pub ledger: Ledger,
    pub storage: Option<Storage>,
    pub rest: Rest,
}

impl JobRecorder {
    /// Runs until the process ends.
    pub async fn run(self) {
        self.ledger.tenures.during_each(async |term| self.lead(term).await).await;
    }

    async fn lead(&self, term: &Term) {
        let (mut sizes, mut nameless, mut told) = (None, false, None);
        loop {
            if sizes.is_none() {
                match self.note(term).await {
                    Ok((found, named)) => (sizes, nameless) = (Some(found), !named),
                    Err(error) => tracing::warn!(
                        error = format!("{error:#}"),
                        "failed to note the jobs in the ledger; trying again"
                    ),
                }
            }
            // A size is reported when it rises by one step or sinks by two, so that small changes cause no events.
            let without_copy = self.ledger.pointers.without_copy();
            if let Some(largest) = self.largest(sizes.as_ref())
                && told.is_none_or(|(told, without)| {
                    let step = largest.per_cent() / 10;
                    step > told || step + 1 < told || without != without_copy
                })
            {
                let change = |ha_data: &mut HaData| {
                    (ha_data.largest, ha_data.without_copy) = (Some(largest.clone()), without_copy);
                };
                match self.ledger.change_ha_data(term, change).await {
                    Ok(()) => told = Some((largest.per_cent() / 10, without_copy)),
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), "failed to note the size of the HA data")
                    }
                }
            }
            tokio::select! {
                () = self.ledger.signals.jobs_changed.notified() => sizes = None,
                () = sleep(SIZE_INTERVAL) => if nameless { sizes = None },
            }
        }
    }

    /// Returns the largest ConfigMap: as read when the jobs were recorded, or as written since.
    fn largest(&self, read: Option<&BTreeMap<String, usize>>) -> Option<Size> {
        let mut sizes = read?.clone();
        sizes.extend(self.ledger.pointers.written_sizes().into_iter().map(|size| (size.name, size.bytes)));
        sizes.into_iter().map(|(name, bytes)| Size { name, bytes }).max_by_key(|size| size.bytes)
    }

    /// Records the stored jobs. Returns the size of each HA ConfigMap, and whether Flink listed all jobs.
    async fn note(&self, term: &Term) -> anyhow::Result<(BTreeMap<String, usize>, bool)> {
        let inventory = self.ledger.pointers.inventory(term).await?.context(TERM_IS_OVER)?;
        // Without the results it is unknown whether a job that is no longer stored has ended. A storage that does not
        // answer now may do so later; of one that the gateway cannot read nothing else will ever be known.
        let entries = match &self.storage {
            Some(storage) => storage.entries().await.ok(),
            None => None,
        };
        let is_readable = self.storage.is_some();
        let ids = entries.iter().flatten().map(|entry| entry.id);
        let quarantined = || inventory.quarantined.keys().copied();
        let known = inventory.with_config_map.iter().copied().chain(ids).chain(quarantined());
        let known: BTreeSet<JobId> = known.collect();
        let deadline = Instant::now() + NAME_TIMEOUT;
        let mut overview = self.overview().await;
        let told = |overview: &BTreeMap<_, _>| inventory.stored.iter().all(|id| overview.contains_key(id));
        while !told(&overview) && Instant::now() < deadline {
            sleep(NAME_INTERVAL).await;
            overview = self.overview().await;
        }
        let now = Timestamp::now().to_string();
        let begun = |id: &JobId| {
            let (name, started) = overview.get(id).cloned().unwrap_or_else(|| (String::new(), now.clone()));
            (*id, Begun { name, started, plan: inventory.plans.get(id).cloned() })
        };
        let stored: BTreeMap<JobId, Begun> = inventory.stored.iter().map(begun).collect();
        self.ledger
            .change_jobs(term, |jobs| {
                let all = jobs.iter().filter(|_| entries.is_none() && is_readable).map(|job| job.id);
                let known = known.iter().copied().chain(all).collect();
                let before = jobs.clone();
                note(jobs, &stored, &known);
                note_quarantined(jobs, quarantined());
                if !is_readable {
                    bounds::drop_unknown(jobs);
                }
                *jobs != before
            })
            .await?;
        if let Err(error) = self.note_jars(term, &inventory.plans).await {
            tracing::warn!(error = format!("{error:#}"), "failed to note the jars of jobs");
        }
        let named = told(&overview);
        Ok((inventory.bytes, named))
    }

    /// Notes the jars of stored jobs that have none noted: once they are gone, nothing else tells which they were.
    async fn note_jars(&self, term: &Term, plans: &BTreeMap<JobId, String>) -> anyhow::Result<()> {
        let Some(storage) = &self.storage else { return Ok(()) };
        let jobs = self.ledger.jobs().await?;
        let open = jobs.iter().filter(|job| job.jars.is_none() && !job.has_ended());
        let open: Vec<(JobId, String)> = open.filter_map(|job| Some((job.id, plans.get(&job.id)?.clone()))).collect();
        let found = stream::iter(open).map(|(job, plan)| async move {
            Ok::<_, anyhow::Error>(storage.jars(job, &plan).await?.map(|jars| (job, jars)))
        });
        let found: Vec<Option<(JobId, Vec<String>)>> = found.buffer_unordered(PARALLEL).try_collect().await?;
        let found: BTreeMap<JobId, Vec<String>> = found.into_iter().flatten().collect();
        if found.is_empty() {
            return Ok(());
        }
        self.ledger.change_jobs(term, |jobs| note_jars(jobs, &found)).await
    }

    /// Returns name and start of every job that Flink lists; empty if Flink does not answer.
    async fn overview(&self) -> BTreeMap<JobId, (String, String)> {
        let overview = self.rest.get("/jobs/overview").await.unwrap_or_default();
        let jobs = overview["jobs"].as_array().into_iter().flatten();
        let read = |job: &Value| {
            let started = Timestamp::from_millisecond(job["start-time"].as_i64()?).ok()?.to_string();
            Some((JobId::of(job["jid"].as_str()?)?, (job["name"].as_str()?.to_owned(), started)))
        };
        jobs.filter_map(read).collect()
    }
}
