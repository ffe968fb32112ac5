//! Holds the leader lock between the election and the JVM: the JVM's view of it, what the JVM has written, and the HA
//! ConfigMaps as they were stored. Only for the Kubernetes provider.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::request::Names;
use crate::gateway::gc::pointer_store::Snapshots;
use crate::lease::elector::LockView;
use crate::lease::term::Term;

/// Shared by reference; no method waits.
pub struct JvmLock {
    pub names: Names,
    /// The view of the lock for the JVM.
    pub shown: watch::Receiver<LockView>,
    pub snapshots: Arc<Snapshots>,
    stored: Mutex<Option<Value>>,
    /// The lock as the JVM wrote it, and the term in which it did.
    written: Mutex<Option<(Term, String)>>,
}

impl JvmLock {
    pub fn new(names: Names, shown: watch::Receiver<LockView>, snapshots: Arc<Snapshots>) -> Self {
        Self { names, shown, snapshots, stored: Mutex::default(), written: Mutex::default() }
    }

    /// Returns the cluster ConfigMap as last stored in our term; `None` if it may be outdated.
    pub fn stored(&self) -> Option<Value> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the cluster ConfigMap; `None` if it may be outdated.
    pub fn store(&self, cluster_config_map: Option<Value>) {
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) = cluster_config_map;
    }

    /// Returns the lock that the JVM of this term wrote.
    pub fn written_in(&self, term: &Term) -> Option<String> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.as_ref().filter(|(of, _)| of == term).map(|(_, lock)| lock.clone())
    }

    /// Remembers the lock that the JVM of this term has written.
    pub fn note_written(&self, term: &Term, lock: String) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = Some((term.clone(), lock));
    }

    /// Forgets everything at the beginning of a term: it was another term's.
    pub fn forget(&self) {
        self.store(None);
        self.snapshots.forget_all();
    }
}
