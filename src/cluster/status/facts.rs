//! What conditions are made from: what is ready, and what is on the way.

use jiff::Timestamp;

use super::election::Election;
use super::kinds::{Applied, PAUSED, PROGRESSING, READY, Verdict};
use super::members::Group;
use crate::api::FlinkHaCluster;
use crate::api::application::{Application, Phase};
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::conditions;
use crate::cluster::observed::Observed;
use crate::cluster::pause::Pause;
use crate::cluster::rejection::Rejection;

/// The reason of all conditions of a resource that is being deleted.
const DELETING: &str = "Deleting";

/// What conditions are made from.
pub(super) struct Facts<'a> {
    pub resource: &'a FlinkHaCluster,
    pub before: &'a FlinkHaClusterStatus,
    pub observed: &'a Observed,
    pub outcome: &'a Result<Applied, Rejection>,
    pub application: Option<&'a Application>,
    pub election: &'a Election,
    pub job_managers: &'a Group,
    pub task_managers: &'a Group,
    /// The operator changes nothing.
    pub pause: Option<Pause>,
    pub now: Timestamp,
}

impl Facts<'_> {
    /// The operator removes the cluster. While the resource is paused, the cluster runs on.
    pub fn is_deleted(&self) -> bool {
        self.resource.metadata.deletion_timestamp.is_some() && self.pause.is_none()
    }

    /// The resource is paused, and the operator has not acted on its latest generation.
    pub fn is_unseen(&self) -> bool {
        self.pause.is_some() && self.before.observed_generation != self.resource.metadata.generation
    }

    /// What is said of a resource that is being deleted; `None` of others.
    pub fn deleting(&self, kind: &'static str, holds: bool) -> Option<Verdict> {
        let message = || "the resource is being deleted".to_owned();
        self.is_deleted().then(|| Verdict::new(kind, holds, DELETING, message()))
    }

    /// Whether the cluster does its work now, whatever is on the way.
    pub fn ready(&self) -> Verdict {
        let deleting = self.deleting(READY, false);
        deleting.or_else(|| self.ready_application()).unwrap_or_else(|| self.ready_pods())
    }

    /// What is particular of an application; `None` when its pods decide.
    fn ready_application(&self) -> Option<Verdict> {
        let application = self.application?;
        if let Some((holds, reason, message)) = conditions::rests(application, self.resource.spec.job.as_ref()) {
            return Some(Verdict::new(READY, holds, reason, message));
        }
        let (reason, message) = match application.phase {
            Phase::Starting => ("JobStarting", format!("not all tasks of job {} have run yet", application.job_id)),
            Phase::Halted => ("Halted", "the upgrade failed, and so did the roll-back; see Degraded".to_owned()),
            _ => return None,
        };
        self.ready_pods().holds.then(|| Verdict::new(READY, false, reason, message))
    }

    fn ready_pods(&self) -> Verdict {
        let (job_managers, task_managers) = (self.job_managers, self.task_managers);
        let (job, task) = (&job_managers.members.ready, &task_managers.members.ready);
        let (holds, reason, message) = if !self.election.granted() {
            (false, "NoLeader", self.election.verdict().message)
        } else if !task_managers.is_complete() {
            (false, "TaskManagersNotReady", format!("{task} TaskManagers are ready"))
        } else if job_managers.wanted > 1 && job_managers.members.ready_replicas < 2 {
            (false, "NoStandby", "no standby could take over if the leader failed".to_owned())
        } else {
            (
                true,
                "Ready",
                format!("{} leads; {job} JobManagers and {task} TaskManagers are ready", self.election.record.holder),
            )
        };
        Verdict::new(READY, holds, reason, message)
    }

    /// What is on the way.
    pub fn progressing(&self) -> Verdict {
        self.deleting(PROGRESSING, true).unwrap_or_else(|| self.progressing_pods())
    }

    fn progressing_pods(&self) -> Verdict {
        let (job_managers, task_managers) = (self.job_managers, self.task_managers);
        let phase = self.application.map(|application| application.phase);
        let moves = self.application.filter(|application| conditions::moves(application.phase));
        let moves = moves.and_then(|moving| conditions::rests(moving, self.resource.spec.job.as_ref()));
        let (holds, reason, message) = if self.outcome.is_err() {
            (false, "Refused", "the resource cannot be applied until it is changed; see Degraded".to_owned())
        } else if self.is_unseen() || (self.pause.is_some() && moves.is_some()) {
            (false, PAUSED, "the operator's next step waits, because the resource is paused; see Paused".to_owned())
        } else if let Some((_, reason, message)) = moves {
            (true, reason, message)
        } else if job_managers.is_rolling_out(self.observed.job_manager_deployment.as_deref()) {
            (
                true,
                "JobManagersRollingOut",
                "JobManagers are being replaced, created or removed, the leader last".to_owned(),
            )
        } else if task_managers.is_rolling_out(self.observed.task_manager_deployment.as_deref()) {
            (true, "TaskManagersRollingOut", "TaskManagers are being replaced, created or removed".to_owned())
        } else if !job_managers.is_complete() || !task_managers.is_complete() {
            let (job, task) = (&job_managers.members.ready, &task_managers.members.ready);
            (true, "PodsStarting", format!("{job} JobManagers and {task} TaskManagers are ready"))
        } else if phase == Some(Phase::Savepointing) {
            (true, "Savepointing", "the job is being stopped with a savepoint".to_owned())
        } else if phase == Some(Phase::Starting) {
            (true, "JobStarting", "not all tasks of the job have run yet".to_owned())
        } else {
            (false, "Complete", "everything is as the resource asks for".to_owned())
        };
        Verdict::new(PROGRESSING, holds, reason, message)
    }
}
