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
//! **Properties** (`properties.rs`): S1–S8 safety; L1: from every world in which nothing is left to happen but looks of
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

use faults::Fault::*;
use model::Model;
use mutants::CASES;

/// No search that is meant to be complete comes near this many steps; one that does is not finite.
const TOO_MANY: usize = 3_000_000;

/// The first property that failed, how many steps lead there, and the story of the search.
fn search(model: Model, threads: usize) -> (Option<(&'static str, usize)>, String) {
    let began = Instant::now();
    let search = model
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(TOO_MANY)
        .spawn_bfs()
        .join();
    let (states, seconds) = (search.unique_state_count(), began.elapsed().as_secs_f64());
    let mut story = format!("{states} unique states, depth {}, {seconds:.1} s", search.max_depth());
    if search.state_count() >= TOO_MANY {
        println!("TOO MANY");
    }
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

fn searched() -> Vec<Model> {
    let all = [
        KillJvm,
        FreezeJvm,
        CutJvm,
        ExpireJvm,
        StandAnew,
        KillGateway,
        ExpireGateway,
        FailRequest,
        OldLook,
        TerminatePod,
    ];
    let all = all.to_vec();
    vec![
        Model { faults: all.clone(), ..Model::base("an application") },
        Model { faults: all.clone(), ..Model::upgrade("another version") },
        Model { at_rest: false, budget: 0, ..Model::upgrade("another version begins") },
    ]
}

#[test]
fn the_election_holds_in_every_world_within_the_budget() {
    let mut failed = Vec::new();
    for model in searched() {
        println!("{}: runs {:?}, at most {} of {:?}", model.name, model.runs, model.budget, model.faults);
        let name = model.name;
        let (property, story) = search(model, 1);
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
        if let Some((property, _)) = search(case.with_rule(), 1).0 {
            failed.push(format!("{name}: {property} fails with the rule, too"));
        }
        match search(case.without_rule(), 1) {
            (Some((property, steps)), _) => println!("{:<4} {name:<26} {steps:>4}  {property}", case.rule),
            (None, story) => failed.push(format!("{name}: not found: {story}")),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
#[ignore]
fn one() {
    let all = [
        KillJvm,
        FreezeJvm,
        CutJvm,
        ExpireJvm,
        StandAnew,
        KillGateway,
        ExpireGateway,
        FailRequest,
        OldLook,
        TerminatePod,
    ];
    for fault in all {
        let model = Model { faults: vec![fault], ..Model::upgrade("") };
        let (property, story) = search(model, 1);
        println!(
            "{fault:?} {property:?} {}",
            if property.is_some() { story } else { story.lines().next().unwrap_or_default().to_owned() }
        );
    }
}

#[test]
#[ignore]
fn walk() {
    let model = Model { faults: vec![KillJvm], ..Model::upgrade("") };
    let mut world = model.start();
    world = model.after(&world, model::Step::Fault(KillJvm, 0)).unwrap();
    let mut seed = 12345u64;
    for turn in 0..6000 {
        let mut steps = Vec::new();
        model.orderly(&world, &mut steps);
        let nexts: Vec<_> = steps.into_iter().filter_map(|step| Some((step, model.after(&world, step)?))).collect();
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (step, next) = nexts[(seed >> 33) as usize % nexts.len()].clone();
        if turn % 1000 < 60 && turn > 900 {
            println!("{turn} {step:?}");
        }
        world = next;
        if turn % 500 == 0 {
            println!(
                "{turn}: latches {} sessions {} ledger {} version {} jvms {:?} term {}",
                world.zk.next_latch,
                world.zk.next_session,
                world.ledger.version,
                world.zk.version,
                world.gateways.iter().map(|g| g.jvm.incarnation).collect::<Vec<_>>(),
                world.ghost.last_term
            );
        }
    }
}
