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
//! `WALKS`: how many; `SEED`: of the first one; `MUTANT`: only this one, or `rare` for those that CI does not look for;
//! `PATIENCE`: walks in which a mutant must be found.
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
use std::iter::StepBy;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ghost::Violation;
use rules::{Mutant, Rules};
use walk::{Step, Way, run, shrink};
use world::World;

const WALKS: u64 = 100_000;
const SEED: u64 = 1;
/// Walks in which a mutant must be found.
const PATIENCE: u64 = 100_000;

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

/// Runs this on every core, each with its share of the seeds from `first` until `end`.
fn on_all_cores<T: Send>(first: u64, end: u64, run: impl Fn(StepBy<Range<u64>>) -> T + Sync) -> Vec<T> {
    let (cores, run) = (std::thread::available_parallelism().map_or(1, usize::from), &run);
    let seeds = |core: usize| (first + core as u64..end).step_by(cores);
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..cores).map(|core| scope.spawn(move || run(seeds(core)))).collect();
        shares.into_iter().map(|share| share.join().unwrap()).collect()
    })
}

/// Walks from these seeds. Returns which states were seen, and the number of steps.
fn search(seeds: StepBy<Range<u64>>) -> (HashSet<u64>, u64) {
    let (mut seen, mut steps) = (HashSet::new(), 0);
    for seed in seeds {
        let world = run(Way::of(Rules::default(), seed), &Step::walk(seed), |world| {
            steps += 1;
            seen.insert(glance(world));
        });
        if let Some(violation) = world.ghost.violation {
            panic!("{}", tell(Rules::default(), seed, violation.rule));
        }
    }
    (seen, steps)
}

#[test]
fn operator_ledger_and_gateways_hold_together() {
    let (walks, first, began) = (number("WALKS", WALKS), number("SEED", SEED), Instant::now());
    let (seen, steps): (Vec<_>, Vec<_>) = on_all_cores(first, first + walks, search).into_iter().unzip();
    let (seen, steps): (HashSet<u64>, u64) = (seen.into_iter().flatten().collect(), steps.into_iter().sum());
    let seconds = began.elapsed().as_secs_f64();
    println!("test result: {walks} walks from seed {first}, {steps} steps, {} states, {seconds:.1} s", seen.len());
}

/// With each the walks must find a violation.
const MUTANTS: [Mutant; 9] = [
    Mutant::LeaseNotAwaited,
    Mutant::PodsNotAwaited,
    Mutant::FirstStartForgotten,
    Mutant::LabelsProvePresence,
    Mutant::MarkNotCompared,
    Mutant::EndsNotChecked,
    Mutant::StatusFromCache,
    Mutant::NothingRetained,
    Mutant::EndsNotSeen,
];

/// Rules that need a longer search, or that others stand in for: `MUTANT` looks for one.
const RARE: [Mutant; 14] = [
    Mutant::FailedPodsAreGone,
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

/// Returns the first walk that violates a rule, and how.
fn first_violation(rules: Rules, first: u64, end: u64) -> Option<(u64, Violation)> {
    let best = &AtomicU64::new(end);
    let share = |seeds: StepBy<Range<u64>>| {
        let found = seeds.take_while(|seed| *seed < best.load(Relaxed)).find_map(|seed| {
            let violation = run(Way::of(rules, seed), &Step::walk(seed), |_| ()).ghost.violation?;
            Some((seed, violation))
        })?;
        best.fetch_min(found.0, Relaxed);
        Some(found)
    };
    on_all_cores(first, end, share).into_iter().flatten().min_by_key(|(seed, _)| *seed)
}

#[test]
fn every_rule_is_needed_and_walks_find_out() {
    let (first, mut failed) = (number("SEED", SEED), Vec::new());
    let only = std::env::var("MUTANT").ok();
    let mutants: Vec<Mutant> = match only {
        None => MUTANTS.to_vec(),
        Some(rare) if rare == "rare" => RARE.to_vec(),
        Some(only) => MUTANTS.into_iter().chain(RARE).filter(|mutant| format!("{mutant:?}") == only).collect(),
    };
    for mutant in mutants.iter().copied() {
        let rules = Rules(Some(mutant));
        let found = first_violation(rules, first, first + number("PATIENCE", PATIENCE));
        match found {
            Some((seed, violation)) => {
                let (walks, steps) =
                    (seed - first + 1, shrink(Way::of(rules, seed), &Step::walk(seed), violation.rule).len());
                println!("{mutant:?}: found by walk {walks}, in {steps} steps: {}", violation.rule);
            }
            None => failed.push(format!("{mutant:?}: not found")),
        }
    }
    println!("test result: {} mutants found, {} not", mutants.len() - failed.len(), failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
}
