//! The savepoint with which the deletion of a resource stops its job (`spec.job.savepoints.onDelete`).
//!
//! What was asked for is never dropped silently: when there is no savepoint in time, the HA data stays, whatever
//! `spec.haData.onDelete` says. And no deletion waits for ever: it goes on at the deadline, or as soon as it is known
//! that there can be no savepoint.

use jiff::{SignedDuration, Timestamp};

use super::decision::has_no_pods;
use super::lifecycle::COLLECTION_TIMEOUT;
use super::versions::request_directory;
use super::{decided, periodic};
use crate::api::application::{Application, Phase, Savepoint};
use crate::api::status::FlinkHaClusterStatus;
use crate::api::time::seconds;
use crate::api::v1alpha1::OnDelete;
use crate::api::{FlinkHaCluster, names};
use crate::cluster::cause::Cause;
use crate::cluster::observed::Observed;
use crate::cluster::waits::since;
use crate::flink::job_id::JobId;
use crate::ledger::application::{SavepointAnswer, SavepointRequest};

/// Between a failed attempt and the next one.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How ids of these savepoints begin. Seconds since 1970 follow: a resource of the same name that was deleted before
/// may have left its answer in the ledger.
const DELETE: &str = "delete-";

/// What the deletion of an application does before it removes anything.
#[derive(Clone, Debug, PartialEq)]
pub enum LastSavepoint {
    /// Nothing, or nothing more.
    Go(EndOfWait),
    /// It waits, and the leader is asked.
    Wait { application: Box<Application>, request: Option<SavepointRequest>, cause: Cause },
}

/// How the wait for the savepoint ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndOfWait {
    /// The savepoint that holds the job's last state.
    pub path: Option<String>,
    /// Why there is none although it was asked for: then the HA data stays.
    pub missing: Option<String>,
    /// When the wait ended, if there was one.
    pub at: Option<Timestamp>,
}

impl EndOfWait {
    /// What an event says of it.
    pub fn sentence(&self) -> Option<String> {
        let missing = self.missing.as_ref().map(|why| {
            format!(
                "the savepoint of spec.job.savepoints.onDelete is missing, so that the HA data stays: {why}. Apply the \
                 same resource again: the job goes on"
            )
        });
        missing.or_else(|| Some(format!("the job's last state is in {}", self.path.as_ref()?)))
    }

    /// The resource as it is to be deleted: without the savepoint that was asked for, its HA data stays.
    pub fn retaining(&self, resource: &FlinkHaCluster) -> FlinkHaCluster {
        let mut resource = resource.clone();
        if self.missing.is_some() {
            resource.spec.ha_data.on_delete = OnDelete::Retain;
        }
        resource
    }

    /// Notes in the status what the ledger says, before it is gone.
    pub fn note(&self, status: &mut FlinkHaClusterStatus, observed: &Observed) {
        let Some(application) = &mut status.application else { return };
        if !observed.savepoints().is_empty() {
            application.savepoints = periodic::shown(observed.savepoints());
        }
        let id = application.savepoint_request.clone().filter(|id| id.starts_with(DELETE));
        if let (Some(path), Some(id)) = (&self.path, id) {
            application.last_savepoint = Some(Savepoint { path: path.clone(), at: self.at.map(seconds), id });
        }
    }

    fn with(path: &str, at: Option<Timestamp>) -> LastSavepoint {
        LastSavepoint::Go(Self { path: Some(path.to_owned()), at, ..Self::default() })
    }

    fn without(why: impl Into<String>, at: Option<Timestamp>) -> LastSavepoint {
        LastSavepoint::Go(Self { missing: Some(why.into()), at, ..Self::default() })
    }
}

/// Decides. `before`: the status until now.
pub fn last_savepoint(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
    now: Timestamp,
) -> LastSavepoint {
    let nothing = LastSavepoint::Go(EndOfWait::default());
    let wanted = resource.spec.job.as_ref().map(|job| &job.savepoints).filter(|wanted| wanted.on_delete);
    let (Some(wanted), Some(asked)) = (wanted, resource.metadata.deletion_timestamp.as_ref()) else { return nothing };
    let progress = observed.progress();
    let Some(application) = decided(before) else {
        // No run was ever decided on, or somebody has edited the status.
        return if progress.job.is_none() && observed.jobs().is_empty() {
            nothing
        } else {
            EndOfWait::without("the status does not say which run the application has", None)
        };
    };
    // The ledger may be gone by now.
    if let Some(done) = application.last_savepoint.as_ref().filter(|done| done.id.starts_with(DELETE)) {
        return EndOfWait::with(&done.path, done.at.as_ref().map(|at| at.0));
    }
    let Some(run) = JobId::of(&application.job_id) else { return nothing };
    let tombstone = observed.jobs().iter().find(|job| job.id == run && job.has_ended());
    if let Some((path, at)) = stopped(application, run, &progress.savepoint) {
        // The leader removes what the job has left.
        let is_settled = tombstone.is_some_and(|job| job.collected.is_some())
            || at.is_none_or(|at| now.duration_since(at).abs() >= COLLECTION_TIMEOUT);
        let cause =
            || waits(format!("the job was stopped with the savepoint {path}, and its HA data is being removed"));
        return if is_settled || !runs(observed) {
            EndOfWait::with(path, at)
        } else {
            wait(application, observed, None, cause())
        };
    }
    // It ended by itself.
    if tombstone.is_some() || application.phase == Phase::Ended {
        return nothing;
    }
    let has_begun = progress.job == Some(run);
    let is_first = application.stable.is_none() && application.previous_job_id.is_none();
    // A ledger that is lost says nothing of a run that came up. Of one that has not, there is a run before it.
    let is_unbegun = !has_begun && (is_first || (application.previous_job_id.is_some() && progress.job.is_some()));
    if is_unbegun && let Some(path) = &application.restored_from {
        return EndOfWait::with(path, None);
    }
    if is_unbegun && is_first && progress.job.is_none() && observed.jobs().is_empty() {
        return nothing;
    }
    let (deadline, late) = deadline(&wanted.on_delete_deadline, asked.0);
    let mut application = application.clone();
    let requested = application.savepoint_request.clone();
    let answer = progress.savepoint.as_ref().filter(|answer| Some(&answer.id) == requested.as_ref());
    let is_stop = requested.as_deref().is_some_and(is_stop);
    let error = answer.and_then(|answer| answer.error.clone()).or(application.error.take().filter(|_| is_stop));
    let failed = error.as_ref().map(|error| format!("the last attempt failed: {error}; ")).unwrap_or_default();
    let state = format!("{failed}{}", state(answer));
    if now >= late {
        return EndOfWait::without(format!("it was not complete within {deadline}: {state}"), Some(late));
    }
    if !runs(observed) || has_no_pods(application.phase) {
        return EndOfWait::without("no JobManager of the application runs, and its last state is in its HA data", None);
    }
    let retries = answer.is_some_and(|answer| answer.error.is_some() && is_over(answer, now));
    let same = requested.filter(|_| is_stop && !retries);
    let id = same.unwrap_or_else(|| format!("{DELETE}{}", now.as_second()));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&resource.metadata.namespace), text(&resource.metadata.name));
    let own_directory = names::high_availability_cluster_id(&namespace, &name);
    let Some(directory) = request_directory(&resource.spec, &own_directory, &id) else {
        return EndOfWait::without("spec.flinkConfiguration has no execution.checkpointing.savepoint-dir", None);
    };
    (application.phase, application.error) = (Phase::Savepointing, error);
    application.savepoint_request = Some(id.clone());
    let request = SavepointRequest { job: run, directory, stop: true, retain: None, id };
    let cause = waits(format!(
        "the deletion waits for the savepoint of spec.job.savepoints.onDelete {}, until {late:.0} at the latest: {state}; then it \
         goes on, and the HA data stays. To delete without a savepoint: kubectl patch fhc {name} --namespace {namespace} \
         --type merge --patch '{{\"spec\":{{\"job\":{{\"savepoints\":{{\"onDelete\":false}}}}}}}}'",
        since(asked.0)
    ));
    wait(&application, observed, Some(request), cause)
}

fn wait(
    application: &Application,
    observed: &Observed,
    request: Option<SavepointRequest>,
    cause: Cause,
) -> LastSavepoint {
    let mut application = Box::new(application.clone());
    if !observed.savepoints().is_empty() {
        application.savepoints = periodic::shown(observed.savepoints());
    }
    LastSavepoint::Wait { application, request, cause }
}

fn waits(message: String) -> Cause {
    Cause { reason: "SavepointOnDeleteWaits", message }
}

/// The savepoint with which the run was stopped, and when. Gateways of earlier versions do not say which run they have
/// stopped.
fn stopped<'a>(
    application: &Application,
    run: JobId,
    answer: &'a Option<SavepointAnswer>,
) -> Option<(&'a str, Option<Timestamp>)> {
    let answer = answer.as_ref()?;
    let is_asked = application.savepoint_request.as_ref() == Some(&answer.id) && is_stop(&answer.id);
    let is_of_run = answer.stops == Some(run) || (answer.stops.is_none() && is_asked);
    Some((answer.path.as_deref().filter(|_| is_of_run)?, answer.at.parse().ok()))
}

/// A request for a savepoint that ends the job: that of a deletion, or of an upgrade or a suspension on its way.
fn is_stop(id: &str) -> bool {
    [DELETE, "upgrade-", "suspend-"].iter().any(|stop| id.starts_with(stop))
}

/// There may be a JobManager: its Deployment is there, and is to stay.
fn runs(observed: &Observed) -> bool {
    let deployment = observed.job_manager_deployment.as_ref();
    deployment.is_some_and(|deployment| deployment.metadata.deletion_timestamp.is_none())
}

/// A failed attempt is long enough ago.
fn is_over(answer: &SavepointAnswer, now: Timestamp) -> bool {
    answer.at.parse().ok().is_none_or(|at: Timestamp| {
        let ago = now.duration_since(at);
        ago >= RETRY || ago < SignedDuration::ZERO
    })
}

/// How long the deletion waits as the user wrote it, and until when.
fn deadline(text: &str, asked: Timestamp) -> (&str, Timestamp) {
    let wait = humantime::parse_duration(text).ok().and_then(|wait| SignedDuration::try_from(wait).ok());
    let wait = wait.unwrap_or(SignedDuration::from_mins(10));
    (text, asked.saturating_add(wait).unwrap_or(Timestamp::MAX))
}

fn state(answer: Option<&SavepointAnswer>) -> String {
    match answer.filter(|answer| answer.error.is_none() && !answer.by.is_empty()) {
        Some(answer) => format!("{} was asked for it in term {}", answer.by, answer.attempt),
        None => "no JobManager has taken the request up".to_owned(),
    }
}
