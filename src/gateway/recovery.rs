//! Tells a JobManager that starts again in its pod whether another one, which was just elected, is still bringing the
//! jobs back. Where both share processors, a JVM that starts beside a recovery makes it longer
//! (docs/sizing.md, "The JobManagers' JVMs"). A container asks at `/startz` before it starts Flink (`restart-turn.sh`).
//!
//! Nothing here decides who leads or what may be written. The word of the leader, that its jobs run, comes with its
//! question for promises ([`super::election::peers`]).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest time after an election elsewhere for which a JobManager that starts again waits. A leader whose jobs do not
/// run by then has other problems than processor time.
const LIMIT: Duration = Duration::from_secs(6);

/// Shared by reference; no method waits.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The term that was seen last, 0 for none, and whose it is if it began while this gateway ran.
    seen: Mutex<(u64, Option<Elsewhere>)>,
    /// The term of this pod's own JVM in which all jobs run.
    here: Mutex<Option<u64>>,
}

/// Another JobManager was elected.
#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    since: Instant,
    all_run: bool,
}

impl Elsewhere {
    fn goes_first(self, now: Instant) -> bool {
        !self.all_run && now.saturating_duration_since(self.since) < LIMIT
    }
}

impl Recovery {
    /// Notes that the Lease has changed hands. A leader that is the first one seen may have led for long.
    pub fn note_leader(&self, term: u64, is_elsewhere: bool, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = is_elsewhere && seen.0 > 0;
        *seen = (term, is_new.then_some(Elsewhere { since: now, all_run: false }));
    }

    /// Notes that all jobs of another leader run.
    pub fn note_told(&self, term: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let (of, Some(elsewhere)) = &mut *seen
            && *of == term
        {
            elsewhere.all_run = true;
        }
    }

    /// Notes that all jobs run under this pod's own JVM, or that there are none.
    pub fn note_all_run(&self, term: u64) {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner) = Some(term);
    }

    /// Do all jobs run under this pod's own JVM, in this term?
    pub fn all_run(&self, term: u64) -> bool {
        *self.here.lock().unwrap_or_else(PoisonError::into_inner) == Some(term)
    }

    /// Does the recovery of another JobManager go before the start of this pod's?
    pub fn goes_first(&self, now: Instant) -> bool {
        let (_, elsewhere) = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.is_some_and(|elsewhere| elsewhere.goes_first(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_only_for_a_leader_that_was_just_elected_and_whose_jobs_do_not_run_yet() {
        let (recovery, now) = (Recovery::default(), Instant::now());
        assert!(!recovery.goes_first(now), "at the first start nothing is known of an election");
        recovery.note_leader(6, true, now);
        assert!(!recovery.goes_first(now), "the first leader that is seen may have led for long");
        recovery.note_leader(7, true, now);
        assert!(recovery.goes_first(now));
        recovery.note_told(6);
        assert!(recovery.goes_first(now), "an earlier leader's word is no word of this one");
        recovery.note_told(7);
        assert!(!recovery.goes_first(now), "its jobs run");

        recovery.note_leader(8, true, now);
        assert!(recovery.goes_first(now + LIMIT - Duration::from_millis(1)));
        assert!(!recovery.goes_first(now + LIMIT), "it has had its time");

        recovery.note_leader(9, true, now);
        recovery.note_leader(9, false, now);
        assert!(!recovery.goes_first(now), "it is lost: this JobManager is needed now");
    }

    #[test]
    fn what_runs_here_belongs_to_a_term() {
        let recovery = Recovery::default();
        recovery.note_all_run(3);
        assert!(recovery.all_run(3) && !recovery.all_run(4));
    }
}
