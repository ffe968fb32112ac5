//! Decides from the whole state which actions are due.

use std::time::Duration;

use super::{Action, Attempt, Elector, Intent, Observation, Stage, Tenure, Time};
use crate::lease::record::{Change, Peers, Record};
use crate::lease::term::{Incarnation, Term};

/// Adds one twentieth. The rates of two clocks differ by less than that, so a candidate that waits for another's time
/// to end waits this long.
pub(super) fn drifted(duration: Duration) -> Duration {
    duration + duration / 20
}

impl Elector {
    pub(super) fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.expire_hand_over(now);
        self.lapse(now);
        // A watch may already show the result of a write that is in flight. The record is then of this process and says
        // nothing about an earlier one.
        let settled = self.lease.is_some() && self.writing.is_none() && self.unknown.is_none();
        if self.fresh && settled && !self.may_resume() && !self.awaits_own_jvm() {
            self.start_anew(now);
        }
        self.judge_jvm(now, actions);
        self.end_what_cannot_go_on(now, actions);
        let due = now >= self.next_write || self.tenure.as_ref().is_some_and(|tenure| tenure.lapsed.is_some());
        if self.writing.is_none() && self.unknown.is_none() && due {
            self.write(now, actions);
        }
        self.stamp_or_offer_again(now, actions);
        self.read_if_due(now, actions);
        self.ask_if_due(now, actions);
        self.look_after_holder(now, actions);
    }

    /// A pod that terminates does not outlive its grace period. A pod that does was not terminating; without this limit
    /// it would never campaign again.
    fn expire_hand_over(&mut self, now: Time) {
        self.terminating = self.terminating.filter(|since| now.since(*since) < self.settings.hand_over);
    }

    /// Validity ends without an event (I5). A gateway that was paused or cut off then tries at once to write the Lease;
    /// only a write makes the tenure valid again.
    fn lapse(&mut self, now: Time) {
        let Some(tenure) = &mut self.tenure else { return };
        if now < tenure.valid_until {
            tenure.lapsed = None;
            return;
        }
        let leads = matches!(tenure.stage, Stage::Leading);
        let since = *tenure.lapsed.get_or_insert(now);
        if !leads || now.since(since) >= self.settings.lapse_grace {
            self.lose(now);
            self.want_read(now);
        }
    }

    /// Looks for the JVM of a record of its own pod, and ends a JVM that does not ask for the lock (I9).
    fn judge_jvm(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.awaits_own_jvm() && self.asked_for.is_none() {
            self.asked_for = self.own_record().map(|term| term.jvm);
            actions.extend(self.asked_for.map(|jvm| Action::FindJvm { jvm }));
        }
        let overdue = self
            .stepping_down
            .as_ref()
            .is_some_and(|stepping_down| now.since(stepping_down.since) >= self.settings.step_down_deadline);
        if let Some(jvm) = self.jvm.as_mut().filter(|jvm| !jvm.ended) {
            let why = if overdue {
                "it lost the leadership and does not step down"
            } else if now.since(jvm.heard) >= self.settings.deaf_deadline {
                "it no longer asks for the lock"
            } else {
                return;
            };
            jvm.ended = true;
            actions.push(Action::EndJvm { jvm: jvm.incarnation, why });
        }
    }

    /// Ends a tenure whose pod terminates, whose JVM is hung, or whose grant takes too long (I10).
    fn end_what_cannot_go_on(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(tenure) = &self.tenure else { return };
        let jvm = self.jvm.as_ref().filter(|jvm| jvm.incarnation == tenure.term.jvm);
        let hung = jvm.is_none_or(|jvm| now.since(jvm.heard) >= self.settings.jvm_timeout);
        let late = match tenure.stage {
            Stage::Ending(_) => return,
            Stage::Stamping { since, .. } => now.since(since) >= self.settings.stamp_deadline,
            Stage::Offered { resume: false, since } => now.since(since) >= self.settings.take_deadline,
            Stage::Offered { resume: true, .. } | Stage::Leading => false,
        };
        if self.terminating.is_some() {
            self.end(now, "PodTerminating");
        } else if hung {
            self.end(now, "JobManagerHung");
            // A hung JVM may wake up and send what waits in its sockets to TaskManagers, which do not fence. The
            // successor's job would restart.
            if let Some(jvm) = self.jvm.as_mut().filter(|jvm| !jvm.ended) {
                jvm.ended = true;
                actions.push(Action::EndJvm { jvm: jvm.incarnation, why: "it leads and no longer asks for the lock" });
            }
        } else if late {
            self.end(now, "GrantTimedOut");
            self.cool_until = now.after(self.settings.cool_down);
        }
    }

    fn write(&mut self, now: Time, actions: &mut Vec<Action>) {
        let (intent, version, record) = match &self.tenure {
            Some(tenure) => match self.keep(now, tenure) {
                Some(write) => write,
                None => return,
            },
            None => match self.campaign(now) {
                Some(write) => write,
                None => return,
            },
        };
        let attempt = Attempt { id: self.next_attempt, started: now, record: record.clone(), intent };
        self.next_attempt += 1;
        actions.push(Action::WriteLease { attempt: attempt.id, version, record });
        self.writing = Some(attempt);
    }

    /// The next write of a holder: release, renewal, or `None` while no write is due.
    fn keep(&self, now: Time, tenure: &Tenure) -> Option<(Intent, String, Record)> {
        let record = |holder: &str, change, peers| Record {
            holder: holder.to_owned(),
            term: Some(tenure.term.clone()),
            duration_millis: self.settings.duration.as_millis() as u64,
            change,
            peers,
            switchover: None,
        };
        // While members promise not to take the Lease, the holder needs no frequent renewal: a write then only proves
        // that it can write.
        let period =
            if tenure.promises.stored.is_empty() { self.settings.retry_period } else { self.settings.renew_deadline };
        match tenure.stage {
            Stage::Ending(why) => {
                let change = Change { from: self.me.pod.clone(), why: why.to_owned(), ..Change::default() };
                Some((Intent::Release, tenure.version.clone(), record("", Some(change), Peers::default())))
            }
            _ if tenure.news
                || tenure.lapsed.is_some()
                || now.since(tenure.renewed) >= period
                || (matches!(tenure.stage, Stage::Leading) && self.members_change(now)) =>
            {
                Some((
                    Intent::Renew,
                    tenure.version.clone(),
                    record(&self.me.pod, tenure.change.clone(), self.peers(now)),
                ))
            }
            _ => None,
        }
    }

    /// Takes the Lease if that is allowed (I6) and the own JVM is able to lead (I8). A holder whose Lease somebody
    /// emptied by hand believes itself valid until it notices. So only a Lease that was released, or never held, is
    /// free at once.
    fn campaign(&self, now: Time) -> Option<(Intent, String, Record)> {
        let lease = self.lease.as_ref()?;
        let own = self.own_record();
        let released = |why: &str| Change {
            from: lease.record.last_holder().to_owned(),
            why: why.to_owned(),
            ..Change::default()
        };
        let record = |holder: &str, term: Term, change| Record {
            holder: holder.to_owned(),
            term: Some(term),
            duration_millis: self.settings.duration.as_millis() as u64,
            change,
            peers: if holder.is_empty() { Peers::default() } else { self.peers(now) },
            switchover: None,
        };
        // The Lease names this pod with a JVM that has ended. A release spares the others the wait until it expires.
        if let Some(term) = own.filter(|term| self.dead_jvm == Some(term.jvm)) {
            return Some((
                Intent::Release,
                lease.version.clone(),
                record("", term.clone(), Some(released("JobManagerDied"))),
            ));
        }
        // The JVM that asked first is perhaps not the one that led.
        if self.awaits_own_jvm() {
            return None;
        }
        let jvm = self.able_jvm(now)?;
        if lease.record.holder.is_empty()
            && lease.record.prefers_another(&self.me.pod)
            && now.since(lease.first_seen) < self.settings.retry_period
        {
            return None;
        }
        let resume = self.may_resume();
        let number = self.highest + 1;
        let waited = now.since(lease.first_seen).as_millis() as u64;
        let change = if resume {
            lease.record.change.clone()
        } else {
            let begun = if let Some(given_back) = lease.record.change.clone().filter(|_| lease.record.is_given_back()) {
                Change { leaderless_millis: given_back.leaderless_millis.saturating_add(waited), ..given_back }
            } else if self.is_unused(&lease.record) {
                Change { why: "FirstLeader".to_owned(), ..Change::default() }
            } else if self.is_of_own_pod(&lease.record) {
                released("TermRaised")
            } else if self.may_take(now, lease) {
                let waited = now.since(self.holder_heard(&lease.record, lease.first_seen)).as_millis() as u64;
                Change { leaderless_millis: waited, ..released("LeaderSilent") }
            } else {
                return None;
            };
            Some(Change { term: number, ..begun })
        };
        let term = Term { number, pod_uid: self.me.pod_uid.clone(), process: self.me.process.clone(), jvm };
        Some((Intent::Acquire { resume }, lease.version.clone(), record(&self.me.pod, term, change)))
    }

    /// Is the Lease free, and did nobody ever hold it, as far as the record and this candidate know?
    fn is_unused(&self, record: &Record) -> bool {
        record.holder.is_empty() && record.term.is_none() && record.change.is_none() && self.highest == 0
    }

    /// Returns the own JVM if it could lead now (I8).
    fn able_jvm(&self, now: Time) -> Option<Incarnation> {
        let jvm = self.jvm.as_ref().filter(|jvm| now.since(jvm.heard) < self.settings.jvm_timeout && !jvm.ended)?;
        // During the cool-down others campaign first, unless a switchover names this pod.
        let asked = self.lease.as_ref().is_some_and(|lease| lease.record.switchover.as_ref() == Some(&self.me.pod));
        let cooling = now < self.cool_until && !asked;
        let waits = self.terminating.is_some() || self.stepping_down.is_some() || cooling;
        (!waits).then_some(jvm.incarnation)
    }

    pub(super) fn able(&self, now: Time) -> bool {
        self.able_jvm(now).is_some()
    }

    /// Is the last holder no longer valid? A listed member knows by its own promise (I11), others by the holder's
    /// silence (I6).
    fn may_take(&self, now: Time, lease: &Observation) -> bool {
        let record = &lease.record;
        let stated = Duration::from_millis(record.duration_millis).max(self.settings.duration);
        if self.is_bound(now, record) {
            return false;
        }
        if !record.peers.lists(&self.me.pod_uid) {
            let alone = record.peers.members.is_empty();
            let promises = if alone { 0 } else { record.peers.promise_millis };
            return (alone || lease.writable) && lease.silent >= drifted(stated + Duration::from_millis(promises));
        }
        // A machine that answers while its gateway asks for no promise is most likely restarting the gateway; its JVM
        // still leads.
        let gone = lease.unanswered.is_some_and(|at| now.since(at) < 2 * self.settings.ask_period);
        let unheard = now.since(self.holder_heard(record, lease.first_seen));
        self.promise_has_ended(now, record, lease.first_seen) && (lease.refused || gone || unheard >= drifted(stated))
    }

    fn stamp_or_offer_again(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(tenure) = &mut self.tenure else { return };
        match tenure.stage {
            Stage::Stamping { resume, since, asked: false } => {
                tenure.stage = Stage::Stamping { resume, since, asked: true };
                actions.push(Action::Stamp { term: tenure.term.clone(), keep_holder: resume });
            }
            // After a restart of the gateway the stored lock may not be our JVM's: the earlier process offered the
            // lock, and the JVM did not take it. Stamp and offer it again.
            Stage::Offered { resume: true, since } if now.since(since) >= self.settings.take_deadline => {
                tenure.stage = Stage::Stamping { resume: false, since: now, asked: true };
                actions.push(Action::Stamp { term: tenure.term.clone(), keep_holder: false });
            }
            _ => {}
        }
    }

    /// Has the record stood unchanged for longer than a live holder leaves it?
    pub(super) fn is_suspicious(&self, now: Time, lease: &Observation) -> bool {
        let stated = Duration::from_millis(lease.record.duration_millis).max(self.settings.duration);
        let rests = if lease.record.peers.members.is_empty() { 2 * self.settings.retry_period } else { stated };
        !lease.record.is_given_back() && !self.is_unused(&lease.record) && now.since(lease.first_seen) >= rests
    }

    fn read_if_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        let suspicious = self.lease.as_ref().is_some_and(|lease| self.is_suspicious(now, lease));
        let needed = self.unknown.is_some()
            || self.read_wanted
            || (self.tenure.is_none() && (self.lease.is_none() || suspicious));
        if needed && !self.reading && now >= self.next_read {
            self.reading = true;
            actions.push(Action::ReadLease);
        }
    }
}
