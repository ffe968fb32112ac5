//! Grants leadership: everything between the acquired Lease and the free lock that the JVM sees. This is the most
//! important sequence of the product; each step rests on those before it.
//!
//! 1. **Look up the objects to stamp** while the Lease is still being written. This only saves time, and the grant
//!    hardly waits for it: every stamp is a compare-and-swap.
//! 2. **Forget what was remembered** as soon as the Lease is ours: cluster ConfigMap and snapshots were another term's.
//! 3. **Stamp all HA ConfigMaps** with the new term ([`Stamper`]). From then on no older term can store anything (I4 in
//!    `docs/protocol.md`). HA data of another Flink stays as it is, and so do jobs that this JVM's version of Flink
//!    would not see ([`VersionGuard`]); the gateway notes that in the ledger and releases the Lease. In parallel the
//!    gateway reads from the ledger which jobs have ended, so that the JVM cannot start one of them again.
//! 4. **Repair the result stores**: the last leader may have died while it wrote a result. This waits until now because
//!    only now nobody else writes them.
//! 5. **Set jobs aside that Flink could not recover** because files are gone ([`Quarantine`]), and bring those back
//!    whose files are there again. It takes no time while nothing is missing.
//! 6. **Take over what another version of the application stored** ([`TakeOver`]). The grant ends here if the run has
//!    ended, or if the data belongs to no run of this application.
//! 7. **Remember the cluster ConfigMap** as it is stored now, and send [`Stamping::Done`] to the election, which shows
//!    the JVM a free lock. The JVM's own lock write follows, and the proxy compares it with what is remembered.
//!
//! A JVM that still leads under a new gateway process keeps its lock ([`Holder::Kept`]). It may be writing results, and
//! the stored data is its own, so steps 4 to 6 are skipped.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::stamper::{Holder, Stamped, Stamper, StoredObjects};
use super::take_over::TakeOver;
use crate::gateway::gc::flink_version::{PAUSE, VersionGuard};
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::quarantine::Quarantine;
use crate::gateway::gc::result_repair::{StoredIds, mend_before_grant};
use crate::gateway::proxy::jvm_lock::JvmLock;
use crate::lease::elector::Stamping;
use crate::lease::term::{Incarnation, Term};
use crate::ledger::refusal::Refusal;
use crate::world::process;
use crate::world::storage::Storage;

/// Limit for the lookup. It saves a few milliseconds; a longer wait would not.
const LOOK_TIMEOUT: Duration = Duration::from_millis(100);

/// A lookup that runs beside the write of the Lease.
pub type PendingLook = JoinHandle<Option<StoredObjects>>;

/// Everything that the sequence needs.
#[derive(Clone)]
pub struct Grant {
    pub stamper: Stamper,
    /// Limit for all stamps together.
    pub stamp_deadline: Duration,
    pub ledger: Ledger,
    pub lock: Arc<JvmLock>,
    /// `None` if the gateway cannot reach the storage.
    pub storage: Option<Storage>,
    /// For a cluster that runs an application.
    pub take_over: Option<TakeOver>,
    /// Whether the last grant was refused.
    pub refused: Arc<AtomicBool>,
    pub versions: Arc<VersionGuard>,
    pub quarantine: Arc<Quarantine>,
}

impl Grant {
    /// Begins step 1, while the Lease is being written.
    pub fn look(&self) -> PendingLook {
        let stamper = self.stamper.clone();
        tokio::spawn(async move { stamper.look().await })
    }

    /// Does step 2, and returns a future for the later steps. Its output is the event for the election.
    pub fn begin(
        &self,
        term: Term,
        holder: Holder,
        look: Option<PendingLook>,
    ) -> impl Future<Output = Stamping> + Send + 'static {
        self.lock.forget();
        let grant = self.clone();
        async move { grant.carry_out(&term, &holder, look).await }
    }

    async fn carry_out(&self, term: &Term, holder: &Holder, look: Option<PendingLook>) -> Stamping {
        let begin = Instant::now();
        let look = match look {
            Some(look) => timeout(LOOK_TIMEOUT, look).await.ok().and_then(Result::ok).flatten(),
            None => None,
        };
        // This runs beside the stamping, so it takes no extra time. Without an answer the job recorder reads it soon.
        let ended = timeout(self.stamp_deadline, self.ledger.note_ended());
        let (stamped, _) = tokio::join!(self.stamper.stamp(term, holder, self.stamp_deadline, look), ended);
        let Stamped { outcome, cluster, refusal } = stamped;
        let stamped = begin.elapsed();
        if let Some(refusal) = refusal {
            self.refused.store(true, Ordering::Relaxed);
            self.note(&refusal).await;
        }
        let (Stamping::Done, Some(cluster)) = (&outcome, cluster) else { return outcome };
        let cluster = match holder {
            Holder::Nobody => self.prepare(term, cluster).await,
            Holder::Kept(_) => Some(cluster),
        };
        if cluster.is_none() {
            return Stamping::Failed;
        }
        tracing::debug!(term = term.number, ?stamped, all = ?begin.elapsed(), "stamped and prepared");
        self.lock.store(cluster);
        Stamping::Done
    }

    /// Does steps 4 to 6. `None` if no JVM may lead.
    async fn prepare(&self, term: &Term, cluster: Value) -> Option<Value> {
        if let Some(storage) = &self.storage {
            mend_before_grant(storage, &StoredIds::in_config_map(&cluster)).await;
        }
        let cluster = self.quarantine.before_grant(cluster).await;
        match &self.take_over {
            Some(take_over) => take_over.before_grant(term, cluster).await,
            None => Some(cluster),
        }
    }

    /// Was the last grant refused, and would the next one be? The election asks before it takes the Lease again;
    /// otherwise the terms would rise with every attempt.
    pub async fn is_refused(&self, jvm: Incarnation) -> bool {
        if !self.refused.load(Ordering::Relaxed) && !self.versions.is_unfit() {
            return false;
        }
        let is_refused = match self.stamper.refusal(jvm).await {
            Ok(None) => false,
            Ok(Some(refusal)) => {
                self.note(&refusal).await;
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "failed to look whether this JobManager may lead now; looking again"
                );
                true
            }
        };
        self.refused.store(is_refused, Ordering::Relaxed);
        is_refused
    }

    /// Examines a JVM that has begun to ask for the lock, so that a standby that could not take over is not ready.
    pub async fn examine(self, jvm: Incarnation) {
        while process::is_alive(jvm).await {
            match self.stamper.stored_jobs().await {
                Ok(stored) => {
                    if self.versions.examine(jvm, &stored).await.is_ok() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        error = format!("{error:#}"),
                        "failed to look which jobs are stored; looking again"
                    );
                }
            }
            sleep(PAUSE).await;
        }
        self.versions.forget(jvm).await;
    }

    async fn note(&self, refusal: &Refusal) {
        tracing::warn!(reason = refusal.reason, "not leading: {}", refusal.message);
        if let Err(error) = self.ledger.note_refusal(Some(refusal)).await {
            tracing::warn!(error = format!("{error:#}"), "failed to write a refusal into the ledger");
        }
    }
}
