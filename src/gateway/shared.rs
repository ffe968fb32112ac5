//! What the proxy, the stamping and the election share inside one gateway.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};

use super::gc::ownership;
use super::proxy::request::Names;
use super::proxy::snapshots::Snapshots;
use crate::flink::job_id::JobId;
use crate::lease::elector::{Event, LockView, Time};
use crate::lease::term::Term;
use crate::ledger::application::Request;
use crate::ledger::jobs::Orphans;

/// The local monotonic clock, from the start of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> Time {
        Time(self.0.elapsed().as_millis() as u64)
    }
}

/// So many gateway processes are remembered that have led.
const WITNESSED: usize = 16;

/// Shared by reference; nothing in here waits.
pub struct Shared {
    pub names: Names,
    pub clock: Clock,
    pub events: mpsc::UnboundedSender<Event>,
    pub shown: watch::Receiver<LockView>,
    /// A job's key or ConfigMap was removed: its end may be near.
    pub job_ended: Notify,
    /// A job was stored, or nothing is left of one.
    pub jobs_changed: Notify,
    /// Somebody wrote the ledger in a higher term than ours.
    pub overtaken: Notify,
    pub snapshots: Snapshots,
    /// The savepoint that the operator asks for.
    savepoint: watch::Sender<Option<Request>>,
    /// The term in which the JVM leads only to clean up after a run that has ended.
    ending: Mutex<Option<Term>>,
    /// The id of the last request that has its answer in the ledger.
    answered: Mutex<Option<String>>,
    /// Looks at the mark of the storage directory; held while one is made.
    pub claim: tokio::sync::Mutex<ownership::State>,
    /// Gateway processes that have been seen alive in this cluster, the latest last.
    witnessed: Mutex<Vec<String>>,
    /// Jobs with a tombstone.
    ended: Mutex<Arc<BTreeSet<JobId>>>,
    /// What the last sweep of this gateway found.
    swept: Mutex<Option<Orphans>>,
    stored: Mutex<Option<Value>>,
    /// The lock as the JVM wrote it, and the term in which it did.
    lock: Mutex<Option<(Term, String)>>,
}

impl Shared {
    pub fn new(
        names: Names,
        clock: Clock,
        events: mpsc::UnboundedSender<Event>,
        shown: watch::Receiver<LockView>,
    ) -> Self {
        let (stored, lock, swept) = (Mutex::new(None), Mutex::new(None), Mutex::new(None));
        Self {
            names,
            clock,
            events,
            shown,
            job_ended: Notify::new(),
            jobs_changed: Notify::new(),
            overtaken: Notify::new(),
            snapshots: Snapshots::default(),
            savepoint: watch::Sender::default(),
            ending: Mutex::default(),
            answered: Mutex::default(),
            claim: tokio::sync::Mutex::default(),
            witnessed: Mutex::default(),
            ended: Mutex::default(),
            swept,
            stored,
            lock,
        }
    }

    /// Another gateway process of this cluster has just written the Lease.
    pub fn witness(&self, process: &str) {
        let mut witnessed = self.witnessed.lock().unwrap_or_else(PoisonError::into_inner);
        if !witnessed.iter().any(|known| known == process) {
            witnessed.push(process.to_owned());
            let surplus = witnessed.len().saturating_sub(WITNESSED);
            witnessed.drain(..surplus);
        }
    }

    pub fn witnessed(&self) -> Vec<String> {
        self.witnessed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Jobs that have ended, as the ledger said when this gateway read or wrote it last.
    pub fn ended(&self) -> Arc<BTreeSet<JobId>> {
        Arc::clone(&self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An end is final: what was known stays known.
    pub fn note_ended(&self, ended: BTreeSet<JobId>) {
        Arc::make_mut(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner)).extend(ended);
    }

    pub fn swept(&self) -> Option<Orphans> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn note_sweep(&self, orphans: Orphans) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(orphans);
    }

    /// The cluster ConfigMap as last stored in our term, if nothing has made it doubtful.
    pub fn stored(&self) -> Option<Value> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the cluster ConfigMap, or that what was remembered is doubtful.
    pub fn store(&self, cluster_config_map: Option<Value>) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = cluster_config_map;
    }

    /// The lock that the JVM of this term wrote.
    pub fn lock_of(&self, term: &Term) -> Option<String> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_ref().filter(|(of, _)| of == term).map(|(_, lock)| lock.clone())
    }

    /// Remembers the lock that the JVM of this term has written.
    pub fn took_lock(&self, term: &Term, lock: String) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some((term.clone(), lock));
    }

    /// Does `lead` again and again, each time that the JVM leads and as long as it does; until the process ends.
    pub async fn during_tenures(&self, mut lead: impl AsyncFnMut(&Term)) {
        while let Some(term) = self.tenure().await {
            tokio::select! {
                () = lead(&term) => {}
                // Also in the middle of something: a storage that hangs must not keep the next tenure waiting.
                () = self.deposed(&term) => {}
            }
        }
    }

    /// What the operator asks for now.
    pub fn ask_savepoint(&self, request: Option<Request>) {
        self.savepoint.send_if_modified(|before| {
            let changed = *before != request;
            *before = request;
            changed
        });
    }

    pub fn savepoint_requests(&self) -> watch::Receiver<Option<Request>> {
        self.savepoint.subscribe()
    }

    pub fn savepoint_answered(&self, id: &str) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
        self.job_ended.notify_one();
    }

    /// Is this job being stopped with a savepoint of which nothing stands in the ledger yet? Then its end must not be
    /// written down before.
    pub fn is_being_stopped(&self, job: JobId) -> bool {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.is_asked_to_stop(job) && self.savepoint.borrow().as_ref().map(|asked| &asked.id) != answered.as_ref()
    }

    /// From this term's beginning on the end of the application's run has been on record.
    pub fn note_ending(&self, term: &Term) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(term.clone());
    }

    pub fn is_ending(&self, term: &Term) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(term)
    }

    /// Does another run go on where this job is stopped?
    pub fn is_asked_to_stop(&self, job: JobId) -> bool {
        self.savepoint.borrow().as_ref().is_some_and(|asked| asked.stop && asked.job == job)
    }

    /// Waits until the JVM leads, and tells in which term; `None` when the process ends.
    pub async fn tenure(&self) -> Option<Term> {
        let mut shown = self.shown.clone();
        match &*shown.wait_for(|shown| matches!(shown, LockView::Leader { .. })).await.ok()? {
            LockView::Leader { term, .. } => Some(term.clone()),
            _ => None,
        }
    }

    /// Waits until the JVM no longer leads in this term.
    pub async fn deposed(&self, term: &Term) {
        let mut shown = self.shown.clone();
        // An error means that the process ends.
        let _ = shown.wait_for(|shown| !matches!(shown, LockView::Leader { term: now, .. } if now == term)).await;
    }

    /// Does the JVM lead in this term, as far as this gateway knows?
    pub fn leads(&self, term: &Term) -> bool {
        matches!(&*self.shown.borrow(), LockView::Leader { term: now, .. } if now == term)
    }

    /// Signal the election. It never ends before the proxy does, so there is nobody to tell only while the process
    /// ends.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}
