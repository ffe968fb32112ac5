//! The state of the world: the quorum, the ledger, gateways with their JVMs, and requests in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pure::flink::job_id::JobId;
use pure::lease::elector::Time;
use pure::lease::term::{Incarnation, Term};
use pure::ledger::application::Run;
use pure::ledger::election::{Claimant, Notes};
use pure::quorum::{Candidate, Held, Leadership, Request, Sessions, Settings, View};

use super::part::Part;

/// Of every session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub zk: Part<Zk>,
    pub ledger: Part<Ledger>,
    pub gateways: Vec<Part<Gateway>>,
    /// Requests of processes that have ended, or that were given up: they may be applied or not.
    pub late: Vec<(usize, InFlight)>,
    /// Faults that may still happen.
    pub faults: u8,
    pub ghost: Part<Ghost>,
}

/// Whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Of a gateway, in this process.
    Gateway(usize, u8),
    Jvm(usize, u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Zk {
    /// Sessions that have not ended.
    pub sessions: BTreeMap<i64, Owner>,
    /// Latch nodes, the lowest first, and their sessions.
    pub latches: Vec<(u32, i64)>,
    pub publisher: Option<i64>,
    /// The run that what is stored belongs to, and the version of the znode that says so.
    pub mark: usize,
    pub version: i32,
    /// The run whose plan is stored.
    pub plan: Option<usize>,
    pub next_session: i64,
    pub next_latch: u32,
    /// The election before its last change: what a server that is behind shows.
    pub before: Option<View>,
}

/// The ConfigMap with the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    pub version: u32,
    pub notes: Notes,
    /// The run that has begun last.
    pub begun: usize,
    /// The job is known, and has a tombstone.
    pub job: Option<bool>,
    /// The storage directory has the job's result.
    pub result: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// The run of its pod.
    pub run: usize,
    pub process: u8,
    /// `None` while the process is down.
    pub machine: Option<Leadership>,
    /// Its own session, as it knows it.
    pub own: Option<i64>,
    /// A look under way, and the last one that has come.
    pub look: Option<View>,
    pub seen: Option<View>,
    pub request: Option<InFlight>,
    /// What the proxy knows, and what the election was told of that.
    pub proxy: Sessions,
    /// The latch for which the JVM stood last, as the proxy saw it.
    pub stands: Option<u32>,
    pub told: Sessions,
    pub wanted: Option<u8>,
    pub admitted: Option<u8>,
    pub told_waiting: Option<u8>,
    pub overtaken: bool,
    /// A process that is to be ended.
    pub kills: Option<u8>,
    /// Processes that the gateway has seen end.
    pub seen_dead: BTreeSet<u8>,
    /// The term in which it was found that the JVM may lead.
    pub examined: Option<Term>,
    /// The version of the mark when it was found that a JVM may lead.
    pub opened_at: Option<i32>,
    pub terminates: bool,
    pub jvm: Jvm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Dead,
    Running,
    Frozen,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Jvm {
    pub life: Life,
    pub incarnation: u8,
    pub session: Option<i64>,
    pub connected: bool,
    /// It takes itself for the leader.
    pub leads: bool,
    /// A plan of it has passed the gateway.
    pub storing: bool,
}

/// A request under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InFlight {
    pub request: Request,
    pub stage: Stage,
    /// Our own session, as long as the process lives that asked.
    pub session: Option<i64>,
    pub process: u8,
    pub run: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Sent,
    /// The ledger was read.
    Noted {
        notes: Notes,
        version: u32,
    },
    /// And then the latch was there.
    Checked {
        notes: Notes,
        version: u32,
    },
    /// The znodes were read, while our latch was the lowest or not.
    Read {
        mark: usize,
        version: i32,
        plan: bool,
        in_place: bool,
    },
    /// The ledger was written.
    Written,
    Answered(pure::quorum::RequestOutcome),
}

/// What no part of the world knows, for the properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// The first offence against a property.
    pub offence: Option<&'static str>,
    pub released: BTreeSet<u64>,
    pub granted: BTreeSet<u64>,
    /// The highest latch for which a JVM's term was written.
    pub last_latch: u32,
    pub last_term: u64,
}

pub fn run(index: usize) -> Run {
    let (version, start) = (format!("v{index}"), index as i64 + 1);
    Run::new(job(), &version, start)
}

/// All runs are versions of the same.
pub fn job() -> JobId {
    JobId::from_number(10)
}

pub fn incarnation(number: u8) -> Incarnation {
    Incarnation { pid: 1, started: number.into() }
}

pub fn number(jvm: Incarnation) -> u8 {
    jvm.started as u8
}

pub fn path(latch: u32) -> String {
    format!("/latch/{latch}")
}

impl Zk {
    pub fn view(&self) -> View {
        let candidates =
            self.latches.iter().map(|(latch, session)| Candidate { path: path(*latch), session: *session });
        View { candidates: candidates.collect(), publisher: self.publisher, silence: Duration::ZERO }
    }

    pub fn lives(&self, session: Option<i64>) -> bool {
        session.is_some_and(|session| self.sessions.contains_key(&session))
    }

    pub fn has_latch(&self, latch: &str) -> bool {
        self.latches.iter().any(|(number, _)| path(*number) == latch)
    }

    pub fn is_lowest(&self, latch: &str) -> bool {
        self.latches.first().is_some_and(|(number, _)| path(*number) == latch)
    }

    pub fn leader(&self) -> Option<i64> {
        self.latches.first().map(|(_, session)| *session)
    }

    /// Changes the election.
    pub fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let before = self.view();
        change(self);
        if self.view() != before {
            self.before = Some(before);
        }
    }

    pub fn begin(&mut self, owner: Owner) -> i64 {
        self.next_session += 1;
        self.sessions.insert(self.next_session, owner);
        self.next_session
    }

    pub fn stand(&mut self, session: i64) {
        self.change(|zk| {
            zk.next_latch += 1;
            zk.latches.push((zk.next_latch, session));
        });
    }

    /// The session ends, and its ephemeral znodes go.
    pub fn end(&mut self, session: i64) {
        self.sessions.remove(&session);
        self.change(|zk| {
            zk.latches.retain(|(_, of)| *of != session);
            zk.publisher = zk.publisher.filter(|of| *of != session);
        });
    }
}

impl Gateway {
    pub fn new(run: usize) -> Self {
        Self {
            run,
            process: 0,
            machine: None,
            own: None,
            look: None,
            seen: None,
            request: None,
            proxy: Sessions::default(),
            stands: None,
            told: Sessions::default(),
            wanted: None,
            admitted: None,
            told_waiting: None,
            overtaken: false,
            kills: None,
            seen_dead: BTreeSet::new(),
            examined: None,
            opened_at: None,
            terminates: false,
            jvm: Jvm {
                life: Life::Dead,
                incarnation: 0,
                session: None,
                connected: false,
                leads: false,
                storing: false,
            },
        }
    }

    /// Another process begins, which knows nothing.
    pub fn start(&mut self) {
        let settings = Settings::new(Duration::from_secs(40));
        let jvm = self.jvm.clone();
        let (process, terminates) = (self.process + 1, self.terminates);
        let machine = Some(Leadership::new(settings, Time::default()));
        *self = Self { process, machine, jvm, terminates, ..Self::new(self.run) };
    }

    pub fn waiting(&self) -> Option<u8> {
        self.wanted.filter(|_| self.wanted != self.admitted)
    }

    /// The JVM is not let in again, and has stepped down by its own clock.
    pub fn is_kept_out(&self) -> bool {
        !self.jvm.connected && !self.jvm.leads && self.waiting().is_some()
    }

    pub fn is_dead(&self, jvm: u8) -> bool {
        jvm < self.jvm.incarnation || self.jvm.life == Life::Dead
    }

    /// The session by which the gate lets a plan pass. `strictly`: by the latch for which the JVM stood last.
    pub fn may_store(&self, strictly: bool) -> Option<i64> {
        let latch = self.machine.as_ref()?.may_store()?;
        let is_last = self.stands.is_none_or(|stands| path(stands) == latch.path);
        (is_last || !strictly).then_some(latch.session)
    }

    /// The proxy sees the JVM get this session.
    pub fn hold(&mut self, session: i64) {
        let jvm = Some(incarnation(self.jvm.incarnation));
        self.proxy.by_id.insert(session, Held { jvm, timeout: SESSION_TIMEOUT });
        self.proxy.jvm = jvm;
    }
}

impl World {
    pub fn claimant(&self, g: usize, process: u8, jvm: Option<Incarnation>) -> Claimant {
        Claimant { pod: format!("pod{g}"), pod_uid: format!("uid{g}"), process: process.to_string(), jvm }
    }

    pub fn offend(&mut self, property: &'static str) {
        self.ghost.offence.get_or_insert(property);
    }

    /// Our JVM may write by this session, as far as gateway and quorum are concerned.
    pub fn may_write(&self, g: usize) -> bool {
        let gateway = &self.gateways[g];
        let jvm = &gateway.jvm;
        let may_store = gateway.may_store(true);
        let passes = jvm.storing || (may_store.is_some() && may_store == jvm.session);
        passes && jvm.leads && jvm.life != Life::Dead && self.zk.lives(jvm.session)
    }
}
