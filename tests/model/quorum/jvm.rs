//! What JVMs do, and what their gateways see of it.

use pure::lease::term::Incarnation;
use pure::quorum::Sessions;

use super::model::{Model, Step};
use super::mutants::Mutant;
use super::properties::{S1, S2};
use super::world::{Gateway, Jvm, Life, Owner, World, number};

impl Model {
    pub fn step_of_jvm(&self, world: &mut World, step: Step) -> Option<()> {
        match step {
            Step::JvmStarts(g) => {
                let gateway = &mut world.gateways[g];
                (gateway.jvm.life == Life::Dead && !gateway.terminates).then_some(())?;
                let incarnation = gateway.jvm.incarnation + 1;
                gateway.jvm = Jvm { life: Life::Running, incarnation, ..Gateway::new(0).jvm };
            }
            Step::Thaws(g) => {
                (world.gateways[g].jvm.life == Life::Frozen).then(|| world.gateways[g].jvm.life = Life::Running)?;
            }
            Step::JvmConnects(g) => self.connects(world, g)?,
            Step::JvmStands(g) => {
                let session = self.connected(world, g)?;
                world.zk.latches.iter().all(|(_, of)| *of != session).then(|| world.zk.stand(session))?;
                world.gateways[g].stands = Some(world.zk.next_latch);
            }
            Step::JvmLeads(g) => {
                let session = self.connected(world, g)?;
                (world.zk.leader() == Some(session) && !world.gateways[g].jvm.leads).then_some(())?;
                world.gateways[g].jvm.leads = true;
                world.zk.change(|zk| zk.publisher = Some(session));
            }
            Step::JvmStepsDown(g) => {
                let jvm = &mut world.gateways[g].jvm;
                (jvm.life == Life::Running && jvm.leads && !jvm.connected).then(|| jvm.leads = false)?;
            }
            Step::JvmStores(g) => {
                let session = self.connected(world, g)?;
                let strictly = self.mutant != Some(Mutant::StoresByNewLatch);
                let gateway = &mut world.gateways[g];
                let may = gateway.may_store(strictly) == Some(session) && gateway.jvm.leads && !gateway.jvm.storing;
                (may && world.zk.plan != Some(gateway.run) && world.ledger.job != Some(true) && !world.ledger.result)
                    .then(|| gateway.jvm.storing = true)?;
            }
            Step::JvmStored(g) => {
                std::mem::take(&mut world.gateways[g].jvm.storing).then_some(())?;
                let (jvm, run) = (&world.gateways[g].jvm, world.gateways[g].run);
                if let Some(session) = jvm.session.filter(|session| world.zk.lives(Some(*session))) {
                    if world.zk.leader() != Some(session) {
                        world.offend(S1);
                    }
                    if self.application && world.zk.mark != run {
                        world.offend(S2);
                    }
                    world.zk.plan = Some(run);
                    world.ledger.job = world.ledger.job.or(Some(false));
                }
            }
            Step::JobEnds(g) => {
                self.connected(world, g)?;
                let gateway = &world.gateways[g];
                (self.ends && gateway.jvm.leads && world.zk.plan == Some(gateway.run)).then_some(())?;
                (world.zk.plan, world.ledger.result) = (None, true);
            }
            Step::JvmEnds(g) => {
                let gateway = &mut world.gateways[g];
                (gateway.terminates && gateway.jvm.life == Life::Running && !gateway.jvm.storing).then_some(())?;
                if let (true, Some(session)) = (gateway.jvm.connected, gateway.jvm.session) {
                    world.zk.end(session);
                }
                world.gateways[g].dies();
            }
            Step::JvmIsEnded(g) => {
                let ended = world.gateways[g].kills.take()?;
                if ended == world.gateways[g].jvm.incarnation {
                    world.gateways[g].dies();
                }
            }
            Step::DeathIsSeen(g) => {
                let gateway = &world.gateways[g];
                let held = gateway.proxy.by_id.values().filter_map(|held| held.jvm).chain(gateway.proxy.jvm);
                let mut dead =
                    held.filter(|jvm| gateway.is_dead(number(*jvm)) && !gateway.seen_dead.contains(&number(*jvm)));
                let dead = dead.next()?;
                self.see_death(&mut world.gateways[g], dead);
            }
            Step::SessionsAreEnded(g) => {
                let gateway = &world.gateways[g];
                let of_dead =
                    |held: &pure::quorum::Held| held.jvm.is_some_and(|jvm| gateway.proxy.ended.contains(&jvm));
                let session = *gateway.proxy.by_id.iter().find(|(_, held)| of_dead(held))?.0;
                self.end_session(world, g, session);
            }
            _ => return None,
        }
        Some(())
    }

    /// The session by which a JVM does what it likes.
    fn connected(&self, world: &World, g: usize) -> Option<i64> {
        let gateway = &world.gateways[g];
        let acts = gateway.jvm.life == Life::Running && gateway.jvm.connected && gateway.machine.is_some();
        gateway.jvm.session.filter(|session| acts && world.zk.lives(Some(*session)))
    }

    fn connects(&self, world: &mut World, g: usize) -> Option<()> {
        let gateway = &mut world.gateways[g];
        let (jvm, lives) = (gateway.jvm.incarnation, world.zk.lives(gateway.jvm.session));
        let cut = !gateway.jvm.connected || !lives;
        (gateway.jvm.life == Life::Running && gateway.machine.is_some() && cut && !gateway.terminates).then_some(())?;
        let guarded = self.application && self.mutant != Some(Mutant::EntersAtOnce);
        if guarded && gateway.admitted != Some(jvm) {
            gateway.wanted = Some(jvm);
            return Some(());
        }
        // Writes of before went with the connection.
        (gateway.jvm.connected, gateway.jvm.storing) = (true, false);
        match gateway.jvm.session.filter(|_| lives) {
            Some(session) => gateway.hold(session),
            None => {
                let session = world.zk.begin(Owner::Jvm(g, jvm));
                let gateway = &mut world.gateways[g];
                (gateway.jvm.session, gateway.jvm.leads, gateway.stands) = (Some(session), false, None);
                gateway.hold(session);
            }
        }
        Some(())
    }

    fn see_death(&self, gateway: &mut Gateway, jvm: Incarnation) {
        let Sessions { by_id, ended, jvm: current } = &mut gateway.proxy;
        ended.retain(|ended| by_id.values().any(|held| held.jvm == Some(*ended)));
        if self.mutant == Some(Mutant::OnlyLastEnded) {
            ended.clear();
        }
        ended.insert(jvm);
        gateway.seen_dead.insert(number(jvm));
        *current = current.filter(|current| *current != jvm);
        gateway.admitted = gateway.admitted.filter(|admitted| *admitted != number(jvm));
    }

    pub fn end_session(&self, world: &mut World, g: usize, session: i64) {
        world.zk.end(session);
        let gateway = &mut world.gateways[g];
        gateway.proxy.by_id.remove(&session);
        if gateway.jvm.session == Some(session) {
            gateway.jvm.connected = false;
        }
    }
}
