//! The status of a cluster, made of what has been observed.

mod conditions;
mod election;
mod facts;
mod failing;
mod generation;
mod kinds;
mod members;
mod operator_roll_out;
mod quarantine;
#[cfg(test)]
mod tests;
mod waiting;

use std::time::Duration;

use jiff::Timestamp;

use self::election::Election;
use self::facts::Facts;
pub use self::failing::{TOLERANCE, failing, still_failing};
pub use self::kinds::{
    Applied, CONTESTED, DEGRADED, JOBS_QUARANTINED, LEADER_ELECTED, PAUSED, PROGRESSING, READY, RECONCILING,
    ROLLING_OUT, STALLED,
};
use self::members::Group;
pub use self::operator_roll_out::announced;
use super::application::Desired;
use super::application::definitions::redacted;
use super::failovers::failovers;
use super::ha_status::{ha_data, jobs};
use super::observed::Observed;
use super::pause::Pause;
use super::rejection::Rejection;
use crate::api::FlinkHaCluster;
use crate::api::names::{JOB_MANAGER, TASK_MANAGER};
use crate::api::status::FlinkHaClusterStatus;

/// What is said of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub status: FlinkHaClusterStatus,
    /// After this time something else is to be said, which no watch tells of.
    pub look_again: Option<Duration>,
}

/// The status that goes with what was observed. `before` is the status until now, and `now` the time of the transitions
/// found.
pub fn status(
    resource: &FlinkHaCluster,
    desired: &Desired,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    outcome: &Result<Applied, Rejection>,
    now: Timestamp,
) -> Told {
    let generation = resource.metadata.generation;
    let name = resource.metadata.name.as_deref().unwrap_or_default();
    let (application, replicas) = (desired.application(), |asked| if desired.is_stopped() { 0 } else { asked });
    let election = Election::of(observed);
    let job_managers =
        Group::of(name, JOB_MANAGER, replicas(desired.spec.job_manager.replicas), &observed.job_manager_pods);
    let task_managers =
        Group::of(name, TASK_MANAGER, replicas(desired.spec.task_manager.replicas), &observed.task_manager_pods);
    let facts = Facts {
        resource,
        before,
        observed,
        outcome,
        application,
        election: &election,
        job_managers: &job_managers,
        task_managers: &task_managers,
        pause: Pause::of(resource),
        now,
    };
    let ((conditions, look_again), is_deleted) = (facts.conditions(), facts.is_deleted());
    let is_paused = facts.pause.is_some();
    let (jobs, jobs_left_out) = jobs(observed.jobs(), &observed.checkpoints());
    let status = FlinkHaClusterStatus {
        observed_generation: if is_paused { before.observed_generation } else { generation },
        leader: election.leader().filter(|_| !is_deleted),
        job_manager: job_managers.members,
        task_manager: task_managers.members,
        failovers: failovers(&election.record, observed.failovers(), &before.failovers),
        last_failover: election.failover().or_else(|| before.last_failover.clone()),
        jobs,
        jobs_left_out,
        ha_data: observed.ha_data().map(ha_data),
        application: application.cloned(),
        gateway_image: match outcome {
            Ok(applied) if !is_paused => Some(applied.gateway_image.clone()),
            _ => before.gateway_image.clone(),
        },
        applied: match outcome {
            Ok(applied) => applied.objects.clone(),
            Err(_) => before.applied.clone(),
        },
        conditions,
    };
    Told { status: redacted(status), look_again }
}
