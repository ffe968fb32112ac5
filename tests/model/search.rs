//! Runs a search, says what it covered, and tells a counterexample step by step.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model as _, Path};

use super::faults::Fault;
use super::model::Model;
use super::model::Step;
use super::requests::Answer;
use super::requests::Call;
use super::requests::Phase;
use super::requests::Request;
use super::world::World;
use pure::lease::elector::Read;

/// No search that is meant to be complete comes near this many steps; one that does is not finite.
const TOO_MANY: usize = 100_000_000;

/// How a search ended.
pub struct Result {
    /// The first property that failed, and after how many steps.
    pub failed: Option<(&'static str, usize)>,
    /// How many different worlds were seen.
    pub states: usize,
    pub told: String,
}

/// Searches until the first counterexample, or until nothing is left.
pub fn search(model: Model, threads: usize) -> Result {
    let started = Instant::now();
    let search = model
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(TOO_MANY)
        .spawn_bfs()
        .join();
    assert!(search.state_count() < TOO_MANY, "the search was not complete");
    let states = search.unique_state_count();
    let covered = format!(
        "{} unique states, {} steps, depth {}, {:.1} s",
        states,
        search.state_count(),
        search.max_depth(),
        started.elapsed().as_secs_f64()
    );
    let first = search.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_vec().len());
    match first {
        None => Result { failed: None, states, told: format!("{covered}, complete") },
        Some((name, path)) => {
            let steps = path.clone().into_vec().len() - 1;
            Result { failed: Some((name, steps)), states, told: format!("{covered}\n{}", story(path)) }
        }
    }
}

fn story(path: Path<World, Step>) -> String {
    let mut lines = Vec::new();
    for (world, step) in path.into_vec() {
        match step {
            Some(step) => lines.push(format!("    tick {:>2}  {}", world.now, describe(&world, &step))),
            None => {
                lines.extend(world.candidates.iter().enumerate().map(|(c, candidate)| {
                    format!(
                        "    in the end: gateway {c} at {} shows {:?}; {:?}",
                        candidate.clock,
                        candidate.shown(),
                        candidate.jvm
                    )
                }));
                lines.push(format!("    in the end: {:?}", world.api));
            }
        }
    }
    lines.join("\n")
}

fn describe(world: &World, step: &Step) -> String {
    match step {
        Step::Apply(index) => format!("applied: {}", of(&world.requests[*index])),
        Step::Deliver(index) => format!("answered: {}", of(&world.requests[*index])),
        Step::TimeOut(index) => format!("given up: {}", of(&world.requests[*index])),
        Step::Fault(fault @ (Fault::HoldRequest | Fault::HoldAnswer), index) => {
            format!("FAULT {fault:?}: {}", of(&world.requests[*index]))
        }
        Step::Fault(fault, target) => format!("FAULT {fault:?} {target}"),
        other => format!("{other:?}"),
    }
}

fn of(request: &Request) -> String {
    let call = match &request.call {
        Call::ReadLease { .. } => "read the Lease".to_owned(),
        Call::WriteLease { version, record, .. } => {
            let term = record.term.as_ref().map_or(String::new(), |term| term.to_string());
            format!("write the Lease if version {version}: holder '{}', term {term}", record.holder)
        }
        Call::StampCluster { term, keep_holder } => {
            format!("stamp the cluster ConfigMap with {term}, keep its holder: {keep_holder}")
        }
        Call::List { term } => format!("list for {term}"),
        Call::StampJob { term, job, .. } => format!("stamp job {job} with {term}"),
        Call::Lock { term, version, jvm } => format!("JVM {jvm} takes the lock if version {version} in {term}"),
        other => format!("{other:?}"),
    };
    let phase = match &request.phase {
        Phase::Sent => "",
        Phase::Held => " (held up)",
        Phase::Answered { answer: Answer::Read(Read::Found { version, record }), .. } => {
            return format!(
                "gateway {}.{}: {call}: version {version}, holder '{}'",
                request.from, request.process, record.holder
            );
        }
        Phase::Answered { .. } => " (was applied)",
    };
    format!("gateway {}.{}: {call}{phase}", request.from, request.process)
}
