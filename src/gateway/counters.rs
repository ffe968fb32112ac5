//! Counts what the gateway's tasks do, for its metrics. No decision depends on it, and no method waits.

use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::flink::job_id::JobId;
use crate::lease::record::Change;
use crate::lease::term::Incarnation;
use crate::telemetry::counts::CountsBy;

/// Reasons of a change of leader, as Lease and ledger name them.
pub const REASONS: &[&str] = &[
    "FirstLeader",
    "GrantTimedOut",
    "JobManagerDied",
    "JobManagerHung",
    "JobManagerResigned",
    "LeaderSilent",
    "PodTerminating",
    "SessionEnded",
    "StampingFailed",
    "Switchover",
    "TermRaised",
    "Other",
];

/// Why a JVM ended: what the log says when the gateway ends one, and the label's value. The last one is for all others.
const ENDS: [(&str, &str); 6] = [
    ("it lost the leadership and does not step down", "NotSteppedDown"),
    ("it no longer asks for the lock", "Silent"),
    ("it leads and no longer asks for the lock", "Hung"),
    ("it leads where it must not", "LeadsWrongly"),
    ("it is frozen and its session has expired", "SessionExpired"),
    ("", "Other"),
];
/// A JVM that ended without the gateway's doing.
const EXITED: &str = "Exited";
const END_REASONS: &[&str] = &["NotSteppedDown", "Silent", "Hung", "LeadsWrongly", "SessionExpired", EXITED, "Other"];

/// Jobs of which the age of the last checkpoint is known.
pub const MOST_JOBS: usize = 100;

/// What is counted.
pub struct Counters {
    /// Changes of leader that made this pod's JobManager the leader.
    pub leader_changes: CountsBy,
    pub leaderless: Histogram,
    pub lease_renewals: Histogram,
    /// Seconds since 1970; 0 if this gateway has not written the Lease.
    pub lease_renewed: Gauge<f64, AtomicU64>,
    pub fenced_writes: CountsBy,
    pub upstream_requests: CountsBy,
    pub collections: CountsBy,
    pub jvm_restarts: CountsBy,
    /// Promises that this leader has, and those that it lacks.
    promises: [AtomicU64; 2],
    storage: Mutex<Option<bool>>,
    /// The JVM that this gateway has ended last.
    ended: Mutex<Option<Incarnation>>,
    checkpoints: Mutex<BTreeMap<JobId, (u64, Instant)>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            leader_changes: CountsBy::new("reason", REASONS),
            leaderless: Histogram::new(exponential_buckets(0.05, 2.0, 11)),
            lease_renewals: Histogram::new(exponential_buckets(0.005, 2.0, 10)),
            lease_renewed: Gauge::default(),
            fenced_writes: CountsBy::new("verb", &["create", "update", "patch", "delete", "other"]),
            upstream_requests: CountsBy::of_codes(),
            collections: CountsBy::new("result", &["success", "error"]),
            jvm_restarts: CountsBy::new("reason", END_REASONS),
            promises: Default::default(),
            storage: Mutex::default(),
            ended: Mutex::default(),
            checkpoints: Mutex::default(),
        }
    }
}

impl Debug for Counters {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str("Counters")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counters {
    /// Our JVM leads by this change.
    pub fn leads(&self, change: &Change) {
        self.leader_changes.inc(&change.why);
        self.leaderless.observe(Duration::from_millis(change.leaderless_millis).as_secs_f64());
    }

    /// A write of the Lease has taken so long. `renewed`: the time at which it began, if it was stored.
    pub fn lease_written(&self, took: Duration, renewed: Option<jiff::Timestamp>) {
        self.lease_renewals.observe(took.as_secs_f64());
        if let Some(at) = renewed {
            self.lease_renewed.set(at.as_duration().as_secs_f64());
        }
    }

    /// The gateway ends this JVM.
    pub fn jvm_ended(&self, jvm: Incarnation, why: &str) {
        *locked(&self.ended) = Some(jvm);
        let known = ENDS.iter().find(|(said, _)| *said == why);
        self.jvm_restarts.inc(known.map_or("Other", |(_, reason)| reason));
    }

    /// A JVM has ended; it counts unless the gateway has ended it.
    pub fn jvm_exited(&self, jvm: Incarnation) {
        if *locked(&self.ended) != Some(jvm) {
            self.jvm_restarts.inc(EXITED);
        }
    }

    /// Of the members that the Lease lists, so many have promised in time, and so many have not.
    pub fn note_promises(&self, (held, missing): (usize, usize)) {
        for (gauge, value) in self.promises.iter().zip([held, missing]) {
            gauge.store(value as u64, Ordering::Relaxed);
        }
    }

    pub fn promises(&self) -> [(&'static str, u64); 2] {
        let [held, missing] = &self.promises;
        [("held", held.load(Ordering::Relaxed)), ("missing", missing.load(Ordering::Relaxed))]
    }

    /// The storage has answered, or has not.
    pub fn note_storage(&self, answers: bool) {
        *locked(&self.storage) = Some(answers);
    }

    pub fn storage(&self) -> Option<bool> {
        *locked(&self.storage)
    }

    /// Is the last checkpoint of this job known?
    pub fn knows(&self, job: JobId) -> bool {
        locked(&self.checkpoints).contains_key(&job)
    }

    /// A checkpoint of this job is stored. Only a later one than before counts.
    pub fn note_checkpoint(&self, job: JobId, number: u64, now: Instant) {
        let mut checkpoints = locked(&self.checkpoints);
        let is_later = checkpoints.get(&job).is_none_or(|(before, _)| *before < number);
        if is_later && (checkpoints.len() < MOST_JOBS || checkpoints.contains_key(&job)) {
            checkpoints.insert(job, (number, now));
        }
    }

    pub fn forget_checkpoints_of(&self, job: JobId) {
        locked(&self.checkpoints).remove(&job);
    }

    /// What another term has stored is unknown.
    pub fn forget_checkpoints(&self) {
        locked(&self.checkpoints).clear();
    }

    /// Jobs, and the time since their last checkpoint.
    pub fn checkpoint_ages(&self, now: Instant) -> Vec<(JobId, Duration)> {
        let checkpoints = locked(&self.checkpoints);
        checkpoints.iter().map(|(job, (_, at))| (*job, now.saturating_duration_since(*at))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JVM: Incarnation = Incarnation { pid: 1, started: 2 };

    #[test]
    fn every_reason_for_which_an_election_ends_a_jvm_is_counted_by_its_name() {
        let sources = [
            include_str!("../lease/elector/decide.rs"),
            include_str!("../quorum/leadership/mod.rs"),
            include_str!("../quorum/leadership/answers.rs"),
        ];
        let said = sources.concat();
        for (why, reason) in ENDS.iter().filter(|(why, _)| !why.is_empty()) {
            assert!(said.contains(&format!("\"{why}\"")), "nobody says any more that {why}");
            let counters = Counters::default();
            counters.jvm_ended(JVM, why);
            assert_eq!(counters.jvm_restarts.get(reason), 1, "{why}");
        }
        let given = said.split("why: \"").skip(1).filter_map(|rest| rest.split('"').next());
        let unknown: Vec<&str> =
            given.filter(|why| why.contains(' ') && !ENDS.iter().any(|(known, _)| known == why)).collect();
        assert!(unknown.is_empty(), "not counted by a name: {unknown:?}");
    }

    #[test]
    fn a_jvm_that_the_gateway_ended_did_not_exit_by_itself() {
        let counters = Counters::default();
        counters.jvm_ended(JVM, "it no longer asks for the lock");
        counters.jvm_exited(JVM);
        counters.jvm_exited(Incarnation { pid: 3, started: 4 });
        assert_eq!([EXITED, "Silent"].map(|reason| counters.jvm_restarts.get(reason)), [1, 1]);
    }

    #[test]
    fn reasons_of_changes_are_those_that_the_elections_give() {
        let sources = [
            include_str!("../lease/elector/decide.rs"),
            include_str!("../lease/elector/observe.rs"),
            include_str!("../ledger/election.rs"),
            include_str!("../quorum/leadership/mod.rs"),
        ];
        let all = sources.concat();
        for reason in REASONS.iter().filter(|reason| **reason != "Other") {
            assert!(all.contains(&format!("\"{reason}\"")), "nobody gives the reason {reason} any more");
        }
        for end in ["self.end(now, \"", "released(\"", "self.end_tenure(now, \"", "why: \"", "Stage::Ending(\""] {
            let given = all.split(end).skip(1).filter_map(|rest| rest.split('"').next());
            for reason in given.filter(|reason| !reason.contains(' ')) {
                assert!(REASONS.contains(&reason), "{reason} is counted as Other");
            }
        }
    }

    #[test]
    fn the_age_of_a_checkpoint_counts_from_the_first_look_at_it_and_the_number_of_jobs_is_bounded() {
        let (counters, begin) = (Counters::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let job = JobId::from_number;
        counters.note_checkpoint(job(1), 7, at(0));
        counters.note_checkpoint(job(1), 7, at(5));
        counters.note_checkpoint(job(1), 6, at(6));
        assert_eq!(counters.checkpoint_ages(at(10)), [(job(1), Duration::from_secs(10))]);
        counters.note_checkpoint(job(1), 8, at(8));
        assert_eq!(counters.checkpoint_ages(at(10)), [(job(1), Duration::from_secs(2))]);
        (0..2 * MOST_JOBS as u128).for_each(|number| counters.note_checkpoint(job(number), 9, at(9)));
        assert_eq!(counters.checkpoint_ages(at(10)).len(), MOST_JOBS);
        assert_eq!(counters.checkpoint_ages(at(10))[1], (job(1), Duration::from_secs(1)), "a known one goes on");
        counters.forget_checkpoints_of(job(1));
        assert!(!counters.knows(job(1)) && counters.knows(job(2)));
        counters.forget_checkpoints();
        assert!(counters.checkpoint_ages(at(10)).is_empty());
    }
}
