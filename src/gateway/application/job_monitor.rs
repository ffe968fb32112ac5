//! Monitors the application in this gateway's own JVM while it leads, and notes its progress in the ledger.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::sleep;

use crate::flink::job_state::FlinkState;
use crate::flink::result::cause_of;
use crate::gateway::gc::ledger::Ledger;
use crate::ha_data::entrance::note_state;
use crate::lease::term::Term;
use crate::ledger::application::{Progress, Run};
use crate::world::flink_rest::Rest;

/// Interval of the requests to Flink. They cost no request to the API server.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Monitors one run.
pub struct JobMonitor {
    pub ledger: Ledger,
    pub rest: Rest,
    pub run: Run,
}

impl JobMonitor {
    /// Runs until the process ends.
    pub async fn run(self) {
        self.ledger.tenures.during_each(async |term| self.lead(term).await).await;
    }

    async fn lead(&self, term: &Term) {
        let (mut told, mut last) = (None, None);
        loop {
            let now = self.look().await;
            // A state is noted once two requests have shown it: a restart of a task is over sooner.
            if let Some(seen) = &now
                && now == last
                && now != told
            {
                match self.tell(term, seen).await {
                    Ok(()) => told.clone_from(&now),
                    Err(error) => tracing::warn!(
                        error = format!("{error:#}"),
                        "failed to say in the ledger how the application gets on"
                    ),
                }
            }
            last = now;
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn tell(&self, term: &Term, seen: &JobView) -> anyhow::Result<()> {
        let up = seen.all_run.then(|| Timestamp::now().to_string());
        let note = |progress: &mut Progress| {
            note_state(&self.run, progress, &seen.state, seen.error.as_deref(), up.as_deref());
        };
        self.ledger.change_progress(term, note).await
    }

    async fn look(&self) -> Option<JobView> {
        match self.rest.get(&format!("/jobs/{}", self.run.job_id)).await {
            Ok(job) => {
                let state = FlinkState::from(job["state"].as_str()?);
                let vertices = job["vertices"].as_array()?;
                let is_up = |vertex: &Value| matches!(vertex["status"].as_str(), Some("RUNNING" | "FINISHED"));
                let all_run = match state {
                    FlinkState::Finished => true,
                    FlinkState::Running => !vertices.is_empty() && vertices.iter().all(is_up),
                    _ => false,
                };
                Some(JobView { state, all_run, error: None })
            }
            // There is no job: the main method has not submitted it yet, or has failed. From Flink 2.3 on a failure
            // does not end the process.
            Err(_) => {
                let told = self.rest.get(&format!("/applications/{}/exceptions", self.run.job_id)).await.ok()?;
                let last = told["exceptionHistory"]["entries"].as_array()?.last()?["stacktrace"].as_str()?.to_owned();
                Some(JobView { state: FlinkState::Failed, all_run: false, error: Some(cause_of(&last)) })
            }
        }
    }
}

/// The answers of the JVM.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JobView {
    state: FlinkState,
    /// All tasks run or have finished.
    all_run: bool,
    /// Why there is no job.
    error: Option<String>,
}
