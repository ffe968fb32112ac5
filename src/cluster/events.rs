//! What is worth an event: the difference between two states of a resource's status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::causes;
use super::ha_status::is_half_full;
use super::status::{DEGRADED, JOBS_QUARANTINED, PAUSED, READY, ROLLING_OUT};
use crate::api::application::Savepoint;
use crate::api::status::{Failover, FlinkHaClusterStatus, JobStatus};
use crate::ledger::jobs::RecordedState;

/// An event to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Something is wrong.
    pub warning: bool,
    /// CamelCase, for machines.
    pub reason: String,
    pub message: String,
}

/// What happened between two states.
pub fn notes(before: &FlinkHaClusterStatus, after: &FlinkHaClusterStatus) -> Vec<EventNote> {
    let mut notes = Vec::new();
    let term = |status: &FlinkHaClusterStatus| status.leader.as_ref().map(|leader| (leader.pod.clone(), leader.term));
    if before.last_failover != after.last_failover
        && let Some(failover) = &after.last_failover
    {
        notes.push(EventNote { warning: false, reason: "Failover".to_owned(), message: moved(failover) });
    } else if term(before) != term(after)
        && let Some(leader) = &after.leader
        && before.leader.is_none()
    {
        let message = format!("{} was elected in term {}", leader.pod, leader.term);
        notes.push(EventNote { warning: false, reason: "LeaderElected".to_owned(), message });
    }
    if is_half_full(after.ha_data.as_ref())
        && !is_half_full(before.ha_data.as_ref())
        && let Some(size) = after.ha_data.as_ref().and_then(|ha_data| ha_data.largest_config_map.as_ref())
    {
        notes.push(EventNote { warning: true, reason: "HaDataGrows".to_owned(), message: causes::large(&size.into()) });
    }
    for job in after.jobs.iter().filter(|job| !before.jobs.contains(job)) {
        let was = before.jobs.iter().find(|known| known.id == job.id);
        let is_aside = |state: &str| state == RecordedState::Quarantined.as_str();
        let came_back = was.is_some_and(|was| is_aside(&was.state)) && job.ended.is_none() && !is_aside(&job.state);
        let message = match (was, &job.ended) {
            _ if came_back => {
                format!("job {} ({}) is no longer set aside: its files are there again", name_of(job), job.id)
            }
            // One that comes back because others have ended is not new.
            (None, None) if before.jobs_left_out.is_none() => {
                format!("job {} ({}) is stored: it survives the loss of any JobManager", name_of(job), job.id)
            }
            (Some(was), Some(_)) if was.ended.is_none() => ended(job),
            _ => continue,
        };
        let reason = match &job.ended {
            Some(_) => "JobEnded",
            None if came_back => "JobBroughtBack",
            None => "JobStored",
        };
        notes.push(EventNote { warning: job.state == "Failed", reason: reason.to_owned(), message });
    }
    for (kind, warning) in [(DEGRADED, true), (JOBS_QUARANTINED, true), (READY, false)] {
        // A roll-out is asked for, and its end is told.
        if let Some(condition) = begun(kind, before, after).filter(|condition| condition.reason != ROLLING_OUT) {
            notes.push(EventNote { warning, reason: condition.reason.clone(), message: condition.message.clone() });
        }
    }
    notes.extend(pause(before, after));
    notes.extend(savepoints(before, after));
    notes
}

/// Savepoints that are new.
fn savepoints(before: &FlinkHaClusterStatus, after: &FlinkHaClusterStatus) -> impl Iterator<Item = EventNote> {
    let listed = |status: &FlinkHaClusterStatus| {
        status.application.as_ref().map(|application| application.savepoints.clone()).unwrap_or_default()
    };
    let known = listed(before);
    let new = listed(after).into_iter().filter(move |savepoint| !known.contains(savepoint));
    new.map(|savepoint| EventNote { warning: false, reason: "SavepointTaken".to_owned(), message: taken(&savepoint) })
}

/// What is said of a savepoint.
pub fn taken(savepoint: &Savepoint) -> String {
    format!("the savepoint {} is complete: {}", savepoint.id, savepoint.path)
}

/// What is said of a change of leader.
pub fn moved(failover: &Failover) -> String {
    let Failover { from, to, why, leaderless_milliseconds, .. } = failover;
    let duration = leaderless_milliseconds.map(|milliseconds| format!(" after {milliseconds} ms")).unwrap_or_default();
    format!("leadership moved from {from} to {to}{duration}: {why}")
}

/// What is said of a job that has ended.
pub fn ended(job: &JobStatus) -> String {
    format!("job {} ({}) has ended: {}", name_of(job), job.id, job.state)
}

fn name_of(job: &JobStatus) -> &str {
    if job.name.is_empty() { &job.id } else { &job.name }
}

/// The beginning or the end of a pause.
fn pause(before: &FlinkHaClusterStatus, after: &FlinkHaClusterStatus) -> Option<EventNote> {
    let find =
        |status: &FlinkHaClusterStatus| status.conditions.iter().find(|condition| condition.type_ == PAUSED).cloned();
    let (reason, message) = match (find(before), find(after)) {
        (None, Some(paused)) => ("Paused", paused.message),
        (Some(_), None) => {
            ("Resumed", "the resource is not paused any more: the operator works on it again".to_owned())
        }
        _ => return None,
    };
    Some(EventNote { warning: false, reason: reason.to_owned(), message })
}

/// The condition, if it holds now and did not before, or did for another reason.
fn begun<'a>(kind: &str, before: &FlinkHaClusterStatus, after: &'a FlinkHaClusterStatus) -> Option<&'a Condition> {
    let holding = |condition: &&Condition| condition.type_ == kind && condition.status == "True";
    let now = after.conditions.iter().find(holding)?;
    let known = before.conditions.iter().find(holding).is_some_and(|condition| condition.reason == now.reason);
    (!known).then_some(now)
}
