//! The election, searched.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod canonical;
mod election;
mod faults;
mod jvm;
mod model;
mod mutants;
mod properties;
mod requests;
mod server;
mod shared;
mod text;
mod world;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model as _};

use faults::Fault;
use model::{Model, Step, settings};
use world::{Operation, TICK};

fn small() -> Model {
    Model {
        name: "two candidates",
        candidates: 2,
        jobs: 1,
        settings: settings(3, 2),
        rates: vec![vec![TICK, TICK]],
        leading: true,
        done: vec![Operation::Register(0), Operation::Create(0), Operation::Checkpoint(0)],
        faults: vec![Fault::KillJvm, Fault::HangJvm, Fault::CrashGateway, Fault::PauseGateway, Fault::HoldRequest, Fault::HoldAnswer, Fault::Partition],
        budget: 1,
        operations: vec![Operation::Checkpoint(0), Operation::Delete(0), Operation::Create(0)],
        writes: 1,
        checks: vec![properties::S1, properties::S1_EMPTY, properties::S2, properties::S3, properties::S4, properties::S5, properties::L1, properties::L2, properties::L3, properties::L4],
        deadline: 9,
        mutant: None,
    }
}

fn search(model: Model) {
    let started = Instant::now();
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures).target_state_count(env("CAP", 20_000_000)).spawn_bfs().join();
    println!(
        "{}: {} unique states, {} generated, depth {}, {:.1} s",
        checker.model().name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    for (name, path) in checker.discoveries() {
        println!("VIOLATED {name}");
        let trace = path.into_vec();
        for (world, step) in &trace {
            if let Some(step) = step {
                println!("  t{} {}", world.now, describe(world, step));
                if env("VERBOSE", 0) == 1 {
                    for candidate in &world.candidates {
                        println!("       {} {:?}", candidate.clock, candidate.gateway.as_ref().map(|gateway| format!("{:?}", gateway.elector)).unwrap_or_default());
                    }
                }
            }
        }
        let last = &trace.last().unwrap().0;
        for candidate in &last.candidates {
            println!("  {:?} jvm {:?} clock {}", candidate.shown(), candidate.jvm, candidate.clock);
        }
        println!("  {:?}", last.api);
    }
}

fn describe(world: &world::World, step: &Step) -> String {
    match step {
        Step::Apply(index) | Step::Deliver(index) | Step::TimeOut(index) => format!("{step:?} {}", of(&world.requests[*index])),
        Step::Fault(fault @ (Fault::HoldRequest | Fault::HoldAnswer), index) => format!("{fault:?} {}", of(&world.requests[*index])),
        _ => format!("{step:?}"),
    }
}

fn of(request: &requests::Request) -> String {
    use requests::{Call, Phase};
    let call = match &request.call {
        Call::WriteLease { version, record, .. } => {
            format!("WriteLease @{version} holder={} term={}", record.holder, record.term.as_ref().map_or(String::new(), |term| term.to_string()))
        }
        Call::StampCluster { term, keep_holder } => format!("StampCluster {term} keep={keep_holder}"),
        Call::List { term } => format!("List {term}"),
        Call::StampJob { term, job, .. } => format!("StampJob {job} {term}"),
        Call::Lock { term, version, jvm } => format!("Lock @{version} {term} jvm={jvm}"),
        other => format!("{other:?}"),
    };
    let phase = match &request.phase {
        Phase::Answered { answer: requests::Answer::Read(read), .. } => match read {
            flinkha::lease::elector::Read::Found { version, record } => format!("Answered v{version} holder={}", record.holder),
            other => format!("{other:?}"),
        },
        Phase::Answered { .. } => "Answered".to_owned(),
        other => format!("{other:?}"),
    };
    format!("c{}.p{} {phase} {call}", request.from, request.process)
}

fn env(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn first() {
    let model = small();
    let all = vec![
        Fault::CrashGateway, Fault::KillJvm, Fault::HangJvm, Fault::PauseGateway, Fault::FreezeMachine, Fault::ClockStops, Fault::ClockLeaps,
        Fault::HoldRequest, Fault::HoldAnswer, Fault::Partition, Fault::Outage, Fault::HoldEvent, Fault::TerminatePod, Fault::DeleteLease,
        Fault::ClearHolder, Fault::ClearTerm, Fault::DeleteClusterConfigMap, Fault::DeleteJobConfigMap, Fault::ClearStamp,
    ];
    let chosen = std::env::var("FAULTS").ok();
    let faults = match chosen {
        Some(chosen) => all.into_iter().filter(|fault| chosen.split(',').any(|name| format!("{fault:?}") == name)).collect(),
        None => model.faults.clone(),
    };
    let skip = std::env::var("SKIP").unwrap_or_default();
    let checks = model.checks.iter().copied().filter(|name| !skip.split(',').any(|skip| name.split(' ').next() == Some(skip))).collect();
    let candidates = env("N", 2);
    let operations = match std::env::var("OPS").ok() {
        Some(ops) => [Operation::Register(0), Operation::Unregister(0), Operation::Create(0), Operation::Checkpoint(0), Operation::Delete(0)].into_iter().filter(|op| ops.split(',').any(|name| format!("{op:?}").starts_with(name))).collect(),
        None => model.operations.clone(),
    };
    let mut done = model.done.clone();
    done.truncate(env("DONE", 3));
    search(Model {
        faults,
        checks,
        candidates,
        done,
        operations,
        rates: vec![vec![TICK; candidates]],
        leading: env("COLD", 0) == 0,
        budget: env("BUDGET", 1) as u8,
        writes: env("WRITES", 0) as u8,
        deadline: env("DEADLINE", 9) as u8,
        settings: settings(env("DURATION", 3) as u64, env("RENEW", 2) as u64),
        ..model
    });
}

#[test]
fn mutants() {
    for case in &mutants::CASES {
        print!("{:?} ", case.mutant);
        let jobs = 1;
        search(Model { jobs, deadline: 7, ..case.model(&small()) });
    }
}
