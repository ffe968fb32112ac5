use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::ha_data::handover::{HandoverPlan, StoredState};
use crate::lease::elector::{LockView, Time};
use crate::lease::term::Term;

const JVM: Incarnation = Incarnation { pid: 1, started: 2 };
const NEXT_JVM: Incarnation = Incarnation { pid: 1, started: 3 };
const OURS: i64 = 7;
const OWN: i64 = 100;
const OTHER: i64 = 8;

fn term(number: u64, jvm: Incarnation) -> Term {
    Term { number, pod_uid: "uid".into(), process: "p".into(), jvm }
}

fn finding(state: StoredState) -> Finding {
    Finding { state, ..Finding::of_session_cluster() }
}

fn plan() -> HandoverPlan {
    HandoverPlan { from: None, superseded: BTreeSet::new(), entries: Vec::new(), mark: "job/v2".into(), start: 2 }
}

/// One gateway, and what it was told to do last.
struct Gateway {
    leadership: Leadership,
    now: Time,
}

impl Gateway {
    /// With a session of its own and a JVM that has one.
    fn new() -> Self {
        let leadership = Leadership::new(Settings::new(Duration::from_secs(40)), Time(0));
        let mut gateway = Self { leadership, now: Time(1000) };
        assert_eq!(gateway.tell(Event::Connected { session: OWN }), []);
        gateway.sessions(&[(OURS, JVM)], &[]);
        gateway
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.leadership.step(self.now, event)
    }

    fn may_store(&self) -> Option<i64> {
        self.leadership.may_store().map(|latch| latch.session)
    }

    fn sessions(&mut self, held: &[(i64, Incarnation)], ended: &[Incarnation]) -> Vec<Action> {
        let timeout = Duration::from_secs(20);
        let by_id: BTreeMap<i64, Held> =
            held.iter().map(|(id, jvm)| (*id, Held { jvm: Some(*jvm), timeout })).collect();
        let jvm = held.last().map(|(_, jvm)| *jvm);
        self.tell(Event::Sessions(Sessions { by_id, jvm, ended: ended.iter().copied().collect() }))
    }

    fn look(&mut self, sessions: &[i64], publisher: Option<i64>) -> Vec<Action> {
        self.look_after_silence(sessions, publisher, Duration::ZERO)
    }

    fn look_after_silence(&mut self, sessions: &[i64], publisher: Option<i64>, silence: Duration) -> Vec<Action> {
        let candidates = sessions.iter().map(|id| Candidate { path: format!("/latch-{id}"), session: *id }).collect();
        self.tell(Event::Viewed(View { candidates, publisher, silence }))
    }

    fn done(&mut self, outcome: RequestOutcome) -> Vec<Action> {
        self.tell(Event::Done(outcome))
    }

    fn found(&mut self, state: StoredState) -> Vec<Action> {
        self.done(RequestOutcome::Found(finding(state)))
    }

    fn after(&mut self, millis: u64) -> Vec<Action> {
        self.now = Time(self.now.0 + millis);
        self.tell(Event::Tick)
    }

    /// Until our JVM leads in the first term.
    fn leading() -> Self {
        let mut gateway = Self::new();
        assert_eq!(gateway.look(&[OURS, OTHER], None), take(OURS, Some(JVM)));
        assert_eq!(gateway.done(RequestOutcome::Term(term(1, JVM))), examine(Some(term(1, JVM))));
        assert_eq!(gateway.may_store(), None, "nothing is stored before it was examined");
        assert_eq!(gateway.found(StoredState::Ours), []);
        assert_eq!(gateway.may_store(), Some(OURS));
        assert!(!gateway.leadership.leads(), "Flink has not been granted leadership");
        let actions = gateway.look(&[OURS, OTHER], Some(OURS));
        let (leaderless, term) = (Duration::from_secs(1), term(1, JVM));
        assert_eq!(
            actions,
            [Action::Lead { term: term.clone(), leaderless }, Action::Ask(Request::NoteGrant { term, leaderless })]
        );
        assert_eq!(gateway.done(RequestOutcome::Done), []);
        gateway
    }

    /// A JVM waits, and our own latch is the lowest.
    fn in_place(state: StoredState) -> Self {
        let mut gateway = Self::new();
        gateway.look(&[], None);
        assert_eq!(gateway.tell(Event::Waiting(Some(JVM))), examine(None));
        assert_eq!(gateway.found(state), [Action::Ask(Request::Stand)]);
        assert_eq!(gateway.look(&[OWN], None), [], "one request at a time");
        assert_eq!(gateway.done(RequestOutcome::Done), take(OWN, None));
        assert_eq!(
            gateway.done(RequestOutcome::Term(term(4, Incarnation::NONE))),
            examine(Some(term(4, Incarnation::NONE)))
        );
        gateway
    }
}

fn take(session: i64, jvm: Option<Incarnation>) -> Vec<Action> {
    vec![Action::Ask(Request::TakeTerm { latch: format!("/latch-{session}"), jvm })]
}

fn examine(term: Option<Term>) -> Vec<Action> {
    vec![Action::Ask(Request::Examine { term })]
}

fn release(term: Term, why: &'static str) -> Vec<Action> {
    vec![Action::Ask(Request::Release { term, why })]
}

#[test]
fn q2_q3_q4_a_jvm_is_granted_leadership_after_term_examination_and_flinks_own_grant() {
    let gateway = Gateway::leading();
    assert_eq!(gateway.leadership.shown(), LockView::Leader { term: term(1, JVM), until: Time(u64::MAX) });
    assert_eq!((gateway.leadership.latch(), gateway.leadership.term_number()), (Some("/latch-7"), 1));
    assert_eq!(gateway.leadership.unready(), None);
}

#[test]
fn q1_q8_a_dead_jvm_leads_no_more_although_its_latch_is_there() {
    let mut gateway = Gateway::leading();
    assert_eq!(gateway.sessions(&[(OURS, JVM)], &[JVM]), release(term(1, JVM), "JobManagerDied"));
    assert_eq!((gateway.leadership.latch(), gateway.may_store()), (None, None));
    assert!(!gateway.leadership.leads());
    gateway.done(RequestOutcome::Done);
    assert_eq!(gateway.look(&[OURS], Some(OURS)), [], "it is still there");
}

#[test]
fn q8_who_has_lost_the_latch_releases_before_the_next_term_is_taken() {
    let mut gateway = Gateway::leading();
    assert_eq!(gateway.look(&[OTHER, 9], None), release(term(1, JVM), "JobManagerResigned"));
    gateway.sessions(&[(9, NEXT_JVM)], &[]);
    assert_eq!(gateway.look(&[9], None), [], "the release is under way");
    assert_eq!(gateway.done(RequestOutcome::Done), take(9, Some(NEXT_JVM)));
}

#[test]
fn q7_a_term_that_comes_after_the_end_is_released_and_not_used() {
    let mut gateway = Gateway::new();
    gateway.look(&[OURS], Some(OURS));
    assert_eq!(gateway.sessions(&[(OURS, JVM)], &[JVM]), []);
    assert_eq!(gateway.done(RequestOutcome::Term(term(1, JVM))), release(term(1, JVM), "JobManagerDied"));
    assert!(!gateway.leadership.leads());
}

#[test]
fn q7_an_examination_for_a_jvm_that_waited_says_nothing_about_one_that_leads() {
    let mut gateway = Gateway::new();
    gateway.look(&[], None);
    assert_eq!(gateway.tell(Event::Waiting(Some(NEXT_JVM))), examine(None));
    assert_eq!(gateway.look(&[OURS], Some(OURS)), []);
    assert_eq!(gateway.found(StoredState::Ours), take(OURS, Some(JVM)));
    assert_eq!((gateway.may_store(), gateway.leadership.leads()), (None, false));
}

#[test]
fn q3_it_is_examined_again_after_a_session_of_our_own_was_lost() {
    let mut gateway = Gateway::leading();
    assert_eq!(gateway.tell(Event::Disconnected), []);
    assert_eq!(gateway.may_store(), None, "others may lead meanwhile");
    assert!(gateway.leadership.leads(), "the JVM's latch does not rest on our session");
    gateway.tell(Event::Connected { session: OWN + 1 });
    assert_eq!(gateway.look(&[OURS], Some(OURS)), examine(Some(term(1, JVM))));
    gateway.tell(Event::Disconnected);
    gateway.tell(Event::Connected { session: OWN + 2 });
    gateway.look(&[OURS], Some(OURS));
    assert_eq!(gateway.found(StoredState::Ours), examine(Some(term(1, JVM))), "read by a session that has ended");
    gateway.found(StoredState::Ours);
    assert_eq!(gateway.may_store(), Some(OURS));
}

#[test]
fn q2_a_leader_that_was_overtaken_takes_another_term_and_examines_in_it() {
    let mut gateway = Gateway::leading();
    assert_eq!(gateway.tell(Event::Overtaken), take(OURS, Some(JVM)));
    assert_eq!((gateway.leadership.leads(), gateway.may_store()), (false, None));
    gateway.done(RequestOutcome::Term(term(3, JVM)));
    let actions = gateway.found(StoredState::Ours);
    assert!(matches!(&actions[0], Action::Lead { term, leaderless } if term.number == 3 && leaderless.as_secs() == 1));
}

#[test]
fn q6_a_jvm_that_leads_where_it_must_not_is_shut_out_and_ended_until_it_is_gone() {
    let mut gateway = Gateway::new();
    gateway.look(&[OURS], Some(OURS));
    gateway.done(RequestOutcome::Term(term(1, JVM)));
    let ended = [Action::ShutOut { jvm: JVM }, Action::EndJvm { jvm: JVM, why: "it leads where it must not" }];
    assert_eq!(gateway.found(StoredState::Later(3)), ended);
    assert_eq!((gateway.leadership.leads(), gateway.may_store()), (false, None));
    assert_eq!(gateway.after(999), []);
    assert_eq!(gateway.after(1), examine(Some(term(1, JVM))));
    assert_eq!(gateway.found(StoredState::Finished(None)), ended);
}

#[test]
fn q6_a_frozen_jvm_is_ended_when_its_latch_is_gone_and_a_quick_one_is_not() {
    for (silence, ended) in [(Duration::from_secs(11), 1), (Duration::from_secs(9), 0)] {
        let mut gateway = Gateway::leading();
        let actions = gateway.look_after_silence(&[OTHER], None, silence);
        assert_eq!(actions.iter().filter(|action| matches!(action, Action::EndJvm { jvm: JVM, .. })).count(), ended);
    }
}

#[test]
fn a_run_whose_end_is_on_record_is_led_to_clean_up_and_stores_nothing() {
    let mut gateway = Gateway::new();
    gateway.look(&[OURS], Some(OURS));
    gateway.done(RequestOutcome::Term(term(1, JVM)));
    let actions = gateway.found(StoredState::Finishing);
    assert_eq!(actions[0], Action::NoteEnding { term: term(1, JVM) });
    assert!(gateway.leadership.leads());
    assert_eq!(gateway.may_store(), None);
}

#[test]
fn q9_a_jvm_whose_version_has_stored_what_is_there_is_let_in() {
    let mut gateway = Gateway::new();
    gateway.look(&[OTHER], Some(OTHER));
    assert_eq!(gateway.tell(Event::Waiting(Some(JVM))), examine(None));
    let raised = Finding { is_to_be_raised: true, version: 5, ..finding(StoredState::Ours) };
    assert_eq!(gateway.done(RequestOutcome::Found(raised)), [Action::Ask(Request::Raise { version: 5 })]);
    assert_eq!(gateway.done(RequestOutcome::Done), [Action::Admit { jvm: JVM }]);
    assert_eq!(gateway.after(5000), [], "nobody waits");
}

#[test]
fn q5_q9_what_another_version_stored_is_taken_over_in_the_leaders_place_which_is_given_up_before_the_jvm_enters() {
    let supersede = || StoredState::Supersede(plan());
    let mut gateway = Gateway::in_place(supersede());
    let in_term = term(4, Incarnation::NONE);
    let take_over = Request::TakeOver { latch: "/latch-100".into(), term: in_term.clone(), plan: plan(), version: 0 };
    assert_eq!(gateway.found(supersede()), [Action::Ask(take_over)]);
    assert_eq!((gateway.leadership.leads(), gateway.leadership.term_number()), (false, 0), "no JVM leads");
    assert_eq!(gateway.done(RequestOutcome::Done), []);
    assert_eq!(gateway.after(200), examine(Some(in_term)));
    assert_eq!(gateway.found(StoredState::Ours), [Action::Ask(Request::Withdraw)]);
    assert_eq!(gateway.done(RequestOutcome::Done), [Action::Admit { jvm: JVM }]);
    assert_eq!(gateway.leadership.latch(), None);
    assert_eq!(gateway.look(&[OWN], None), [], "a look from before");
}

#[test]
fn q5_while_another_latch_is_lower_nothing_is_taken_over() {
    let mut gateway = Gateway::new();
    gateway.look(&[OTHER], Some(OTHER));
    gateway.tell(Event::Waiting(Some(JVM)));
    assert_eq!(gateway.found(StoredState::Supersede(plan())), [Action::Ask(Request::Stand)]);
    gateway.look(&[OTHER, OWN], Some(OTHER));
    assert_eq!(gateway.done(RequestOutcome::Done), []);
    assert_eq!(gateway.leadership.latch(), None);
    assert_eq!(gateway.after(200), examine(None), "others may do it");
    assert_eq!(gateway.found(StoredState::Ours), [Action::Ask(Request::Withdraw)]);
}

#[test]
fn a_run_that_has_ended_is_cleaned_up_again_and_again_and_no_jvm_enters() {
    let mut gateway = Gateway::in_place(StoredState::Finished(None));
    let in_term = term(4, Incarnation::NONE);
    let clean_up = [Action::Ask(Request::CleanUp { term: in_term.clone(), outcome: None })];
    assert_eq!(gateway.found(StoredState::Finished(None)), clean_up);
    assert_eq!(gateway.done(RequestOutcome::Done), []);
    assert_eq!(gateway.after(1999), []);
    assert_eq!(gateway.after(1), examine(Some(in_term)));
    let stopped = Finding { is_being_stopped: true, ..finding(StoredState::Finished(None)) };
    assert_eq!(
        gateway.done(RequestOutcome::Found(stopped)),
        [Action::Ask(Request::Withdraw)],
        "a run goes on where it is"
    );
}

#[test]
fn what_fails_in_the_leaders_place_is_left_to_others_and_tried_again() {
    let mut gateway = Gateway::in_place(StoredState::Supersede(plan()));
    gateway.found(StoredState::Supersede(plan()));
    assert_eq!(gateway.done(RequestOutcome::Failed), [Action::ExplainFailure, Action::Ask(Request::Withdraw)]);
    assert_eq!(gateway.done(RequestOutcome::Failed), [], "neither the one nor the other");
    assert_eq!(gateway.after(1000), [Action::Ask(Request::Withdraw)]);
    assert_eq!(gateway.done(RequestOutcome::Done), []);
    assert_eq!(gateway.after(1000), examine(None));
}

#[test]
fn pods_of_an_earlier_start_are_refused_and_take_no_place() {
    let mut gateway = Gateway::new();
    gateway.look(&[OTHER], Some(OTHER));
    gateway.tell(Event::Waiting(Some(JVM)));
    let state = StoredState::Later(3);
    let refused = [Action::Ask(Request::Refuse { term: None, state: state.clone(), is_alone: false })];
    assert_eq!(gateway.found(state), refused);
    assert_eq!(gateway.done(RequestOutcome::Done), []);
    assert_eq!(gateway.after(1000), examine(None));
}

#[test]
fn the_place_goes_with_our_own_session() {
    let mut gateway = Gateway::in_place(StoredState::Supersede(plan()));
    assert_eq!(gateway.tell(Event::Disconnected), []);
    assert_eq!(gateway.leadership.latch(), None);
    gateway.tell(Event::Connected { session: OWN + 1 });
    assert_eq!(gateway.look(&[OWN], None), [], "the latch of the former session is another's");
    assert_eq!(gateway.found(StoredState::Supersede(plan())), examine(None), "it was read by the former session");
}

#[test]
fn a_pod_that_terminates_says_so_and_its_sessions_are_ended_after_three_seconds() {
    let mut gateway = Gateway::leading();
    assert_eq!(gateway.tell(Event::Terminating), []);
    assert_eq!(gateway.after(2999), []);
    assert_eq!(gateway.after(1), [Action::EndSessions]);
    assert_eq!(gateway.look(&[OTHER], None), release(term(1, JVM), "PodTerminating"));
    let mut gateway = Gateway::leading();
    gateway.tell(Event::Terminating);
    gateway.after(40_000);
    assert_eq!(gateway.look(&[OTHER], None), release(term(1, JVM), "JobManagerResigned"), "it does not terminate");
}
