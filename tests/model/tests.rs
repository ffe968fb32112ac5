//! The election, searched exhaustively: the production [`Elector`](pure::lease::elector::Elector) and the production
//! [`plan`](pure::gateway::translate::plan) of several candidates, in a world where everything may go wrong that the budget allows.
//!
//! **The world.** Candidates are machines with a clock, a gateway process and a JVM. The JVM learns only from what its gateway shows,
//! believes to lead until it is told otherwise, and reads and writes the cluster ConfigMap and those of jobs. The API server has these and
//! the Lease, under compare-and-swap. Every request is sent, applied and answered in separate steps; a fault holds up one of them, and what
//! is held up is applied at any later time or never. Stamping is one request per object. A tick is one retry period; what is healthy acts
//! within the tick, in any order with all else, and what is not acts whenever it likes.
//!
//! **No horizon.** Two worlds are the same if only their clocks and version numbers differ (`canonical.rs`), so searches end although time
//! does not: they cover runs of any length with at most so many faults. A test checks that worlds that count as one have the same future.
//!
//! **Properties** (`properties.rs`): S1–S5 safety, L1–L4 liveness and calm. **Rules** (`mutants.rs`): each is switched off in turn, and the
//! search must find out. Rules and the invariants of [`pure::lease`] that they stand for:
//!
//! | invariant | without it |
//! |---|---|
//! | I1 compare-and-swap | `LeaseWithoutCas` |
//! | I2 terms rise | `StampsLowered` |
//! | I3 a term is one JVM under one gateway process | `SameTermForNewJvm`, `NoStampAfterRestart` |
//! | I4 stamped before shown | `ShownBeforeStamped`, `JobsNotStamped`, `JobsListedFirst`, `MissingNotCreated` |
//! | I5 validity | `LateAnswersExtend`, `ValidityIgnored` |
//! | I6 silence is measured here | `WallClocks`, `OutageIsSilence` |
//! | I7 unknown is read | `UnknownIsFailed` |
//! | I8 only a living JVM campaigns or renews | `HungJvmRenews` |
//! | I9 a former leader is told | `NotToldBeforeCampaign` |
//! | the form of forwarded writes | `PutWithoutVersion`, `StampNotReturned`, `DeleteWithoutPrecondition`, `PostWithData` |
//!
//! I10 (grants are bounded) is checked by L1, which holds only if no tenure without a leading JVM lasts.
//!
//! **Not in it**: what reads of a cluster ConfigMap by other threads of the JVM than its elector may be told; stamping of an earlier term
//! that goes on (its requests in flight do); a raised stamp on a read is one step; etcd restored from a backup.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod canonical;
mod configurations;
mod election;
mod faults;
mod jvm;
mod model;
mod mutants;
mod properties;
mod requests;
mod search;
mod server;
mod shared;
mod text;
mod world;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Model as _;

use configurations::{deep, searched, small};
use model::Model;
use mutants::CASES;
use search::search;
use world::World;

const THREADS: usize = 2;

fn must_hold(models: Vec<Model>) {
    let mut failed = Vec::new();
    let only = std::env::var("ONLY").unwrap_or_default();
    for model in models.into_iter().filter(|m| m.name.contains(&only)) {
        let (name, faults, writes) = (model.name, format!("at most {} of {:?}", model.budget, model.faults), model.writes);
        let checks: Vec<&str> = model.checks.iter().map(|name| name.split(' ').next().unwrap_or_default()).collect();
        println!("{name}: faults: {faults}; operations on HA data: {writes}; checked: {}", checks.join(" "));
        let result = search(model, THREADS);
        println!("  {}", result.told);
        failed.extend(result.failed.map(|(property, steps)| format!("{name}: {property} (after {steps} steps)")));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_election_holds_in_every_world_within_the_budget() {
    must_hold(searched());
}

#[test]
fn the_election_holds_in_deeper_worlds() {
    if std::env::var("MODEL_DEEP").is_ok_and(|deep| deep == "1") {
        must_hold(deep());
    } else {
        println!("larger budgets are searched with MODEL_DEEP=1 (make model-deep)");
    }
}

#[test]
fn every_rule_is_needed_and_the_search_finds_out() {
    let mut failed = Vec::new();
    for case in &CASES {
        let with_rule = search(case.with_rule(), THREADS);
        if let Some((property, _)) = with_rule.failed {
            failed.push(format!("{:?}: {property} fails with the rule, too\n{}", case.mutant, with_rule.told));
        }
        // One thread finds the shortest way.
        let without = search(case.without_rule(), 1);
        match without.failed {
            Some((property, steps)) => {
                println!("{:?}: found after {steps} steps: {property}", case.mutant);
                println!("  {}", without.told.lines().next().unwrap_or_default());
            }
            None => failed.push(format!("{:?}: not found: {}", case.mutant, without.told)),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// What is true now, and the fingerprints of what may come next.
fn prospect(model: &Model, world: &World) -> (Vec<bool>, Vec<u64>) {
    let verdicts = model.properties().iter().map(|property| (property.condition)(model, world)).collect();
    let mut futures: Vec<u64> = model.next_states(world).iter().map(fingerprint).collect();
    futures.sort_unstable();
    futures.dedup();
    (verdicts, futures)
}

#[test]
fn worlds_that_count_as_one_have_the_same_future() {
    let model = small();
    let mut prospects: HashMap<u64, (Vec<bool>, Vec<u64>)> = HashMap::new();
    let mut open = model.init_states();
    let mut doubles = 0;
    while let Some(world) = open.pop() {
        let prospect = prospect(&model, &world);
        match prospects.get(&fingerprint(&world)) {
            Some(known) => {
                assert_eq!(*known, prospect, "{world:#?}");
                doubles += 1;
            }
            None => {
                prospects.insert(fingerprint(&world), prospect);
                open.extend(model.next_states(&world));
            }
        }
    }
    println!("{} worlds, {doubles} of them met again and compared", prospects.len());
    assert!(doubles > 1000);
}
