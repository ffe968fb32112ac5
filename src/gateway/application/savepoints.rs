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

use crate::api::names;
use crate::flink::result::{Store, cause_of};
use crate::gateway::gc::ledger::Ledger;
use crate::ha_data::retention;
use crate::lease::term::Term;
use crate::ledger::application::{Retention, Run, SavepointAnswer, SavepointRequest};
use crate::ledger::checkpoints::is_at_savepoint;
use crate::ledger::jobs::COLLECTABLE;
use crate::ledger::savepoints::{TakenSavepoint, TakenSavepoints};
use crate::world::flink_rest::Rest;
use crate::world::storage::Storage;
use crate::world::storage::artifact::{is_savepoint, remove_savepoint, savepoint_in};
use crate::world::storage::reach::FlinkConfiguration;

const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Age of what Flink answers about checkpoints, by default (`web.refresh-interval`).
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);
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
                if let Err(error) = self.answer(term, &request).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        request.id,
                        "failed to take the savepoint; trying again"
                    );
                    sleep(RETRY_INTERVAL).await;
                    // Another one may be asked for by now.
                    continue;
                }
                self.ledger.signals.savepoint_answered(&request.id);
                if let Some(retention) = &request.retain
                    && let Err(error) = self.retain(term, retention).await
                {
                    tracing::warn!(error = format!("{error:#}"), "failed to remove savepoints that are not kept");
                }
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
        if before.by == by {
            if request.stop { self.await_end().await? } else { self.await_savepoint().await? }
        }
        let found = if let Some(path) = self.complete(request, &before, &directory).await? {
            Ok(path)
        } else if self.has_ended().await? {
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
        // Before the answer: whoever finds an answer need not look for the savepoint.
        if let Some(path) = &path {
            let (id, job) = (request.id.clone(), Some(request.job));
            let taken = TakenSavepoint { id, job, path: path.clone(), at: at.clone(), ..TakenSavepoint::default() };
            let noted = |known: &TakenSavepoints| known.with(taken.clone());
            self.ledger.change_savepoints(term, noted).await?;
        }
        let stops = request.stop.then_some(request.job);
        let answer = SavepointAnswer { id: request.id.clone(), path, error, at, attempt: term.number, by, stops };
        self.ledger.change_progress(term, |progress| progress.savepoint = Some(answer.clone())).await
    }

    /// The savepoint of an earlier attempt, if it is known to be complete: there is to be no second one.
    async fn complete(
        &self,
        request: &SavepointRequest,
        before: &SavepointAnswer,
        directory: impl Fn(u64) -> String,
    ) -> anyhow::Result<Option<String>> {
        if before.attempt == 0 {
            return Ok(None);
        }
        if let Some(known) = self.ledger.savepoints().await?.of(&request.id, request.job) {
            return Ok(Some(known.path.clone()));
        }
        if request.stop { Ok(None) } else { savepoint_in(&directory(before.attempt), &self.configuration).await }
    }

    /// This JVM was asked for a savepoint beside the job, by a gateway that has died since or whose question failed.
    /// Returns when Flink is at none; its own timeout for checkpoints ends each one.
    async fn await_savepoint(&self) -> anyhow::Result<()> {
        let path = format!("/jobs/{}/checkpoints", self.run.job_id);
        // Flink answers with what it knew up to three seconds ago.
        sleep(REFRESH_INTERVAL).await;
        while is_at_savepoint(&self.rest.get(&path).await.context("Flink does not tell its checkpoints")?) {
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Removes the periodic savepoints that are not kept. What fails is noted, and tried again after the next one.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    async fn retain(&self, term: &Term, retention: &Retention) -> anyhow::Result<()> {
        let ledger = &self.ledger;
        // A ledger may be a copy of one in another Kubernetes cluster, where the savepoints are in use. Then somebody
        // else signs the directory of the HA data too.
        if ledger.ha_data().await?.state != COLLECTABLE {
            return Ok(());
        }
        let own_directory = names::high_availability_cluster_id(&ledger.namespace, &ledger.cluster);
        // Nothing is removed that is not marked: whoever leads next goes on with it.
        let marked = ledger.change_savepoints(term, |known| {
            let mut known = known.clone();
            retention::mark(&mut known, retention, &own_directory, Timestamp::now());
            known
        });
        for going in marked.await?.0.iter().filter(|one| one.removing) {
            let removed = remove_savepoint(&going.path, &self.configuration).await;
            let error = removed.err().map(|error| format!("{error:#}"));
            match &error {
                None => tracing::info!(going.path, "removed a periodic savepoint that is not kept"),
                Some(error) => tracing::warn!(going.path, error, "failed to remove a periodic savepoint"),
            }
            ledger.change_savepoints(term, |known| known.without(going, error.as_ref())).await?;
        }
        Ok(())
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
