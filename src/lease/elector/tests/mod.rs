//! Tests one candidate against a scripted world. `tests/model` searches what several candidates can do to each other.

mod promises;
mod strangers;

use crate::lease::elector::*;

const JVM: Incarnation = Incarnation { pid: 7, started: 70 };

fn identity(process: &str) -> Identity {
    Identity { pod: "demo-a".into(), pod_uid: "uid-a".into(), process: process.into(), address: "a:1".into() }
}

/// A candidate, its clock, and a Lease that enforces compare-and-swap.
struct World {
    elector: Elector,
    now: Time,
    version: u64,
    record: Record,
}

impl World {
    fn new(process: &str) -> Self {
        Self {
            elector: Elector::new(identity(process), Settings::default()),
            now: Time(1000),
            version: 1,
            record: Record::default(),
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.elector.step(self.now, event)
    }

    /// Lets time pass in small steps, answers reads and writes of the Lease at once, and returns all other actions.
    fn run(&mut self, millis: u64) -> Vec<Action> {
        let end = self.now.0 + millis;
        let mut others = Vec::new();
        while self.now.0 < end {
            self.now.0 += 50;
            if self.now.0.is_multiple_of(1000) {
                others.extend(self.step_and_answer(Event::JvmHeard { jvm: JVM }));
            }
            others.extend(self.step_and_answer(Event::Tick));
        }
        others
    }

    fn step_and_answer(&mut self, event: Event) -> Vec<Action> {
        let actions = self.step(event);
        self.answer(actions)
    }

    fn answer(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let mut others = Vec::new();
        for action in actions {
            let event = match action {
                Action::ReadLease => Event::LeaseRead {
                    started: self.now,
                    outcome: Read::Found { version: self.version.to_string(), record: self.record.clone() },
                },
                Action::WriteLease { attempt, version, record } if version == self.version.to_string() => {
                    self.version += 1;
                    self.record = record;
                    Event::LeaseWritten { attempt, outcome: Write::Done { version: self.version.to_string() } }
                }
                Action::WriteLease { attempt, .. } => Event::LeaseWritten { attempt, outcome: Write::Unknown },
                other => {
                    others.push(other);
                    continue;
                }
            };
            others.extend(self.step_and_answer(event));
        }
        others
    }

    fn foreign(&mut self, number: u64) {
        self.version += 1;
        let term = Term { number, pod_uid: "uid-b".into(), process: "other".into(), jvm: JVM };
        self.record =
            Record { holder: "demo-b".into(), term: Some(term), duration_millis: 15_000, ..Record::default() };
    }

    /// Its holder releases the Lease.
    fn give_back(&mut self) {
        self.version += 1;
        let change =
            Change { from: std::mem::take(&mut self.record.holder), why: "JobManagerDied".into(), ..Change::default() };
        self.record.change = Some(change);
    }

    fn leading(process: &str) -> Self {
        let mut world = Self::new(process);
        world.lead();
        world
    }

    /// The first lock request of a JVM, and its answer.
    fn ask_first(&mut self) -> Vec<Action> {
        let mut actions = self.step_and_answer(Event::JvmHeard { jvm: JVM });
        assert_eq!(self.elector.shown(), LockView::Standby { acknowledged: false });
        actions.extend(self.step_and_answer(Event::JvmTold { jvm: JVM }));
        actions
    }

    fn acquire(&mut self) -> Term {
        let actions = self.ask_first();
        stamped(&actions).expect("a term to stamp")
    }

    fn lead(&mut self) {
        let term = self.acquire();
        self.step_and_answer(Event::Stamped { term: term.clone(), outcome: Stamping::Done });
        self.step_and_answer(Event::JvmTookLock { term, at: String::new(), lock: "jvm".into() });
        assert!(matches!(self.elector.shown(), LockView::Leader { .. }));
    }
}

fn stamped(actions: &[Action]) -> Option<Term> {
    actions.iter().find_map(|action| match action {
        Action::Stamp { term, .. } => Some(term.clone()),
        _ => None,
    })
}

#[test]
fn promises_are_never_longer_than_the_renew_deadline_and_are_asked_for_four_times_within_it() {
    let seconds = Duration::from_secs;
    let of = |renew_deadline| Settings::of(seconds(15), renew_deadline);
    assert_eq!(of(seconds(10)), Settings::default());
    let short = of(seconds(2));
    assert_eq!((short.duration, short.renew_deadline), (seconds(15), seconds(2)));
    assert_eq!((short.promise, short.ask_period), (seconds(2), Duration::from_millis(500)));
}

#[test]
fn i4_the_lock_is_shown_only_after_stamping() {
    let mut world = World::new("p");
    let term = world.acquire();
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: true });
    world.step_and_answer(Event::Stamped { term, outcome: Stamping::Done });
    assert!(matches!(world.elector.shown(), LockView::Free { .. }));
}

#[test]
fn i8_nobody_campaigns_before_the_jvm_asks() {
    let mut world = World::new("p");
    for _ in 0..100 {
        world.now.0 += 100;
        world.step_and_answer(Event::Tick);
    }
    assert_eq!(world.record.holder, "");
}

#[test]
fn i2_a_term_is_above_every_number_seen() {
    let mut world = World::leading("p");
    let stamp = Term { number: 40, pod_uid: "x".into(), process: "y".into(), jvm: JVM };
    world.step_and_answer(Event::StampSeen { stamp });
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
    world.step_and_answer(Event::JvmTold { jvm: JVM });
    assert!(world.record.term.as_ref().expect("a term").number > 40);
}

#[test]
fn i3_a_new_gateway_process_takes_a_new_term_and_does_not_tell_its_jvm() {
    let world = World::leading("p");
    let before = world.record.term.as_ref().expect("a term").number;
    let mut after = World { elector: Elector::new(identity("q"), Settings::default()), ..world };
    let found = after.step_and_answer(Event::Tick);
    assert!(found.contains(&Action::FindJvm { jvm: JVM }));
    let actions = after.step_and_answer(Event::JvmFound { jvm: JVM });
    assert_eq!(after.elector.shown(), LockView::Undecided);
    assert!(matches!(&actions[..], [Action::Stamp { keep_holder: true, term }] if term.number == before + 1));
    let term = stamped(&actions).expect("a term to stamp");
    after.step_and_answer(Event::Stamped { term, outcome: Stamping::Done });
    assert!(matches!(after.elector.shown(), LockView::Free { .. }));
}

#[test]
fn i3_a_watch_that_is_faster_than_the_answer_does_not_end_a_resumed_tenure() {
    let world = World::leading("p");
    let mut after = World { elector: Elector::new(identity("q"), Settings::default()), ..world };
    after.step_and_answer(Event::Tick);
    let actions = after.step(Event::JvmFound { jvm: JVM });
    let [Action::WriteLease { attempt, record, .. }] = &actions[..] else { panic!("{actions:?}") };
    after.step(Event::LeaseSeen { version: "99".into(), record: record.clone() });
    assert_eq!(after.elector.shown(), LockView::Undecided, "the JVM must not be told");
    let actions = after.step(Event::LeaseWritten { attempt: *attempt, outcome: Write::Done { version: "99".into() } });
    let term = stamped(&actions).expect("a term to stamp");
    after.step(Event::Stamped { term, outcome: Stamping::Done });
    after.now.0 += 6000;
    assert!(!after.step(Event::JvmHeard { jvm: JVM }).iter().any(|action| matches!(action, Action::EndJvm { .. })));
}

#[test]
fn i3_a_new_gateway_process_gives_the_lease_back_when_the_jvm_died_meanwhile() {
    let world = World::leading("p");
    let mut after = World { elector: Elector::new(identity("q"), Settings::default()), ..world };
    after.step_and_answer(Event::Tick);
    after.step_and_answer(Event::JvmDied { jvm: JVM });
    assert_eq!(after.record.holder, "");
    assert_eq!(after.record.change.as_ref().map(|change| change.why.as_str()), Some("JobManagerDied"));
}

#[test]
fn i5_validity_ends_without_renewals() {
    let mut world = World::leading("p");
    for _ in 0..110 {
        world.now.0 += 100;
        world.step(Event::JvmHeard { jvm: JVM });
    }
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
}

#[test]
fn i6_an_unreachable_api_server_is_not_a_silent_holder() {
    let mut world = World::new("p");
    world.foreign(3);
    world.ask_first();
    world.run(5_000);
    for _ in 0..100 {
        world.now.0 += 1000;
        for action in world.step(Event::JvmHeard { jvm: JVM }) {
            assert_eq!(action, Action::ReadLease);
            world.step(Event::LeaseRead { started: world.now, outcome: Read::Failed });
        }
    }
    world.run(10_000);
    assert_eq!(world.record.holder, "demo-b", "the holder had no chance to renew");
    world.run(12_000);
    assert_eq!(world.record.holder, "demo-a");
    assert_eq!(world.record.change.as_ref().map(|change| change.why.as_str()), Some("LeaderSilent"));
}

#[test]
fn i6_a_lease_that_was_emptied_by_hand_is_waited_for_like_a_silent_one() {
    let took_over = Change { term: 3, to: "demo-b".into(), ..Change::default() };
    let not_yet_leading = Change { term: 3, ..Change::default() };
    for (change, with_term) in [(Some(took_over), true), (Some(not_yet_leading), true), (None, false)] {
        let mut world = World::new("p");
        world.foreign(3);
        world.ask_first();
        world.version += 1;
        world.record.holder.clear();
        world.record.change = change;
        world.record.term = world.record.term.filter(|_| with_term);
        world.run(14_000);
        assert_eq!(world.record.holder, "", "its holder may still take himself for the leader");
        world.run(8_000);
        assert_eq!(world.record.holder, "demo-a");
        assert_eq!(world.record.term.as_ref().map(|term| term.number), Some(4));
    }
}

#[test]
fn a_lease_that_was_emptied_by_hand_is_taken_again_by_the_pod_whose_term_it_carries() {
    let mut world = World::leading("p");
    world.run(200);
    world.version += 1;
    world.record.holder.clear();
    world.run(3_000);
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
    world.step_and_answer(Event::JvmTold { jvm: JVM });
    assert_eq!(world.record.holder, "demo-a");
    assert_eq!(world.record.change.as_ref().map(|change| change.from.as_str()), Some("demo-a"));
}

#[test]
fn i7_after_a_write_of_unknown_fate_a_read_decides() {
    let mut world = World::new("p");
    let read = world.step(Event::JvmHeard { jvm: JVM });
    assert_eq!(read, [Action::ReadLease]);
    let outcome = Read::Found { version: "1".into(), record: Record::default() };
    assert_eq!(world.step(Event::LeaseRead { started: world.now, outcome }), []);
    let write = world.step(Event::JvmTold { jvm: JVM });
    let [Action::WriteLease { attempt, record, .. }] = &write[..] else { panic!("{write:?}") };
    let actions = world.step(Event::LeaseWritten { attempt: *attempt, outcome: Write::Unknown });
    assert_eq!(actions, [Action::ReadLease]);
    let outcome = Read::Found { version: "2".into(), record: record.clone() };
    let actions = world.step(Event::LeaseRead { started: world.now, outcome });
    assert_eq!(stamped(&actions), record.term, "it was applied");
}

#[test]
fn i7_a_read_that_a_write_overtook_decides_nothing() {
    let mut world = World::new("p");
    world.foreign(3);
    world.ask_first();
    let (version, foreign) = (world.version.to_string(), world.record.clone());
    world.now.0 += 5_000;
    let read = world.step(Event::JvmHeard { jvm: JVM });
    assert_eq!(read, [Action::ReadLease]);
    world.give_back();
    let (free_version, free) = (world.version.to_string(), world.record.clone());
    let actions = world.step_and_answer(Event::LeaseSeen { version: free_version, record: free });
    let term = stamped(&actions).expect("a term to stamp");
    world.step_and_answer(Event::Stamped { term, outcome: Stamping::Done });
    // The API server served the read before the holder released the Lease; the answer was late.
    let actions =
        world.step(Event::LeaseRead { started: world.now, outcome: Read::Found { version, record: foreign } });
    assert_eq!(actions, [Action::ReadLease]);
    assert!(matches!(world.elector.shown(), LockView::Free { .. }));
}

#[test]
fn i8_a_dead_jvm_gives_the_lease_back_at_once() {
    let mut world = World::leading("p");
    world.step_and_answer(Event::JvmDied { jvm: JVM });
    assert_eq!(world.record.holder, "");
}

#[test]
fn i8_a_hung_jvm_loses_the_lease_and_i9_is_told_or_ended() {
    let mut world = World::leading("p");
    let mut ended = false;
    for _ in 0..200 {
        world.now.0 += 100;
        ended |= world.step_and_answer(Event::Tick).iter().any(|action| matches!(action, Action::EndJvm { .. }));
    }
    assert_eq!(world.record.holder, "");
    assert!(ended);
}

#[test]
fn i9_a_former_leader_campaigns_only_after_it_was_told() {
    let mut world = World::leading("p");
    world.foreign(9);
    world.run(3_000);
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
    world.give_back();
    let (version, record) = (world.version.to_string(), world.record.clone());
    world.step_and_answer(Event::LeaseSeen { version: version.clone(), record: record.clone() });
    assert_eq!(world.record.holder, "");
    world.step_and_answer(Event::JvmTold { jvm: JVM });
    assert_eq!(world.record.holder, "demo-a");
}

#[test]
fn i9_a_jvm_that_an_earlier_process_may_have_shown_the_lock_is_told_before_its_gateway_campaigns() {
    let world = World::leading("p");
    let mut after = World { elector: Elector::new(identity("q"), Settings::default()), ..world };
    // Meanwhile another candidate led and released the Lease.
    after.foreign(2);
    after.give_back();
    after.step_and_answer(Event::JvmHeard { jvm: JVM });
    after.run(3_000);
    assert_eq!(after.record.holder, "");
    assert_eq!(after.elector.shown(), LockView::Standby { acknowledged: false });
    after.step_and_answer(Event::JvmTold { jvm: JVM });
    assert_eq!(after.record.holder, "demo-a");
}

#[test]
fn i10_a_jvm_that_does_not_take_the_lock_gives_others_a_chance() {
    let mut world = World::new("p");
    let term = world.acquire();
    world.step_and_answer(Event::Stamped { term, outcome: Stamping::Done });
    world.run(4_100);
    assert_eq!(world.record.holder, "");
    assert_eq!(world.record.change.as_ref().map(|change| change.why.as_str()), Some("GrantTimedOut"));
    world.run(3_000);
    assert_eq!(world.record.holder, "", "it lets others go first");
}

#[test]
fn a_terminating_pod_hands_over_at_once() {
    let mut world = World::leading("p");
    world.step_and_answer(Event::PodTerminating);
    assert_eq!(world.record.holder, "");
    assert_eq!(world.elector.shown(), LockView::Standby { acknowledged: false });
    world.step_and_answer(Event::JvmTold { jvm: JVM });
    world.run(39_900);
    assert_eq!(world.record.holder, "", "it does not campaign again");
}

#[test]
fn a_hand_over_that_no_end_of_the_pod_follows_expires() {
    let mut world = World::leading("p");
    world.step_and_answer(Event::PodTerminating);
    world.step_and_answer(Event::JvmTold { jvm: JVM });
    world.run(30_000);
    // A repeated event: the time limit counts from now.
    world.step_and_answer(Event::PodTerminating);
    world.run(39_900);
    assert_eq!((world.record.holder.as_str(), world.elector.is_terminating()), ("", true));
    assert_eq!(world.elector.unready(world.now), Some("the pod is terminating"));
    world.run(2_200);
    assert_eq!((world.record.holder.as_str(), world.elector.is_terminating()), ("demo-a", false));
    assert_eq!(
        world.record.change.as_ref().map(|change| change.why.as_str()),
        Some("PodTerminating"),
        "why nobody led"
    );
}

#[test]
fn a_standby_that_was_told_to_hand_over_by_mistake_takes_the_lease_later() {
    let mut world = World::new("p");
    world.foreign(7);
    world.ask_first();
    world.step_and_answer(Event::PodTerminating);
    world.give_back();
    world.run(39_900);
    assert_eq!(world.record.holder, "");
    world.run(4_200);
    assert_eq!(world.record.holder, "demo-a");
}

#[test]
fn a_time_without_a_leader_that_somebody_has_edited_is_no_reason_to_end() {
    let mut world = World::new("p");
    world.give_back();
    world.record.change = Some(Change { leaderless_millis: u64::MAX, ..Change::default() });
    world.lead();
    world.run(200);
    assert_eq!(world.record.change.map(|change| change.leaderless_millis), Some(u64::MAX));
}

#[test]
fn the_last_change_says_from_whom_why_and_how_long() {
    let mut world = World::leading("p");
    world.run(200);
    let change = world.record.change.clone().expect("a change");
    assert_eq!((change.to.as_str(), change.why.as_str(), change.term), ("demo-a", "FirstLeader", 1));
}
