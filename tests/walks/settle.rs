//! What must hold in the end: everybody does what there is to do, and nothing happens any more. The resource then comes
//! to what is asked for, or its conditions say what it waits for. When lost nodes, labels and keys are there again, it
//! comes to what is asked for, unless what is asked for cannot run.

use product::api::application::{Application, Phase};
use product::cluster::application::version;
use product::cluster::status::{DEGRADED, STALLED};

use super::asked::{fails, hangs};
use super::gateway::Gateway;
use super::leader;
use super::objects::Pod;
use super::world::World;

/// Rounds at most, and their length in seconds: at first shorter than a Lease's patience, and then longer.
const ROUNDS: usize = 60;
const SHORT: usize = 6;
const LENGTHS: [i64; 2] = [6, 40];
/// After so many long rounds in which nothing has changed nothing will.
const QUIET: usize = 3;

impl World {
    /// Everybody does what there is to do, once.
    pub fn round(&mut self, seconds: i64) {
        self.renew();
        self.now += seconds;
        self.collect_garbage();
        self.watch(u8::MAX);
        let due = self.operator.wake.is_some_and(|wake| wake <= self.now);
        if self.operator.doing.is_some() || due || self.operator.rested != self.changes || self.is_told {
            while self.operate() {}
        }
        self.purge_files();
        for component in [0, 0, 0, 1, 1] {
            self.control(component);
        }
        for uid in self.pods.iter().map(|pod| pod.uid.clone()).collect::<Vec<String>>() {
            self.kubelet(&uid);
        }
        self.renew();
        for uid in self.pods.iter().filter(|pod| pod.component == 0).map(|pod| pod.uid.clone()).collect::<Vec<String>>()
        {
            self.campaign(&uid);
            while self.grant(&uid) {}
            for step in (0..leader::STEPS).chain([6, 6, 7, 7, 5, 7]) {
                // Checkpoints would go on for ever.
                if step != leader::CHECKPOINT || !self.is_told {
                    self.leader_step(&uid, step);
                }
            }
        }
        self.renew();
        self.forget_pods();
    }

    /// The environment does nothing any more, and then puts right what it has done.
    pub fn settle(&mut self) {
        self.is_told = true;
        self.tell(|_| "nothing happens any more".to_owned());
        // Kubernetes replaces pods of nodes that are lost for long.
        let now = self.now;
        for pod in self.pods.iter_mut().filter(|pod| pod.cut && pod.exists) {
            pod.deletion = pod.deletion.or(Some(now));
        }
        let Err(why) = self.comes_to_rest() else { return };
        if self.ghost.violation.is_some() {
            return;
        }
        if !self.is_degraded() {
            return self.ghost.violated("nothing waits in silence", || why);
        }
        self.tell(|_| "all is put right".to_owned());
        self.nodes_return();
        let deployments: Vec<&String> = self.deployments.iter().flatten().map(|deployment| &deployment.uid).collect();
        for pod in &mut self.pods {
            pod.labelled = true;
            if !deployments.contains(&&pod.deployment) {
                pod.deletion = pod.deletion.or(Some(now));
            }
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.torn = None;
        }
        self.touch();
        let Err(why) = self.comes_to_rest() else { return };
        if !(self.is_degraded() && self.may_stand()) {
            let conditions = self.conditions();
            self.ghost.violated("it comes to what is asked for", || format!("{why}; {conditions}"));
        }
    }

    fn comes_to_rest(&mut self) -> Result<(), String> {
        let (mut result, mut quiet) = (Ok(()), 0);
        for round in 0..ROUNDS {
            let before = self.changes;
            let next = self.operator.wake.map_or(0, |wake| wake - self.now);
            let long = if quiet > 0 { LENGTHS[1].max(next) } else { LENGTHS[1] };
            self.round(if round < SHORT { LENGTHS[0] } else { long });
            result = self.is_as_asked();
            if self.ghost.violation.is_some() || result.is_ok() {
                return result;
            }
            let is_deleted = self.resource.as_ref().is_some_and(|live| live.metadata.deletion_timestamp.is_some());
            quiet = if self.changes != before || round < SHORT || is_deleted { 0 } else { quiet + 1 };
            if quiet >= QUIET {
                break;
            }
        }
        result
    }

    fn application(&self) -> Option<&Application> {
        self.resource.as_ref()?.status.as_ref()?.application.as_ref()
    }

    fn is_as_asked(&self) -> Result<(), String> {
        let Some(resource) = &self.resource else { return Ok(()) };
        if resource.metadata.deletion_timestamp.is_some() {
            return Err("it is being deleted".to_owned());
        }
        let application = self.application().ok_or("nothing is decided")?;
        let Application { phase, job_id, version: deployed, starts, .. } = application;
        let wanted = version(&resource.spec);
        let told = format!("phase {phase:?}, run {job_id}, version {deployed}, wanted {wanted}");
        if self.ghost.unproven.iter().any(|id| id.as_str() == job_id) {
            return Ok(());
        }
        match phase {
            Phase::Ended => {
                let by_itself = self.ghost.ended.iter().any(|id| id.as_str() == job_id)
                    && !self.ghost.stopped.iter().any(|id| id.as_str() == job_id);
                // A stop that is not on record looks like an end.
                if !by_itself && !self.ghost.ledger_was_lost {
                    Err(format!("{told}: ended, and the job has not"))
                } else if self.config_maps.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{told}: ended, and its HA data is left"))
                }
            }
            Phase::Suspended if self.asked.suspended => Ok(()),
            Phase::Running if !self.asked.suspended && *deployed == wanted => {
                let leads = |pod: &&Pod| {
                    let Gateway::Leading(leading) = &pod.gateway else { return false };
                    leading.job.as_ref().is_some_and(|job| job.is_up) && self.holds(&pod.uid)
                };
                let leader = self.pods.iter().find(leads).ok_or(format!("{told}: nobody leads"))?;
                let run = leader.run();
                let is_it = run.job_id.as_str() == job_id && run.version == *deployed && run.start == *starts;
                if is_it { Ok(()) } else { Err(format!("{told}: {run:?} leads")) }
            }
            _ => Err(told),
        }
    }

    fn conditions(&self) -> String {
        let status = self.resource.as_ref().and_then(|live| live.status.as_ref());
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let told = conditions.iter().map(|one| format!("{}={} {}: {}", one.type_, one.status, one.reason, one.message));
        told.collect::<Vec<_>>().join(" | ")
    }

    /// A condition says what is wrong.
    fn is_degraded(&self) -> bool {
        let status = self.resource.as_ref().and_then(|live| live.status.as_ref());
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let holds = |kind: &str| conditions.iter().any(|one| one.type_ == kind && one.status == "True");
        holds(DEGRADED) || holds(STALLED)
    }

    /// What is asked for cannot run, or somebody has taken the ledger away.
    fn may_stand(&self) -> bool {
        let Some(resource) = &self.resource else { return true };
        let Some(application) = self.application() else { return self.ghost.ledger_was_lost };
        let is_broken = |version: &str| fails(version) || hangs(version);
        let wanted = version(&resource.spec);
        let is_refused = application.refused.as_ref() == Some(&wanted);
        let stays = application.phase == Phase::Running && self.asked.suspended && application.error.is_some();
        is_broken(&application.version)
            || is_broken(&wanted)
            || application.phase == Phase::Halted
            || is_refused
            || stays
            || self.ghost.ledger_was_lost
    }
}
