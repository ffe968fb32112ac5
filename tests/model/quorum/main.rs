//! The election in ZooKeeper, searched: the production [`Leadership`](pure::quorum::Leadership) of several gateways and
//! the production [`judge`](pure::ha_data::handover::judge), in a world of a quorum, a ledger and JVMs.
//!
//! **The world.** A gateway has a session of its own, looks at the election, and has one request in flight, whose
//! accesses to the quorum, the ledger and the storage are steps of their own. All that it hears is late by as much as
//! it likes: looks, sessions of its JVM, answers. A JVM goes to the quorum through its gateway, which asks the state
//! machine whether it may enter and whether it may store; what has passed arrives later or never. It believes to lead
//! from when it sees its latch the lowest until it hears otherwise, or steps down by its own clock before the quorum
//! lets its session expire. Whoever is frozen does nothing meanwhile, and goes on with what it knew. Requests of a
//! process that is gone may still be applied.
//!
//! **No time.** Pauses of the state machine end whenever they like, so that searches end although time does not: they
//! cover runs of any length with at most so many faults.
//!
//! **Properties** (`properties.rs`): S1–S9 safety; L1: from every world in which nothing is left to happen but looks of
//! those who wait, a JVM comes to lead. **Rules** (`mutants.rs`): each is switched off in turn, and the search must
//! find out.
//!
//! **Not in it**: the guard of a path that is another Flink's; savepoints; several jobs; ACLs; a ledger edited by hand;
//! the time in which a JVM that was let in, and whose version another one has taken over since, leads until it is
//! examined and ended: it stores no plan.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod gateway;
mod jvm;
mod model;
mod mutants;
mod part;
mod properties;
mod requests;
mod world;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model as _};

use faults::Fault::{self, *};
use model::Model;
use mutants::CASES;

/// No search that is meant to be complete comes near this many steps; one that does is not finite.
const TOO_MANY: usize = 30_000_000;

/// Searches everything, or as deep. The first property that failed, how many steps lead there, and the story of the
/// search.
fn search(model: Model, depth: Option<usize>) -> (Option<(&'static str, usize)>, String) {
    let began = Instant::now();
    let search = model
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(TOO_MANY)
        .target_max_depth(depth.unwrap_or(usize::MAX))
        .spawn_bfs()
        .join();
    let (states, seconds) = (search.unique_state_count(), began.elapsed().as_secs_f64());
    let mut story = format!("{states} unique states, depth {}, {seconds:.1} s", search.max_depth());
    assert!(search.state_count() < TOO_MANY, "the search was not complete: {story}");
    let first = search.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_vec().len());
    let Some((name, path)) = first else { return (None, story) };
    let steps = path.into_vec();
    for (_, step) in &steps {
        if let Some(step) = step {
            story.push_str(&format!("\n    {step:?}"));
        }
    }
    if let Some((world, _)) = steps.last() {
        story.push_str(&format!("\n    in the end: {:?}\n    {:?}", world.zk, world.ledger));
        for gateway in &world.gateways {
            story.push_str(&format!("\n    {gateway:?}"));
        }
    }
    (Some((name, steps.len() - 1)), story)
}

const ALL: &[Fault] =
    &[KillJvm, FreezeJvm, CutJvm, ExpireJvm, StandAnew, KillGateway, ExpireGateway, FailRequest, OldLook, TerminatePod];

fn searched() -> Vec<Model> {
    let base = |name: &'static str, faults: &[Fault]| Model { faults: faults.to_vec(), ..Model::base(name) };
    let upgrade = |name: &'static str, faults: &[Fault]| Model { faults: faults.to_vec(), ..Model::upgrade(name) };
    vec![
        base("an application", ALL),
        Model { prompt: true, application: false, ..base("a session cluster", ALL) },
        Model { prompt: true, leading: false, ..base("from the start", &[FailRequest, OldLook]) },
        Model {
            prompt: true,
            budget: 2,
            ..base("two faults", &[CutJvm, ExpireJvm, ExpireGateway, OldLook, FailRequest])
        },
        Model {
            prompt: true,
            ends: true,
            ..base("a job that ends", &[KillJvm, KillGateway, ExpireGateway, FailRequest])
        },
        upgrade("another version", ALL),
        Model { at_rest: false, prompt: false, budget: 0, ..upgrade("another version begins", &[]) },
        Model { budget: 2, ..upgrade("another version, two faults", &[FreezeJvm, CutJvm, ExpireJvm, ExpireGateway]) },
    ]
}

#[test]
fn the_election_holds_in_every_world_within_the_budget() {
    let mut failed = Vec::new();
    for model in searched() {
        println!("{}: runs {:?}, at most {} of {:?}", model.name, model.runs, model.budget, model.faults);
        let name = model.name;
        let (property, story) = search(model, None);
        println!("  {story}");
        failed.extend(property.map(|(property, steps)| format!("{name}: {property} (after {steps} steps)")));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_rule_is_needed_and_the_search_finds_out() {
    let mut failed = Vec::new();
    for case in &CASES {
        let name = format!("{:?}", case.mutant);
        let (Some((property, steps)), story) = search(case.without_rule(), None) else {
            failed.push(format!("{name}: not found"));
            continue;
        };
        println!("{:<4} {name:<22} {steps:>4}  {property}: {}", case.rule, story.lines().next().unwrap_or_default());
        // As deep as that with the rule.
        if let (Some((property, _)), story) = search(case.with_rule(), Some(steps + 1)) {
            failed.push(format!("{name}: {property} fails with the rule, too: {story}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
