//! Carries out the election's requests: reads and writes of the ledger, the znodes and the storage directory.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::api::names;
use crate::flink::result;
use crate::gateway::application::handover;
use crate::gateway::gc::final_cleanup;
use crate::gateway::gc::flink_version::VersionGuard;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::ownership::DirectoryMark;
use crate::gateway::gc::pointer_store::Znodes;
use crate::ha_data::entrance::Records;
use crate::ha_data::handover::{HandoverPlan, Stored, StoredState, judge, later, parse_znode, unnamed, znode_of};
use crate::ha_data::versions::goes_on_in_quorum;
use crate::lease::term::{Incarnation, Term};
use crate::ledger::application::Run;
use crate::ledger::election::{Claimant, Notes};
use crate::ledger::refusal::{Refusal, STORED_BY_ANOTHER};
use crate::quorum::{Finding, Request, RequestOutcome};
use crate::world::quorum::{latch, znodes};
use crate::world::storage::Storage;

/// Limit for a write of the ledger; it is repeated.
const LEDGER_WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit for other requests. After it, the first gateway of the election begins anew.
const STEP_TIMEOUT: Duration = Duration::from_secs(6);

/// Identity of this gateway.
#[derive(Clone, Debug)]
pub struct GatewayIdentity {
    pub pod: String,
    pub pod_uid: String,
    /// Random per process.
    pub process: String,
}

impl GatewayIdentity {
    fn claimant(&self, jvm: Option<Incarnation>) -> Claimant {
        Claimant { pod: self.pod.clone(), pod_uid: self.pod_uid.clone(), process: self.process.clone(), jvm }
    }
}

/// What requests need.
#[derive(Clone)]
pub struct Hands {
    pub identity: GatewayIdentity,
    pub ledger: Ledger,
    pub mark: DirectoryMark,
    pub znodes: Znodes,
    /// `None` when the gateway cannot reach it.
    pub storage: Option<Storage>,
    /// The application that the cluster runs, if it is not a session cluster.
    pub run: Option<Run>,
    pub versions: Arc<VersionGuard>,
}

impl Hands {
    /// # Errors
    /// When it fails or takes too long; whether it took effect is unknown then.
    pub async fn carry_out(&self, request: &Request) -> anyhow::Result<RequestOutcome> {
        let limit = match request {
            Request::TakeTerm { .. } | Request::NoteGrant { .. } | Request::Release { .. } => LEDGER_WRITE_TIMEOUT,
            _ => STEP_TIMEOUT,
        };
        let (what, who) = named(request);
        timeout(limit, self.try_to(request))
            .await
            .with_context(|| format!("failed to {what}: {who} does not answer"))?
            .with_context(|| format!("failed to {what}"))
    }

    async fn try_to(&self, request: &Request) -> anyhow::Result<RequestOutcome> {
        match request {
            Request::TakeTerm { latch, jvm } => return self.take_term(latch, *jvm).await,
            Request::Examine { term } => return self.examine(term.as_ref()).await.map(RequestOutcome::Found),
            Request::NoteGrant { term, leaderless } => {
                let (millis, now) = (u64::try_from(leaderless.as_millis()).unwrap_or(u64::MAX), Timestamp::now());
                let granted = |notes: &Notes| (notes.term.as_ref() == Some(term)).then(|| notes.granted(millis, now));
                let (notes, signals) = (self.ledger.note_election(granted).await?, &self.ledger.signals);
                if let Some(change) = notes.change.as_ref().filter(|change| signals.note_change(change)) {
                    signals.counters.leads(change);
                }
                if notes.term.is_some_and(|now| now.number > term.number) {
                    self.ledger.signals.overtaken.notify_one();
                }
            }
            Request::Release { term, why } => {
                self.ledger.note_election(|notes| notes.ended(term, &self.identity.pod, why)).await?;
            }
            Request::Raise { version } => {
                let (client, mark) = (self.znodes.client()?, znode_of(self.run()?));
                latch::raise(&client, &self.znodes.paths, &mark, *version).await?;
            }
            Request::Stand => latch::stand(&self.znodes.client()?, &self.znodes.paths, self.znodes.acls).await?,
            Request::Withdraw => latch::withdraw(&self.znodes.client()?, &self.znodes.paths).await?,
            Request::TakeOver { latch, term, plan, version } => self.take_over(latch, term, plan, *version).await?,
            Request::CleanUp { term, outcome } => self.clean_up(term, outcome.clone()).await?,
            Request::Refuse { term, state, is_alone } => self.refuse(term.as_ref(), state, *is_alone).await?,
        }
        Ok(RequestOutcome::Done)
    }

    fn run(&self) -> anyhow::Result<&Run> {
        self.run.as_ref().context("this is no application")
    }

    /// With a JVM, writes the term at once. Without one, the term is written with the first change of the ledger in it,
    /// which fails if another gateway has written since. So a gateway that becomes the first and has nothing to do does
    /// not raise the term.
    async fn take_term(&self, latch: &str, jvm: Option<Incarnation>) -> anyhow::Result<RequestOutcome> {
        let claimant = self.identity.claimant(jvm);
        if jvm.is_none() {
            return Ok(RequestOutcome::Term(self.ledger.election().await?.0.next_term(&claimant)));
        }
        let now = Timestamp::now();
        loop {
            let (before, version) = self.ledger.election().await?;
            // A latch that is there after the ledger was read was there when the term before was taken: so the terms
            // in the ledger rise in the order of the latches, and no gateway that is late takes the leader's place.
            let is_there = latch::is_there(&self.znodes.client()?, &self.znodes.paths, latch).await?;
            ensure!(is_there, "the latch is gone: the JobManager does not lead any more");
            if let Some(change) = &before.change {
                self.ledger.signals.note_change(change);
            }
            let taken = before.taken(&claimant, now);
            if self.ledger.write_election(&taken, &version).await? {
                return taken.term.map(RequestOutcome::Term).context("the ledger names no term");
            }
        }
    }

    /// Reads the stored data and decides to which version it belongs.
    ///
    /// # Errors
    /// When something cannot be read; nothing is known then.
    async fn examine(&self, term: Option<&Term>) -> anyhow::Result<Finding> {
        let (ledger, znodes) = (&self.ledger, &self.znodes);
        if term.is_some_and(|term| term.jvm != Incarnation::NONE) {
            ledger.note_ended().await?;
        }
        let Some(run) = &self.run else { return Ok(Finding::of_session_cluster()) };
        // Flink removes the whole of its cluster's znodes when it thinks that the cluster has ended.
        znodes.prepare().await?;
        let stored = latch::stored(&znodes.client()?, &znodes.paths).await.context("failed to read what is stored")?;
        ledger.read_asked().await?;
        let Records { progress, jobs, entries } = handover::records(ledger, self.storage.as_ref()).await?;
        let (mark, start) = parse_znode(&stored.mark).ok_or_else(|| unreadable(&znodes.paths.child(znodes::MARKS)))?;
        let found = Stored::in_znodes(mark, start, &stored.plans);
        let state = judge(run, &found, &progress, &jobs, &entries);
        if goes_on_in_quorum(run.job_id, &state)
            && let Some(refusal) = self.versions.refusal_of_last_state(&znodes.stored_jobs().await?).await
        {
            bail!(refusal);
        }
        // Where an earlier version of the gateway has written no start, the ledger's stands for it: pods of that
        // version beside these would take the data with a start for another version's.
        let is_to_be_raised = state == StoredState::Ours && start.unwrap_or(progress.start) < run.start;
        let is_being_stopped = ledger.signals.is_being_stopped(run.job_id);
        Ok(Finding { state, is_being_stopped, is_to_be_raised, version: stored.version })
    }

    async fn take_over(&self, latch: &str, term: &Term, plan: &HandoverPlan, version: i32) -> anyhow::Result<()> {
        let (run, storage) = (self.run()?, self.storage.as_ref());
        let before = match &plan.from {
            Some(job) => handover::last_checkpoint(&self.ledger, storage, *job).await?,
            None => None,
        };
        handover::begin_version(&self.ledger, storage, run, term, plan, before).await?;
        self.znodes.take_over(latch, &znode_of(run), version).await
    }

    async fn clean_up(&self, term: &Term, outcome: Option<result::Outcome>) -> anyhow::Result<()> {
        let storage = self.storage.as_ref().context("the storage directory cannot be reached")?;
        final_cleanup::collect(&self.mark, storage, self.run()?, term, outcome).await
    }

    /// Reports why no JVM is admitted: in the log, and on the resource if nobody else leads. If somebody leads, the
    /// report would be about pods that nobody needs.
    async fn refuse(&self, term: Option<&Term>, state: &StoredState, is_alone: bool) -> anyhow::Result<()> {
        let run = self.run()?;
        let refusal = match (state, term) {
            (StoredState::Later(begun), _) => later(run, *begun),
            (StoredState::Unnamed(runs), _) => unnamed(run, runs, &names::ledger(&self.ledger.cluster)),
            (StoredState::Foreign(jobs), Some(term)) => {
                bail!(handover::refuse_foreign(&self.ledger, term, jobs.clone()).await?)
            }
            (other, _) => bail!("nothing is said of {other:?}"),
        };
        tracing::warn!(job = %run.job_id, "the JobManager is not let in: {refusal}");
        if is_alone {
            handover::tell(&self.ledger, &refusal.into()).await;
        }
        Ok(())
    }
}

/// Purpose of a request and who has to answer it, for people.
fn named(request: &Request) -> (&'static str, &'static str) {
    match request {
        Request::TakeTerm { .. } => ("take a term", "the API server"),
        Request::Examine { .. } => ("examine what is stored", "storage directory, quorum or API server"),
        Request::NoteGrant { .. } => ("write down the change of leader", "the API server"),
        Request::Release { .. } => ("write down the end of the leadership", "the API server"),
        Request::Raise { .. } => ("write down the start of these pods", "the quorum"),
        Request::Stand => ("take the place of the leader", "the quorum"),
        Request::Withdraw => ("give up the place of the leader", "the quorum"),
        Request::TakeOver { .. } => ("begin this version", "storage directory, quorum or API server"),
        Request::CleanUp { .. } => ("collect what is left of the run", "storage directory, quorum or API server"),
        Request::Refuse { .. } => ("let the JobManager in", "the API server"),
    }
}

/// The content of the znode with the mark is not understood.
fn unreadable(path: &str) -> Refusal {
    let message = format!(
        "the data of znode {path} does not say whose HA data is stored, so nothing is removed: write there status.application.jobId, version and \
         starts of the FlinkHaCluster, with / between"
    );
    Refusal::new(STORED_BY_ANOTHER, message)
}
