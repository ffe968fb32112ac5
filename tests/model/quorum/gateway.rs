//! What gateways do: the state machine is told something, and what it says is done.

use pure::lease::elector::{LockView, Time};
use pure::quorum::{Action, Event, Request, RequestOutcome};

use super::model::{Model, Step};
use super::mutants::Mutant;
use super::properties::{S3, S4, S5, S9};
use super::world::{InFlight, Owner, Stage, World, incarnation, number};

/// After every pause.
const MUCH_LATER: Time = Time(1 << 40);

impl Model {
    pub fn step_of_gateway(&self, world: &mut World, step: Step) -> Option<()> {
        match step {
            Step::GatewayStarts(g) => {
                world.gateways[g].machine.is_none().then(|| world.gateways[g].start())?;
            }
            Step::Connect(g) => {
                let gateway = &world.gateways[g];
                (gateway.machine.is_some() && gateway.own.is_none()).then_some(())?;
                let session = world.zk.begin(Owner::Gateway(g, gateway.process));
                world.gateways[g].own = Some(session);
                self.tell(world, g, Event::Connected { session });
            }
            Step::Disconnect(g) => {
                let gateway = &mut world.gateways[g];
                (gateway.machine.is_some() && gateway.own.is_some() && !world.zk.lives(gateway.own)).then_some(())?;
                (gateway.own, gateway.look, gateway.seen) = (None, None, None);
                self.tell(world, g, Event::Disconnected);
            }
            Step::Look(g) => {
                let (gateway, view) = (&mut world.gateways[g], world.zk.view());
                (gateway.look.is_none() && world.zk.lives(gateway.own) && gateway.seen.as_ref() != Some(&view))
                    .then_some(())?;
                gateway.look = Some(view);
            }
            Step::See(g) => {
                let view = world.gateways[g].look.take()?;
                world.gateways[g].seen = Some(view.clone());
                self.tell(world, g, Event::Viewed(view));
            }
            Step::TellSessions(g) => {
                let gateway = &mut world.gateways[g];
                (gateway.machine.is_some() && gateway.told != gateway.proxy).then_some(())?;
                gateway.told = gateway.proxy.clone();
                let mut told = gateway.told.clone();
                if self.mutant == Some(Mutant::DeadHolds) {
                    told.ended.clear();
                }
                self.tell(world, g, Event::Sessions(told));
            }
            Step::TellWaiting(g) => {
                let gateway = &mut world.gateways[g];
                (gateway.machine.is_some() && gateway.told_waiting != gateway.waiting()).then_some(())?;
                gateway.told_waiting = gateway.waiting();
                let waiting = gateway.told_waiting.map(incarnation);
                self.tell(world, g, Event::Waiting(waiting));
            }
            Step::TellOvertaken(g) => {
                std::mem::take(&mut world.gateways[g].overtaken).then(|| self.tell(world, g, Event::Overtaken))?;
            }
            Step::Poll(g) => {
                let actions = world.gateways[g].machine.as_mut()?.step(MUCH_LATER, Event::Tick);
                self.act(world, g, actions);
            }
            Step::Advance(g) => {
                let mut flight = world.gateways[g].request.take()?;
                self.advance(world, g, &mut flight);
                world.gateways[g].request = Some(flight);
            }
            Step::Answer(g) => {
                let Some(InFlight { stage: Stage::Answered(_), .. }) = &world.gateways[g].request else { return None };
                let flight = world.gateways[g].request.take()?;
                self.answer(world, g, flight);
            }
            Step::Collects(g) => {
                let machine = world.gateways[g].machine.as_ref()?;
                let LockView::Leader { term, .. } = machine.shown() else { return None };
                let leads = machine.latch().is_some_and(|latch| world.zk.has_latch(latch));
                (leads && world.ledger.result && world.zk.plan.is_none()).then_some(())?;
                let process = world.gateways[g].process;
                self.may_write(world, g, process, &term).then(|| {
                    (world.ledger.job, world.ledger.result) = (Some(true), false);
                    Self::write(world, &term);
                });
            }
            _ => return None,
        }
        Some(())
    }

    fn answer(&self, world: &mut World, g: usize, flight: InFlight) {
        let Stage::Answered(outcome) = flight.stage else { return };
        if let (Request::Examine { term: Some(term) }, RequestOutcome::Found(finding)) = (&flight.request, &outcome)
            && finding.opens()
        {
            world.gateways[g].examined = Some(term.clone());
        }
        if let RequestOutcome::Found(finding) = &outcome
            && finding.opens()
        {
            world.gateways[g].opened_at = Some(finding.version);
        }
        self.tell(world, g, Event::Done(outcome));
    }

    pub fn tell(&self, world: &mut World, g: usize, event: Event) {
        let Some(machine) = &mut world.gateways[g].machine else { return };
        let actions = machine.step(Time::default(), event);
        self.act(world, g, actions);
        self.look_at_shown(world, g);
    }

    fn look_at_shown(&self, world: &mut World, g: usize) {
        if let Some(LockView::Leader { term, .. }) = world.gateways[g].machine.as_ref().map(|machine| machine.shown())
            && world.ghost.released.contains(&term.number)
        {
            world.offend(S5);
        }
    }

    fn act(&self, world: &mut World, g: usize, actions: Vec<Action>) {
        for action in actions {
            let is_offence = self.is_offence(world, g);
            let gateway = &mut world.gateways[g];
            match action {
                Action::Ask(request) => {
                    if let Request::Release { term, .. } = &request {
                        world.ghost.released.insert(term.number);
                    }
                    let (session, process, run) = (gateway.own, gateway.process, gateway.run);
                    gateway.request = Some(InFlight { request, stage: Stage::Sent, session, process, run });
                }
                Action::Lead { term, .. } => {
                    if gateway.examined.as_ref() != Some(&term) {
                        world.offend(S4);
                    }
                    if !world.ghost.granted.insert(term.number) {
                        world.offend(S3);
                    }
                }
                Action::Admit { jvm } => {
                    gateway.admitted = Some(number(jvm));
                    gateway.told_waiting = None;
                }
                Action::ShutOut { jvm } => gateway.admitted = gateway.admitted.filter(|one| *one != number(jvm)),
                Action::EndJvm { .. } if is_offence => {
                    world.offend(S9);
                }
                Action::EndJvm { jvm, .. } if self.mutant != Some(Mutant::NobodyIsEnded) => {
                    gateway.kills = Some(number(jvm));
                }
                Action::EndSessions => {
                    let sessions: Vec<i64> = gateway.proxy.by_id.keys().copied().collect();
                    sessions.into_iter().for_each(|session| self.end_session(world, g, session));
                }
                Action::EndJvm { .. } | Action::NoteEnding { .. } | Action::ExplainFailure => {}
            }
        }
    }

    /// Nothing has happened since it was found that a JVM of this pod may lead.
    fn is_offence(&self, world: &World, g: usize) -> bool {
        let has_ended = world.ledger.result || world.ledger.job == Some(true);
        !has_ended && world.gateways[g].opened_at.is_none_or(|version| version == world.zk.version)
    }
}
