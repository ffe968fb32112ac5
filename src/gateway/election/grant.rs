//! The grant: everything between the Lease that was taken and the free lock that the JVM is shown. The most important
//! sequence of the product; each step rests on those before it.
//!
//! 1. **What is there is looked up** while the Lease is still being written. It only saves time, and is hardly waited
//!    for: every stamp is a compare-and-swap.
//! 2. **What was remembered is forgotten** as soon as the Lease is ours: cluster ConfigMap and snapshots were another
//!    term's.
//! 3. **All HA ConfigMaps are stamped** with the new term ([`Stamper`]). From then on no older term can store anything
//!    (I4 in `docs/protocol.md`). HA data that is another Flink's is left as it is; that is said in the ledger, and the
//!    Lease is given back. Beside it the ledger is read for the jobs that have ended, so that the JVM cannot ask for
//!    one of them anew.
//! 4. **The result stores are repaired**: the last leader may have died while it wrote a result. Only now, because only
//!    now nobody else writes them.
//! 5. **What another version of the application stored is taken over** ([`TakeOver`]), or the grant ends here: the run
//!    has ended, or what is stored is none of this application's.
//! 6. **The cluster ConfigMap is remembered** as it is stored now, and the election hears [`Stamping::Done`]. It shows
//!    the JVM a free lock; the JVM's own lock write follows, and is compared with what is remembered.
//!
//! A JVM that leads on under a new gateway keeps its lock ([`Holder::Kept`]). It may be writing results, and what is
//! stored is its own: steps 4 and 5 are left out.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stamper::{Holder, Look, Stamped, Stamper};
use super::take_over::TakeOver;
use crate::gateway::gc::ledger::Ledger;
use crate::gateway::gc::result_repair::{Stored, mend_before_grant};
use crate::gateway::proxy::jvm_lock::JvmLock;
use crate::lease::elector::Stamping;
use crate::lease::term::Term;
use crate::ledger::refusal::Refusal;
use crate::world::storage::Storage;

/// Looking up what is to be stamped saves a few milliseconds; waiting longer for it would not.
const LOOK_TIMEOUT: Duration = Duration::from_millis(100);

/// A look that goes on beside the write of the Lease.
pub type PendingLook = JoinHandle<Option<Look>>;

/// What the sequence needs.
#[derive(Clone)]
pub struct Grant {
    pub stamper: Stamper,
    /// For all stamps together.
    pub stamp_deadline: Duration,
    pub ledger: Ledger,
    pub lock: Arc<JvmLock>,
    /// `None` when the gateway cannot reach it.
    pub storage: Option<Storage>,
    /// For a cluster that runs an application.
    pub take_over: Option<TakeOver>,
    /// What is stored was another's when it was looked at last.
    pub refused: Arc<AtomicBool>,
}

impl Grant {
    /// Begins step 1, while the Lease is being written.
    pub fn look(&self) -> PendingLook {
        let stamper = self.stamper.clone();
        tokio::spawn(async move { stamper.look().await })
    }

    /// Does step 2, and returns those after it. What they come to is what the election is to hear.
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
        let look = match look {
            Some(look) => timeout(LOOK_TIMEOUT, look).await.ok().and_then(Result::ok).flatten(),
            None => None,
        };
        // Beside the stamping, so that it takes no time. Without an answer the job recorder reads it soon.
        let ended = timeout(self.stamp_deadline, self.ledger.note_ended());
        let (stamped, _) = tokio::join!(self.stamper.stamp(term, holder, self.stamp_deadline, look), ended);
        let Stamped { outcome, cluster, refusal } = stamped;
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
        self.lock.store(cluster);
        Stamping::Done
    }

    /// Steps 4 and 5. `None` when nobody is to lead.
    async fn prepare(&self, term: &Term, cluster: Value) -> Option<Value> {
        if let Some(storage) = &self.storage {
            mend_before_grant(storage, &Stored::in_config_map(&cluster)).await;
        }
        match &self.take_over {
            Some(take_over) => take_over.before_grant(term, cluster).await,
            None => Some(cluster),
        }
    }

    /// Was the last grant refused, and would the next one be? Asked before the Lease is taken again: one that is taken
    /// only to be given back would make terms climb.
    pub async fn is_refused(&self) -> bool {
        if !self.refused.load(Ordering::Relaxed) {
            return false;
        }
        let is_refused = match self.stamper.refusal().await {
            Ok(None) => false,
            Ok(Some(refusal)) => {
                self.note(&refusal).await;
                true
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "failed to look whether the HA data is still another's; looking again"
                );
                true
            }
        };
        self.refused.store(is_refused, Ordering::Relaxed);
        is_refused
    }

    async fn note(&self, refusal: &Refusal) {
        tracing::warn!(reason = refusal.reason, "not leading: {}", refusal.message);
        if let Err(error) = self.ledger.note_refusal(Some(refusal)).await {
            tracing::warn!(error = format!("{error:#}"), "failed to write a refusal into the ledger");
        }
    }
}
