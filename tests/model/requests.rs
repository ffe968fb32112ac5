//! Requests on their way to the API server: applied at some time, early, late or never; their answers too.

use pure::lease::elector;
use pure::lease::elector::Event;
use pure::lease::elector::Read;
use pure::lease::elector::Stamping;
use pure::lease::elector::Time;
use pure::lease::elector::Write;
use pure::lease::record::Record;
use pure::lease::term::Relation;
use pure::lease::term::Term;

use super::model::Model;
use super::mutants::Mutant;
use super::shared::Shared;
use super::world::Api;
use super::world::Cluster;
use super::world::Job;
use super::world::World;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub from: usize,
    /// Gateway process that sent it.
    pub process: u8,
    /// Tick in which it was sent.
    pub sent: u16,
    /// Somebody waits for the answer.
    pub awaited: bool,
    pub phase: Phase,
    pub call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // always shared
pub enum Phase {
    /// Will be applied within this tick.
    Sent,
    /// Will be applied at any time, or never.
    Held,
    /// Applied; the answer is on its way, and `late` says that it may take any time.
    Answered { answer: Answer, late: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // always shared
pub enum Call {
    ReadLease {
        started: Time,
    },
    WriteLease {
        attempt: u64,
        version: u32,
        record: Record,
        /// What stood there; only a mutant remembers it.
        before: Option<Record>,
    },
    /// Read and patch under compare-and-swap; a conflict is tried again at once, so it is one step here.
    StampCluster {
        term: Term,
        keep_holder: bool,
    },
    List {
        term: Term,
    },
    StampJob {
        term: Term,
        job: usize,
        /// If it is missing.
        create: bool,
    },
    /// The JVM's PATCH that takes the lock.
    Lock {
        term: Term,
        version: u32,
        jvm: u8,
    },
    PutCluster {
        write: Writer,
        read: Cluster,
    },
    PutJob {
        write: Writer,
        job: usize,
        read: Job,
    },
    Post {
        write: Writer,
        job: usize,
        stamp: Term,
        with_data: bool,
    },
    Delete {
        write: Writer,
        job: usize,
        uid: u8,
        version: u32,
    },
    /// Does the API server store what this candidate writes?
    Probe,
    /// The holder asks a peer for its promise.
    Ask {
        to: usize,
        term: Term,
        asked: Time,
    },
    /// Does the peer's machine answer?
    Ping {
        to: usize,
    },
}

/// Who a write of HA data comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    /// Grant that its gateway forwarded it under.
    pub grant: u8,
    pub session: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)]
pub enum Answer {
    Read(Read),
    Wrote(Option<u32>),
    Stamped(Result<Option<Cluster>, Term>),
    Listed(Vec<usize>),
    /// Of the lock PATCH or of a PUT of the cluster ConfigMap: what is stored now.
    Cluster(Option<Cluster>),
    /// By a peer.
    Said(elector::Answer),
    Nothing,
}

impl Call {
    /// The gateway gives up waiting after a tick. Stamping has a deadline of its own.
    pub fn times_out(&self) -> bool {
        !matches!(self, Call::StampCluster { .. } | Call::List { .. } | Call::StampJob { .. })
    }

    pub fn between_peers(&self) -> bool {
        matches!(self, Call::Ask { .. } | Call::Ping { .. })
    }

    pub fn is_write(&self) -> bool {
        !matches!(self, Call::ReadLease { .. } | Call::List { .. })
    }

    pub fn is_stamping(&self) -> bool {
        !self.times_out()
    }

    /// Somebody in the gateway waits for the answer and acts on it.
    pub fn is_awaited(&self) -> bool {
        !matches!(self, Call::PutJob { .. } | Call::Post { .. } | Call::Delete { .. })
    }

    /// Nobody waits, and it can no longer do anything: it need not be remembered.
    fn is_spent(&self, api: &Api, mutant: Option<Mutant>) -> bool {
        match self {
            Call::ReadLease { .. } | Call::List { .. } | Call::Probe | Call::Ask { .. } | Call::Ping { .. } => true,
            Call::WriteLease { version, .. } => {
                mutant != Some(Mutant::LeaseWithoutCas) && *version != api.lease_version
            }
            Call::StampCluster { term, .. } => api.cluster.as_ref().is_some_and(|cluster| !lower(&cluster.stamp, term)),
            Call::StampJob { term, job, create } => match &api.jobs[*job].object {
                Some(object) => !lower(&object.stamp, term),
                None => !create,
            },
            Call::Lock { version, .. } => *version != api.cluster_version,
            Call::PutCluster { read, .. } => {
                mutant != Some(Mutant::PutWithoutVersion) && read.version != api.cluster_version
            }
            Call::PutJob { job, read, .. } => {
                mutant != Some(Mutant::PutWithoutVersion) && read.version != api.jobs[*job].version
            }
            Call::Post { .. } => false,
            Call::Delete { job, version, .. } => {
                mutant != Some(Mutant::DeleteWithoutPrecondition) && *version != api.jobs[*job].version
            }
        }
    }
}

fn lower(stamp: &Option<Term>, term: &Term) -> bool {
    stamp.as_ref().is_none_or(|stamp| term.relation_of(stamp) == Relation::Lower)
}

impl Model {
    pub fn send(&self, world: &mut World, from: usize, call: Call) {
        let awaited = call.is_awaited();
        let request = Request {
            from,
            process: world.candidates[from].processes,
            sent: world.now,
            awaited,
            phase: Phase::Sent,
            call,
        };
        world.requests.push(Shared::new(request));
    }

    /// The API server carries the request out.
    pub fn apply(&self, world: &mut World, index: usize, late_answer: bool) {
        let request = world.requests.remove(index);
        if request.phase == Phase::Held {
            self.end_of_fault(world);
        }
        let answer = self.serve(world, &request);
        if !request.awaited {
            return;
        }
        let mut answered = request;
        answered.change(|request| request.phase = Phase::Answered { answer, late: late_answer });
        world.requests.push(answered);
        let last = world.requests.len() - 1;
        if !late_answer && self.may_be_delivered(world, last) {
            self.deliver(world, last);
        }
    }

    pub fn may_be_delivered(&self, world: &World, index: usize) -> bool {
        let request = &world.requests[index];
        let answered = matches!(request.phase, Phase::Answered { .. });
        answered && world.candidates[request.from].gateway_runs() && world.answer_reaches(request)
    }

    pub fn deliver(&self, world: &mut World, index: usize) {
        let request = world.requests.remove(index);
        let Phase::Answered { answer, late } = &request.phase else { return };
        if *late {
            self.end_of_fault(world);
        }
        let c = request.from;
        match (&request.call, answer.clone()) {
            (Call::ReadLease { started }, Answer::Read(outcome)) => {
                self.lease_read(world, c, *started, outcome);
            }
            (Call::WriteLease { attempt, .. }, Answer::Wrote(Some(version))) => {
                if self.mutant == Some(Mutant::LateAnswersExtend) {
                    let waited = world.now - request.sent;
                    world.gateway(c, |gateway| gateway.lag += u64::from(waited) * super::world::TICK);
                }
                self.tell(
                    world,
                    c,
                    Event::LeaseWritten { attempt: *attempt, outcome: Write::Done { version: version.to_string() } },
                );
            }
            (call @ Call::WriteLease { .. }, _) => self.write_conflicts(world, c, call),
            (Call::StampCluster { term, .. } | Call::StampJob { term, .. } | Call::List { term }, answer) => {
                self.stamper_goes_on(world, c, term, &request.call, answer);
            }
            (Call::Lock { term, jvm, .. }, Answer::Cluster(stored)) => self.lock_answered(world, c, term, *jvm, stored),
            (Call::Probe, _) => self.tell(world, c, Event::Probed { written: true }),
            (Call::Ask { to, term, asked }, Answer::Said(said)) => self.ask_answered(world, c, *to, term, *asked, said),
            (Call::Ping { .. }, _) => self.tell(world, c, Event::Pinged { answered: true }),
            (Call::PutCluster { .. }, Answer::Cluster(stored)) => {
                world.gateway(c, |gateway| gateway.stored = stored);
            }
            _ => {}
        }
    }

    pub fn may_time_out(&self, world: &World, index: usize) -> bool {
        let request = &world.requests[index];
        let patient = self.mutant == Some(Mutant::LateAnswersExtend) && matches!(request.call, Call::WriteLease { .. });
        request.awaited
            && !patient
            && request.call.times_out()
            && request.sent < world.now
            && world.candidates[request.from].gateway_runs()
    }

    /// The gateway gives up waiting. The request may still be applied, unless it never got out.
    pub fn time_out(&self, world: &mut World, index: usize) {
        let mut request = world.requests.remove(index);
        let c = request.from;
        if request.phase == Phase::Held {
            request.change(|request| request.awaited = false);
            world.requests.push(request.clone());
        }
        match &request.call {
            Call::ReadLease { started } => {
                let outcome = self.as_read(world, c, Read::Failed);
                self.tell(world, c, Event::LeaseRead { started: *started, outcome });
            }
            call @ Call::WriteLease { .. } => self.write_is_unknown(world, c, call),
            Call::Probe => self.tell(world, c, Event::Probed { written: self.mutant == Some(Mutant::ProbesIgnored) }),
            Call::Ping { .. } => self.tell(world, c, Event::Pinged { answered: false }),
            Call::Lock { .. } | Call::PutCluster { .. } => {
                world.gateway(c, |gateway| gateway.stored = None);
            }
            _ => {}
        }
    }

    /// Forgets requests that nobody waits for and that can do nothing any more.
    pub fn sweep(&self, world: &mut World) {
        let (api, mutant) = (world.api.clone(), self.mutant);
        world.requests.retain(|request| request.awaited || !request.call.is_spent(&api, mutant));
    }
}

/// As the shell reports the end of stamping.
pub fn stamping(result: Result<Option<Cluster>, Term>) -> Stamping {
    match result {
        Ok(_) => Stamping::Done,
        Err(stamp) => Stamping::Higher(stamp),
    }
}
