//! The life of a resource, searched: the operator's plan, the ledger and the gateways' rules for what they find stored
//! are the product's own functions; what they act on is a world of values. Walks through it are random and
//! reproducible: a failure prints its seed and the shortest part of the walk that fails.
//!
//! **The world** (`world.rs`, `objects.rs`, `kubernetes.rs`): objects of the API server, watches that are late, files,
//! pods whose processes end, are lost with their nodes, come back or lose their labels; the operator (`operator.rs`,
//! `deletion.rs`), which may die between any two requests; gateways (`gateway.rs`), which win a Lease, stamp, examine
//! and write one thing after another; JobManagers that lead (`leader.rs`); a user who changes his mind (`walk.rs`).
//!
//! **What must hold** (`ghost.rs`, `settle.rs`): versions never overlap, and no earlier start leads after a later one;
//! no state is dropped; a run that was retained goes on; an end is final; no data goes under a living process; nothing
//! waits in silence, and what is asked for comes when nothing is in its way.
//!
//! **Not in it**: the election (`tests/model`), ZooKeeper, session clusters, the content of objects but for the run.
//!
//! `WALKS`: how many; `SEED`: of the first one; `MUTANT`: only this one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod asked;
mod deletion;
mod gateway;
mod ghost;
mod kubernetes;
mod leader;
mod objects;
mod operator;
mod rules;
mod settle;
mod walk;
mod world;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use rules::{Mutant, Rules};
use walk::{Step, Way, run, shrink};
use world::World;

const WALKS: u64 = 16_000;
const SEED: u64 = 1;
/// Walks in which a mutant must be found.
const PATIENCE: u64 = 40_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// What a failure says.
fn tell(rules: Rules, seed: u64, rule: &'static str) -> String {
    let way = Way::of(rules, seed);
    let shortest = shrink(way, &Step::walk(seed), rule);
    let world = run(Way { is_told: true, ..way }, &shortest, |_| ());
    let violation = world.ghost.violation.unwrap();
    let story = world.story.unwrap_or_default().join("\n");
    format!("SEED={seed}: {}: {}\n  {shortest:?}\n{story}", violation.rule, violation.what)
}

/// What distinguishes a world from others at a glance.
fn glance(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    let application = world.resource.as_ref().and_then(|live| live.status.as_ref()?.application.as_ref());
    application.map(|one| format!("{:?}", one.phase)).hash(&mut hasher);
    world.resource.as_ref().map(|live| live.metadata.deletion_timestamp.is_some()).hash(&mut hasher);
    (world.asked.suspended, world.asked.delete, world.asked.definition > 5).hash(&mut hasher);
    for pod in &world.pods {
        let mine = application.is_some_and(|one| one.starts == pod.run().start);
        let gateway = match &pod.gateway {
            gateway::Gateway::Standby => 0,
            gateway::Gateway::Granting { .. } => 1,
            gateway::Gateway::Leading(leading) => 2 + u8::from(leading.job.is_some()),
        };
        (pod.component, mine, pod.failed, pod.cut, pod.labelled, pod.exists, pod.alive, gateway).hash(&mut hasher);
        pod.deletion.is_some().hash(&mut hasher);
    }
    let ledger = world.ledger.as_ref();
    ledger.map(|ledger| (ledger.torn, ledger.refusal.is_some(), ledger.jobs.len())).hash(&mut hasher);
    (world.config_maps.len(), world.entries.len(), world.lease.is_some()).hash(&mut hasher);
    hasher.finish()
}

#[test]
fn operator_ledger_and_gateways_hold_together() {
    let (walks, first, began) = (number("WALKS", WALKS), number("SEED", SEED), Instant::now());
    let (mut seen, mut steps) = (HashSet::new(), 0_u64);
    for seed in first..first + walks {
        let walk = Step::walk(seed);
        let world = run(Way::of(Rules::default(), seed), &walk, |world| {
            steps += 1;
            seen.insert(glance(world));
        });
        if let Some(violation) = world.ghost.violation {
            panic!("{}", tell(Rules::default(), seed, violation.rule));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("test result: {walks} walks from seed {first}, {steps} steps, {} states, {seconds:.1} s", seen.len());
}

/// With each the walks must find a violation.
const MUTANTS: [Mutant; 7] = [
    Mutant::PodsNotAwaited,
    Mutant::LabelsProvePresence,
    Mutant::MarkNotCompared,
    Mutant::EndsNotChecked,
    Mutant::StatusFromCache,
    Mutant::NothingRetained,
    Mutant::EndsNotSeen,
];

/// Rules that need a longer search, or that others stand in for: `MUTANT` looks for one.
const RARE: [Mutant; 15] = [
    Mutant::FailedPodsAreGone,
    Mutant::LeaseNotAwaited,
    Mutant::StartNotRaised,
    Mutant::LaterStartNotChecked,
    Mutant::UnnamedSuperseded,
    Mutant::NoRunNamed,
    Mutant::MarkFirst,
    Mutant::EndBeforeAnswer,
    Mutant::FoundForgotten,
    Mutant::MarkNotRead,
    Mutant::LedgerFromCache,
    Mutant::TornIsEmpty,
    Mutant::NotFenced,
    Mutant::RemovalAfterStatus,
    Mutant::WritesForgotten,
];

#[test]
fn every_rule_is_needed_and_walks_find_out() {
    let (first, mut failed) = (number("SEED", SEED), Vec::new());
    let only = std::env::var("MUTANT").ok();
    let mutants: Vec<Mutant> = match only {
        None => MUTANTS.to_vec(),
        Some(only) => MUTANTS.into_iter().chain(RARE).filter(|mutant| format!("{mutant:?}") == only).collect(),
    };
    for mutant in mutants.iter().copied() {
        let rules = Rules(Some(mutant));
        let found = (first..first + PATIENCE).find_map(|seed| {
            let violation = run(Way::of(rules, seed), &Step::walk(seed), |_| ()).ghost.violation?;
            Some((seed, violation))
        });
        match found {
            Some((seed, violation)) => {
                let (walks, steps) =
                    (seed - first + 1, shrink(Way::of(rules, seed), &Step::walk(seed), violation.rule).len());
                println!("{mutant:?}: found by walk {walks}, in {steps} steps: {}", violation.rule);
            }
            None => failed.push(format!("{mutant:?}: not found in {PATIENCE} walks")),
        }
    }
    println!("test result: {} mutants found, {} not", mutants.len() - failed.len(), failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
}
