//! What the tasks of one gateway tell each other about jobs, the ledger, savepoints and the last sweep.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::flink::job_id::JobId;
use crate::ledger::application::Request;
use crate::ledger::jobs::Orphans;

/// Shared by reference; nothing in here waits.
#[derive(Default)]
pub struct Signals {
    /// A job's key, ConfigMap or znode was removed: its end may be near.
    pub job_ended: Notify,
    /// A job was stored, or nothing is left of one.
    pub jobs_changed: Notify,
    /// Somebody wrote the ledger in a higher term than ours.
    pub overtaken: Notify,
    /// Jobs with a tombstone.
    ended: Mutex<Arc<BTreeSet<JobId>>>,
    /// The savepoint that the operator asks for.
    savepoint: watch::Sender<Option<Request>>,
    /// The id of the last request that has its answer in the ledger.
    answered: Mutex<Option<String>>,
    /// What the last sweep of this gateway found.
    swept: Mutex<Option<Orphans>>,
}

impl Signals {
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

    /// Does another run go on where this job is stopped?
    pub fn is_asked_to_stop(&self, job: JobId) -> bool {
        self.savepoint.borrow().as_ref().is_some_and(|asked| asked.stop && asked.job == job)
    }
}
