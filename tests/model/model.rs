//! The model: what may happen next in a world. Whatever is healthy acts within a tick, in any order; all else is a
//! fault.

use std::time::Duration;

use pure::lease::elector::Event;
use pure::lease::elector::LockView;
use pure::lease::elector::Settings;
use stateright::Property;

use super::faults::Fault;
use super::mutants::Mutant;
use super::requests::Call;
use super::requests::Phase;
use super::requests::Request;
use super::world::Candidate;
use super::world::Gateway;
use super::world::Life;
use super::world::Operation;
use super::world::World;

/// A configuration of the search.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: &'static str,
    pub candidates: usize,
    pub jobs: usize,
    pub settings: Settings,
    /// Candidates have addresses, and promise each other.
    pub peers: bool,
    /// What peers ask each other is answered before anything else happens, if no fault intervenes.
    pub prompt: bool,
    /// Pairs without a way between them from the start, one bit each.
    pub cut: u8,
    /// Clock rates of the candidates; each list is a start of its own.
    pub rates: Vec<Vec<u64>>,
    /// Start with a leader, or with nothing.
    pub leading: bool,
    /// What the leader has done when the search begins.
    pub done: Vec<Operation>,
    pub faults: Vec<Fault>,
    pub budget: u8,
    pub operations: Vec<Operation>,
    pub writes: u8,
    pub checks: Vec<&'static str>,
    /// Ticks of L1.
    pub deadline: u8,
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A tick passes.
    Advance,
    Apply(usize),
    Deliver(usize),
    TimeOut(usize),
    /// The watch shows the Lease as it is.
    Watch(usize),
    /// A watch event that was under way for long arrives.
    LateEvent(usize),
    /// The JVM asks for its lock.
    Asks(usize),
    Begins(usize, Operation),
    Writes(usize),
    GatewayStarts(usize),
    GatewayResumes(usize),
    Thaws(usize),
    JvmStarts(usize),
    JvmWakes(usize),
    Heals(usize),
    /// A pair of candidates reach each other again.
    Reunites(usize),
    ApiReturns,
    OperatorCreatesLease,
    Fault(Fault, usize),
}

/// One retry period is one tick of a second; the proportions are those of production.
pub fn settings(duration: u64, renew_deadline: u64) -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        duration: seconds(duration),
        renew_deadline: seconds(renew_deadline),
        retry_period: seconds(1),
        promise: seconds(1),
        ask_period: seconds(1),
        jvm_timeout: seconds(2),
        stamp_deadline: seconds(2),
        take_deadline: seconds(2),
        step_down_deadline: seconds(2),
        deaf_deadline: seconds(6),
        lapse_grace: seconds(1) / 2,
        cool_down: seconds(1),
        hand_over: seconds(3),
    }
}

/// The same with peers; a question is asked in every tick.
pub fn peer_settings(promise: u64, renew_deadline: u64, duration: u64) -> Settings {
    Settings { promise: Duration::from_secs(promise), ..settings(duration, renew_deadline) }
}

impl Model {
    /// Steps that need no fault.
    fn orderly(&self, world: &World, steps: &mut Vec<Step>) {
        if let Some(index) =
            world.requests.iter().position(|request| self.prompt && self.is_answered_at_once(world, request))
        {
            return steps.push(Step::Apply(index));
        }
        for index in 0..world.requests.len() {
            let request = &world.requests[index];
            let applicable = match request.phase {
                Phase::Sent => world.reaches(request),
                Phase::Held if request.call.between_peers() => world.reaches(request),
                Phase::Held => world.api.up && (world.api.writable || !request.call.is_write()),
                Phase::Answered { .. } => false,
            };
            if applicable {
                steps.push(Step::Apply(index));
            }
            if self.may_be_delivered(world, index) {
                steps.push(Step::Deliver(index));
            }
            if self.may_time_out(world, index) {
                steps.push(Step::TimeOut(index));
            }
        }
        for (c, candidate) in world.candidates.iter().enumerate() {
            self.orderly_of(world, c, candidate, steps);
        }
        let pairs = 0..u8::BITS as usize;
        steps.extend(pairs.filter(|pair| world.cut & (1 << pair) != 0).map(Step::Reunites));
        if !world.api.up || !world.api.writable {
            steps.push(Step::ApiReturns);
        } else if world.api.lease.is_none() {
            steps.push(Step::OperatorCreatesLease);
        }
        // A new JVM does nothing before its first heartbeat, so it may as well start at the end of a tick.
        if self.settled(world) {
            let dead = |c: &usize| world.candidates[*c].jvm.life == Life::Dead && !world.candidates[*c].terminated;
            steps.extend((0..world.candidates.len()).filter(dead).map(Step::JvmStarts));
            steps.push(Step::Advance);
        }
    }

    /// A question, or a read of a Lease that nobody is writing, has the same answer now and later.
    fn is_answered_at_once(&self, world: &World, request: &Request) -> bool {
        let written = || world.requests.iter().any(|other| matches!(other.call, Call::WriteLease { .. }));
        let question = match request.call {
            Call::ReadLease { .. } => !written(),
            Call::Ask { .. } | Call::Ping { .. } | Call::Probe => true,
            _ => false,
        };
        question && request.phase == Phase::Sent && world.reaches(request)
    }

    fn orderly_of(&self, world: &World, c: usize, candidate: &Candidate, steps: &mut Vec<Step>) {
        let freed = world.api.lease.as_ref().is_some_and(|record| record.holder.is_empty());
        if freed && candidate.gateway_runs() && world.connected(c) && candidate.seen != world.api.lease_version {
            steps.push(Step::Watch(c));
        }
        if candidate.late_event.is_some() && candidate.gateway_runs() {
            steps.push(Step::LateEvent(c));
        }
        if self.asks(world, c).is_some() {
            steps.push(Step::Asks(c));
        }
        if candidate.jvm.operation.is_some() && candidate.jvm_runs() && candidate.gateway_runs() {
            steps.push(Step::Writes(c));
        }
        match &candidate.gateway {
            None if !candidate.frozen => steps.push(Step::GatewayStarts(c)),
            Some(gateway) if gateway.paused && !candidate.frozen => steps.push(Step::GatewayResumes(c)),
            _ => {}
        }
        match candidate.jvm.life {
            _ if candidate.frozen => steps.push(Step::Thaws(c)),
            Life::Hung => steps.push(Step::JvmWakes(c)),
            _ => {}
        }
        if !candidate.reachable {
            steps.push(Step::Heals(c));
        }
    }

    /// Nothing is left that a healthy part does within the tick.
    pub fn settled(&self, world: &World) -> bool {
        let request_waits = (0..world.requests.len()).any(|index| {
            let request = &world.requests[index];
            let prompt = match &request.phase {
                Phase::Sent => world.reaches(request),
                Phase::Answered { late: false, .. } => self.may_be_delivered(world, index),
                _ => false,
            };
            prompt || self.may_time_out(world, index)
        });
        let lease_missing = world.api.up && world.api.lease.is_none();
        !request_waits && !lease_missing && (0..world.candidates.len()).all(|c| self.asks(world, c).is_none())
    }

    fn advance(&self, world: &mut World) {
        world.now += 1;
        assert!(world.now < 300, "{world:#?}");
        for c in 0..world.candidates.len() {
            if !world.candidates[c].frozen {
                world.candidates[c].change(|candidate| {
                    candidate.clock += if candidate.slow { 0 } else { candidate.rate };
                    candidate.slow = false;
                });
            }
        }
        for c in 0..world.candidates.len() {
            if !world.candidates[c].gateway_runs() {
                continue;
            }
            self.heartbeat(world, c);
            self.watch(world, c);
            self.tell(world, c, Event::Tick);
            self.stop_late_stamping(world, c);
        }
        self.count_leaderless(world);
    }

    /// The watch shows the Lease.
    pub fn watch(&self, world: &mut World, c: usize) {
        let version = world.api.lease_version;
        if !world.connected(c) || world.candidates[c].seen == version {
            return;
        }
        let Some(record) = world.api.lease.clone() else { return };
        world.candidates[c].change(|candidate| candidate.seen = version);
        self.shows_lease(world, c, version, record);
    }

    fn shows_lease(&self, world: &mut World, c: usize, version: u32, record: pure::lease::record::Record) {
        let read = pure::lease::elector::Read::Found { version: version.to_string(), record };
        if let pure::lease::elector::Read::Found { version, record } = self.as_read(world, c, read) {
            self.tell(world, c, Event::LeaseSeen { version, record });
        }
    }

    fn starts_gateway(&self, world: &mut World, c: usize) {
        world.candidates[c].change(|candidate| {
            candidate.processes += 1;
            candidate.seen = 0;
            candidate.gateway = Some(Gateway::new(c, candidate.processes, &self.settings, self.peers));
        });
        self.tell(world, c, Event::Tick);
    }

    fn resumes_gateway(&self, world: &mut World, c: usize) {
        let inbox = world.gateway(c, |gateway| {
            gateway.paused = false;
            std::mem::take(&mut gateway.inbox)
        });
        for event in inbox.into_iter().flatten() {
            self.tell(world, c, event);
        }
    }

    /// Carries a step out. `None`: nothing changes.
    pub fn after(&self, world: &World, step: &Step) -> Option<World> {
        let mut next = world.clone();
        if matches!(
            step,
            Step::LateEvent(_)
                | Step::GatewayStarts(_)
                | Step::GatewayResumes(_)
                | Step::Thaws(_)
                | Step::JvmStarts(_)
                | Step::JvmWakes(_)
                | Step::Heals(_)
                | Step::Reunites(_)
                | Step::ApiReturns
        ) {
            self.end_of_fault(&mut next);
        }
        match *step {
            Step::Advance => self.advance(&mut next),
            Step::Apply(index) => self.apply(&mut next, index, false),
            Step::Deliver(index) => self.deliver(&mut next, index),
            Step::TimeOut(index) => self.time_out(&mut next, index),
            Step::Watch(c) => self.watch(&mut next, c),
            Step::LateEvent(c) => {
                let (version, record) = next.candidates[c].change(|candidate| candidate.late_event.take())?;
                self.shows_lease(&mut next, c, version, record);
            }
            Step::Asks(c) => next = self.asks(world, c)?,
            Step::Begins(c, operation) => {
                next = self.begins(world, c, operation)?;
                next.writes = next.writes.saturating_sub(1);
            }
            Step::Writes(c) => next = self.writes(world, c)?,
            Step::GatewayStarts(c) => self.starts_gateway(&mut next, c),
            Step::GatewayResumes(c) => self.resumes_gateway(&mut next, c),
            Step::Thaws(c) => next.candidates[c].change(|candidate| candidate.frozen = false),
            Step::JvmStarts(c) => next.jvm(c, |jvm| {
                jvm.life = Life::Running;
                jvm.incarnation += 1;
            }),
            Step::JvmWakes(c) => next.jvm(c, |jvm| jvm.life = Life::Running),
            Step::Heals(c) => next.candidates[c].change(|candidate| candidate.reachable = true),
            Step::Reunites(pair) => next.cut &= !(1 << pair),
            Step::ApiReturns => next.api.change(|api| (api.up, api.writable) = (true, true)),
            Step::OperatorCreatesLease => next.api.change(|api| {
                api.lease = Some(Default::default());
                api.lease_version += 1;
            }),
            Step::Fault(fault, target) => self.strike(&mut next, fault, target)?,
        }
        self.sweep(&mut next);
        Some(next)
    }

    /// A world whose first candidate leads, with a registered job that has a checkpoint, or one where nobody has
    /// started.
    fn start(&self, rates: &[u64]) -> World {
        let mut world = World::new(self.candidates, self.jobs, rates, &self.settings, self.peers);
        world.cut = self.cut;
        let prelude = Self { mutant: None, ..self.clone() };
        if self.leading {
            prelude.run_until(&mut world, |world| matches!(world.candidates[0].shown(), Some(LockView::Leader { .. })));
            for operation in &self.done {
                world = prelude.after(&world, &Step::Begins(0, *operation)).expect("the leader begins a write");
                world = prelude.after(&world, &Step::Writes(0)).expect("the leader writes");
                prelude.run_until(&mut world, |world| world.requests.is_empty());
            }
            // All come to rest.
            let end = world.now + 5;
            prelude.run_until(&mut world, |world| world.now >= end && world.requests.is_empty());
            world.now = 0;
            let listed = world.api.lease.as_ref().map_or(0, |record| record.peers.members.len());
            let reached = (1..self.candidates).filter(|c| self.peers && world.joined(0, *c)).count();
            assert_eq!(listed, reached, "all that are reached are members");
        }
        world.ghost.change(|ghost| {
            ghost.leaderless = 0;
            ghost.only_outage = true;
        });
        world.faults = self.budget;
        world.writes = self.writes;
        world
    }

    /// Takes the first orderly step, again and again.
    fn run_until(&self, world: &mut World, done: impl Fn(&World) -> bool) {
        while !done(world) {
            let mut steps = Vec::new();
            self.orderly(world, &mut steps);
            steps.retain(|step| !matches!(step, Step::Reunites(_)));
            // The first candidate is the quickest.
            let by_others = |step: &&Step| match step {
                Step::Apply(index) | Step::Deliver(index) | Step::TimeOut(index) => world.requests[*index].from != 0,
                _ => false,
            };
            let step = steps.iter().min_by_key(by_others).expect("a step");
            *world = self.after(world, step).expect("it changes something");
            assert!(world.now < 50, "the prelude does not end: {world:#?}");
        }
    }
}

impl stateright::Model for Model {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        self.rates.iter().map(|rates| self.start(rates)).collect()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.orderly(world, steps);
        if world.writes > 0 {
            for c in 0..world.candidates.len() {
                if world.candidates[c].jvm.leads.is_some() && world.candidates[c].jvm.operation.is_none() {
                    steps.extend(self.operations.iter().map(|operation| Step::Begins(c, *operation)));
                }
            }
        }
        if world.faults > 0 {
            self.faults_that_may_happen(world, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.after(world, &step).filter(|next| next != world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.properties_checked()
    }
}
