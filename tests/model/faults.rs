//! What may go wrong. Every fault costs one of the budget; getting well again costs nothing and may take any time.

use pure::lease::elector::Event;

use super::model::Model;
use super::model::Step;
use super::requests::Call;
use super::requests::Phase;
use super::world::Life;
use super::world::TICK;
use super::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    CrashGateway,
    KillJvm,
    HangJvm,
    /// Another JVM of the pod asks for the lock.
    StrangerAsks,
    /// The gateway stands still; its clock runs on.
    PauseGateway,
    /// Gateway, JVM and clock stand still.
    FreezeMachine,
    /// The clock misses a tick.
    ClockStops,
    /// The clock jumps ahead by a Lease's duration.
    ClockLeaps,
    /// A request is applied late or never.
    HoldRequest,
    /// An answer is late, or lost.
    HoldAnswer,
    Partition,
    Outage,
    /// The API server answers reads only.
    RefuseWrites,
    /// Two candidates do not reach each other.
    CutPair,
    /// A watch event is late.
    HoldEvent,
    /// The pod is told that it terminates. Its end may follow (`KillJvm`: its JVM does not start again) or not.
    TerminatePod,
    DeleteLease,
    /// Somebody empties the holder of the Lease.
    ClearHolder,
    /// Somebody removes the term annotation of the Lease.
    ClearTerm,
    DeleteClusterConfigMap,
    DeleteJobConfigMap,
    /// Somebody removes the stamp of a ConfigMap.
    ClearStamp,
}

impl Model {
    /// A fault that only disturbs what one candidate does commutes with the steps of all others. So it is enough that
    /// it may strike when that candidate has something to do, or at the end of a tick.
    pub fn faults_that_may_happen(&self, world: &World, steps: &mut Vec<Step>) {
        let settled = self.settled(world);
        let busy = |c: usize| {
            let operates = world.candidates[c].jvm.operation.is_some()
                || world.candidates[c].gateway.as_ref().is_some_and(|gateway| gateway.paused);
            operates || world.requests.iter().any(|request| request.from == c) || self.asks(world, c).is_some()
        };
        let busy: Vec<bool> = (0..world.candidates.len()).map(|c| settled || busy(c)).collect();
        for fault in &self.faults {
            let targets = match fault {
                Fault::HoldRequest | Fault::HoldAnswer => world.requests.len(),
                Fault::CutPair => world.candidates.len() * (world.candidates.len() - 1) / 2,
                Fault::Outage
                | Fault::RefuseWrites
                | Fault::DeleteLease
                | Fault::ClearHolder
                | Fault::ClearTerm
                | Fault::DeleteClusterConfigMap => 1,
                Fault::DeleteJobConfigMap => world.api.jobs.len(),
                Fault::ClearStamp => world.api.jobs.len() + 1,
                _ => world.candidates.len(),
            };
            let disturbs = match fault {
                Fault::CrashGateway
                | Fault::HangJvm
                | Fault::StrangerAsks
                | Fault::PauseGateway
                | Fault::FreezeMachine
                | Fault::Partition
                | Fault::ClockStops
                | Fault::ClockLeaps => &busy[..],
                _ => &[],
            };
            let may_strike = |target: &usize| disturbs.get(*target).is_none_or(|busy| *busy);
            steps.extend((0..targets).filter(may_strike).map(|target| Step::Fault(*fault, target)));
        }
    }

    /// `None`: it cannot happen now.
    pub fn strike(&self, world: &mut World, fault: Fault, target: usize) -> Option<()> {
        match fault {
            Fault::HoldRequest | Fault::HoldAnswer => self.strike_request(world, fault, target)?,
            Fault::CutPair if world.cut & (1 << target) == 0 => world.cut |= 1 << target,
            Fault::CrashGateway
            | Fault::KillJvm
            | Fault::HangJvm
            | Fault::StrangerAsks
            | Fault::PauseGateway
            | Fault::FreezeMachine
            | Fault::ClockStops
            | Fault::ClockLeaps
            | Fault::Partition
            | Fault::HoldEvent
            | Fault::TerminatePod => self.strike_candidate(world, fault, target)?,
            _ => self.strike_api(world, fault, target)?,
        }
        let first = world.faults == self.budget;
        world.faults -= 1;
        world.ghost.change(|ghost| {
            ghost.leaderless = 0;
            match fault {
                // Nothing is to come of it.
                Fault::StrangerAsks => {}
                Fault::HoldRequest | Fault::HoldAnswer | Fault::HoldEvent => ghost.late_messages += 1,
                _ => ghost.others += 1,
            }
            ghost.only_outage = first && matches!(fault, Fault::Outage | Fault::RefuseWrites);
        });
        Some(())
    }

    fn strike_request(&self, world: &mut World, fault: Fault, target: usize) -> Option<()> {
        let request = &mut world.requests[target];
        if request.phase != Phase::Sent {
            return None;
        }
        if fault == Fault::HoldRequest {
            request.change(|request| request.phase = Phase::Held);
            return Some(());
        }
        let applicable = request.awaited && world.reaches(&world.requests[target]);
        applicable.then(|| self.apply(world, target, true))
    }

    fn strike_candidate(&self, world: &mut World, fault: Fault, c: usize) -> Option<()> {
        let candidate = world.candidates[c].clone();
        match fault {
            Fault::CrashGateway if candidate.gateway.is_some() => self.crash_gateway(world, c),
            Fault::KillJvm if candidate.jvm.life != Life::Dead => self.kill_jvm(world, c),
            Fault::HangJvm if candidate.jvm.life == Life::Running => world.jvm(c, |jvm| jvm.life = Life::Hung),
            Fault::StrangerAsks if candidate.gateway_runs() => self.stranger_asks(world, c),
            Fault::PauseGateway if candidate.gateway_runs() => {
                world.gateway(c, |gateway| gateway.paused = true);
            }
            Fault::FreezeMachine if !candidate.frozen => {
                world.candidates[c].change(|candidate| candidate.frozen = true)
            }
            Fault::ClockStops if !candidate.slow => world.candidates[c].change(|candidate| candidate.slow = true),
            Fault::ClockLeaps => {
                let leap = self.settings.duration.as_millis() as u64 + TICK;
                world.candidates[c].change(|candidate| candidate.clock += leap);
            }
            Fault::Partition if candidate.reachable => {
                world.candidates[c].change(|candidate| candidate.reachable = false)
            }
            Fault::HoldEvent if candidate.late_event.is_none() && world.api.lease.is_some() => {
                let event = (world.api.lease_version, world.api.lease.clone()?);
                world.candidates[c].change(|candidate| candidate.late_event = Some(event));
            }
            Fault::TerminatePod if !candidate.terminated => {
                world.candidates[c].change(|candidate| candidate.terminated = true);
                self.tell(world, c, Event::PodTerminating);
            }
            _ => return None,
        }
        Some(())
    }

    /// What it has sent is on its way; what would be answered is lost.
    fn crash_gateway(&self, world: &mut World, c: usize) {
        world.candidates[c].change(|candidate| {
            candidate.gateway = None;
            candidate.late_event = None;
        });
        world.requests.retain(|request| request.from != c || !matches!(request.phase, Phase::Answered { .. }));
        for request in &mut world.requests {
            if request.from == c && !matches!(request.call, Call::ReadLease { .. }) {
                request.change(|request| {
                    request.awaited = false;
                    request.phase = Phase::Held;
                });
            }
        }
        world.requests.retain(|request| request.from != c || !request.awaited);
    }

    fn strike_api(&self, world: &mut World, fault: Fault, target: usize) -> Option<()> {
        world.api.change(|api| {
            let lease = api.lease.as_mut();
            match fault {
                Fault::Outage if api.up && api.writable => api.up = false,
                Fault::RefuseWrites if api.up && api.writable => api.writable = false,
                Fault::DeleteLease => {
                    api.lease.take()?;
                    api.lease_version += 1;
                }
                Fault::ClearHolder => {
                    lease.filter(|record| !record.holder.is_empty())?.holder.clear();
                    api.lease_version += 1;
                }
                Fault::ClearTerm => {
                    lease?.term.take()?;
                    api.lease_version += 1;
                }
                Fault::DeleteClusterConfigMap => {
                    api.cluster.take()?;
                    api.cluster_version += 1;
                }
                Fault::DeleteJobConfigMap => {
                    api.jobs[target].object.take()?;
                    api.jobs[target].version += 1;
                }
                Fault::ClearStamp if target < api.jobs.len() => {
                    let slot = &mut api.jobs[target];
                    let object = slot.object.as_mut()?;
                    object.stamp.take()?;
                    slot.version += 1;
                    object.version = slot.version;
                }
                Fault::ClearStamp => {
                    let cluster = api.cluster.as_mut()?;
                    cluster.stamp.take()?;
                    api.cluster_version += 1;
                    cluster.version = api.cluster_version;
                }
                _ => return None,
            }
            Some(())
        })
    }
}
