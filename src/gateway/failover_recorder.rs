//! Records changes of leader in the ledger: who led, why that ended, how long nobody led, when all jobs ran again, and
//! from which checkpoints. It begins when the JVM leads, and writes after all jobs run, so no failover waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::gc::ledger::Ledger;
use super::tenure::TenureNotes;
use crate::flink::job_id::JobId;
use crate::flink::job_state::FlinkState;
use crate::lease::term::Term;
use crate::ledger::checkpoints::restored;
use crate::ledger::failovers::{Failovers, RESTORED, RecordedFailover, RestoredJob, merged};
use crate::ledger::jobs::{Job, RecordedState};
use crate::world::flink_rest::Rest;

/// Interval of the requests to Flink while jobs begin, and from [`SLOW`] on. They cost no request to the API server.
const INTERVAL: Duration = Duration::from_millis(250);
const SLOW_INTERVAL: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(30);
/// Jobs that do not run by then are not waited for any more.
const LIMIT: Duration = Duration::from_secs(600);
/// After this time the change is recorded although not all jobs run. It is recorded again when they do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Limit for the change itself to be known: the gateway learns it by its own write of the Lease or the ledger.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// What Flink says of a job's checkpoints may be as old as `web.refresh-interval`, 3 s by default.
const REFRESH: Duration = Duration::from_secs(4);
/// Between two reads of the ledger's jobs: some of them may have been set aside meanwhile.
const JOBS_INTERVAL: Duration = Duration::from_secs(30);
/// Between two tries to write.
const PAUSE: Duration = Duration::from_secs(5);

/// Records while this gateway's JVM leads.
pub struct FailoverRecorder {
    pub ledger: Ledger,
    pub rest: Rest,
}

/// All stored jobs run.
struct AllRun {
    after: Duration,
    jobs: Vec<JobId>,
}

impl FailoverRecorder {
    /// Runs until the process ends.
    pub async fn run(self) {
        let (start, mut notes) = (Instant::now(), None::<TenureNotes<()>>);
        let lead = async |term: &Term| {
            // A JVM whose gateway cannot prove its leadership for a moment leads on in the same term.
            notes = TenureNotes::of(Some(term.clone()), notes.take(), start.elapsed());
            if let Some(notes) = notes.as_mut().filter(|notes| notes.noted.is_none()) {
                self.record(term, start + notes.since).await;
                notes.noted = Some(());
            }
        };
        self.ledger.tenures.during_each(lead).await;
    }

    async fn record(&self, term: &Term, began: Instant) {
        // A gateway that was restarted beside its JVM takes a term without a change.
        let own = timeout(CHANGE_TIMEOUT, self.ledger.signals.change_to(term.number)).await.ok().flatten();
        let Some(mut failover) = own.as_ref().and_then(RecordedFailover::of) else {
            return self.note(term, None).await;
        };
        let mut all_run = pin!(self.until_all_run(began));
        let all_run = match timeout(PATIENCE, &mut all_run).await {
            Ok(all_run) => all_run,
            Err(_) => {
                self.note(term, Some(&failover)).await;
                all_run.await
            }
        };
        self.ledger.signals.recovery.note_all_run(term.number);
        if let Some(AllRun { after, jobs }) = all_run {
            let here = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            failover.running_millis = Some(failover.leaderless_millis.saturating_add(here));
            sleep(REFRESH).await;
            failover.restored = self.restored(&jobs).await;
        }
        self.note(term, Some(&failover)).await;
    }

    /// Waits until all tasks of all stored jobs run; `None` if there are no jobs, or if that takes too long.
    async fn until_all_run(&self, began: Instant) -> Option<AllRun> {
        let (mut jobs, mut next_read): (Option<BTreeSet<JobId>>, Instant) = (None, began);
        // When each job ran for the first time: which jobs are stored may become known later.
        let mut ran: BTreeMap<JobId, Duration> = BTreeMap::new();
        while began.elapsed() < LIMIT {
            if next_read <= Instant::now() {
                let found = self.ledger.jobs().await.ok();
                next_read = Instant::now() + if found.is_some() { JOBS_INTERVAL } else { PAUSE };
                jobs = found.map(|found| stored(&found)).or(jobs);
            }
            if jobs.as_ref().is_some_and(BTreeSet::is_empty) {
                return None;
            }
            sleep(if began.elapsed() < SLOW { INTERVAL } else { SLOW_INTERVAL }).await;
            let running = running(&self.rest.get("/jobs/overview").await.unwrap_or_default());
            for job in &running {
                ran.entry(*job).or_insert_with(|| began.elapsed());
            }
            if let Some(jobs) = jobs.as_ref().filter(|jobs| jobs.is_subset(&running)) {
                let after = jobs.iter().filter_map(|job| ran.get(job)).max()?;
                return Some(AllRun { after: *after, jobs: jobs.iter().copied().collect() });
            }
        }
        None
    }

    /// Returns where the first few jobs went on. A job of which Flink says nothing is left out, and so is one that has
    /// begun anew although it had a checkpoint: what Flink says may be older than the restore.
    async fn restored(&self, jobs: &[JobId]) -> Vec<RestoredJob> {
        let (noted, mut all) = (self.ledger.checkpoints().await.unwrap_or_default(), Vec::new());
        for job in jobs.iter().take(RESTORED) {
            let Ok(statistics) = self.rest.get(&format!("/jobs/{job}/checkpoints")).await else { continue };
            let checkpoint = restored(&statistics);
            if checkpoint.is_some() || !noted.0.contains_key(job) {
                all.push(RestoredJob { job: *job, checkpoint });
            }
        }
        all
    }

    /// Writes this change and those that this gateway has seen, unless they are recorded. Without any it writes and
    /// reads nothing.
    async fn note(&self, term: &Term, own: Option<&RecordedFailover>) {
        let seen = self.ledger.signals.changes();
        let known: Vec<RecordedFailover> =
            own.cloned().into_iter().chain(seen.iter().filter_map(RecordedFailover::of)).collect();
        if known.is_empty() {
            return;
        }
        let change = |before: &Failovers| Failovers(merged(term.number, known.iter().chain(&before.0).cloned()));
        while let Err(error) = self.ledger.change_failovers(term, change).await {
            tracing::warn!(error = format!("{error:#}"), "failed to record the change of leader; trying again");
            sleep(PAUSE).await;
        }
    }
}

fn stored(jobs: &[Job]) -> BTreeSet<JobId> {
    let stored = jobs.iter().filter(|job| !job.has_ended() && job.state == RecordedState::Running);
    stored.map(|job| job.id).collect()
}

/// Returns the jobs of which all tasks run or have finished, and those that have ended, by Flink's answer to
/// `/jobs/overview` (`MultipleJobsDetails`, 1.15 to 2.3).
fn running(overview: &Value) -> BTreeSet<JobId> {
    let runs = |job: &&Value| {
        let state = FlinkState::from(job["state"].as_str().unwrap_or_default());
        let tasks = |state: &str| job["tasks"][state].as_u64().unwrap_or_default();
        let total = tasks("total");
        let all = total > 0 && tasks("running").saturating_add(tasks("finished")) >= total;
        state.end().is_some() || state == FlinkState::Running && all
    };
    let jobs = overview["jobs"].as_array().into_iter().flatten().filter(runs);
    jobs.filter_map(|job| JobId::of(job["jid"].as_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_runs_when_all_its_tasks_do() {
        let job = |number: u128, state: &str, tasks: Value| json!({ "jid": JobId::from_number(number).to_string(), "state": state, "tasks": tasks });
        let overview = json!({ "jobs": [
            job(1, "RUNNING", json!({ "total": 3, "running": 2, "finished": 1 })),
            job(2, "RUNNING", json!({ "total": 3, "running": 2, "initializing": 1 })),
            job(3, "RESTARTING", json!({ "total": 1, "running": 1 })),
            job(4, "FINISHED", json!({ "total": 1, "finished": 1 })),
            job(5, "RUNNING", json!({ "total": 0 })),
            job(6, "INITIALIZING", json!({})),
        ] });
        assert_eq!(running(&overview), BTreeSet::from([JobId::from_number(1), JobId::from_number(4)]));
        assert!(running(&Value::Null).is_empty());
    }
}
