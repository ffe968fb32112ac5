//! The decisions. Each event is taken in first; then it is decided from the whole state what to do next, so that an
//! event that is late or comes twice delays and does not mislead.

mod answers;

use std::time::Duration;

use super::messages::{Action, Event, Finding, Request, View};
use super::{Candidate, Sessions, Settings};
use crate::ha_data::handover::StoredState;
use crate::lease::elector::{LockView, Time};
use crate::lease::term::{Incarnation, Term};

/// Whose latch is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LatchHolder {
    Jvm(Incarnation),
    /// Our own client: it holds the leader's place while no JVM may lead.
    Gateway,
}

/// The time in which a latch of ours is the lowest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tenure {
    latch: Candidate,
    by: LatchHolder,
    term: Option<Term>,
    /// It is known in this term whose the HA data is.
    examined: bool,
    /// The JVM may store jobs.
    stores: bool,
    /// The JVM is known to lead.
    granted: bool,
    /// The ledger says so.
    noted: bool,
    /// How long nobody led before.
    leaderless: Option<Duration>,
}

/// The end of a tenure of our JVM, which the ledger is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Parting {
    latch: String,
    /// `None` while it is being taken.
    term: Option<Term>,
    why: &'static str,
}

/// What has been decided about the JVM that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Intent {
    Undecided,
    /// It is let in once our own latch is gone.
    Admit,
    /// Our own latch goes, so that others may try.
    GiveUp,
}

/// The election as one gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    settings: Settings,
    sessions: Sessions,
    /// Our own session.
    own: Option<i64>,
    /// The last look by it.
    view: Option<View>,
    /// The session that leads, as last seen, and since when it is no other.
    leader: Option<i64>,
    changed: Time,
    tenure: Option<Tenure>,
    parting: Option<Parting>,
    waiting: Option<Incarnation>,
    intent: Intent,
    /// Our client has, or may have, a latch node.
    standing: bool,
    /// What was found for the JVM that waits, until it is acted on.
    finding: Option<Finding>,
    /// The request in flight, and whether our session has ended since it began: what was read by that is not known to
    /// hold.
    busy: Option<Request>,
    is_outdated: bool,
    paused_until: Option<Time>,
    /// When the pod was last said to terminate, and whether its sessions are still to be ended for that.
    terminating: Option<Time>,
    ends_sessions: bool,
}

impl Leadership {
    pub fn new(settings: Settings, now: Time) -> Self {
        Self {
            settings,
            sessions: Sessions::default(),
            own: None,
            view: None,
            leader: None,
            changed: now,
            tenure: None,
            parting: None,
            waiting: None,
            intent: Intent::Undecided,
            standing: false,
            finding: None,
            busy: None,
            is_outdated: false,
            paused_until: None,
            terminating: None,
            ends_sessions: false,
        }
    }

    /// Takes an event in and says what to do.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.observe(now, event, &mut actions);
        self.judge(now, &mut actions);
        self.grant(now, &mut actions);
        if self.ends_sessions && self.terminating.is_some_and(|t| now >= t.after(self.settings.session_end_timeout)) {
            self.ends_sessions = false;
            actions.push(Action::EndSessions);
        }
        self.ask(now, &mut actions);
        actions
    }

    /// What the rest of the gateway is shown.
    pub fn shown(&self) -> LockView {
        match &self.tenure {
            Some(Tenure { granted: true, term: Some(term), .. }) => {
                LockView::Leader { term: term.clone(), until: Time(u64::MAX) }
            }
            _ => LockView::Standby { acknowledged: true },
        }
    }

    /// The latch by which our JVM may store jobs.
    pub fn may_store(&self) -> Option<&Candidate> {
        self.tenure.as_ref().filter(|tenure| tenure.examined && tenure.stores).map(|tenure| &tenure.latch)
    }

    /// Our latch node, which our own transactions check.
    pub fn latch(&self) -> Option<&str> {
        self.tenure.as_ref().map(|tenure| tenure.latch.path.as_str())
    }

    /// The session that leads, as last seen.
    pub fn leader(&self) -> Option<i64> {
        self.leader
    }

    /// Our JVM leads, and that is known.
    pub fn leads(&self) -> bool {
        self.tenure.as_ref().is_some_and(|tenure| tenure.granted)
    }

    /// The term of our JVM; 0 when it has none.
    pub fn term_number(&self) -> u64 {
        let of_jvm = self.tenure.as_ref().filter(|tenure| matches!(tenure.by, LatchHolder::Jvm(_)));
        of_jvm.and_then(|tenure| tenure.term.as_ref()).map_or(0, |term| term.number)
    }

    /// Why our JVM could not take over now.
    pub fn unready(&self) -> Option<&'static str> {
        let Some(view) = &self.view else { return Some("no ZooKeeper server answers") };
        if self.sessions.jvm.is_none() {
            return Some("the JobManager has no ZooKeeper session");
        }
        let stands = view.candidates.iter().any(|candidate| self.sessions.by_id.contains_key(&candidate.session));
        (!stands).then_some("the JobManager does not stand for election")
    }

    fn observe(&mut self, now: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Connected { session } => (self.own, self.view) = (Some(session), None),
            Event::Disconnected => self.lose_own_session(),
            Event::Viewed(view) => {
                let leader = view.candidates.first().map(|leader| leader.session);
                if leader != self.leader {
                    // From the first moment without the old one.
                    if self.leader.is_some() {
                        self.changed = now;
                    }
                    self.leader = leader;
                }
                self.view = Some(view).filter(|_| self.own.is_some());
            }
            Event::Sessions(sessions) => self.sessions = sessions,
            Event::Waiting(jvm) => self.waiting = jvm,
            Event::Overtaken => self.take_another_term(),
            Event::Terminating => (self.terminating, self.ends_sessions) = (Some(now), true),
            Event::Done(outcome) => {
                let is_outdated = std::mem::take(&mut self.is_outdated);
                match self.busy.take() {
                    Some(Request::Examine { .. }) if is_outdated => {}
                    Some(request) => self.finish(now, request, outcome, actions),
                    None => {}
                }
            }
        }
    }

    /// Others may lead meanwhile. Our JVM's latch does not rest on our session; our own does.
    fn lose_own_session(&mut self) {
        (self.own, self.view, self.standing, self.finding) = (None, None, false, None);
        (self.intent, self.is_outdated) = (Intent::Undecided, self.busy.is_some());
        match &mut self.tenure {
            Some(Tenure { by: LatchHolder::Gateway, .. }) => self.tenure = None,
            Some(tenure) => tenure.examined = false,
            None => {}
        }
    }

    /// A gateway whose JVM led before may write down late that it does, and be wrong by then. Ours is the latch; so a
    /// higher term is taken.
    fn take_another_term(&mut self) {
        if let Some(tenure) = &mut self.tenure {
            (tenure.term, tenure.examined, tenure.granted, tenure.noted) = (None, false, false, false);
            self.finding = None;
        }
    }

    /// Whose the lowest latch is.
    fn judge(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(Tenure { by: LatchHolder::Jvm(jvm), .. }) = self.tenure
            && self.sessions.ended.contains(&jvm)
        {
            self.end_tenure(now, "JobManagerDied");
        }
        let Some(view) = &self.view else { return };
        let first = view.candidates.first().cloned();
        let ours = first.and_then(|first| Some((self.holder(first.session)?, first)));
        if self.tenure.as_ref().map(|tenure| (tenure.by, &tenure.latch))
            == ours.as_ref().map(|(by, latch)| (*by, latch))
        {
            return;
        }
        self.end_frozen_jvm(actions);
        self.end_tenure(now, "JobManagerResigned");
        if let Some((by, latch)) = ours {
            (self.finding, self.paused_until) = (None, None);
            self.tenure = Some(Tenure {
                latch,
                by,
                term: None,
                examined: false,
                stores: false,
                granted: false,
                noted: false,
                leaderless: None,
            });
        }
    }

    fn holder(&self, session: i64) -> Option<LatchHolder> {
        if self.standing && self.own == Some(session) {
            return Some(LatchHolder::Gateway);
        }
        self.sessions.holder(session).map(LatchHolder::Jvm)
    }

    /// A living JVM sends something in each third of its session's time-out, and tries to connect again when nobody
    /// answers. One that has not, and whose latch is gone, would go on as a leader when it wakes up, and its heartbeats
    /// make TaskManagers drop the new leader's job.
    fn end_frozen_jvm(&self, actions: &mut Vec<Action>) {
        let (Some(Tenure { by: LatchHolder::Jvm(jvm), latch, .. }), Some(view)) = (&self.tenure, &self.view) else {
            return;
        };
        let timeout = self.sessions.by_id.get(&latch.session).map(|held| held.timeout);
        if timeout.is_some_and(|timeout| view.silence > timeout / 2) {
            actions.push(Action::EndJvm { jvm: *jvm, why: "it is frozen and its session has expired" });
        }
    }

    fn end_tenure(&mut self, now: Time, why: &'static str) {
        let Some(tenure) = self.tenure.take() else { return };
        (self.finding, self.paused_until, self.intent) = (None, None, Intent::Undecided);
        if tenure.by == LatchHolder::Gateway {
            return;
        }
        let terminates = self.terminating.is_some_and(|since| now < since.after(self.settings.hand_over));
        let why = if terminates { "PodTerminating" } else { why };
        let latch = tenure.latch.path;
        let taking = matches!(&self.busy, Some(Request::TakeTerm { latch: of, .. }) if *of == latch);
        if tenure.term.is_some() || taking {
            self.parting = Some(Parting { latch, term: tenure.term, why });
        }
    }

    fn grant(&mut self, now: Time, actions: &mut Vec<Action>) {
        let (Some(tenure), Some(view)) = (&mut self.tenure, &self.view) else { return };
        let leads = matches!(tenure.by, LatchHolder::Jvm(_)) && view.publisher == Some(tenure.latch.session);
        if let (true, Some(term), true, false) = (leads, &tenure.term, tenure.examined, tenure.granted) {
            tenure.granted = true;
            let leaderless = *tenure.leaderless.get_or_insert(now.since(self.changed));
            actions.push(Action::Lead { term: term.clone(), leaderless });
        }
    }

    fn pause(&mut self, now: Time, interval: Duration) {
        self.paused_until = Some(now.after(interval));
    }

    /// The next request, if none is in flight.
    fn ask(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.busy.is_some() || self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        let request = match self.parting.take() {
            Some(Parting { term: Some(term), why, .. }) => Some(Request::Release { term, why }),
            _ if self.own.is_none() || self.view.is_none() => None,
            _ => match &self.tenure {
                Some(Tenure { by: LatchHolder::Jvm(jvm), .. }) => self.next_of_jvm(*jvm),
                _ => self.next_of_gateway(now, actions),
            },
        };
        self.busy = request.clone();
        actions.extend(request.map(Action::Ask));
    }

    fn next_of_jvm(&self, jvm: Incarnation) -> Option<Request> {
        let tenure = self.tenure.as_ref()?;
        match &tenure.term {
            None => Some(Request::TakeTerm { latch: tenure.latch.path.clone(), jvm: Some(jvm) }),
            Some(term) if !tenure.examined => Some(Request::Examine { term: Some(term.clone()) }),
            Some(term) if tenure.granted && !tenure.noted => {
                Some(Request::NoteGrant { term: term.clone(), leaderless: tenure.leaderless.unwrap_or_default() })
            }
            Some(_) => None,
        }
    }

    /// While no JVM of ours leads: for the JVM that waits.
    fn next_of_gateway(&mut self, now: Time, actions: &mut Vec<Action>) -> Option<Request> {
        match (self.intent, self.waiting) {
            (Intent::Undecided, Some(_)) => {}
            _ if self.standing => return Some(Request::Withdraw),
            (Intent::Admit, Some(jvm)) => {
                (self.intent, self.waiting) = (Intent::Undecided, None);
                actions.push(Action::Admit { jvm });
                return None;
            }
            (_, None) => return None,
            (Intent::GiveUp, Some(_)) => {
                self.intent = Intent::Undecided;
                self.pause(now, self.settings.retry_interval);
                return None;
            }
        }
        // The lowest latch is ours.
        let place = self.tenure.as_ref().map(|tenure| (tenure.latch.path.clone(), tenure.term.clone()));
        let term = match place {
            Some((latch, None)) => return Some(Request::TakeTerm { latch, jvm: None }),
            Some((_, term)) => term,
            None => None,
        };
        let Some(finding) = self.finding.take() else { return Some(Request::Examine { term }) };
        if finding.is_to_be_raised {
            let version = finding.version;
            self.finding = Some(Finding { is_to_be_raised: false, ..finding });
            return Some(Request::Raise { version });
        }
        if finding.opens() {
            self.intent = Intent::Admit;
            return self.next_of_gateway(now, actions);
        }
        let latch = self.latch().map(str::to_owned);
        let is_alone = self.is_alone();
        match (finding.state, latch, term) {
            (state @ StoredState::Later(_), _, term) => Some(Request::Refuse { term, state, is_alone }),
            (StoredState::Finished(outcome), Some(_), Some(term)) => Some(Request::CleanUp { term, outcome }),
            (StoredState::Supersede(plan), Some(latch), Some(term)) => {
                Some(Request::TakeOver { latch, term, plan, version: finding.version })
            }
            (state, Some(_), term) => Some(Request::Refuse { term, state, is_alone }),
            // Others could write until the place is ours.
            (_, None, _) => {
                self.standing = true;
                Some(Request::Stand)
            }
        }
    }

    /// Nobody else leads, as far as that is known.
    fn is_alone(&self) -> bool {
        self.standing || self.view.as_ref().is_some_and(|view| view.candidates.is_empty())
    }
}
