//! The election, searched exhaustively: the production [`Elector`](pure::lease::elector::Elector) and the production
//! [`plan`](pure::gateway::proxy::translate::plan) of several candidates, in a world where everything may go wrong that
//! the budget allows.
//!
//! **The world.** Candidates are machines with a clock, a gateway process and a JVM. The JVM learns only from what its
//! gateway shows, believes to lead until it is told otherwise, and reads and writes the cluster ConfigMap and those of
//! jobs. The API server has these and the Lease, under compare-and-swap. Every request is sent, applied and answered in
//! separate steps; a fault holds up one of them, and what is held up is applied at any later time or never. Stamping is
//! one request per object. A tick is one retry period; what is healthy acts within the tick, in any order with all
//! else, and what is not acts whenever it likes.
//!
//! **Peers.** With addresses, candidates promise each other not to take the Lease (`peers.rs`): each question is a
//! request from pod to pod, and may be late or lost as all others; pairs may be cut off from each other, and the API
//! server may answer reads only. With three of them, what one asks another is answered at once unless a fault
//! intervenes, and so is a read of a Lease that nobody is writing.
//!
//! **No horizon.** Two worlds are the same if only their clocks and version numbers differ (`canonical.rs`), so
//! searches end although time does not: they cover runs of any length with at most so many faults. A test checks that
//! worlds that count as one have the same future.
//!
//! **Properties** (`properties.rs`): S1–S5 safety, L1–L5 liveness and calm. **Rules** (`mutants.rs`, `cases.rs`): each
//! is switched off in turn, and the search must find out. Rules and the invariants of [`pure::lease`] that they stand
//! for:
//!
//! | rule | without it |
//! |---|---|
//! | I1 compare-and-swap | `LeaseWithoutCas` |
//! | I2 terms rise | `StampsLowered` |
//! | I3 a term is one JVM under one gateway process | `SameTermForNewJvm`, `NoStampAfterRestart`, `StrangerCounts` |
//! | I4 stamped before shown | `ShownBeforeStamped`, `JobsNotStamped`, `JobsListedFirst`, `MissingNotCreated` |
//! | I5 validity | `LateAnswersExtend`, `ValidityIgnored` |
//! | I6 silence is measured here | `WallClocks`, `OutageIsSilence`, `EmptiedIsFree`, `ProbesIgnored` |
//! | I7 unknown is read | `UnknownIsFailed`, `UnknownIsApplied`, `OvertakenReadsCount` |
//! | I8 only a living JVM campaigns or renews | `HungJvmRenews` |
//! | I9 a former leader is told | `NotToldBeforeCampaign` |
//! | I10 grants are bounded, and so is a hand-over | `StampingUnbounded`, `HandOverForGood` |
//! | I11 promises bind | `PromiseForgotten`, `PromiseNotKept`, `PromiseWithoutDrift`, `PromiseFromAnswer`, `OnePromiseSuffices`, `MembersNotCounted`, `RefusalIsPromise` |
//! | the form of forwarded writes | `PutWithoutVersion`, `StampNotReturned`, `DeleteWithoutPrecondition`, `PostWithData` |
//!
//! **Stated exceptions.** A Lease that is deleted by hand and made anew is taken at once by a gateway process that
//! never saw a term, while the leader takes himself for valid: there S4 does not hold, and is not checked. All else
//! does. Who is not listed as a member takes the Lease of a holder that is cut off from the API server together with
//! all its members, and that it does not reach itself: S4 fails, and a test shows how.
//!
//! **Not in it**: planned switchovers; what reads of a cluster ConfigMap by other threads of the JVM than its elector
//! may be told; stamping of an earlier term that goes on (its requests in flight do); a raised stamp on a read is one
//! step; etcd restored from a backup.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod canonical;
mod cases;
mod configurations;
mod election;
mod faults;
mod jvm;
mod model;
mod mutants;
mod peers;
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

use cases::CASES;
use configurations::{alike, deep, searched, split};
use model::Model;
use search::search;
use world::World;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn deep_run() -> bool {
    std::env::var("MODEL_DEEP").is_ok_and(|deep| deep == "1")
}

/// With `MODEL_DEEP=1` the budgets are larger.
#[test]
fn i1_to_i11_hold_in_every_world_within_the_budget() {
    let models = if deep_run() { deep() } else { searched() };
    let mut failed = Vec::new();
    for model in models {
        let checks: Vec<&str> = model.checks.iter().filter_map(|name| name.split(' ').next()).collect();
        println!("{}: {} candidates, at most {} of {:?}", model.name, model.candidates, model.budget, model.faults);
        if model.writes > 0 {
            println!("  operations on HA data: at most {} of {:?}", model.writes, model.operations);
        }
        let (name, checks) = (model.name, checks.join(" "));
        let result = search(model, threads());
        println!("  {checks}: {}", result.told);
        failed.extend(result.failed.map(|(property, steps)| format!("{name}: {property} (after {steps} steps)")));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn i1_to_i11_are_all_needed_and_the_search_finds_out() {
    let mut failed = Vec::new();
    println!("{:<18} {:<26} {:>5}  {:<9} what fails first", "rule", "without it", "steps", "states");
    for case in &CASES {
        let name = format!("{:?}", case.mutant);
        if let Some((property, _)) = search(case.with_rule(), threads()).failed {
            failed.push(format!("{name}: {property} fails with the rule, too"));
        }
        // One thread finds the shortest way.
        let without = search(case.without_rule(), 1);
        match without.failed {
            Some((property, steps)) => {
                println!("{:<18} {name:<26} {steps:>5}  {:<9} {property}", case.mutant.rule(), without.states)
            }
            None => failed.push(format!("{name}: not found: {}", without.told)),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
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
fn i11_does_not_cover_a_split_that_cuts_off_the_holder_with_all_its_members() {
    let result = search(split(), 1);
    println!("{}", result.told);
    assert_eq!(
        result.failed.map(|(property, _)| property),
        Some(properties::S4),
        "docs/protocol.md says that it is not guaranteed"
    );
}

/// With `MODEL_DEEP=1` in everything that is searched in every run.
#[test]
fn worlds_that_count_as_one_have_the_same_future() {
    let models = if deep_run() { searched() } else { alike() };
    for model in models {
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
        println!("{}: {} worlds, {doubles} of them met again and compared", model.name, prospects.len());
        assert!(doubles > 1000);
    }
}
