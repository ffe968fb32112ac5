//! Tracks the tenures of this gateway's own JVM, and the other gateways that it has seen.

use std::future::pending;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::lease::elector::LockView;
use crate::lease::term::Term;

/// Number of former leaders' gateway processes that are remembered.
const WITNESSED: usize = 16;

/// Shared by reference by all tasks that work only while the JVM leads.
pub struct Tenures {
    shown: watch::Receiver<LockView>,
    /// The term in which the JVM leads only to clean up after a finished run.
    ending: Mutex<Option<Term>>,
    /// Gateway processes that were seen alive in this cluster, the latest last.
    witnessed: Mutex<Vec<String>>,
}

impl Tenures {
    /// Creates it. `shown`: the view of the lock for the JVM.
    pub fn new(shown: watch::Receiver<LockView>) -> Self {
        Self { shown, ending: Mutex::default(), witnessed: Mutex::default() }
    }

    /// Runs `lead` once each time the JVM leads, for as long as it does, until the process ends.
    pub async fn during_each(&self, mut lead: impl AsyncFnMut(&Term)) {
        while let Some(term) = self.next().await {
            // A `lead` that is done must not begin again in the same tenure: one that has nothing to wait for would
            // leave this process no time for anything else.
            let whole_tenure = async {
                lead(&term).await;
                pending::<()>().await;
            };
            tokio::select! {
                () = whole_tenure => {}
                // This interrupts `lead` anywhere: a storage that hangs must not delay the next tenure.
                () = self.end_of(&term) => {}
            }
        }
    }

    /// Runs `lead` until the JVM no longer leads in this term.
    pub async fn while_leading(&self, term: &Term, lead: impl Future<Output = ()>) {
        tokio::select! { () = lead => {}, () = self.end_of(term) => {} }
    }

    /// Waits until the JVM leads in another term than this one, or no longer; without one, until it leads.
    pub async fn change_from(&self, term: Option<&Term>) {
        let mut shown = self.shown.clone();
        let changed = shown.wait_for(|shown| match shown {
            LockView::Leader { term: now, .. } => Some(now) != term,
            _ => term.is_some(),
        });
        if changed.await.is_err() {
            // The process ends.
            pending().await
        }
    }

    /// Waits until the JVM leads, and returns the term; `None` when the process ends.
    async fn next(&self) -> Option<Term> {
        let mut shown = self.shown.clone();
        match &*shown.wait_for(|shown| matches!(shown, LockView::Leader { .. })).await.ok()? {
            LockView::Leader { term, .. } => Some(term.clone()),
            _ => None,
        }
    }

    /// Waits until the JVM no longer leads in this term.
    async fn end_of(&self, term: &Term) {
        let mut shown = self.shown.clone();
        // An error means that the process ends.
        let _ = shown.wait_for(|shown| !matches!(shown, LockView::Leader { term: now, .. } if now == term)).await;
    }

    /// Does the JVM lead in this term, as far as this gateway knows?
    pub fn leads(&self, term: &Term) -> bool {
        matches!(&*self.shown.borrow(), LockView::Leader { term: now, .. } if now == term)
    }

    /// Returns the term in which the JVM leads, as far as this gateway knows.
    pub fn term(&self) -> Option<Term> {
        match &*self.shown.borrow() {
            LockView::Leader { term, .. } => Some(term.clone()),
            _ => None,
        }
    }

    /// Notes that the end of the application's run is on record from the beginning of this term.
    pub fn note_ending(&self, term: &Term) {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(term.clone());
    }

    pub fn is_ending(&self, term: &Term) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(term)
    }

    /// Notes that another gateway process of this cluster has just written the Lease.
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
}

/// What a task has noted in the ledger in one tenure.
pub struct TenureNotes<T> {
    pub term: Term,
    /// When the task first saw that the JVM leads, since its own beginning.
    pub since: Duration,
    /// What the ledger says, once the task has noted it.
    pub noted: Option<T>,
}

impl<T> TenureNotes<T> {
    /// Returns those of the tenure of now, in which nothing is noted yet if it is another than before.
    pub fn of(term: Option<Term>, before: Option<Self>, now: Duration) -> Option<Self> {
        let term = term?;
        let same = before.filter(|before| before.term == term);
        Some(same.unwrap_or(Self { term, since: now, noted: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::lease::elector::Time;
    use crate::lease::term::Incarnation;

    #[tokio::test]
    async fn what_is_done_early_runs_once_in_each_tenure() {
        let leads = |number| LockView::Leader {
            term: Term {
                number,
                pod_uid: "u".to_owned(),
                process: "p".to_owned(),
                jvm: Incarnation { pid: 1, started: 1 },
            },
            until: Time(0),
        };
        let (show, shown) = watch::channel(leads(1));
        let (tenures, ran) = (Tenures::new(shown), Cell::new(0));
        let all = tenures.during_each(async |term| ran.set(ran.get() * 10 + term.number));
        let change = async {
            for number in 2..=3 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                show.send_replace(leads(number));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! { () = all => {} () = change => {} }
        assert_eq!(ran.get(), 123);
    }
}
