//! The state of the world: the API server's objects, candidates (machine, gateway process, JVM), and requests in
//! flight.
//!
//! One tick of global time is one retry period. Everything healthy acts at least once per tick; what acts late is a
//! fault.

use pure::lease::elector::Answer;
use pure::lease::elector::Elector;
use pure::lease::elector::Event;
use pure::lease::elector::Identity;
use pure::lease::elector::LockView;
use pure::lease::elector::Settings;
use pure::lease::elector::Time;
use pure::lease::record::Record;
use pure::lease::term::Incarnation;
use pure::lease::term::Term;

use super::peers;
use super::properties::Ghost;
use super::requests::Request;
use super::shared::Shared;

/// Milliseconds of a tick on a clock that runs right.
pub const TICK: u64 = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Ticks since the search began.
    pub now: u16,
    pub api: Shared<Api>,
    pub candidates: Vec<Shared<Candidate>>,
    pub requests: Vec<Shared<Request>>,
    pub ghost: Shared<Ghost>,
    /// Pairs of candidates without a way between them, one bit each.
    pub cut: u8,
    /// Faults that may still happen.
    pub faults: u8,
    /// Operations on HA data that JVMs may still begin.
    pub writes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Api {
    pub up: bool,
    /// It takes writes, and does not only answer reads.
    pub writable: bool,
    pub lease: Option<Record>,
    /// Versions never return, not even after an object was deleted.
    pub lease_version: u32,
    /// Wall clock of the last writer of the Lease; only a mutant reads it.
    pub renew_time: u64,
    pub cluster: Option<Cluster>,
    pub cluster_version: u32,
    pub jobs: Vec<JobSlot>,
}

/// The cluster ConfigMap. Its version stands beside it, because a copy of it is an object that was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    pub version: u32,
    pub stamp: Option<Term>,
    /// Candidate and incarnation of the JVM in Flink's lock annotation.
    pub holder: Option<(usize, u8)>,
    /// Registered jobs.
    pub jobs: Vec<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct JobSlot {
    pub object: Option<Job>,
    pub version: u32,
    pub uid: u8,
    /// Flink's result store knows that the job has ended: it did so before it began to clean up.
    pub finished: bool,
}

/// The ConfigMap of a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    pub version: u32,
    pub uid: u8,
    pub stamp: Option<Term>,
    pub pointer: Option<Pointer>,
}

/// A checkpoint pointer, known by who stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    /// Grant (index into the ghost's list) under which the gateway forwarded it.
    pub grant: u8,
    /// The JVM's session of leadership.
    pub session: u8,
}

/// A machine with a gateway and a JVM on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    pub clock: u64,
    /// What the clock advances by in a tick.
    pub rate: u64,
    /// The clock misses the next tick.
    pub slow: bool,
    /// The whole machine stands still, its clock too.
    pub frozen: bool,
    pub reachable: bool,
    pub gateway: Option<Gateway>,
    /// Gateway processes so far.
    pub processes: u8,
    pub jvm: Jvm,
    /// Version of the Lease that the watch showed last.
    pub seen: u32,
    /// A watch event that is under way for long.
    pub late_event: Option<(u32, Record)>,
    pub terminated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    pub elector: Elector,
    pub paused: bool,
    /// Events that came while it was paused.
    pub inbox: Vec<Event>,
    /// The cluster ConfigMap as last stored.
    pub stored: Option<Cluster>,
    pub stamper: Option<Stamper>,
    /// What the elector says to the question that it has just been asked.
    pub said: Option<Answer>,
    pub has_peers: bool,
    /// Only a mutant's clock lags behind.
    pub lag: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamper {
    pub term: Term,
    pub keep_holder: bool,
    pub started: u64,
    /// The cluster ConfigMap as stamped.
    pub cluster: Option<Cluster>,
    /// ConfigMaps of jobs that still want a stamp.
    pub jobs: Vec<usize>,
    /// The list that begins after the cluster ConfigMap is stamped has been read.
    pub listed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Running,
    Hung,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jvm {
    pub incarnation: u8,
    pub life: Life,
    /// The session in which it believes to lead.
    pub leads: Option<u8>,
    /// An operation on HA data between its read and its write, and the session that it belongs to.
    pub operation: Option<(Operation, Read, u8)>,
}

/// What Flink does to HA data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// PUT of the cluster ConfigMap: a job's key is added.
    Register(usize),
    /// PUT of the cluster ConfigMap: a job's key is removed.
    Unregister(usize),
    /// POST of the ConfigMap of a job.
    Create(usize),
    /// PUT of the ConfigMap of a job: a checkpoint pointer.
    Checkpoint(usize),
    /// DELETE of the ConfigMap of a job.
    Delete(usize),
}

/// What the JVM read for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    Nothing,
    Cluster(Cluster),
    Job(Job),
}

impl World {
    pub fn new(candidates: usize, jobs: usize, rates: &[u64], settings: &Settings, peers: bool) -> Self {
        let api = Api {
            up: true,
            writable: true,
            lease: Some(Record::default()),
            lease_version: 1,
            renew_time: 0,
            cluster: None,
            cluster_version: 0,
            jobs: vec![JobSlot::default(); jobs],
        };
        let candidate = |c: usize| Candidate {
            // Clocks have any offset.
            clock: 10_000 + 7_000 * c as u64,
            rate: rates[c],
            slow: false,
            frozen: false,
            reachable: true,
            gateway: Some(Gateway::new(c, 1, settings, peers)),
            processes: 1,
            jvm: Jvm { incarnation: 1, life: Life::Running, leads: None, operation: None },
            seen: 0,
            late_event: None,
            terminated: false,
        };
        Self {
            now: 0,
            api: Shared::new(api),
            candidates: (0..candidates).map(|c| Shared::new(candidate(c))).collect(),
            requests: Vec::new(),
            ghost: Shared::new(Ghost::default()),
            cut: 0,
            faults: 0,
            writes: 0,
        }
    }

    pub fn gateway<R>(&mut self, c: usize, change: impl FnOnce(&mut Gateway) -> R) -> Option<R> {
        self.candidates[c].gateway.is_some().then_some(())?;
        self.candidates[c].change(|candidate| candidate.gateway.as_mut().map(change))
    }

    pub fn jvm<R>(&mut self, c: usize, change: impl FnOnce(&mut Jvm) -> R) -> R {
        self.candidates[c].change(|candidate| change(&mut candidate.jvm))
    }

    /// Is there a way between this candidate and the API server?
    pub fn connected(&self, c: usize) -> bool {
        self.api.up && self.candidates[c].reachable
    }
}

impl Gateway {
    /// Without an address it has no peers.
    pub fn new(c: usize, process: u8, settings: &Settings, peers: bool) -> Self {
        let address = if peers { peers::address(c) } else { String::new() };
        let identity = Identity { pod: pod(c), pod_uid: format!("u{c}"), process: format!("p{process}"), address };
        let elector = Elector::new(identity, settings.clone());
        Self {
            elector,
            paused: false,
            inbox: Vec::new(),
            stored: None,
            stamper: None,
            said: None,
            has_peers: peers,
            lag: 0,
        }
    }
}

impl Candidate {
    pub fn time(&self) -> Time {
        Time(self.clock - self.gateway.as_ref().map_or(0, |gateway| gateway.lag))
    }

    /// Its gateway handles events.
    pub fn gateway_runs(&self) -> bool {
        !self.frozen && self.gateway.as_ref().is_some_and(|gateway| !gateway.paused)
    }

    pub fn jvm_runs(&self) -> bool {
        !self.frozen && self.jvm.life == Life::Running
    }

    pub fn shown(&self) -> Option<LockView> {
        Some(self.gateway.as_ref()?.elector.shown())
    }

    /// The term in which the JVM is told that it leads, or may lead, and that the gateway takes for valid.
    pub fn valid_term(&self) -> Option<Term> {
        match self.shown()? {
            LockView::Free { term, until } | LockView::Leader { term, until } if self.time() < until => Some(term),
            _ => None,
        }
    }

    /// Nothing is wrong with it.
    pub fn healthy(&self) -> bool {
        self.gateway_runs() && self.jvm_runs() && self.reachable
    }
}

pub fn pod(c: usize) -> String {
    format!("jm-{c}")
}

pub fn incarnation(c: usize, number: u8) -> Incarnation {
    Incarnation { pid: c as i32 + 1, started: u64::from(number) }
}
