//! What is searched: how many candidates, which faults, how many of them.

use std::time::Duration;

use pure::lease::elector::Settings;

use super::faults::Fault;
use super::faults::Fault::*;
use super::model::Model;
use super::model::peer_settings;
use super::model::settings;
use super::properties::L1;
use super::properties::L2;
use super::properties::L3;
use super::properties::L4;
use super::properties::L5;
use super::properties::S1;
use super::properties::S1_EMPTY;
use super::properties::S2;
use super::properties::S3;
use super::properties::S4;
use super::properties::S5;
use super::world::Operation;
use super::world::Operation::*;
use super::world::TICK;

const PROCESSES: &[Fault] = &[CrashGateway, KillJvm, HangJvm, PauseGateway];
const NETWORK: &[Fault] = &[HoldRequest, HoldAnswer, HoldEvent, Partition, Outage];
const MESSAGES: &[Fault] = &[HoldRequest, HoldAnswer, HoldEvent];
const LEASE_BY_HAND: &[Fault] = &[DeleteLease, ClearHolder, ClearTerm];
const EMPTIED_BY_HAND: &[Fault] = &[ClearHolder, ClearTerm];
const CLOCKS: &[Fault] = &[FreezeMachine, ClockStops, ClockLeaps];
const ALL_OPERATIONS: &[Operation] = &[Register(0), Create(0), Checkpoint(0), Delete(0), Unregister(0)];

/// What holds whatever clocks do.
const DATA: &[&str] = &[S1, S1_EMPTY, S2, S3];
/// What holds while the rates of clocks differ by less than a twentieth.
const TIMED: &[&str] = &[S1, S1_EMPTY, S2, S3, S4, S5, L1, L2, L3];

const DRIFTING: &[&str] = &[S1, S2, S3, S4, S5, L2];

/// A leader with a running job, and a standby; nothing goes wrong.
pub fn base() -> Model {
    Model {
        name: "",
        candidates: 2,
        jobs: 1,
        settings: settings(3, 2),
        peers: false,
        prompt: false,
        cut: 0,
        rates: vec![vec![TICK, TICK]],
        leading: true,
        done: vec![Register(0), Create(0), Checkpoint(0)],
        faults: Vec::new(),
        budget: 1,
        operations: Vec::new(),
        writes: 0,
        checks: TIMED.to_vec(),
        deadline: 7,
        mutant: None,
    }
}

fn faults(groups: &[&[Fault]]) -> Vec<Fault> {
    groups.concat()
}

fn three() -> Model {
    Model { candidates: 3, rates: vec![vec![TICK; 3]], ..base() }
}

/// As little as the order of production allows: ask <= promise < renew deadline < duration.
pub fn peers() -> Model {
    Model { peers: true, settings: peer_settings(2, 3, 4), done: Vec::new(), deadline: 12, ..base() }
}

fn three_peers() -> Model {
    Model { candidates: 3, rates: vec![vec![TICK; 3]], prompt: true, ..peers() }
}

/// A way that was stated to be open: all members are cut off from the API server together with the holder, and who is
/// not listed reaches the API server and nobody else.
pub fn split() -> Model {
    Model { name: "a split", cut: 0b10, faults: vec![Partition], budget: 2, checks: vec![S4], ..three_peers() }
}

/// Promises (I11).
fn among_peers() -> Vec<Model> {
    vec![
        Model {
            name: "peers: an outage",
            settings: peer_settings(3, 4, 5),
            faults: vec![Outage, RefuseWrites],
            checks: [TIMED, &[L5]].concat(),
            ..three_peers()
        },
        Model {
            name: "two peers",
            faults: faults(&[PROCESSES, NETWORK, &[RefuseWrites, CutPair, TerminatePod]]),
            ..peers()
        },
        Model {
            name: "three peers",
            faults: faults(&[&[CrashGateway, KillJvm, HangJvm, TerminatePod, RefuseWrites, CutPair], NETWORK]),
            ..three_peers()
        },
        Model {
            name: "three peers, one is not listed",
            cut: 0b10,
            faults: vec![Outage, RefuseWrites, Partition, HoldAnswer, KillJvm],
            ..three_peers()
        },
        Model {
            name: "two peers, messages: calm",
            // A JVM whose lock request is late for a tick is not hung yet, as seen by a peer that is a tick ahead.
            settings: Settings { jvm_timeout: Duration::from_secs(3), ..peer_settings(3, 4, 5) },
            faults: faults(&[MESSAGES, &[KillJvm, CutPair]]),
            budget: 2,
            prompt: true,
            checks: [TIMED, &[L4]].concat(),
            ..peers()
        },
        Model {
            name: "peers with clocks of bounded drift",
            settings: peer_settings(3, 4, 5),
            rates: vec![SLOW_AND_FAST.to_vec(), vec![SLOW_AND_FAST[1], SLOW_AND_FAST[0]]],
            faults: vec![Partition, CutPair],
            budget: 2,
            prompt: true,
            checks: DRIFTING.to_vec(),
            ..peers()
        },
    ]
}

/// For the check of the search itself: small, and with a bit of everything.
pub fn alike() -> Vec<Model> {
    let everything = faults(&[PROCESSES, NETWORK, LEASE_BY_HAND, CLOCKS]);
    vec![
        Model {
            name: "a bit of everything",
            faults: everything,
            operations: vec![Checkpoint(0), Register(0)],
            writes: 1,
            ..base()
        },
        Model { name: "peers", faults: vec![CrashGateway, Partition, HoldAnswer, RefuseWrites, CutPair], ..peers() },
        Model {
            name: "two faults, one after the other",
            faults: vec![CrashGateway, HoldAnswer, ClearHolder],
            budget: 2,
            ..base()
        },
    ]
}

/// Whose rates differ by just less than a twentieth.
pub const SLOW_AND_FAST: [u64; 2] = [976, 1024];

/// The first clock is slow and the second fast, or the other way round.
fn drifting() -> Vec<Vec<u64>> {
    let drift = TICK / 20;
    vec![vec![TICK - drift, TICK + drift], vec![TICK + drift, TICK - drift]]
}

/// Searched in every run of the tests.
pub fn searched() -> Vec<Model> {
    vec![
        Model { name: "strangers", faults: vec![StrangerAsks, KillJvm, CrashGateway, HangJvm], budget: 2, ..base() },
        Model {
            name: "strangers: calm",
            settings: settings(6, 5),
            faults: faults(&[MESSAGES, &[StrangerAsks]]),
            budget: 2,
            checks: [TIMED, &[L4]].concat(),
            deadline: 10,
            ..base()
        },
        Model {
            name: "two candidates, messages: calm",
            // One renewal late and then in conflict, each followed by a pause that is rounded up to a tick.
            settings: settings(6, 5),
            faults: faults(&[MESSAGES, &[KillJvm, CrashGateway, Partition, Outage]]),
            budget: 2,
            checks: [TIMED, &[L4]].concat(),
            deadline: 10,
            ..base()
        },
        Model {
            name: "two candidates, processes",
            faults: faults(&[PROCESSES, &[HoldRequest, Partition, TerminatePod]]),
            budget: 2,
            ..base()
        },
        Model {
            name: "the Lease emptied by hand",
            faults: faults(&[EMPTIED_BY_HAND, &[Outage, HoldEvent, HoldAnswer, TerminatePod, CrashGateway, Partition]]),
            budget: 2,
            ..base()
        },
        Model { name: "the Lease deleted by hand", faults: faults(&[LEASE_BY_HAND, PROCESSES, NETWORK]), ..base() },
        // A gateway process that never saw a term takes a new Lease at once, while the leader still takes himself for
        // valid: not S4.
        Model {
            name: "the Lease deleted by hand, and more",
            faults: faults(&[LEASE_BY_HAND, &[Outage, HoldEvent, TerminatePod, CrashGateway]]),
            budget: 2,
            checks: vec![S1, S1_EMPTY, S2, S3, S5, L1, L2, L3],
            ..base()
        },
        Model {
            name: "three candidates",
            faults: faults(&[PROCESSES, NETWORK, EMPTIED_BY_HAND, &[TerminatePod]]),
            ..three()
        },
        Model {
            name: "three candidates from the start, nothing goes wrong",
            leading: false,
            done: Vec::new(),
            budget: 0,
            ..three()
        },
        Model {
            name: "two candidates from the start",
            leading: false,
            done: Vec::new(),
            faults: faults(&[PROCESSES, NETWORK, EMPTIED_BY_HAND]),
            ..base()
        },
        Model {
            name: "clocks of bounded drift",
            rates: drifting(),
            faults: vec![HoldAnswer, Partition],
            budget: 2,
            checks: DRIFTING.to_vec(),
            ..base()
        },
        Model {
            name: "HA data",
            faults: faults(&[PROCESSES, &[HoldRequest, Partition]]),
            operations: ALL_OPERATIONS.to_vec(),
            writes: 2,
            ..base()
        },
        Model {
            name: "HA data, any clock",
            faults: faults(&[CLOCKS, &[HoldRequest, CrashGateway, KillJvm]]),
            operations: ALL_OPERATIONS.to_vec(),
            writes: 2,
            checks: DATA.to_vec(),
            ..base()
        },
        Model {
            name: "a new job, any clock",
            done: vec![Register(0)],
            faults: faults(&[CLOCKS, &[HoldRequest, CrashGateway, HangJvm]]),
            operations: vec![Create(0), Checkpoint(0)],
            writes: 2,
            checks: DATA.to_vec(),
            ..base()
        },
        Model {
            name: "two jobs",
            jobs: 2,
            done: vec![Register(0), Create(0), Register(1), Create(1), Checkpoint(1)],
            faults: vec![KillJvm, CrashGateway, HoldRequest, PauseGateway],
            operations: vec![Checkpoint(0), Checkpoint(1)],
            writes: 1,
            ..base()
        },
        Model {
            name: "ConfigMaps by hand",
            faults: vec![DeleteClusterConfigMap, DeleteJobConfigMap, ClearStamp, KillJvm],
            budget: 2,
            operations: vec![Checkpoint(0)],
            writes: 1,
            checks: vec![S1, S3, S4, S5, L1],
            ..base()
        },
    ]
    .into_iter()
    .chain(among_peers())
    .collect()
}

/// Larger ones, for an hour without other work.
pub fn deep() -> Vec<Model> {
    vec![
        Model {
            name: "three candidates, two processes die",
            faults: vec![CrashGateway, KillJvm],
            budget: 2,
            ..three()
        },
        Model {
            name: "two candidates, processes and network, two faults",
            faults: faults(&[PROCESSES, NETWORK, &[TerminatePod]]),
            budget: 2,
            ..base()
        },
        Model {
            name: "three candidates from the start",
            leading: false,
            done: Vec::new(),
            faults: faults(&[PROCESSES, NETWORK]),
            ..three()
        },
        Model {
            name: "three candidates, two faults",
            faults: vec![CrashGateway, KillJvm, PauseGateway, Partition],
            budget: 2,
            ..three()
        },
        Model {
            name: "clocks of bounded drift, paused gateways",
            rates: drifting(),
            faults: vec![PauseGateway, HoldAnswer, Partition],
            budget: 2,
            checks: DRIFTING.to_vec(),
            ..base()
        },
        Model {
            name: "two candidates, three faults",
            faults: vec![CrashGateway, KillJvm, HoldRequest],
            budget: 3,
            ..base()
        },
        Model {
            name: "a membership of unknown fate",
            settings: peer_settings(2, 5, 6),
            cut: 1,
            faults: vec![HoldRequest, Partition, CutPair],
            budget: 3,
            prompt: true,
            checks: vec![S4],
            ..peers()
        },
        Model { name: "three peers, one stands still", faults: vec![PauseGateway], ..three_peers() },
        Model {
            name: "two peers, two faults",
            faults: faults(&[PROCESSES, NETWORK, &[RefuseWrites, CutPair]]),
            budget: 2,
            prompt: true,
            ..peers()
        },
        Model {
            name: "HA data, any clock, two faults",
            faults: faults(&[CLOCKS, &[HoldRequest, CrashGateway]]),
            operations: vec![Checkpoint(0), Delete(0)],
            writes: 2,
            budget: 2,
            checks: DATA.to_vec(),
            ..base()
        },
    ]
}
