//! The state machine of one candidate: `step(now, event) → actions`, and [`Elector::shown`], what its JVM is to see.
//!
//! [`Elector::step`] first takes the event in (`observe.rs`), then decides from the whole state what to do next
//! (`decide.rs`). Decisions never depend on which event came last, so a lost or doubled event delays and does not
//! mislead. The invariants are numbered in [`crate::lease`].

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

/// Milliseconds on this machine's monotonic clock, since any fixed origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    pub fn after(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// Zero when `earlier` is not earlier.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Timings of the election; see `docs/protocol.md` for what each bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How long a Lease must be silent before another may take it.
    pub duration: Duration,
    /// How long a written Lease is valid for its holder, from the start of the write; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between renewals, and between quorum reads of a silent Lease.
    pub retry_period: Duration,
    /// How long a peer's promise not to take the Lease lasts, from the moment at which it was asked; shorter than
    /// `renew_deadline`.
    pub promise: Duration,
    /// Time between two rounds of asking.
    pub ask_period: Duration,
    /// A JVM without a lock request for this long is hung: it neither leads nor campaigns.
    pub jvm_timeout: Duration,
    /// From the acquired Lease until all HA ConfigMaps are stamped.
    pub stamp_deadline: Duration,
    /// From the free lock shown until the JVM's own lock write is stored.
    pub take_deadline: Duration,
    /// A former leader that has not asked for the lock for this long is ended.
    pub step_down_deadline: Duration,
    /// A JVM, standby too, without a lock request for this long is ended (Flink 1.18.0 goes deaf after a revocation,
    /// FLINK-34007).
    pub deaf_deadline: Duration,
    /// A tenure whose validity has ended goes on if the Lease can be written within this time: nobody has taken it
    /// then.
    pub lapse_grace: Duration,
    /// After a tenure that failed: time in which others go first.
    pub cool_down: Duration,
    /// From [`Event::PodTerminating`] on: a pod that has not ended by then does not terminate, and stands for election
    /// again. Not shorter than the pod's grace period, so that a pod that does terminate is not elected again.
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

/// Who this candidate is. `process` is random per gateway process (I3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub pod: String,
    pub pod_uid: String,
    pub process: String,
    /// `address:port` for its peers; empty when it has none.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Jvm {
    incarnation: Incarnation,
    heard: Time,
    ended: bool,
}

/// A write in flight, or one whose fate is not known.
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

/// The Lease is ours, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tenure {
    term: Term,
    /// resourceVersion of our last known write.
    version: String,
    acquired: Time,
    renewed: Time,
    valid_until: Time,
    stage: Stage,
    change: Option<Change>,
    /// The record in the API lacks news (the change of leader), so renew at once.
    news: bool,
    promises: Promises,
    /// Validity has ended, and a write is to find out whether it can go on. Until then the JVM is told nothing, and
    /// nothing is forwarded.
    lapsed: Option<Time>,
    /// Another is asked to lead, and jobs that are just ending are waited for.
    switching: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// `asked`: the action is out.
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
    /// To be given back, for this reason.
    Ending(&'static str),
}

/// A foreign or free record, and for how long it has been silent (I6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Observation {
    version: String,
    record: Record,
    /// When this version was first seen; for reports and for when to start asking.
    first_seen: Time,
    /// Proven silence.
    silent: Duration,
    /// End of the last quorum read that showed this version, if no read failed since.
    confirmed: Option<Time>,
    /// The last probe was stored. Silence while nobody could write says nothing of the holder.
    writable: bool,
    /// Promises are refused: the holder does not write although this candidate could.
    refused: bool,
    /// When the holder's machine last did not answer.
    unanswered: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SteppingDown {
    jvm: Incarnation,
    since: Time,
}

/// One candidate's election state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Elector {
    settings: Settings,
    me: Identity,
    jvm: Option<Jvm>,
    /// Another JVM, which asked last while ours was not known to have ended. It takes the place of ours when that has
    /// ended (I3).
    beside: Option<Jvm>,
    /// Last process known to be gone, to judge a record of our own pod after a restart.
    dead_jvm: Option<Incarnation>,
    lease: Option<Observation>,
    tenure: Option<Tenure>,
    reading: bool,
    /// A write has ended since the read in flight began: what it will show may be older.
    overtaken: bool,
    writing: Option<Attempt>,
    unknown: Option<Attempt>,
    next_attempt: u64,
    next_read: Time,
    next_write: Time,
    /// The last promise given.
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
    /// This process has not yet found out whether its pod held the Lease before it started.
    fresh: bool,
    /// No JVM has been heard since this process found out: the first may have been shown the lock by an earlier
    /// process.
    first_jvm: bool,
    asked_for: Option<Incarnation>,
    /// When this candidate was last told that its pod terminates, unless that has proved wrong.
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

    /// Takes an event in and says what to do. Idempotent for [`Event::Tick`] at the same time.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.observe(now, event, &mut actions);
        self.judge_validity();
        self.decide(now, &mut actions);
        self.judge_validity();
        actions
    }

    /// What the JVM is to see. The times bound it even when no event comes (I5).
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

    /// A JVM that asks beside ours, which has not ended.
    pub fn beside(&self) -> Option<Incarnation> {
        self.beside.as_ref().map(|jvm| jvm.incarnation)
    }

    /// Pod that holds the Lease as far as this candidate knows; empty when free or unknown.
    /// Flink's name for the JVM of a tenure that is resumed, if the Lease tells it.
    pub fn lock(&self) -> Option<&str> {
        let change = self.tenure.as_ref()?.change.as_ref()?;
        Some(change.lock.as_str()).filter(|lock| !lock.is_empty())
    }

    pub fn holder(&self) -> &str {
        match (&self.tenure, &self.lease) {
            (Some(_), _) => &self.me.pod,
            (None, Some(lease)) => &lease.record.holder,
            (None, None) => "",
        }
    }

    /// This candidate was told that its pod terminates, and stands back.
    pub fn is_terminating(&self) -> bool {
        self.terminating.is_some()
    }

    /// The Lease is ours as far as this candidate knows, or being given back.
    pub fn leads(&self) -> bool {
        self.tenure.is_some()
    }

    /// Term of the Lease as far as known; 0 when there was none.
    pub fn term_number(&self) -> u64 {
        let tenure = self.tenure.as_ref().map(|tenure| tenure.term.number);
        let record = self.lease.as_ref().and_then(|lease| lease.record.term.as_ref()).map(|term| term.number);
        tenure.or(record).unwrap_or(0)
    }

    /// Why this candidate could not take over now; `None` when it could, or leads.
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

    /// The tenure ends without the Lease being ours to give back, or while it is given back: the JVM must be told (I9).
    fn must_step_down(&mut self, now: Time) {
        let shown = self.tenure.as_ref().is_some_and(|tenure| {
            matches!(tenure.stage, Stage::Offered { .. } | Stage::Leading | Stage::Stamping { resume: true, .. })
        });
        if let (true, Some(jvm)) = (shown, &self.jvm) {
            self.stepping_down = Some(SteppingDown { jvm: jvm.incarnation, since: now });
        }
    }

    /// This process does not go on with a tenure of an earlier one. A JVM that was shown the lock by that one must be
    /// told (I9).
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
