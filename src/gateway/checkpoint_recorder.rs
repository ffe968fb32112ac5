//! Notes in the ledger the last checkpoint of each job, once a minute at most however often Flink completes one. It
//! asks its own JVM, on loopback: a request to the API server is made only when there is a new checkpoint to note.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::gc::ledger::Ledger;
use crate::flink::job_id::JobId;
use crate::flink::job_state::FlinkState;
use crate::lease::term::Term;
use crate::ledger::checkpoints::{Checkpoints, JOBS, completed};
use crate::world::flink_rest::Rest;

/// Interval of the looks, each of which writes once at most. The first one comes when a job is likely to have completed
/// a checkpoint under a new leader, and a failover is over.
const INTERVAL: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_secs(15);
/// Pause after a look that failed: a busy JVM may leave a request unanswered.
const PAUSE: Duration = Duration::from_secs(5);

/// Records while this gateway's JVM leads.
pub struct CheckpointRecorder {
    pub ledger: Ledger,
    pub rest: Rest,
}

impl CheckpointRecorder {
    /// Runs until the process ends.
    pub async fn run(self) {
        let mut last = None;
        self.ledger.tenures.during_each(async |term| self.lead(term, &mut last).await).await;
    }

    /// `last`: when it has looked last, in whatever term.
    async fn lead(&self, term: &Term, last: &mut Option<Instant>) {
        let (mut noted, first) = (None, Instant::now() + FIRST);
        loop {
            sleep_until(last.map_or(first, |last| first.max(last + INTERVAL))).await;
            match self.look(term, &mut noted).await {
                Ok(true) => {
                    *last = Some(Instant::now());
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "failed to note the last checkpoints; trying again");
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Notes what is new; returns whether Flink has answered. That it cannot be asked is reported elsewhere
    /// ([`super::tls_report`]). `noted`: what the ledger says, once that was read.
    async fn look(&self, term: &Term, noted: &mut Option<Checkpoints>) -> anyhow::Result<bool> {
        let Ok(overview) = self.rest.get("/jobs/overview").await else { return Ok(false) };
        let jobs = open_jobs(&overview);
        if jobs.is_empty() && noted.is_none() {
            return Ok(true);
        }
        let before = match noted {
            Some(noted) => noted,
            None => noted.insert(self.ledger.checkpoints().await?),
        };
        let (mut after, ended) = (before.clone(), self.ledger.signals.ended());
        after.0.retain(|job, _| !ended.contains(job));
        for job in jobs.into_iter().take(JOBS) {
            // An error says that the job has no checkpoints, or has just ended.
            let statistics = self.rest.get(&format!("/jobs/{job}/checkpoints")).await.unwrap_or_default();
            if let Some(last) = completed(&statistics) {
                after.0.insert(job, last);
            }
        }
        if after != *before {
            self.ledger.note_checkpoints(term, &after).await?;
            *before = after;
        }
        Ok(true)
    }
}

/// Returns the jobs that have not ended, the oldest first.
fn open_jobs(overview: &Value) -> Vec<JobId> {
    let jobs = overview["jobs"].as_array().into_iter().flatten();
    let open = jobs.filter(|job| FlinkState::from(job["state"].as_str().unwrap_or_default()).end().is_none());
    let mut open: Vec<(i64, JobId)> = open
        .filter_map(|job| Some((job["start-time"].as_i64().unwrap_or_default(), JobId::of(job["jid"].as_str()?)?)))
        .collect();
    open.sort_unstable();
    open.into_iter().map(|(_, job)| job).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_that_have_not_ended_are_asked_the_oldest_first() {
        let job = |number: u128, state: &str, start: i64| json!({ "jid": JobId::from_number(number).to_string(), "state": state, "start-time": start });
        let jobs = [job(1, "RUNNING", 9), job(2, "FINISHED", 1), job(3, "RESTARTING", 3), json!({ "jid": "x" })];
        assert_eq!(open_jobs(&json!({ "jobs": jobs })), [JobId::from_number(3), JobId::from_number(1)]);
        assert!(open_jobs(&Value::Null).is_empty());
    }
}
