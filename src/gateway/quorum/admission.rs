//! Lets a JVM of an application in to the quorum, once what is stored is its version's own: from then on Flink elects
//! by itself, and runs whatever plan it finds. What is to be done before is done by one gateway alone, which holds the
//! place of the leader meanwhile. When the run has ended, that gateway keeps the place, and nobody leads any more.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{sleep, timeout};

use super::gate::Gate;
use super::leadership::Identity;
use crate::api::names;
use crate::flink::pointer;
use crate::gateway::application::handover;
use crate::gateway::gc::final_cleanup;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::ownership::DirectoryMark;
use crate::gateway::gc::pointer_store::Znodes;
use crate::ha_data::handover::{HandoverPlan, Stored, StoredState, judge, later, parse_znode, unnamed, znode_of};
use crate::lease::term::{Incarnation, Term};
use crate::ledger::application::{Before, Progress, Run};
use crate::ledger::election::Notes;
use crate::ledger::refusal::{Refusal, STORED_BY_ANOTHER};
use crate::world::process;
use crate::world::quorum::{latch, znodes};
use crate::world::storage::Storage;

/// Between looks at what others do.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// What takes longer is begun anew, by whichever gateway is the first.
const STEP_TIMEOUT: Duration = Duration::from_secs(6);

/// Guards the gate for one run.
pub struct Admission {
    pub ledger: Ledger,
    pub mark: DirectoryMark,
    pub znodes: Znodes,
    pub storage: Option<Storage>,
    pub run: Run,
    pub identity: Identity,
    pub gate: Arc<Gate>,
    /// We have stood for election, and may hold the place of the leader.
    pub stands: bool,
}

/// What a step has come to.
enum Step {
    /// What is stored is our version's own.
    Open,
    /// Others do what is to be done, or it is to be looked at again.
    Again,
    /// The run has ended, and nothing of it is left.
    Over,
}

impl Admission {
    /// Runs until the process ends.
    pub async fn run(mut self) {
        while let Some(jvm) = self.gate.next_arrival().await {
            match timeout(STEP_TIMEOUT, self.step()).await {
                Ok(Ok(Step::Open)) => self.gate.admit(jvm),
                Ok(Ok(Step::Again)) => {}
                Ok(Ok(Step::Over)) => sleep(POLL_INTERVAL * 10).await,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        job = %self.run.job_id,
                        "the JobManager is not let in; trying again"
                    );
                    if self.nobody_else_stands().await {
                        handover::tell(&self.ledger, &error).await;
                    }
                    self.give_up().await;
                    sleep(POLL_INTERVAL * 5).await;
                }
                Err(_) => {
                    tracing::warn!(
                        job = %self.run.job_id,
                        "the JobManager is not let in: storage, quorum or API server do not answer"
                    );
                    self.give_up().await;
                }
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn step(&mut self) -> anyhow::Result<Step> {
        let client = self.znodes.client()?;
        let examined = self.decide().await?;
        if examined.is_to_be_raised(&self.run) {
            let raised = latch::raise(&client, &self.znodes.paths, &znode_of(&self.run), &examined.stored).await;
            raised.context("failed to write down the start of these pods")?;
        }
        if self.opens(&examined.state) {
            self.withdraw().await?;
            return Ok(Step::Open);
        }
        if let StoredState::Later(begun) = examined.state {
            self.withdraw().await?;
            anyhow::bail!(later(&self.run, begun));
        }
        self.stands = true;
        let place = latch::stand(&client, &self.znodes.paths, self.znodes.acls)
            .await
            .context("failed to take the place of the leader")?;
        let Some(latch) = place else { return Ok(Step::Again) };
        self.znodes.lead_by(Some(latch.clone()));
        let term = self.next_term().await?;
        // Once more: until now others could write.
        let Examined { stored, state, .. } = self.decide().await?;
        match state {
            StoredState::Finished(outcome) if !self.opens(&StoredState::Finished(outcome.clone())) => {
                let storage = self.storage.as_ref().context("the storage directory cannot be reached")?;
                final_cleanup::collect(&self.mark, storage, &self.run, &term, outcome).await?;
                Ok(Step::Over)
            }
            StoredState::Foreign(jobs) => anyhow::bail!(handover::refuse_foreign(&self.ledger, &term, jobs).await?),
            StoredState::Later(begun) => anyhow::bail!(later(&self.run, begun)),
            StoredState::Unnamed(runs) => {
                anyhow::bail!(unnamed(&self.run, &runs, &names::ledger(&self.ledger.cluster)))
            }
            StoredState::Supersede(plan) => self.take_over(&latch, &term, plan, &stored).await.map(|()| Step::Again),
            StoredState::Ours | StoredState::Finished(_) | StoredState::Finishing => Ok(Step::Again),
        }
    }

    async fn withdraw(&mut self) -> anyhow::Result<()> {
        if self.stands {
            self.znodes.lead_by(None);
            let withdrawn = latch::withdraw(&self.znodes.client()?, &self.znodes.paths).await;
            withdrawn.context("failed to give up the place of the leader")?;
            self.stands = false;
        }
        Ok(())
    }

    /// Nobody leads, as far as that is known: what is said on the resource then is not about pods that nobody needs.
    async fn nobody_else_stands(&self) -> bool {
        let Ok(client) = self.znodes.client() else { return false };
        self.stands
            || timeout(STEP_TIMEOUT, znodes::candidates(&client, &self.znodes.paths))
                .await
                .is_ok_and(|all| all.is_ok_and(|all| all.is_empty()))
    }

    /// Others may reach what this gateway does not. What is not given up now goes with the next step, or with the
    /// session.
    async fn give_up(&mut self) {
        if !matches!(timeout(STEP_TIMEOUT, self.withdraw()).await, Ok(Ok(()))) {
            tracing::warn!("failed to give up the place of the leader; trying again");
        }
    }

    /// A JVM may lead. Where another run goes on where this one is stopped, it must first be known from where.
    fn opens(&self, state: &StoredState) -> bool {
        match state {
            StoredState::Ours | StoredState::Finishing => true,
            StoredState::Finished(_) => self.ledger.signals.is_being_stopped(self.run.job_id),
            StoredState::Foreign(_) | StoredState::Later(_) | StoredState::Unnamed(_) | StoredState::Supersede(_) => {
                false
            }
        }
    }

    async fn decide(&self) -> anyhow::Result<Examined> {
        examine(&self.ledger, &self.znodes, self.storage.as_ref(), &self.run).await
    }

    /// Of a gateway that leads without a JVM.
    async fn next_term(&self) -> anyhow::Result<Term> {
        let number = Notes::of(&self.ledger.object().await?.metadata).term.map_or(0, |term| term.number) + 1;
        let (pod_uid, process) = (self.identity.pod_uid.clone(), self.identity.process.clone());
        Ok(Term { number, pod_uid, process, jvm: Incarnation { pid: 0, started: 0 } })
    }

    async fn take_over(
        &self,
        latch: &str,
        term: &Term,
        plan: HandoverPlan,
        stored: &latch::StoredZnodes,
    ) -> anyhow::Result<()> {
        let (client, storage) = (self.znodes.client()?, self.storage.as_ref());
        let pointer = match &plan.from {
            Some(job) => latch::last_checkpoint(&client, &self.znodes.paths, *job)
                .await
                .context("failed to read the last checkpoint")?,
            None => None,
        };
        let before = match (&plan.from, pointer) {
            (Some(job), Some(pointer)) => {
                let checkpoint = match pointer::file_of(&pointer) {
                    Ok(uri) => handover::directory_of(storage, &uri).await?,
                    Err(_) => None,
                };
                Some(Before { job: *job, checkpoint })
            }
            _ => None,
        };
        handover::begin_version(&self.ledger, storage, &self.run, term, &plan, before).await?;
        let taken = latch::take_over(&client, &self.znodes.paths, latch, &znode_of(&self.run), stored).await;
        taken.context("failed to take over the znodes of another version")
    }
}

/// Looks whether a JVM that has begun to lead may go on.
pub struct Examiner {
    pub storage: Option<Storage>,
    pub run: Run,
    pub gate: Arc<Gate>,
}

impl Examiner {
    /// Signal whether a JVM may store jobs: one whose version has stored all that is there. One that leads although the
    /// run has ended, or for another version, is ended: it would run the main method, and might run the job again.
    ///
    /// # Errors
    /// When something cannot be read. It is to be tried again; nothing is stored until then.
    pub async fn examine(&self, ledger: &Ledger, znodes: &Znodes, term: &Term) -> anyhow::Result<bool> {
        match examine(ledger, znodes, self.storage.as_ref(), &self.run).await?.state {
            StoredState::Ours => return Ok(true),
            StoredState::Finishing => ledger.tenures.note_ending(term),
            StoredState::Finished(_) if ledger.signals.is_being_stopped(self.run.job_id) => {
                ledger.tenures.note_ending(term)
            }
            other => {
                tracing::warn!(?other, jvm = %term.jvm, "the JobManager leads where it must not: ending its process");
                self.gate.close(term.jvm);
                process::try_end(term.jvm).context("failed to end the JobManager's process")?;
                anyhow::bail!("another JobManager leads soon, or none")
            }
        }
        Ok(false)
    }
}

/// What was read and decided.
struct Examined {
    stored: latch::StoredZnodes,
    /// The start on record.
    start: Option<i64>,
    progress: Progress,
    state: StoredState,
}

impl Examined {
    /// What is stored is this run's own, and its start is not yet on record as the last. Where an earlier version of
    /// the gateway has written no start, the ledger's stands for it: pods of that version beside these would take the
    /// data with a start for another version's.
    fn is_to_be_raised(&self, run: &Run) -> bool {
        self.state == StoredState::Ours && self.start.unwrap_or(self.progress.start) < run.start
    }
}

/// Reads what is stored and decides whose it is.
///
/// # Errors
/// When something cannot be read: then nothing is known.
async fn examine(ledger: &Ledger, znodes: &Znodes, storage: Option<&Storage>, run: &Run) -> anyhow::Result<Examined> {
    // Flink removes the whole of its cluster's znodes when it thinks that the cluster has ended.
    znodes.prepare().await?;
    let stored = latch::stored(&znodes.client()?, &znodes.paths).await.context("failed to read what is stored")?;
    ledger.read_asked().await?;
    let handover::Records { progress, jobs, entries } = handover::records(ledger, storage).await?;
    let (mark, start) = parse_znode(&stored.mark).ok_or_else(|| unreadable(&znodes.paths.child(znodes::MARKS)))?;
    let found = Stored::in_znodes(mark, start, &stored.plans);
    let state = judge(run, &found, &progress, &jobs, &entries);
    Ok(Examined { stored, start, progress, state })
}

/// What the znode with the mark holds is not understood.
fn unreadable(path: &str) -> Refusal {
    let message = format!(
        "the data of znode {path} does not say whose HA data is stored, so nothing is removed: write there status.application.jobId, version and \
         starts of the FlinkHaCluster, with / between"
    );
    Refusal::new(STORED_BY_ANOTHER, message)
}
