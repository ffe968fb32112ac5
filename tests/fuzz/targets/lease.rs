//! The Lease, stamps and terms as anybody may have written them, and an election that sees them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use crate::api::names::TERM_ANNOTATION;
use crate::input::Input;
use crate::lease::elector::{Action, Elector, Event, Identity, LockView, Read, Settings, Stamping, Time, Write};
use crate::lease::record::Record;
use crate::lease::stamp;
use crate::lease::term::{Incarnation, Relation, Term};
use crate::ledger::election::{self, Claimant, Notes};

const JVM: Incarnation = Incarnation { pid: 7, started: 8 };

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut candidate = Candidate::new(input.byte());
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        let line = input.line();
        let text = String::from_utf8_lossy(line);
        term(&text);
        let lease = serde_json::from_slice::<Lease>(line).unwrap_or_default();
        record(&lease);
        notes(&lease);
        stamps(&serde_json::from_slice(line).unwrap_or_default());
        candidate.sees(Record::of(&lease));
    }
}

fn term(text: &str) {
    let Ok(term) = text.parse::<Term>() else { return };
    assert_eq!(term.to_string().parse(), Ok(term.clone()));
    assert_eq!(term.relation_of(&term), Relation::Same);
}

/// What is written of a record reads back as the same.
fn record(lease: &Lease) {
    let record = Record::of(lease);
    let mut patch = record.to_patch("7", Timestamp::UNIX_EPOCH, false);
    // The API server removes what is null.
    patch["metadata"]["annotations"].as_object_mut().expect("annotations").retain(|_, value| !value.is_null());
    let lease: Lease = serde_json::from_value(patch).expect("a patch is a Lease");
    let again = Record::of(&lease);
    let whole_seconds = record.duration_millis.div_ceil(1000).max(1) * 1000;
    assert_eq!(again, Record { duration_millis: whole_seconds, switchover: None, ..record });
}

/// With ZooKeeper the ledger's annotations say the same.
fn notes(lease: &Lease) {
    let notes = Notes::of(&lease.metadata);
    let claimant = Claimant { pod: "demo-a".into(), pod_uid: "u".into(), process: "p".into(), jvm: Some(JVM) };
    let taken = notes.taken(&claimant, Timestamp::UNIX_EPOCH);
    let number = |notes: &Notes| notes.term.as_ref().map_or(0, |term| term.number);
    assert!(number(&taken) > number(&notes), "a term does not rise");
    if taken.to_patch("7")["metadata"]["annotations"][TERM_ANNOTATION]
        .as_str()
        .is_none_or(|term| term.parse::<Term>().is_err())
    {
        // After the highest number that a term may have nobody leads.
        return;
    }
    let granted = taken.granted(u64::MAX, Timestamp::UNIX_EPOCH);
    let ended = taken.term.as_ref().and_then(|term| granted.ended(term, "demo-a", "Why"));
    for notes in [taken, granted].into_iter().chain(ended) {
        let patch = notes.to_patch("7");
        let metadata = serde_json::from_value(patch["metadata"].clone()).expect("a patch is metadata");
        assert_eq!(Notes::of(&metadata), notes);
    }
    let _ = election::lease_of(&lease.metadata);
}

/// A stamp that is no term is lower than any; no other stamp is taken for ours.
fn stamps(object: &Value) {
    let ours = Term { number: 5, pod_uid: "u".into(), process: "p".into(), jvm: JVM };
    let (relation, found) = stamp::relation(object, &ours);
    assert_eq!(relation == Relation::Same, found.as_ref() == Some(&ours));
    assert!(found.is_some() || relation == Relation::Lower);
    let _ = stamp::version(object);
}

/// One candidate, whose JVM is well. Every write succeeds, or its outcome is unknown.
struct Candidate {
    elector: Elector,
    now: Time,
    version: u64,
    choices: u8,
    /// The record that it sees, and since when.
    seen: Record,
    since: Time,
    highest: u64,
    own: BTreeSet<u64>,
}

impl Candidate {
    fn new(choices: u8) -> Self {
        let me = Identity {
            pod: "demo-a".into(),
            pod_uid: "uid-a".into(),
            process: "process-a".into(),
            address: "10.0.0.1:6181".into(),
        };
        Self {
            elector: Elector::new(me, Settings::default()),
            now: Time(1_000_000),
            version: 0,
            choices,
            seen: Record::default(),
            since: Time(0),
            highest: 0,
            own: BTreeSet::new(),
        }
    }

    /// Somebody has written this record. It stands for a while.
    fn sees(&mut self, record: Record) {
        self.version += 1;
        self.since = self.now;
        self.highest = self.highest.max(record.term.as_ref().map_or(0, |term| term.number));
        self.seen = record;
        for _ in 0..30 {
            self.step(Event::JvmHeard { jvm: JVM });
            let outcome = Read::Found { version: self.version.to_string(), record: self.seen.clone() };
            self.step(Event::LeaseRead { started: self.now, outcome });
            self.now = self.now.after(Duration::from_secs(1));
            self.step(Event::Tick);
            match self.elector.shown() {
                LockView::Free { term, .. } => {
                    self.step(Event::JvmTookLock { term, at: String::new(), lock: "lock".into() });
                }
                LockView::Standby { acknowledged: false } => self.step(Event::JvmTold { jvm: JVM }),
                _ => {}
            }
        }
    }

    fn step(&mut self, event: Event) {
        let mut open = vec![event];
        // An answer may lead to the next question; a few rounds are enough for a grant.
        for _ in 0..12 {
            let Some(event) = open.pop() else { break };
            let leads = self.elector.leads();
            for action in self.elector.step(self.now, event) {
                open.extend(self.carry_out(action, leads));
            }
        }
    }

    fn carry_out(&mut self, action: Action, leads: bool) -> Option<Event> {
        match action {
            Action::WriteLease { attempt, version, record } => {
                let is_present = version == self.version.to_string();
                let fails = self.choices & 1 != 0;
                self.choices = self.choices.rotate_right(1);
                if is_present {
                    self.judge(&record, leads);
                }
                if fails || !is_present {
                    return Some(Event::LeaseWritten { attempt, outcome: Write::Unknown });
                }
                self.version += 1;
                // What was not stored nobody has seen.
                let number = record.term.as_ref().map_or(0, |term| term.number);
                self.highest = self.highest.max(number);
                self.own.insert(number);
                (self.since, self.seen) = (self.now, record);
                Some(Event::LeaseWritten { attempt, outcome: Write::Done { version: self.version.to_string() } })
            }
            Action::Stamp { term, .. } => Some(Event::Stamped { term, outcome: Stamping::Done }),
            Action::Publish { .. } | Action::ReadLease => None,
            Action::FindJvm { jvm } if jvm == JVM => Some(Event::JvmFound { jvm }),
            Action::FindJvm { jvm } => Some(Event::JvmDied { jvm }),
            Action::AwaitJobs { term } => Some(Event::JobsSettled { term }),
            _ => None,
        }
    }

    /// I2, I6: a new term is above all that were seen, and nobody takes a Lease that another pod has just written.
    fn judge(&mut self, record: &Record, leads: bool) {
        let number = record.term.as_ref().map_or(0, |term| term.number);
        if record.holder.is_empty() || leads && self.own.contains(&number) {
            return;
        }
        assert!(number > self.highest, "term {number} after {}", self.highest);
        let is_own = self.seen.term.as_ref().is_some_and(|term| term.pod_uid == "uid-a");
        let stood = self.now.since(self.since);
        let may_be_held = !self.seen.holder.is_empty() && !is_own;
        assert!(!may_be_held || stood >= Duration::from_secs(15), "taken from {:?} after {stood:?}", self.seen);
    }
}
