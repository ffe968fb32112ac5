//! Takes the savepoints that the operator asks the leader for, by an annotation on the Lease, and answers in the
//! ledger.
//!
//! A request survives its leader: each attempt writes into a directory of its own, so that a savepoint that was
//! complete when a leader died is found by the next. A job that is stopped with a savepoint gets its tombstone only
//! after the answer: see [`crate::gateway::signals::Signals::is_being_stopped`].

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::flink::result::{Store, cause_of};
use crate::gateway::gc::ledger::Ledger;
use crate::lease::term::Term;
use crate::ledger::application::{Run, SavepointAnswer, SavepointRequest};
use crate::world::flink_rest::Rest;
use crate::world::storage::Storage;
use crate::world::storage::artifact::{is_savepoint, savepoint_in};
use crate::world::storage::reach::FlinkConfiguration;

const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Between the end of a savepoint and the end of its job.
const JOB_END_TIMEOUT: Duration = Duration::from_secs(10);
/// A failed try of something that is to be tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Answers requests for one run.
pub struct SavepointTaker {
    pub ledger: Ledger,
    pub storage: Option<Storage>,
    pub rest: Rest,
    pub run: Run,
    pub configuration: FlinkConfiguration,
}

impl SavepointTaker {
    /// Runs until the process ends.
    pub async fn run(self) {
        self.ledger.tenures.during_each(async |term| self.lead(term).await).await;
    }

    async fn lead(&self, term: &Term) {
        let mut requests = self.ledger.signals.savepoint_requests();
        loop {
            let request = requests.borrow_and_update().clone().filter(|request| request.job == self.run.job_id);
            if let Some(request) = request {
                while let Err(error) = self.answer(term, &request).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        request.id,
                        "failed to take the savepoint; trying again"
                    );
                    sleep(RETRY_INTERVAL).await;
                }
                self.ledger.signals.savepoint_answered(&request.id);
            }
            if requests.changed().await.is_err() {
                return;
            }
        }
    }

    /// # Errors
    /// When nothing is known of the savepoint: it is to be tried again.
    async fn answer(&self, term: &Term, request: &SavepointRequest) -> anyhow::Result<()> {
        let before =
            self.ledger.progress().await?.savepoint.filter(|answer| answer.id == request.id).unwrap_or_default();
        if before.path.is_some() || before.error.is_some() {
            return Ok(());
        }
        let (directory, by) =
            (|attempt: u64| format!("{}/{attempt}", request.directory), format!("{}.{}", term.pod_uid, term.jvm));
        if request.stop && before.by == by {
            self.await_end().await?;
        }
        let found = if self.has_ended().await? {
            // It ended under this or an earlier leader: with the savepoint, or by itself before it was complete.
            savepoint_in(&directory(before.attempt), &self.configuration)
                .await?
                .ok_or("the job ended before the savepoint was complete".to_owned())
        } else {
            let attempt = SavepointAnswer {
                id: request.id.clone(),
                attempt: term.number,
                by: by.clone(),
                stops: request.stop.then_some(request.job),
                ..SavepointAnswer::default()
            };
            self.ledger.change_progress(term, |progress| progress.savepoint = Some(attempt.clone())).await?;
            self.take(request, &directory(term.number)).await?
        };
        let at = Timestamp::now().to_string();
        let (path, error) = match found {
            Ok(path) => (Some(path), None),
            Err(error) => (None, Some(error)),
        };
        tracing::info!(request.id, ?path, ?error, "the savepoint that was asked for");
        let stops = request.stop.then_some(request.job);
        let answer = SavepointAnswer { id: request.id.clone(), path, error, at, attempt: term.number, by, stops };
        self.ledger.change_progress(term, |progress| progress.savepoint = Some(answer.clone())).await
    }

    /// This JVM was told to stop the job, by a gateway that has died since or whose question failed. Told twice, Flink
    /// may drop the savepoint that it is at, and end all the same. Returns when the job has ended, or when Flink has
    /// not been at a savepoint for a while.
    async fn await_end(&self) -> anyhow::Result<()> {
        let mut idle = Instant::now();
        while idle.elapsed() < JOB_END_TIMEOUT && !self.has_ended().await? {
            let checkpoints = self.rest.get(&format!("/jobs/{}/checkpoints", self.run.job_id)).await;
            if checkpoints.is_ok_and(|checkpoints| checkpoints["counts"]["in_progress"].as_u64() != Some(0)) {
                idle = Instant::now();
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// The path, or why there is none and never will be.
    async fn take(&self, request: &SavepointRequest, directory: &str) -> anyhow::Result<Result<String, String>> {
        let job = &request.job;
        let triggered = if request.stop {
            self.rest.post(&format!("/jobs/{job}/stop"), &json!({ "targetDirectory": directory, "drain": false })).await
        } else {
            self.rest
                .post(
                    &format!("/jobs/{job}/savepoints"),
                    &json!({ "target-directory": directory, "cancel-job": false }),
                )
                .await
        };
        let trigger = triggered.context("Flink does not take the request")?;
        let trigger = trigger["request-id"].as_str().context("Flink's answer lacks the request's id")?.to_owned();
        loop {
            sleep(POLL_INTERVAL).await;
            let asked = self.rest.get(&format!("/jobs/{job}/savepoints/{trigger}")).await;
            // A JVM that has just started does not know the request.
            let answer = asked.context("Flink's answer lacks the savepoint's result")?;
            if answer["status"]["id"] != "COMPLETED" {
                continue;
            }
            let operation = &answer["operation"];
            let Some(location) = operation["location"].as_str() else {
                let trace = operation["failure-cause"]["stack-trace"].as_str().unwrap_or("Flink gives no reason");
                return Ok(Err(cause_of(trace)));
            };
            return Ok(match is_savepoint(location, &self.configuration).await {
                Ok(true) => Ok(location.to_owned()),
                Ok(false) => Err(format!("{location} holds no complete savepoint")),
                Err(error) => Err(format!("{location} cannot be read back: {error:#}")),
            });
        }
    }

    /// Is there a record of the job's end?
    async fn has_ended(&self) -> anyhow::Result<bool> {
        let Some(storage) = &self.storage else { return Ok(false) };
        let entries = storage.entries().await.context("failed to read the result stores")?;
        Ok(entries.iter().any(|entry| entry.store == Store::Job && entry.id == self.run.job_id && !entry.torn))
    }
}
