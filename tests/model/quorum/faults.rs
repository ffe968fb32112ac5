//! What may go wrong.

use pure::quorum::{Event, RequestOutcome};

use super::model::Model;
use super::world::{Gateway, Jvm, Life, Stage, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    KillJvm,
    /// It does nothing, and its session may expire.
    FreezeJvm,
    /// Its connection is cut.
    CutJvm,
    /// Its session expires: it is frozen, or was cut off for so long that it has stepped down by its own clock.
    ExpireJvm,
    /// Its client stands for election anew by the same session, as Curator does when a connection was lost for long.
    StandAnew,
    KillGateway,
    /// Its own session ends; it hears of that later.
    ExpireGateway,
    /// A request fails, whatever becomes of it.
    FailRequest,
    /// A server that is behind shows the election to a session that has seen nothing yet.
    OldLook,
    TerminatePod,
}

impl Gateway {
    pub fn dies(&mut self) {
        let incarnation = self.jvm.incarnation;
        self.jvm = Jvm { incarnation, ..Gateway::new(0).jvm };
    }
}

impl Model {
    /// `None`: it cannot happen now.
    pub fn strike(&self, world: &mut World, fault: Fault, g: usize) -> Option<()> {
        world.faults -= 1;
        let lives = world.zk.lives(world.gateways[g].jvm.session);
        let gateway = &mut world.gateways[g];
        match fault {
            Fault::KillJvm => (gateway.jvm.life != Life::Dead).then(|| gateway.dies())?,
            Fault::FreezeJvm => {
                (gateway.jvm.life == Life::Running && !gateway.jvm.storing).then(|| gateway.jvm.life = Life::Frozen)?;
            }
            Fault::CutJvm => {
                (gateway.jvm.connected && gateway.jvm.life == Life::Running).then(|| gateway.jvm.connected = false)?;
            }
            Fault::ExpireJvm => {
                let silent = gateway.jvm.life == Life::Frozen || (!gateway.jvm.connected && !gateway.jvm.leads);
                let session = gateway.jvm.session.filter(|_| silent && lives)?;
                gateway.jvm.connected = false;
                world.zk.end(session);
            }
            Fault::StandAnew => {
                let acts = gateway.jvm.life == Life::Running && gateway.jvm.connected && !gateway.jvm.storing;
                let session = gateway.jvm.session.filter(|_| acts && lives && gateway.machine.is_some())?;
                world.zk.latches.iter().any(|(_, of)| *of == session).then_some(())?;
                gateway.jvm.leads = false;
                world.zk.change(|zk| {
                    zk.latches.retain(|(_, of)| *of != session);
                    zk.publisher = zk.publisher.filter(|of| *of != session);
                });
            }
            Fault::KillGateway => {
                gateway.machine.take()?;
                let flight = gateway.request.take();
                (gateway.own, gateway.look, gateway.seen) = (None, None, None);
                (gateway.jvm.connected, gateway.kills) = (false, None);
                world
                    .late
                    .extend(flight.filter(|flight| !matches!(flight.stage, Stage::Answered(_))).map(|one| (g, one)));
            }
            Fault::ExpireGateway => {
                let session = gateway.own.filter(|session| world.zk.sessions.contains_key(session))?;
                world.zk.end(session);
            }
            Fault::FailRequest => {
                let flight = gateway.request.take()?;
                if !matches!(flight.stage, Stage::Answered(_)) {
                    world.late.push((g, flight));
                }
                self.tell(world, g, Event::Done(RequestOutcome::Failed));
            }
            Fault::OldLook => {
                let fresh = gateway.seen.is_none() && gateway.look.is_none();
                (fresh && world.zk.lives(gateway.own)).then_some(())?;
                gateway.look = Some(world.zk.before.clone()?);
            }
            Fault::TerminatePod => {
                (!gateway.terminates && gateway.machine.is_some()).then_some(())?;
                gateway.terminates = true;
                self.tell(world, g, Event::Terminating);
            }
        }
        Some(())
    }
}
