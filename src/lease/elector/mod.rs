//! The state machine of one candidate: `step(now, event) → actions`, and [`Elector::shown`], the view of the lock for
//! its JVM.
//!
//! [`Elector::step`] first records the event (`observe.rs`), then decides from the whole state which actions are due
//! (`decide.rs`). A decision never depends on which event came last, so a lost or duplicate event delays and does not
//! mislead. [`crate::lease`] lists the invariants.

mod decide;
mod messages;
mod observe;
mod promise;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::record::{Change, Record};
use super::term::{Incarnation, Term};
pub use messages::{Action, Answer, Event, LockView, Read, Stamping, Write};
use promise::{Given, Promises};

/// Milliseconds on this machine's monotonic clock, since an arbitrary fixed origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// The time since `earlier`; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Timings of the election. `docs/protocol.md` says what each bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Silence of a Lease after which another candidate may take it.
    pub duration: Duration,
    /// Validity of a written Lease for its holder, from the start of the write; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between renewals, and between quorum reads of a silent Lease.
    pub retry_period: Duration,
    /// Duration of a peer's promise not to take the Lease, from the moment at which it was asked; shorter than
    /// `renew_deadline`.
    pub promise: Duration,
    /// Time between two rounds of requests for promises.
    pub ask_period: Duration,
    /// A JVM without a lock request for this long is hung: it neither leads nor campaigns.
    pub jvm_timeout: Duration,
    /// Limit from the acquisition of the Lease until all HA ConfigMaps are stamped.
    pub stamp_deadline: Duration,
    /// Limit from the first view of the free lock until the JVM's own lock write is stored.
    pub take_deadline: Duration,
    /// The gateway ends a former leader that has not asked for the lock for this long.
    pub step_down_deadline: Duration,
    /// The gateway ends a JVM, a standby's too, that has not asked for the lock for this long (Flink 1.18.0 stops
    /// asking after a revocation, FLINK-34007).
    pub deaf_deadline: Duration,
    /// A tenure whose validity has ended continues if a write of the Lease succeeds within this time: nobody has taken
    /// the Lease then.
    pub lapse_grace: Duration,
    /// After a failed tenure: time in which others campaign first.
    pub cool_down: Duration,
    /// Limit from [`Event::PodTerminating`]: a pod that still runs by then does not terminate and campaigns again. Not
    /// shorter than the pod's grace period, so that a pod that does terminate is not elected again.
    pub hand_over: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            promise: Duration::from_secs(4),
            ask_period: Duration::from_secs(1),
            jvm_timeout: Duration::from_secs(10),
            stamp_deadline: Duration::from_secs(10),
            take_deadline: Duration::from_secs(4),
            step_down_deadline: Duration::from_secs(5),
            deaf_deadline: Duration::from_secs(60),
            lapse_grace: Duration::from_millis(500),
            cool_down: Duration::from_secs(5),
            hand_over: Duration::from_secs(40),
        }
    }
}

impl Settings {
    /// With the time-outs of the Lease that users choose. A promise lasts no longer than the renew deadline, and is
    /// asked for at least four times within it.
    pub fn of(duration: Duration, renew_deadline: Duration) -> Self {
        let default = Self::default();
        Self {
            duration,
            renew_deadline,
            promise: default.promise.min(renew_deadline),
            ask_period: default.ask_period.min(renew_deadline / 4),
            ..default
        }
    }
}

/// Identity of this candidate. `process` is random per gateway process (I3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub pod: String,
    pub pod_uid: String,
    pub process: String,
    /// `address:port` at which its peers reach it; empty when it has none.
    pub address: String,
}

/// The JVM that this candidate stands for. `heard`: its last lock request; `ended`: this candidate has asked for its
/// end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Jvm {
    incarnation: Incarnation,
    heard: Time,
    ended: bool,
}

/// A write of the Lease that is in flight, or whose outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    id: u64,
    started: Time,
    record: Record,
    intent: Intent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Intent {
    Acquire { resume: bool },
    Renew,
    Release,
}

/// The tenure of this candidate: it holds the Lease, as far as it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tenure {
    term: Term,
    /// resourceVersion of its last known write.
    version: String,
    acquired: Time,
    renewed: Time,
    valid_until: Time,
    stage: Stage,
    change: Option<Change>,
    /// The stored record lacks the latest change of leader, so the holder renews at once.
    news: bool,
    promises: Promises,
    /// Since when validity has ended while a write may still restore it. Until then the gateway answers its JVM nothing
    /// and forwards nothing.
    lapsed: Option<Time>,
    /// A switchover asks for another leader, and the holder waits for jobs that are ending.
    switching: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// `asked`: the action has been issued.
    Stamping {
        resume: bool,
        since: Time,
        asked: bool,
    },
    Offered {
        resume: bool,
        since: Time,
    },
    Leading,
    /// The Lease must be released, for this reason.
    Ending(&'static str),
}

/// A foreign or free record, and the time for which it has been silent (I6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Observation {
    version: String,
    record: Record,
    /// When this version was first seen. The first quorum read and a member's waiting time count from here.
    first_seen: Time,
    /// Proven silence.
    silent: Duration,
    /// End of the last quorum read that showed this version; `None` if a read has failed since.
    confirmed: Option<Time>,
    /// The last probe write was stored. Silence while nobody can write proves nothing about the holder.
    writable: bool,
    /// This candidate refuses promises: the holder does not write although this candidate could.
    refused: bool,
    /// When the holder's machine last failed to answer; `None` if it has answered since.
    unanswered: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SteppingDown {
    jvm: Incarnation,
    since: Time,
}

/// The election state of one candidate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elector {
    settings: Settings,
    me: Identity,
    jvm: Option<Jvm>,
    /// Another JVM that asked while ours was not known to have ended. It replaces ours when ours has ended (I3).
    beside: Option<Jvm>,
    /// Last process known to have ended; decides about a record of our own pod after a restart.
    dead_jvm: Option<Incarnation>,
    lease: Option<Observation>,
    tenure: Option<Tenure>,
    reading: bool,
    /// A write has ended since the read in flight began, so the read may show an older record.
    overtaken: bool,
    writing: Option<Attempt>,
    unknown: Option<Attempt>,
    next_attempt: u64,
    next_read: Time,
    next_write: Time,
    /// The last promise that this candidate gave.
    given: Option<Given>,
    probing: bool,
    next_probe: Time,
    pinging: bool,
    next_ping: Time,
    next_join: Time,
    /// Something was seen that only a quorum read can settle.
    read_wanted: bool,
    cool_until: Time,
    stepping_down: Option<SteppingDown>,
    /// Highest term number seen anywhere (I2).
    highest: u64,
    /// This process has not found out yet whether its pod held the Lease before it started.
    fresh: bool,
    /// No JVM has asked since this process found that out. An earlier process may have shown the lock to the first one
    /// that asks.
    first_jvm: bool,
    /// The JVM for which [`Action::FindJvm`] has been issued.
    asked_for: Option<Incarnation>,
    /// Last notice that the pod terminates, unless that has proved wrong.
    terminating: Option<Time>,
}

impl Elector {
    pub fn new(me: Identity, settings: Settings) -> Self {
        Self {
            settings,
            me,
            jvm: None,
            beside: None,
            dead_jvm: None,
            lease: None,
            tenure: None,
            reading: false,
            overtaken: false,
            writing: None,
            unknown: None,
            next_attempt: 1,
            next_read: Time::default(),
            next_write: Time::default(),
            given: None,
            probing: false,
            next_probe: Time::default(),
            pinging: false,
            next_ping: Time::default(),
            next_join: Time::default(),
            read_wanted: true,
            cool_until: Time::default(),
            stepping_down: None,
            highest: 0,
            fresh: true,
            first_jvm: true,
            asked_for: None,
            terminating: None,
        }
    }

    /// Records an event and returns the actions that are due. Idempotent for [`Event::Tick`] at the same time.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.observe(now, event, &mut actions);
        self.judge_validity();
        self.decide(now, &mut actions);
        self.judge_validity();
        actions
    }

    /// The view of the lock for the JVM. The times in it bound it even if no event comes (I5).
    pub fn shown(&self) -> LockView {
        match &self.tenure {
            None if self.fresh => LockView::Undecided,
            None => LockView::Standby { acknowledged: self.stepping_down.is_none() },
            Some(tenure) if tenure.lapsed.is_some() => LockView::Undecided,
            Some(tenure) => match tenure.stage {
                Stage::Stamping { resume: true, .. } => LockView::Undecided,
                Stage::Stamping { .. } => LockView::Standby { acknowledged: true },
                Stage::Offered { .. } => LockView::Free { term: tenure.term.clone(), until: tenure.valid_until },
                Stage::Leading => LockView::Leader { term: tenure.term.clone(), until: tenure.valid_until },
                Stage::Ending(_) => LockView::Standby { acknowledged: self.stepping_down.is_none() },
            },
        }
    }

    /// A JVM that asks while ours has not ended.
    pub fn beside(&self) -> Option<Incarnation> {
        self.beside.as_ref().map(|jvm| jvm.incarnation)
    }

    /// Holder identity that Flink wrote for the JVM of this tenure, if the Lease names it.
    pub fn lock(&self) -> Option<&str> {
        let change = self.tenure.as_ref()?.change.as_ref()?;
        Some(change.lock.as_str()).filter(|lock| !lock.is_empty())
    }

    /// The change of leader by which this candidate holds the Lease.
    pub fn change(&self) -> Option<&Change> {
        self.tenure.as_ref()?.change.as_ref()
    }

    /// Why this candidate gives its tenure up; `None` while it has none, or keeps it.
    pub fn gives_up(&self) -> Option<&'static str> {
        match self.tenure.as_ref()?.stage {
            Stage::Ending(why) => Some(why),
            _ => None,
        }
    }

    /// Pod that holds the Lease as far as this candidate knows; empty when free or unknown.
    pub fn holder(&self) -> &str {
        match (&self.tenure, &self.lease) {
            (Some(_), _) => &self.me.pod,
            (None, Some(lease)) => &lease.record.holder,
            (None, None) => "",
        }
    }

    /// Does this candidate stand back because its pod terminates?
    pub fn is_terminating(&self) -> bool {
        self.terminating.is_some()
    }

    /// Does this candidate hold the Lease, as far as it knows? True also while it releases it.
    pub fn leads(&self) -> bool {
        self.tenure.is_some()
    }

    /// Term number of the Lease as far as known; 0 if none is known.
    pub fn term_number(&self) -> u64 {
        let tenure = self.tenure.as_ref().map(|tenure| tenure.term.number);
        let record = self.lease.as_ref().and_then(|lease| lease.record.term.as_ref()).map(|term| term.number);
        tenure.or(record).unwrap_or(0)
    }

    /// Why this candidate could not take over now; `None` if it could, or leads.
    pub fn unready(&self, now: Time) -> Option<&'static str> {
        match &self.jvm {
            _ if self.terminating.is_some() => Some("the pod is terminating"),
            None => Some("the JobManager has not asked for the lock yet"),
            Some(jvm) if now.since(jvm.heard) >= self.settings.jvm_timeout => {
                Some("the JobManager does not ask for the lock")
            }
            Some(_) if self.fresh || (self.lease.is_none() && self.tenure.is_none()) => {
                Some("the Lease has not been read yet")
            }
            Some(_) if self.stepping_down.is_some() => Some("the JobManager is stepping down"),
            Some(_) => None,
        }
    }

    /// Requires that the JVM sees a foreign holder before this candidate campaigns again (I9), if the JVM was shown the
    /// lock.
    fn must_step_down(&mut self, now: Time) {
        let shown = self.tenure.as_ref().is_some_and(|tenure| {
            matches!(tenure.stage, Stage::Offered { .. } | Stage::Leading | Stage::Stamping { resume: true, .. })
        });
        if let (true, Some(jvm)) = (shown, &self.jvm) {
            self.stepping_down = Some(SteppingDown { jvm: jvm.incarnation, since: now });
        }
    }

    /// Ends the attempt to resume a tenure of an earlier process. A JVM that was shown the lock by that process must
    /// see a foreign holder first (I9).
    fn start_anew(&mut self, now: Time) {
        self.fresh = false;
        self.doubt_first_jvm(now);
    }

    fn doubt_first_jvm(&mut self, now: Time) {
        if let (true, false, Some(jvm)) = (self.first_jvm, self.fresh, &self.jvm) {
            self.first_jvm = false;
            self.stepping_down = Some(SteppingDown { jvm: jvm.incarnation, since: now });
        }
    }

    fn lose(&mut self, now: Time) {
        self.must_step_down(now);
        self.tenure = None;
    }

    fn end(&mut self, now: Time, why: &'static str) {
        self.must_step_down(now);
        if let Some(tenure) = &mut self.tenure {
            tenure.stage = Stage::Ending(why);
        }
    }
}
