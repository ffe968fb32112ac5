//! Tests that another process that asks does not replace the JVM before the JVM has ended.

use crate::lease::elector::tests::*;

const OTHER: Incarnation = Incarnation { pid: 8, started: 80 };

#[test]
fn i3_a_living_jvm_is_not_replaced_by_another_that_asks() {
    let mut world = World::leading("p");
    let before = world.elector.shown();
    let version = world.version;
    for _ in 0..20 {
        let actions = world.step_and_answer(Event::JvmHeard { jvm: OTHER });
        assert_eq!(actions, [Action::FindJvm { jvm: JVM }], "ours is looked at, and nothing else happens");
        world.step_and_answer(Event::JvmFound { jvm: JVM });
    }
    assert_eq!((world.elector.shown(), world.version), (before, version));
    assert_eq!(world.elector.beside(), Some(OTHER));
    // The other process has ended, and ours continues.
    world.step_and_answer(Event::JvmDied { jvm: OTHER });
    assert_eq!(world.elector.beside(), None);
    assert!(matches!(world.elector.shown(), LockView::Leader { .. }));
}

#[test]
fn i3_what_another_asks_is_no_sign_of_life_of_ours() {
    let mut world = World::leading("p");
    let mut ended = Vec::new();
    for _ in 0..22 {
        world.now.0 += 500;
        ended.extend(
            world
                .step_and_answer(Event::JvmHeard { jvm: OTHER })
                .into_iter()
                .filter(|one| matches!(one, Action::EndJvm { .. })),
        );
    }
    assert!(matches!(&ended[..], [Action::EndJvm { jvm: JVM, .. }]), "{ended:?}");
}

#[test]
fn i3_a_restarted_jvm_that_asks_before_the_end_of_the_first_is_seen_waits_for_nothing() {
    let mut world = World::leading("p");
    let before = world.record.term.as_ref().expect("a term").number;
    assert!(world.step_and_answer(Event::JvmHeard { jvm: OTHER }).contains(&Action::FindJvm { jvm: JVM }));
    // The gateway releases the Lease and takes it again in the same moment, without a further request.
    let actions = world.step_and_answer(Event::JvmDied { jvm: JVM });
    let term = stamped(&actions).expect("a term to stamp");
    assert!(term.number > before && term.jvm == OTHER, "{term}");
}

#[test]
fn i3_after_a_restart_of_the_gateway_the_jvm_that_led_goes_first() {
    let world = World::leading("p");
    let mut after = World { elector: Elector::new(identity("q"), Settings::default()), ..world };
    let found = after.step_and_answer(Event::JvmHeard { jvm: OTHER });
    assert!(found.contains(&Action::FindJvm { jvm: JVM }), "{found:?}");
    assert_eq!(after.elector.shown(), LockView::Undecided, "nobody is told anything");
    let actions = after.step_and_answer(Event::JvmFound { jvm: JVM });
    assert!(matches!(&actions[..], [Action::Stamp { keep_holder: true, term }] if term.jvm == JVM), "{actions:?}");
    assert_eq!(after.elector.beside(), Some(OTHER));
}
