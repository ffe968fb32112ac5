//! Records an event in the state. It decides nothing, except that a lost tenure ends.

use std::time::Duration;

use super::promise::Promises;
use super::{Action, Attempt, Elector, Event, Intent, Jvm, Observation, Read, Stage, Stamping, Tenure, Time, Write};
use crate::lease::record::{Change, Record};
use crate::lease::term::{Incarnation, Term};

impl Elector {
    pub(super) fn observe(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::LeaseRead { started, outcome } => self.read(now, started, outcome),
            Event::LeaseSeen { version, record } => {
                self.asked_to_switch(&version, &record, actions);
                self.seen(now, version, record);
            }
            Event::LeaseWritten { attempt, outcome } => self.written(now, attempt, outcome),
            Event::Stamped { term, outcome } => self.stamped(now, &term, outcome),
            Event::StampSeen { stamp } => {
                self.highest = self.highest.max(stamp.number);
                if self.tenure.as_ref().is_some_and(|tenure| tenure.term != stamp && tenure.term.number <= stamp.number)
                {
                    self.lose(now);
                }
            }
            Event::JvmHeard { jvm } => self.heard(now, jvm, actions),
            Event::JvmFound { jvm } => self.jvm_found(now, jvm),
            Event::JvmDied { jvm } => self.died(now, jvm),
            Event::JvmTookLock { term, at, lock } => self.took_lock(now, &term, at, lock, actions),
            Event::JvmResigned => {
                if self.tenure.as_ref().is_some_and(|tenure| matches!(tenure.stage, Stage::Leading)) {
                    self.end(now, "JobManagerResigned");
                    self.cool_until = now.after(self.settings.cool_down);
                }
            }
            Event::JvmTold { jvm } => {
                if self.stepping_down.as_ref().is_some_and(|stepping_down| stepping_down.jvm == jvm) {
                    self.stepping_down = None;
                }
            }
            Event::PodTerminating => self.terminating = Some(now),
            Event::JobsSettled { term } => self.switch_over(now, &term),
            Event::PeerJoined { member } => self.joined(now, member),
            Event::PeerPromised { term, pod_uid, asked, leaving } => self.promised(&term, &pod_uid, asked, leaving),
            Event::PeerRefused { term } => self.peer_refused(now, &term),
            Event::PromiseAsked { ask, term, duration } => {
                let answer = self.answer(now, &term, duration);
                actions.push(Action::AnswerPromise { ask, answer });
            }
            Event::Pinged { answered } => {
                self.pinging = false;
                if let Some(lease) = &mut self.lease {
                    lease.unanswered = (!answered).then_some(now);
                }
            }
            Event::Probed { written } => self.probed(now, written),
        }
    }

    fn read(&mut self, now: Time, started: Time, outcome: Read) {
        self.reading = false;
        self.next_read = now.after(self.settings.retry_period);
        if std::mem::take(&mut self.overtaken) && outcome != Read::Failed {
            self.want_read(now);
            return;
        }
        match outcome {
            Read::Failed => {
                // An API server that does not answer does not prove that the holder is silent (I6).
                if let Some(lease) = &mut self.lease {
                    lease.silent = Duration::ZERO;
                    lease.confirmed = None;
                }
            }
            Read::Absent => {
                self.unknown = None;
                self.lease = None;
                self.start_anew(now);
                self.lose(now);
            }
            Read::Found { version, record } => {
                self.read_wanted = false;
                self.found(now, started, version, record);
            }
        }
    }

    fn found(&mut self, now: Time, started: Time, version: String, record: Record) {
        self.note(now, version.clone(), record.clone());
        if let Some(lease) = &mut self.lease {
            if let Some(confirmed) = lease.confirmed {
                lease.silent += started.since(confirmed);
            }
            lease.confirmed = Some(now);
        }
        let mut renewal = None;
        if let Some(attempt) = self.unknown.take() {
            match attempt.intent {
                // The write was applied: validity runs from its start.
                Intent::Acquire { resume } if self.is_ours(&record) && record.term == attempt.record.term => {
                    self.begin(now, attempt, version.clone(), resume);
                }
                Intent::Renew => renewal = Some(attempt),
                Intent::Acquire { .. } | Intent::Release => {}
            }
        }
        let keeps = self.is_ours(&record);
        match &mut self.tenure {
            Some(tenure) if keeps && Some(&tenure.term) == record.term.as_ref() => {
                if tenure.version != version {
                    tenure.promises.open.clear();
                } else if let Some(renewal) = renewal {
                    tenure.promises.may_be_stored(renewal.record.peers.members, renewal.started);
                }
                tenure.version = version;
                tenure.promises.stored = record.peers.members;
            }
            Some(_) => self.lose(now),
            None => {}
        }
    }

    fn seen(&mut self, now: Time, version: String, record: Record) {
        let news = record.term.as_ref().map_or(0, |term| term.number)
            > self.tenure.as_ref().map_or(0, |tenure| tenure.term.number);
        match &self.tenure {
            // A watch may lag behind our own writes. Only a later term of another process is worth a read.
            Some(_) if news => self.want_read(now),
            Some(_) => {}
            None if self.lease.as_ref().is_some_and(|lease| lease.version == version) => {}
            None if self.lease.is_none() => self.want_read(now),
            None => self.note(now, version, record),
        }
    }

    /// Begins a planned switchover. It needs a member that can take over, and waits for jobs that are ending.
    fn asked_to_switch(&mut self, version: &str, record: &Record, actions: &mut Vec<Action>) {
        let idle = self.writing.is_none() && self.unknown.is_none();
        let asked = self.is_ours(record) && record.switchover.as_ref().is_some_and(|wanted| *wanted != self.me.pod);
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| asked && Some(&tenure.term) == record.term.as_ref())
        else {
            return;
        };
        if idle && matches!(tenure.stage, Stage::Leading) && !tenure.promises.stored.is_empty() && !tenure.switching {
            // The request itself made this version. If there is a later one, compare-and-swap finds out.
            (tenure.version, tenure.switching) = (version.to_owned(), true);
            tenure.promises.open.clear();
            tenure.promises.may_be_stored(record.peers.members.clone(), tenure.renewed);
            actions.push(Action::AwaitJobs { term: tenure.term.clone() });
        }
    }

    fn switch_over(&mut self, now: Time, term: &Term) {
        let leads = |tenure: &&mut Tenure| tenure.term == *term && matches!(tenure.stage, Stage::Leading);
        let Some(tenure) = self.tenure.as_mut().filter(leads) else { return };
        tenure.switching = false;
        if !tenure.promises.stored.is_empty() {
            self.end(now, "Switchover");
            self.cool_until = now.after(self.settings.cool_down);
        }
    }

    /// Remembers a record. The same version keeps its proven silence.
    fn note(&mut self, now: Time, version: String, record: Record) {
        self.highest = self.highest.max(record.term.as_ref().map_or(0, |term| term.number));
        if self.lease.as_ref().is_none_or(|lease| lease.version != version) {
            self.lease = Some(Observation {
                version,
                record,
                first_seen: now,
                silent: Duration::ZERO,
                confirmed: None,
                writable: false,
                refused: false,
                unanswered: None,
            });
            self.next_join = now;
        }
    }

    fn written(&mut self, now: Time, id: u64, outcome: Write) {
        if self.writing.as_ref().is_none_or(|attempt| attempt.id != id) {
            return;
        }
        let Some(attempt) = self.writing.take() else { return };
        self.overtaken = self.reading;
        let Write::Done { version } = outcome else {
            if attempt.intent == Intent::Renew {
                self.next_write = now.after(self.settings.retry_period / 4);
            }
            self.unknown = Some(attempt);
            self.want_read(now);
            return;
        };
        self.note(now, version.clone(), attempt.record.clone());
        match attempt.intent {
            Intent::Acquire { resume } => self.begin(now, attempt, version, resume),
            Intent::Release => self.tenure = None,
            Intent::Renew => {
                if let Some(tenure) = &mut self.tenure {
                    tenure.version = version;
                    tenure.renewed = attempt.started;
                    tenure.promises.stored = attempt.record.peers.members;
                    tenure.promises.open.clear();
                    tenure.news = tenure.change != attempt.record.change;
                }
            }
        }
    }

    /// Begins a tenure, unless the proof came too late (I5). If its JVM has ended, the tenure only releases the Lease
    /// (I3).
    fn begin(&mut self, now: Time, attempt: Attempt, version: String, resume: bool) {
        let valid_until = attempt.started.after(self.settings.renew_deadline);
        let (Some(term), true) = (attempt.record.term, now < valid_until) else { return };
        self.fresh = false;
        self.first_jvm &= !resume;
        self.highest = self.highest.max(term.number);
        let stage = if self.dead_jvm == Some(term.jvm) {
            Stage::Ending("JobManagerDied")
        } else {
            Stage::Stamping { resume, since: now, asked: false }
        };
        self.tenure = Some(Tenure {
            term,
            version,
            acquired: attempt.started,
            renewed: attempt.started,
            valid_until,
            stage,
            change: attempt.record.change,
            news: false,
            promises: Promises::default(),
            lapsed: None,
            switching: false,
        });
    }

    fn stamped(&mut self, now: Time, term: &Term, outcome: Stamping) {
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.term == *term) else { return };
        let Stage::Stamping { resume, .. } = tenure.stage else { return };
        match outcome {
            Stamping::Done => tenure.stage = Stage::Offered { resume, since: now },
            Stamping::Higher(stamp) => {
                // Either a newer holder has the Lease, and our next write conflicts; or somebody edited the Lease, and
                // we take a higher term.
                self.highest = self.highest.max(stamp.number);
                self.lose(now);
            }
            Stamping::Failed => {
                self.end(now, "StampingFailed");
                self.cool_until = now.after(self.settings.cool_down);
            }
        }
    }

    /// Records a lock request. Another JVM that asks does not replace ours until ours is known to have ended (I3);
    /// first the gateway examines ours.
    fn heard(&mut self, now: Time, incarnation: Incarnation, actions: &mut Vec<Action>) {
        match &mut self.jvm {
            Some(jvm) if jvm.incarnation == incarnation => jvm.heard = now,
            Some(jvm) => {
                actions.push(Action::FindJvm { jvm: jvm.incarnation });
                self.beside = Some(Jvm { incarnation, heard: now, ended: false });
            }
            None => self.accept(now, Jvm { incarnation, heard: now, ended: false }),
        }
    }

    fn accept(&mut self, now: Time, jvm: Jvm) {
        self.jvm = Some(jvm);
        self.doubt_first_jvm(now);
    }

    /// After a restart of the gateway the JVM that led may be alive although another has asked first.
    fn jvm_found(&mut self, now: Time, incarnation: Incarnation) {
        let led = self.awaits_own_jvm() && self.own_record().is_some_and(|term| term.jvm == incarnation);
        if (self.jvm.is_none() && self.dead_jvm != Some(incarnation)) || led {
            self.beside = self.jvm.take();
            self.accept(now, Jvm { incarnation, heard: now, ended: false });
        }
    }

    fn died(&mut self, now: Time, incarnation: Incarnation) {
        self.dead_jvm = Some(incarnation);
        self.asked_for = self.asked_for.filter(|asked| *asked != incarnation);
        self.beside.take_if(|jvm| jvm.incarnation == incarnation);
        if self.jvm.as_ref().is_some_and(|jvm| jvm.incarnation == incarnation) {
            self.jvm = None;
        }
        if self.stepping_down.as_ref().is_some_and(|stepping_down| stepping_down.jvm == incarnation) {
            self.stepping_down = None;
        }
        if let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.term.jvm == incarnation)
            && !matches!(tenure.stage, Stage::Ending(_))
        {
            tenure.stage = Stage::Ending("JobManagerDied");
        }
        if self.jvm.is_none()
            && let Some(next) = self.beside.take()
        {
            self.accept(now, next);
        }
    }

    fn took_lock(&mut self, now: Time, term: &Term, at: String, lock: String, actions: &mut Vec<Action>) {
        let pod = self.me.pod.clone();
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.term == *term) else { return };
        let Stage::Offered { resume, .. } = tenure.stage else { return };
        tenure.stage = Stage::Leading;
        actions.push(Action::Publish { term: term.clone() });
        if !resume {
            let begun = tenure.change.take().unwrap_or_default();
            let here = now.since(tenure.acquired).as_millis() as u64;
            tenure.change = Some(Change {
                term: term.number,
                to: pod,
                leaderless_millis: begun.leaderless_millis.saturating_add(here),
                at,
                lock,
                ..begun
            });
            tenure.news = true;
        }
    }

    pub(super) fn want_read(&mut self, now: Time) {
        self.read_wanted = true;
        self.next_read = now;
    }

    pub(super) fn is_ours(&self, record: &Record) -> bool {
        !record.holder.is_empty()
            && record
                .term
                .as_ref()
                .is_some_and(|term| term.pod_uid == self.me.pod_uid && term.process == self.me.process)
    }

    /// Term of a held record that our own pod wrote, in this process or an earlier one.
    pub(super) fn own_record(&self) -> Option<&Term> {
        let record = &self.lease.as_ref()?.record;
        record.term.as_ref().filter(|_| !record.holder.is_empty() && self.is_of_own_pod(record))
    }

    /// Was the last term our own pod's? Then no other pod believes that it leads.
    pub(super) fn is_of_own_pod(&self, record: &Record) -> bool {
        record.term.as_ref().is_some_and(|term| term.pod_uid == self.me.pod_uid)
    }

    /// Did our pod lead before this process started, and is our JVM the one of that term?
    pub(super) fn may_resume(&self) -> bool {
        let jvm = self.jvm.as_ref().map(|jvm| jvm.incarnation);
        self.fresh && self.own_record().is_some_and(|term| term.process != self.me.process && Some(term.jvm) == jvm)
    }

    /// Did our pod lead before this process started, and is it still unknown whether the JVM of that term is alive?
    pub(super) fn awaits_own_jvm(&self) -> bool {
        let own = self.own_record().filter(|term| term.process != self.me.process);
        let is_ours = |jvm| self.jvm.as_ref().is_some_and(|ours| ours.incarnation == jvm);
        self.fresh && own.is_some_and(|term| self.dead_jvm != Some(term.jvm) && !is_ours(term.jvm))
    }
}
