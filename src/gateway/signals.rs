//! Carries messages between the tasks of one gateway, about jobs, the ledger, savepoints and the last sweep.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use super::counters::Counters;
use super::recovery::Recovery;
use crate::flink::job_id::JobId;
use crate::lease::record::Change;
use crate::ledger::application::SavepointRequest;
use crate::ledger::failovers::KEPT;
use crate::ledger::jobs::OrphanCounts;

const NOT_SERVING: &str = "the JobManager leads, but answers that nobody leads yet: it may wait for its storage, and no job runs or \
                    can be submitted";

/// Shared by reference; no method waits.
#[derive(Default)]
pub struct Signals {
    /// A job's key, ConfigMap or znode was removed, so its end may be near.
    pub job_ended: Notify,
    /// A job was stored, or the last data of one was removed.
    pub jobs_changed: Notify,
    /// Our JVM has ended while it held the leader's latch, perhaps before it was granted leadership.
    pub leader_died: Notify,
    /// A job in quarantine was dropped, and is to be removed.
    pub job_dropped: Notify,
    /// Somebody has written the ledger in a higher term than ours.
    pub overtaken: Notify,
    /// Whether jobs run again after an election.
    pub recovery: Recovery,
    /// The leading JVM's Flink answers that there is no leader, and has done so for too long.
    is_not_serving: AtomicBool,
    /// For the metrics.
    pub counters: Counters,
    /// Jobs with a tombstone.
    ended: Mutex<Arc<BTreeSet<JobId>>>,
    /// The savepoint that the operator requests.
    savepoint: watch::Sender<Option<SavepointRequest>>,
    /// Id of the last request with an answer in the ledger.
    answered: Mutex<Option<String>>,
    /// Complete changes of leader that this gateway has seen, the latest last.
    changes: watch::Sender<Vec<Change>>,
    /// The result of this gateway's last sweep.
    swept: Mutex<Option<OrphanCounts>>,
}

impl Signals {
    /// Returns the jobs that have ended, as this gateway last read or wrote them.
    pub fn ended(&self) -> Arc<BTreeSet<JobId>> {
        Arc::clone(&self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes ended jobs. An end is final, so known ones stay.
    pub fn note_ended(&self, ended: BTreeSet<JobId>) {
        Arc::make_mut(&mut self.ended.lock().unwrap_or_else(PoisonError::into_inner)).extend(ended);
    }

    pub fn swept(&self) -> Option<OrphanCounts> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn note_sweep(&self, orphans: OrphanCounts) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(orphans);
    }

    /// Notes a change of leader, if it is complete and new. A standby notes it too: it tells of it once it leads, if
    /// that leader had no time to.
    /// Returns whether it was.
    pub fn note_change(&self, change: &Change) -> bool {
        self.changes.send_if_modified(|changes| {
            // With ZooKeeper a gateway that was restarted beside its JVM tells of the same change in a new term.
            let is_same = |known: &Change| {
                known.to == change.to && known.at == change.at && (!known.at.is_empty() || known.term == change.term)
            };
            let is_new = !change.to.is_empty() && !changes.iter().any(is_same);
            if is_new {
                changes.push(change.clone());
                let surplus = changes.len().saturating_sub(KEPT);
                changes.drain(..surplus);
            }
            is_new
        })
    }

    /// Returns the changes of leader that were noted.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.borrow().clone()
    }

    /// Waits until the change to this term is noted.
    pub async fn change_to(&self, term: u64) -> Option<Change> {
        let mut changes = self.changes.subscribe();
        let of_term = |changes: &Vec<Change>| changes.iter().rfind(|change| change.term == term).cloned();
        // An error means that the process ends.
        let noted = changes.wait_for(|changes| of_term(changes).is_some()).await.ok()?;
        of_term(&noted)
    }

    /// Notes the operator's current request.
    pub fn ask_savepoint(&self, request: Option<SavepointRequest>) {
        self.savepoint.send_if_modified(|before| {
            let changed = *before != request;
            *before = request;
            changed
        });
    }

    pub fn savepoint_requests(&self) -> watch::Receiver<Option<SavepointRequest>> {
        self.savepoint.subscribe()
    }

    pub fn savepoint_answered(&self, id: &str) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
        self.job_ended.notify_one();
    }

    /// Is this job being stopped with a savepoint that has no answer in the ledger yet? Then its end must not be noted
    /// before the answer.
    pub fn is_being_stopped(&self, job: JobId) -> bool {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.is_asked_to_stop(job) && self.savepoint.borrow().as_ref().map(|asked| &asked.id) != answered.as_ref()
    }

    /// Notes whether the leading JVM's Flink serves.
    pub fn note_serving(&self, serves: bool) {
        if self.is_not_serving.swap(!serves, Ordering::Relaxed) == serves {
            match serves {
                true => tracing::info!("Flink serves now"),
                false => tracing::warn!(why = NOT_SERVING, "Flink does not serve"),
            }
        }
    }

    /// Why a leader is not ready.
    pub fn unready(&self) -> Option<&'static str> {
        self.is_not_serving.load(Ordering::Relaxed).then_some(NOT_SERVING)
    }

    /// Does another run continue from the stop of this job?
    pub fn is_asked_to_stop(&self, job: JobId) -> bool {
        self.savepoint.borrow().as_ref().is_some_and(|asked| asked.stop && asked.job == job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn complete_changes_of_leader_are_remembered_once_and_the_latest_of_many() {
        let signals = Signals::default();
        let change = |term: u64, to: &str| Change { term, to: to.to_owned(), ..Change::default() };
        signals.note_change(&change(0, ""));
        assert!(signals.changes().is_empty(), "nobody leads yet");
        for term in 1..=30 {
            signals.note_change(&change(term, "a"));
            signals.note_change(&change(term, "a"));
        }
        let terms: Vec<u64> = signals.changes().iter().map(|change| change.term).collect();
        assert_eq!(terms, (11..=30).collect::<Vec<_>>());
        let at = |term| Change { at: "2026-01-01T00:00:00.000Z".to_owned(), ..change(term, "a") };
        signals.note_change(&at(31));
        signals.note_change(&at(32));
        assert_eq!(signals.changes().last(), Some(&at(31)), "its gateway was restarted");
        assert_eq!(signals.change_to(30).await.map(|change| change.to).as_deref(), Some("a"));
    }
}
