//! Tests promises between peers (I11).

use crate::lease::elector::tests::*;
use crate::lease::record::{Member, Peers};

fn member(name: &str) -> Member {
    Member { pod_uid: format!("uid-{name}"), address: format!("{name}:1") }
}

impl World {
    /// A leader with a listed member.
    fn leading_with(name: &str) -> Self {
        let mut world = Self::leading("p");
        let asked = world.step_and_answer(Event::PeerJoined { member: member(name) });
        assert!(matches!(&asked[..], [Action::AskPromises { members, .. }] if *members == [member(name)]));
        world.promise(name);
        assert_eq!(world.record.peers.members, [member(name)]);
        world
    }

    fn term(&self) -> Term {
        self.record.term.clone().expect("a term")
    }

    fn promise(&mut self, name: &str) {
        let (term, pod_uid, asked) = (self.term(), member(name).pod_uid, self.now);
        self.step_and_answer(Event::PeerPromised { term, pod_uid, asked, leaving: false });
    }

    /// Lets time pass while the API server answers nothing. `promising`: the peer still answers.
    fn run_cut_off(&mut self, millis: u64, promising: Option<&str>) {
        let end = self.now.0 + millis;
        while self.now.0 < end {
            self.now.0 += 250;
            let mut actions = self.step(Event::JvmHeard { jvm: JVM });
            while let Some(action) = actions.pop() {
                match (action, promising) {
                    (Action::ReadLease, _) => {
                        actions.extend(self.step(Event::LeaseRead { started: self.now, outcome: Read::Failed }));
                    }
                    (Action::WriteLease { attempt, .. }, _) => {
                        actions.extend(self.step(Event::LeaseWritten { attempt, outcome: Write::Unknown }));
                    }
                    (Action::AskPromises { .. }, Some(name)) => self.promise(name),
                    _ => {}
                }
            }
        }
    }

    /// A standby under a foreign holder that lists it.
    fn member_of(number: u64) -> Self {
        let mut world = Self::new("p");
        world.foreign(number);
        world.record.peers = Peers { address: "b:1".into(), promise_millis: 4_000, members: vec![member("a")] };
        world.ask_first();
        world
    }

    fn ask(&mut self) -> Answer {
        let actions =
            self.step_and_answer(Event::PromiseAsked { ask: 1, term: self.term(), duration: Duration::from_secs(4) });
        let answer = actions.into_iter().find_map(|action| match action {
            Action::AnswerPromise { answer, .. } => Some(answer),
            _ => None,
        });
        answer.expect("an answer")
    }
}

#[test]
fn i11_a_holder_leads_on_without_the_api_server_while_all_members_promise() {
    let mut world = World::leading_with("b");
    let before = world.term();
    world.run_cut_off(600_000, Some("b"));
    assert!(matches!(world.elector.shown(), LockView::Leader { term, .. } if term == before));
    world.run(3_000);
    assert_eq!(world.term(), before, "the same term after the outage");
    assert!(matches!(world.elector.shown(), LockView::Leader { .. }));
}

#[test]
fn i11_a_holder_is_valid_only_until_the_first_promise_ends() {
    let mut world = World::leading_with("b");
    world.run_cut_off(3_750, None);
    assert!(matches!(world.elector.shown(), LockView::Leader { .. }));
    world.run_cut_off(250, None);
    assert_eq!(world.elector.shown(), LockView::Undecided, "it is not told that it leads");
    world.promise("b");
    assert_eq!(world.elector.shown(), LockView::Undecided, "a promise that comes late does not make it valid again");
    world.run_cut_off(500, None);
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
}

#[test]
fn i5_a_gateway_that_stood_still_goes_on_when_nobody_has_taken_the_lease_meanwhile() {
    let mut world = World::leading_with("b");
    let before = world.term();
    world.now.0 += 8_000;
    world.step_and_answer(Event::JvmHeard { jvm: JVM });
    assert!(matches!(world.elector.shown(), LockView::Leader { term, .. } if term == before));
}

#[test]
fn i5_a_gateway_that_stood_still_is_no_leader_when_somebody_has_taken_the_lease() {
    let mut world = World::leading_with("b");
    world.now.0 += 8_000;
    world.foreign(9);
    world.step_and_answer(Event::JvmHeard { jvm: JVM });
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
}

#[test]
fn i11_a_member_that_does_not_answer_is_no_longer_listed_before_its_promise_ends() {
    let mut world = World::leading_with("b");
    world.run(2_600);
    assert_eq!(world.record.peers.members, []);
    world.run(20_000);
    assert!(matches!(world.elector.shown(), LockView::Leader { .. }));
}

/// A read that still shows the version on which the write was based does not prove that the write will not be applied.
#[test]
fn i11_members_of_a_write_that_was_given_up_count_until_the_version_changes() {
    let mut world = World::leading("p");
    world.step_and_answer(Event::PeerJoined { member: member("b") });
    let (term, asked) = (world.term(), world.now);
    let promised = Event::PeerPromised { term, pod_uid: "uid-b".into(), asked, leaving: false };
    let attempt = world.step(promised).into_iter().find_map(|action| match action {
        Action::WriteLease { attempt, .. } => Some(attempt),
        _ => None,
    });
    world.step_and_answer(Event::LeaseWritten {
        attempt: attempt.expect("it is to be listed"),
        outcome: Write::Unknown,
    });
    assert!(world.elector.unknown.is_none(), "a read has shown that it is not stored");
    let LockView::Leader { until, .. } = world.elector.shown() else { panic!("it leads") };
    assert_eq!(until, asked.after(Duration::from_secs(4)));
    world.run(1_000);
    assert!(world.elector.tenure.expect("a tenure").promises.open.is_empty(), "a later write is stored");
}

#[test]
fn i11_the_lease_is_written_seldom_while_members_promise() {
    let mut world = World::leading_with("b");
    let before = world.version;
    for _ in 0..60 {
        world.run(1_000);
        world.promise("b");
    }
    assert!(world.version - before <= 6, "{} writes in a minute", world.version - before);
}

#[test]
fn i11_a_member_takes_the_lease_when_its_promise_has_ended_and_the_machine_does_not_answer() {
    let mut world = World::member_of(3);
    assert_eq!(world.ask(), Answer::Promised);
    world.step_and_answer(Event::Pinged { answered: false });
    world.run(4_000);
    world.step_and_answer(Event::Pinged { answered: false });
    assert_eq!(world.record.holder, "demo-b");
    world.run(250);
    assert_eq!(world.record.holder, "demo-a");
}

#[test]
fn i11_a_machine_that_answers_has_time_to_restart_its_gateway() {
    let mut world = World::member_of(3);
    assert_eq!(world.ask(), Answer::Promised);
    for _ in 0..7 {
        world.run(2_000);
        world.step_and_answer(Event::Pinged { answered: true });
    }
    assert_eq!(world.record.holder, "demo-b");
    world.run(2_000);
    assert_eq!(world.record.holder, "demo-a");
}

#[test]
fn i11_a_member_that_can_write_refuses_a_holder_that_cannot() {
    let mut world = World::member_of(3);
    for _ in 0..19 {
        assert_eq!(world.ask(), Answer::Promised);
        world.run(1_000);
    }
    assert!(world.elector.probing, "it has not been written for longer than its duration");
    for _ in 0..8 {
        world.step_and_answer(Event::Probed { written: true });
        world.run(1_000);
    }
    assert_eq!(world.ask(), Answer::Refused);
    world.run(5_000);
    assert_eq!(world.record.holder, "demo-a");
}

/// Otherwise the first candidate to probe, when the API server stores writes again, would depose the holder.
#[test]
fn i6_an_api_server_that_took_no_writes_is_no_silence_of_the_holder() {
    let mut world = World::member_of(3);
    for second in 0..40 {
        world.step_and_answer(Event::Probed { written: second == 30 });
        assert_eq!(world.ask(), Answer::Promised);
        world.run(1_000);
    }
    assert_eq!(world.record.holder, "demo-b");
}

#[test]
fn i6_who_is_not_listed_does_not_count_time_in_which_nobody_could_write() {
    let mut world = World::member_of(3);
    world.record.peers.members = vec![member("c")];
    (world.version, world.elector.next_read) = (world.version + 1, world.now);
    world.run(60_000);
    assert_eq!(world.record.holder, "demo-b", "no probe was stored");
    for _ in 0..28 {
        world.step_and_answer(Event::Probed { written: true });
        world.run(1_000);
    }
    assert_eq!(world.record.holder, "demo-a");
}

#[test]
fn i11_a_member_does_not_promise_while_it_takes_the_lease() {
    let mut world = World::member_of(3);
    world.now.0 += 16_000;
    let actions = world.step(Event::JvmHeard { jvm: JVM });
    assert!(actions.iter().any(|action| matches!(action, Action::WriteLease { .. })), "{actions:?}");
    assert_eq!(world.ask(), Answer::Refused);
}

#[test]
fn i11_a_promise_binds_against_any_record_of_that_term_or_an_earlier_one() {
    let mut world = World::member_of(3);
    let later = Term { number: 9, pod_uid: "uid-c".into(), process: "c".into(), jvm: JVM };
    world.now.0 += 14_000;
    let asked = Event::PromiseAsked { ask: 1, term: later, duration: Duration::from_secs(4) };
    assert!(world.step(asked).contains(&Action::AnswerPromise { ask: 1, answer: Answer::Promised }));
    world.run(4_000);
    assert_eq!(world.record.holder, "demo-b");
    assert_eq!(world.ask(), Answer::Refused, "a later term is known");
}

#[test]
fn i11_a_refused_holder_that_cannot_write_steps_down_at_once() {
    let mut world = World::leading_with("b");
    world.run_cut_off(20_000, Some("b"));
    world.step(Event::PeerRefused { term: world.term() });
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
}

#[test]
fn i11_a_planned_switchover_hands_over_to_a_member_and_to_nobody_else() {
    let mut world = World::leading_with("b");
    world.version += 1;
    world.record.switchover = Some("demo-b".into());
    let (version, record) = (world.version.to_string(), world.record.clone());
    let actions = world.step_and_answer(Event::LeaseSeen { version: version.clone(), record: record.clone() });
    assert_eq!(actions, [Action::AwaitJobs { term: world.term() }]);
    assert_eq!(world.step_and_answer(Event::LeaseSeen { version, record }), [], "asked once");
    world.step_and_answer(Event::JobsSettled { term: world.term() });
    assert_eq!(world.record.holder, "");
    assert_eq!(world.record.change.as_ref().map(|change| change.why.as_str()), Some("Switchover"));
}

#[test]
fn who_has_just_given_up_the_lease_takes_it_again_at_once_only_when_asked_for_by_name() {
    for (wanted, holder) in [("demo-b", ""), ("demo-a", "demo-a")] {
        let mut world = World::leading_with("b");
        world.version += 1;
        world.record.switchover = Some("demo-b".into());
        let (version, record) = (world.version.to_string(), world.record.clone());
        world.step_and_answer(Event::LeaseSeen { version, record });
        world.step_and_answer(Event::JobsSettled { term: world.term() });
        world.step(Event::JvmTold { jvm: JVM });
        world.record.switchover = Some(wanted.into());
        world.version += 1;
        let (version, record) = (world.version.to_string(), world.record.clone());
        world.step_and_answer(Event::LeaseSeen { version, record });
        world.run(2_500);
        assert_eq!(world.record.holder, holder, "{wanted} is wanted");
    }
}

#[test]
fn a_lease_that_was_given_back_for_another_is_left_to_it_for_a_while() {
    let mut world = World::new("p");
    world.foreign(3);
    world.give_back();
    world.record.switchover = Some("demo-c".into());
    world.ask_first();
    world.run(1_500);
    assert_eq!(world.record.holder, "");
    world.run(1_000);
    assert_eq!(world.record.holder, "demo-a");
}
