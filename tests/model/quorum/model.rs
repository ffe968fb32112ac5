//! What may happen next in a world. Nothing has a time: whatever may happen happens in any order with all else, however
//! late, and the elector's pauses end at any moment.

use pure::lease::elector::LockView;
use pure::quorum::Request;
use stateright::Property;

use super::faults::Fault;
use super::mutants::Mutant;
use super::part::Part;
use super::world::{Gateway, Ledger, Life, Owner, World, Zk};

/// A configuration of the search.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: &'static str,
    /// The run of each gateway's pod.
    pub runs: Vec<usize>,
    /// The last pods begin when another one leads: so many, and whether they have come to rest before the search
    /// begins.
    pub late: usize,
    pub at_rest: bool,
    pub application: bool,
    /// What a gateway's own parts tell each other is heard before anything else happens.
    pub prompt: bool,
    /// Start with a leader, or with nothing.
    pub leading: bool,
    /// The job may end.
    pub ends: bool,
    pub faults: Vec<Fault>,
    pub budget: u8,
    pub checks: Vec<&'static str>,
    pub mutant: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The gateway gets a session of its own, or learns that it has ended.
    Connect(usize),
    Disconnect(usize),
    /// A look at the election is answered by a server, and comes.
    Look(usize),
    See(usize),
    TellSessions(usize),
    TellWaiting(usize),
    TellOvertaken(usize),
    /// A pause ends.
    Poll(usize),
    /// The request in flight gets on, or its answer comes.
    Advance(usize),
    Answer(usize),
    GatewayStarts(usize),
    JvmStarts(usize),
    JvmConnects(usize),
    JvmStands(usize),
    JvmLeads(usize),
    /// By its own clock, while nothing answers.
    JvmStepsDown(usize),
    /// A plan passes the gateway, and is stored.
    JvmStores(usize),
    JvmStored(usize),
    JobEnds(usize),
    /// The leader's gateway writes the tombstone and removes the result.
    Collects(usize),
    Thaws(usize),
    /// It does what SIGTERM asks for.
    JvmEnds(usize),
    /// The gateway ends it.
    JvmIsEnded(usize),
    /// The kernel says that a process has ended; then its sessions are ended.
    DeathIsSeen(usize),
    SessionsAreEnded(usize),
    /// A session of a process that is gone, or is not let in again, expires.
    Expires(i64),
    /// A request of before is applied, or never will be.
    LateApply(usize),
    LateDrop(usize),
    Fault(Fault, usize),
}

impl Model {
    /// Two gateways of a cluster; one leads.
    pub fn base(name: &'static str) -> Self {
        Self {
            name,
            runs: vec![0, 0],
            late: 0,
            at_rest: true,
            application: true,
            prompt: false,
            leading: true,
            ends: false,
            faults: Vec::new(),
            budget: 1,
            checks: super::properties::ALL.to_vec(),
            mutant: None,
        }
    }

    /// A leader of one version, and a pod of the next.
    pub fn upgrade(name: &'static str) -> Self {
        Self { runs: vec![0, 1], late: 1, prompt: true, ..Self::base(name) }
    }

    pub fn start(&self) -> World {
        let zk = Part::new(Zk {
            sessions: Default::default(),
            latches: Vec::new(),
            publisher: None,
            mark: 0,
            version: 1,
            plan: None,
            next_session: 0,
            next_latch: 0,
            before: None,
        });
        let ledger = Part::new(Ledger { version: 1, notes: Default::default(), begun: 0, job: None, result: false });
        let early = self.runs.len() - self.late;
        let gateways = self.runs[..early].iter().map(|run| Part::new(Gateway::new(*run))).collect();
        let mut world =
            World { zk, ledger, gateways, late: Vec::new(), faults: self.budget, ghost: Part::new(Default::default()) };
        if self.leading {
            let prelude = Self { mutant: None, ends: false, ..self.clone() };
            let led = prelude.settle(&world, |world| prelude.is_led(world) && prelude.is_calm(world));
            world = led.expect("somebody leads");
            let ghost = super::world::Ghost {
                last_term: world.ghost.last_term,
                last_latch: world.ghost.last_latch,
                granted: world.ghost.granted.clone(),
                ..Default::default()
            };
            world.ghost = Part::new(ghost);
        }
        if !self.leading {
            // All JVMs have been let in, and none stands for election yet.
            let connected = |world: &World| world.gateways.iter().all(|gateway| gateway.jvm.connected);
            let prelude = Self { mutant: None, ..self.clone() };
            let may = |step: &Step| !matches!(step, Step::JvmStands(_));
            world = prelude.settle_by(&world, may, |world| connected(world) && told(world)).expect("all are let in");
        }
        world.gateways.extend(self.runs[early..].iter().map(|run| Part::new(Gateway::new(*run))));
        if self.late > 0 && self.at_rest {
            let prelude = Self { mutant: None, ends: false, ..self.clone() };
            let waits = |world: &World| world.gateways.iter().all(|gateway| gateway.jvm.life == Life::Running);
            world = prelude.settle(&world, |world| prelude.is_calm(world) && waits(world)).expect("all come to rest");
        }
        world
    }

    /// Steps that need no fault.
    pub fn orderly(&self, world: &World, steps: &mut Vec<Step>) {
        for g in 0..world.gateways.len() {
            let of_gateway = [
                Step::GatewayStarts(g),
                Step::Connect(g),
                Step::Disconnect(g),
                Step::TellSessions(g),
                Step::TellWaiting(g),
                Step::TellOvertaken(g),
                Step::See(g),
                Step::Look(g),
                Step::Advance(g),
                Step::Answer(g),
                Step::Poll(g),
            ];
            let of_jvm = [
                Step::JvmIsEnded(g),
                Step::JvmEnds(g),
                Step::DeathIsSeen(g),
                Step::SessionsAreEnded(g),
                Step::JvmStarts(g),
                Step::Thaws(g),
                Step::JvmConnects(g),
                Step::JvmStands(g),
                Step::JvmLeads(g),
                Step::JvmStepsDown(g),
                Step::JvmStores(g),
                Step::JvmStored(g),
                Step::JobEnds(g),
                Step::Collects(g),
            ];
            steps.extend(of_gateway.into_iter().chain(of_jvm));
        }
        steps.extend(world.zk.sessions.keys().map(|session| Step::Expires(*session)));
        steps.extend((0..world.late.len()).flat_map(|index| [Step::LateApply(index), Step::LateDrop(index)]));
    }

    /// What the gateway asks for has the same answer a little later, or matters to people only.
    fn is_quick(world: &World, g: usize) -> bool {
        let request = world.gateways[g].request.as_ref().map(|flight| &flight.request);
        let quick = |request: &Request| {
            use Request::{Examine, NoteGrant, Refuse, Release, Stand};
            matches!(request, Examine { term: None } | NoteGrant { .. } | Refuse { .. } | Release { .. } | Stand)
        };
        request.is_some_and(quick)
    }

    /// Carries a step out. `None`: it cannot happen now, or nothing changes.
    pub fn after(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Fault(fault, g) => self.strike(&mut next, fault, g)?,
            Step::Expires(session) => {
                let owner = next.zk.sessions.get(&session)?;
                let gone = match *owner {
                    Owner::Gateway(g, process) => {
                        next.gateways[g].process != process || next.gateways[g].machine.is_none()
                    }
                    Owner::Jvm(g, jvm) => next.gateways[g].is_dead(jvm) || next.gateways[g].is_kept_out(),
                };
                gone.then(|| next.zk.end(session))?;
            }
            Step::LateApply(index) => {
                // Only what was sent: nobody goes on after that.
                let (g, mut flight) = next.late.remove(index);
                self.advance(&mut next, g, &mut flight);
            }
            Step::LateDrop(index) => drop(next.late.remove(index)),
            _ => self.step_of_gateway(&mut next, step).or_else(|| self.step_of_jvm(&mut next, step))?,
        }
        (next != *world).then_some(next)
    }

    /// Nothing but looks of those who wait is left to happen.
    pub fn is_calm(&self, world: &World) -> bool {
        let mut steps = Vec::new();
        self.orderly(world, &mut steps);
        steps.retain(|step| !matches!(step, Step::Poll(_) | Step::JobEnds(_)));
        let mut flights = world.gateways.iter().filter_map(|gateway| gateway.request.as_ref());
        world.late.is_empty()
            && flights.all(|flight| flight.request == (Request::Examine { term: None }))
            && steps
                .iter()
                .all(|step| matches!(step, Step::Advance(_) | Step::Answer(_)) || self.after(world, *step).is_none())
    }

    /// A JVM leads, its gateway knows, and the ledger says so. Or the run has ended, and nothing of it is left.
    pub fn is_led(&self, world: &World) -> bool {
        if world.ledger.result || world.ledger.job == Some(true) {
            return !world.ledger.result && world.zk.plan.is_none() && world.ledger.job == Some(true);
        }
        world.gateways.iter().enumerate().any(|(g, gateway)| {
            let leads =
                gateway.jvm.leads && gateway.jvm.life == Life::Running && gateway.jvm.session == world.zk.leader();
            let shown = gateway.machine.as_ref().map(|machine| machine.shown());
            let notes = &world.ledger.notes;
            let is_told = matches!(shown, Some(LockView::Leader { term, .. }) if Some(&term) == notes.term.as_ref());
            let pod = format!("pod{g}");
            let is_noted = notes.leading.pod == pod && notes.change.as_ref().is_some_and(|change| change.to == pod);
            let stored = world.zk.plan == Some(gateway.run) && (!self.application || world.zk.mark == gateway.run);
            leads && world.zk.leader().is_some() && is_told && is_noted && stored
        })
    }

    /// The world after orderly steps, each taken in its turn, in which this holds; `None` when it does not come.
    pub fn settle(&self, world: &World, holds: impl Fn(&World) -> bool) -> Option<World> {
        self.settle_by(world, |_| true, holds)
    }

    /// The same by steps that may be taken.
    fn settle_by(&self, world: &World, may: impl Fn(&Step) -> bool, holds: impl Fn(&World) -> bool) -> Option<World> {
        let mut world = world.clone();
        let mut turn = 0;
        for _ in 0..400 {
            if holds(&world) {
                return Some(world);
            }
            let mut steps = Vec::new();
            self.orderly(&world, &mut steps);
            steps.retain(|step| !matches!(step, Step::JobEnds(_)) && may(step));
            let next = (0..steps.len()).find_map(|index| {
                let index = (turn + index) % steps.len();
                Some((index, self.after(&world, steps[index])?))
            });
            let (index, next) = next?;
            (turn, world) = (index + 1, next);
        }
        None
    }
}

/// All that gateways know of their JVMs has reached the election, and they have looked.
fn told(world: &World) -> bool {
    let knows = |gateway: &Gateway| gateway.told == gateway.proxy && gateway.told_waiting == gateway.waiting();
    world.gateways.iter().all(|gateway| knows(gateway) && gateway.request.is_none() && gateway.seen.is_some())
}

impl stateright::Model for Model {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.start()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if self.prompt {
            let gateways = 0..world.gateways.len();
            let within = |g| {
                let told = [Step::TellSessions(g), Step::TellWaiting(g), Step::TellOvertaken(g), Step::Answer(g)];
                let jvm = [Step::JvmIsEnded(g), Step::DeathIsSeen(g), Step::JvmStarts(g), Step::JvmConnects(g)];
                told.into_iter().chain(jvm).chain(Some(Step::Advance(g)).filter(|_| Self::is_quick(world, g)))
            };
            if let Some(step) = gateways.flat_map(within).find(|step| self.after(world, *step).is_some()) {
                return steps.push(step);
            }
        }
        self.orderly(world, steps);
        if world.faults > 0 {
            for g in 0..world.gateways.len() {
                steps.extend(self.faults.iter().map(|fault| Step::Fault(*fault, g)));
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.after(world, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.properties_checked()
    }
}
