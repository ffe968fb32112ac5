//! The status of a cluster, made of what has been observed.

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::build;
use super::cause::{self, Cause};
use super::observed::{Observed, ObservedDeployment, ObservedPod};
use crate::api::FlinkHaCluster;
use crate::api::names::{JOB_MANAGER, TASK_MANAGER};
use crate::api::status::{Failover, FlinkHaClusterStatus, Leader, Members};
use crate::lease::record::Record;

/// Who leads is elected on a Lease, and there is somebody.
pub const LEADER_ELECTED: &str = "LeaderElected";
/// The cluster does its work and survives the loss of its leader.
pub const READY: &str = "Ready";
/// The operator or Kubernetes is on the way to what the resource asks for.
pub const PROGRESSING: &str = "Progressing";
/// Something is wrong that will not go by itself; the message says what.
pub const DEGRADED: &str = "Degraded";

/// What became of applying the resource.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All objects are as the resource asks for.
    Applied {
        /// The gateway's image that was chosen.
        gateway_image: String,
    },
    /// The resource cannot be applied until its user changes it; the cluster runs on as it was.
    Refused(Cause),
}

/// The status that goes with what was observed. `before` is the status until now, and `now` the time of the transitions found.
pub fn status(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    outcome: &Outcome,
    now: Timestamp,
) -> FlinkHaClusterStatus {
    let generation = resource.metadata.generation;
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let spec = &resource.spec;
    let election = Election::of(observed);
    let job_manager = members(name, JOB_MANAGER, spec.job_manager.replicas, &observed.job_manager_pods);
    let task_manager = members(name, TASK_MANAGER, spec.task_manager.replicas, &observed.task_manager_pods);
    let verdicts = [
        election.verdict(),
        ready(&election, spec.job_manager.replicas, &job_manager, spec.task_manager.replicas, &task_manager),
        progressing(observed, outcome, spec.job_manager.replicas, &job_manager, spec.task_manager.replicas, &task_manager),
        degraded(observed, outcome),
    ];
    FlinkHaClusterStatus {
        observed_generation: generation,
        leader: election.leader(),
        job_manager,
        task_manager,
        last_failover: election.failover().or_else(|| before.last_failover.clone()),
        gateway_image: match outcome {
            Outcome::Applied { gateway_image } => Some(gateway_image.clone()),
            Outcome::Refused(_) => before.gateway_image.clone(),
        },
        conditions: verdicts.into_iter().map(|verdict| verdict.condition(&before.conditions, generation, now)).collect(),
    }
}

/// A condition without its times.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn condition(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let unchanged = before.iter().find(|condition| condition.type_ == self.kind && condition.status == status);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: generation,
            last_transition_time: unchanged.map_or_else(|| seconds(now), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// What the Lease says, held against the pods.
struct Election {
    record: Record,
    since: Option<Time>,
    /// The holder is a pod that exists.
    has_pod: bool,
}

impl Election {
    fn of(observed: &Observed) -> Self {
        let record = observed.lease.as_deref().map(Record::of).unwrap_or_default();
        let acquired = observed.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.acquire_time.clone());
        let has_pod = observed.job_manager_pods.iter().any(|pod| pod.name() == record.holder);
        Self { record, since: acquired.map(|time| seconds(time.0)), has_pod }
    }

    fn term(&self) -> u64 {
        self.record.term.as_ref().map_or(0, |term| term.number)
    }

    /// The holder's JobManager leads: the gateway says so in the record of the change, once Flink has been granted leadership.
    fn granted(&self) -> bool {
        self.has_pod && self.record.change.as_ref().is_some_and(|change| change.to == self.record.holder)
    }

    fn leader(&self) -> Option<Leader> {
        let leader =
            || Leader { pod: self.record.holder.clone(), term: i64::try_from(self.term()).unwrap_or(i64::MAX), since: self.since.clone() };
        self.has_pod.then(leader)
    }

    fn failover(&self) -> Option<Failover> {
        let change = self.record.change.as_ref().filter(|change| !change.from.is_empty() && !change.to.is_empty())?;
        Some(Failover {
            from: change.from.clone(),
            to: change.to.clone(),
            why: change.why.clone(),
            leaderless_milliseconds: i64::try_from(change.leaderless_millis).ok(),
            at: change.at.parse().ok().map(seconds),
        })
    }

    fn verdict(&self) -> Verdict {
        let holder = &self.record.holder;
        let (holds, reason, message) = if holder.is_empty() {
            (false, "NoLeader", "no JobManager holds the Lease".to_owned())
        } else if !self.has_pod {
            (false, "LeaderGone", format!("pod {holder}, which holds the Lease, is gone; its Lease runs out"))
        } else if self.granted() {
            (true, "LeaderElected", format!("{holder} leads in term {}", self.term()))
        } else {
            (false, "TakingOver", format!("{holder} was elected in term {}; its JobManager is taking over", self.term()))
        };
        Verdict { kind: LEADER_ELECTED, holds, reason, message }
    }
}

fn members(cluster: &str, component: &str, wanted: i32, pods: &[std::sync::Arc<ObservedPod>]) -> Members {
    let ready = count(pods.iter().filter(|pod| pod.is_ready()).count());
    let label = |(key, value): (String, serde_json::Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    Members {
        replicas: count(pods.len()),
        ready_replicas: ready,
        ready: format!("{ready}/{wanted}"),
        selector: build::selector(cluster, component).into_iter().map(label).collect::<Vec<_>>().join(","),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn ready(election: &Election, job_managers: i32, job_manager: &Members, task_managers: i32, task_manager: &Members) -> Verdict {
    let standbys = job_manager.ready_replicas - 1;
    let (holds, reason, message) = if !election.granted() {
        (false, "NoLeader", election.verdict().message)
    } else if task_manager.ready_replicas < task_managers {
        (false, "TaskManagersNotReady", format!("{} TaskManagers are ready", task_manager.ready))
    } else if job_managers > 1 && standbys < 1 {
        (false, "NoStandby", "no standby could take over if the leader failed".to_owned())
    } else {
        (
            true,
            "Ready",
            format!(
                "{} leads; {} JobManagers and {} TaskManagers are ready",
                election.record.holder, job_manager.ready, task_manager.ready
            ),
        )
    };
    Verdict { kind: READY, holds, reason, message }
}

fn progressing(
    observed: &Observed,
    outcome: &Outcome,
    job_managers: i32,
    job_manager: &Members,
    task_managers: i32,
    task_manager: &Members,
) -> Verdict {
    let rolling = |deployment: &Option<std::sync::Arc<ObservedDeployment>>, wanted: i32| {
        deployment.as_ref().is_none_or(|deployment| {
            let status = &deployment.status;
            status.observed_generation < deployment.metadata.generation.unwrap_or_default()
                || status.updated_replicas < wanted
                || status.replicas > status.updated_replicas
        })
    };
    let (holds, reason, message) = if let Outcome::Refused(_) = outcome {
        (false, "Refused", "the resource cannot be applied until it is changed; see Degraded".to_owned())
    } else if rolling(&observed.job_manager_deployment, job_managers) {
        (true, "JobManagersRollingOut", "JobManagers are being replaced, created or removed; the leader goes last".to_owned())
    } else if rolling(&observed.task_manager_deployment, task_managers) {
        (true, "TaskManagersRollingOut", "TaskManagers are being replaced, created or removed".to_owned())
    } else if job_manager.ready_replicas < job_managers || task_manager.ready_replicas < task_managers {
        let message = format!("{} JobManagers and {} TaskManagers are ready", job_manager.ready, task_manager.ready);
        (true, "PodsStarting", message)
    } else {
        (false, "Complete", "everything is as the resource asks for".to_owned())
    };
    Verdict { kind: PROGRESSING, holds, reason, message }
}

fn degraded(observed: &Observed, outcome: &Outcome) -> Verdict {
    let refused = match outcome {
        Outcome::Refused(cause) => Some(cause.clone()),
        Outcome::Applied { .. } => None,
    };
    let causes: Vec<Cause> = refused.into_iter().chain(cause::causes(observed)).collect();
    let (holds, reason, message) = match causes.as_slice() {
        [] => (false, "AsExpected", "no problem is known".to_owned()),
        [only] => (true, only.reason, only.message.clone()),
        [first, others @ ..] => (true, first.reason, format!("{}; and {} more", first.message, others.len())),
    };
    Verdict { kind: DEGRADED, holds, reason, message }
}

/// Times in a status count seconds.
fn seconds(time: Timestamp) -> Time {
    let whole = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc);
    Time(time.round(whole).unwrap_or(time))
}
