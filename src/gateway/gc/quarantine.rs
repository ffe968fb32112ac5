//! Finds jobs that Flink cannot recover because a file of them is gone, tells of them, and sets them aside before a
//! grant so that the other jobs of the session are recovered. [`crate::ha_data::quarantine`] decides.
//!
//! A gateway looks at all files when the leadership of its JVM ends, or its JVM ends just before that begins; in the
//! background while it leads; and again soon when it has missed one. Each gateway remembers what it has seen itself, by
//! its own clock: its JVM reads the same mount. So a grant asks for no file but those in doubt, and for none while
//! nothing is missing.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};

use super::ledger::Ledger;
use super::ownership::identity;
use super::pointer_store::PointerStore;
use crate::flink::ha_data;
use crate::flink::job_id::JobId;
use crate::ha_data::marks::is_of_another;
use crate::ha_data::quarantine::{APART, Answers, Looks, Moves, Needs};
use crate::lease::term::Term;
use crate::ledger::quarantine::{drop_quarantined, note_missing};
use crate::world::storage::Storage;

/// Delay of a leader's first look: Flink is busy recovering until then.
const FIRST_LOOK_DELAY: Duration = Duration::from_secs(15);
/// Interval of a leader's looks while nothing is missing.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);
/// Interval while something is missing, or somebody may put it back.
const DOUBT_INTERVAL: Duration = APART;
/// Limit of a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit of the moves before a grant: a storage that does not answer must not prevent an election.
const MOVE_TIMEOUT: Duration = Duration::from_secs(4);

/// Shared by reference by the task and the grant.
pub struct Quarantine {
    ledger: Ledger,
    /// `None` if the gateway cannot reach it.
    storage: Option<Storage>,
    /// An application's job is never set aside: its main method would submit it again, without its state.
    is_session: bool,
    begin: Instant,
    looks: Mutex<Looks>,
}

impl Quarantine {
    pub fn new(ledger: Ledger, storage: Option<Storage>, is_session: bool) -> Arc<Self> {
        Arc::new(Self { ledger, storage, is_session, begin: Instant::now(), looks: Mutex::default() })
    }

    /// Looks until the process ends.
    pub async fn run(self: Arc<Self>) {
        let Some(storage) = &self.storage else { return pending().await };
        let tenures = Arc::clone(&self.ledger.tenures);
        let (mut next, mut retry, mut asked) = (None, DOUBT_INTERVAL, None);
        loop {
            let before = tenures.term();
            tokio::select! {
                () = until(next) => {}
                () = self.ledger.signals.leader_died.notified() => {}
                () = tenures.change_from(before.as_ref()) => if before.is_none() {
                    let first = Instant::now() + FIRST_LOOK_DELAY;
                    next = Some(next.map_or(first, |next: Instant| next.min(first)));
                    continue;
                },
            }
            let term = tenures.term();
            let looked = timeout(LOOK_TIMEOUT, self.look(storage, term.as_ref(), &mut asked)).await;
            let pause = match looked.context("storage directory or API server do not answer") {
                Ok(Ok(is_in_doubt)) => {
                    retry = DOUBT_INTERVAL;
                    if is_in_doubt { Some(DOUBT_INTERVAL) } else { term.map(|_| LOOK_INTERVAL) }
                }
                Ok(Err(error)) | Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "failed to look whether all files of jobs are there");
                    retry = (2 * retry).min(LOOK_INTERVAL);
                    Some(retry)
                }
            };
            next = pause.map(|pause| Instant::now() + pause);
        }
    }

    /// Looks once, and tells of it in this term. `asked`: the last term in which another leader was asked for. Returns
    /// whether to look again soon.
    ///
    /// # Errors
    /// When something cannot be read, or when the directory is not marked as ours. Nothing is noted then.
    async fn look(&self, storage: &Storage, term: Option<&Term>, asked: &mut Option<Term>) -> anyhow::Result<bool> {
        let needs = self.needs().await?;
        let began = self.begin.elapsed();
        let answers = self.ask(storage, needs.files().cloned().collect()).await?;
        let looks = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.note(&needs, &answers, began, self.begin.elapsed());
            looks.clone()
        };
        let Some(term) = term else { return Ok(!needs.is_whole(&answers)) };
        if looks.is_settled() {
            let missing = needs.missing(&looks);
            self.ledger.change_jobs(term, |jobs| note_missing(jobs, &missing)).await?;
        }
        self.drop_asked(term, &needs).await?;
        if !looks.restored().is_empty() && asked.as_ref() != Some(term) {
            tracing::info!(jobs = ?looks.restored(), "the files of jobs in quarantine are there again");
            self.ledger.pointers.recover(looks.restored()).await?;
            *asked = Some(term.clone());
        }
        Ok(!needs.is_whole(&answers) || !needs.quarantined.is_empty())
    }

    /// Notes that somebody has asked to drop this job by name, if it is in quarantine; the collector does the rest. A
    /// request is answered at the next look, so that it never concerns a later quarantine of the same job.
    async fn drop_asked(&self, term: &Term, needs: &Needs) -> anyhow::Result<()> {
        let Some(asked) = self.ledger.asked_to_drop().await? else { return Ok(()) };
        if let Some(job) = JobId::of(&asked).filter(|job| needs.quarantined.contains_key(job)) {
            let now = Timestamp::now().to_string();
            self.ledger.change_jobs(term, |jobs| drop_quarantined(jobs, job, &now)).await?;
            tracing::warn!(%job, "somebody has asked to drop this job: all its HA data is removed");
            self.ledger.signals.job_dropped.notify_one();
        }
        self.ledger.forget_asked_to_drop().await
    }

    /// Moves pointers in the cluster ConfigMap before a JVM reads it, and returns it as it is then. Without a job in
    /// quarantine and without a file that this gateway has missed it takes no time.
    ///
    /// Safe: one write, which changes the object only if nobody has written it since this term's stamp.
    pub async fn before_grant(&self, cluster: Value) -> Value {
        let has_quarantined = ha_data::keys(&cluster).any(|key| ha_data::key_in_quarantine(key).is_some());
        let Some(storage) = self.storage.as_ref().filter(|_| has_quarantined || self.looks().has_lost()) else {
            return cluster;
        };
        // A stored application submits its jobs itself when it is recovered.
        if !self.is_session || !ha_data::stored_applications(&cluster).is_empty() {
            return cluster;
        }
        let moved = timeout(MOVE_TIMEOUT, self.try_move(storage, &cluster)).await;
        match moved.context("storage directory or API server do not answer") {
            Ok(Ok(moved)) => moved.unwrap_or(cluster),
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "no job is set aside or brought back");
                cluster
            }
        }
    }

    async fn try_move(&self, storage: &Storage, cluster: &Value) -> anyhow::Result<Option<Value>> {
        let PointerStore::ConfigMaps(config_maps) = &self.ledger.pointers else { return Ok(None) };
        let moves = self.moves(storage).await?;
        if moves.is_empty() {
            return Ok(None);
        }
        let moved = config_maps.change_cluster(cluster, moves.patch(cluster)).await?;
        tell(&moves);
        Ok(Some(moved))
    }

    /// Decides by what the storage says now of the files in doubt.
    async fn moves(&self, storage: &Storage) -> anyhow::Result<Moves> {
        let (needs, looks) = (self.needs().await?, self.looks());
        let answers = self.ask(storage, needs.in_doubt(&looks)).await?;
        Ok(Moves::of(&needs, &looks, &answers))
    }

    /// Returns the jobs that are to be set aside before a session's JVM is let in to the quorum. It costs no request
    /// while no file is missing.
    ///
    /// # Errors
    /// When something cannot be read; nothing is set aside then.
    pub async fn to_set_aside(&self) -> anyhow::Result<BTreeSet<JobId>> {
        match &self.storage {
            Some(storage) if self.is_session && self.looks().has_lost() => Ok(self.moves(storage).await?.aside),
            _ => Ok(BTreeSet::new()),
        }
    }

    async fn needs(&self) -> anyhow::Result<Needs> {
        let (inventory, jobs) = tokio::try_join!(self.ledger.pointers.stored_now(), self.ledger.jobs())?;
        Ok(Needs::of(&inventory, &jobs))
    }

    /// Asks the storage for files, if it is the one that this cluster has marked, before and after that.
    async fn ask(&self, storage: &Storage, files: BTreeSet<String>) -> anyhow::Result<Answers> {
        let (us, records) = identity(&self.ledger).await?;
        let is_ours = async || {
            let mark = storage.mark(&us.owner).await.context("failed to read the mark")?;
            let is_ours = mark.is_some() && !is_of_another(&us, mark.as_deref(), &records);
            anyhow::ensure!(is_ours, "the storage directory does not carry this cluster's mark");
            Ok(())
        };
        is_ours().await?;
        let answers = storage.are_there(files).await.context("failed to look for a file")?;
        is_ours().await?;
        Ok(answers)
    }

    fn looks(&self) -> Looks {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Says in the log what was moved.
pub fn tell(moves: &Moves) {
    for job in &moves.aside {
        tracing::warn!(%job, "set aside, so that Flink recovers the other jobs: files of it are gone");
    }
    for job in &moves.back {
        tracing::info!(%job, "brought back from quarantine: all its files are there");
    }
}
