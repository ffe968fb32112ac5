//! What the cluster waits for, with the time after which the condition `Degraded` tells of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::facts::Facts;
use super::generation::{self, Generation};
use super::kinds::{LEADER_ELECTED, READY, find};
use crate::api::application::{Application, Phase};
use crate::api::names;
use crate::api::rest::IpFamilyPolicy;
use crate::api::v1alpha1::Provider;
use crate::cluster::application::{periodic, waits_for_pods};
use crate::cluster::cause::Cause;
use crate::cluster::observed::ObservedDeployment;
use crate::cluster::peer_key::{self, PROMISE};
use crate::cluster::waits::{self, Wait, since};

/// Somebody leads again by then.
const ELECTION: SignedDuration = SignedDuration::from_secs(30);
/// Somebody leads for the first time since the pods came.
const FIRST_ELECTION: SignedDuration = SignedDuration::from_secs(120);
/// A standby that is lost is replaced by then.
const STANDBY: SignedDuration = SignedDuration::from_secs(60);
/// Pods have ended by then, or so long after the grace period that they were given.
const PODS_GOING: SignedDuration = SignedDuration::from_secs(30);
/// The leader's address has been published by then.
const DISCOVERY: SignedDuration = SignedDuration::from_secs(30);
/// A Secret that was made again has reached all pods by then.
const KEY: SignedDuration = SignedDuration::from_secs(180);
/// A periodic savepoint is complete by then.
const PERIODIC_SAVEPOINT: SignedDuration = SignedDuration::from_secs(600);
/// Pods that a message names.
const NAMED: usize = 5;

/// What is waited for, apart from what Kubernetes says at once.
pub(super) struct Waiting(Vec<Wait>);

impl Waiting {
    pub fn of(facts: &Facts<'_>, generation: &Generation) -> Self {
        // Nothing was ever made for a resource that is new and paused.
        if facts.is_deleted() || (facts.is_unseen() && facts.before.observed_generation.is_none()) {
            return Self(Vec::new());
        }
        let waits = [
            no_leader(facts),
            no_standby(facts),
            no_promise(facts),
            no_key(facts),
            pods_going(facts),
            savepoint(facts),
            periodic_savepoint(facts),
            discovery(facts),
            roll_out(facts, generation),
        ];
        let pods = if facts.job_managers.wanted > 0 { waits::of_pods(facts.observed) } else { Vec::new() };
        Self(waits.into_iter().flatten().chain(pods).collect())
    }

    /// What has been waited for too long.
    pub fn overdue(&self, now: Timestamp) -> impl Iterator<Item = Cause> {
        self.0.iter().filter(move |wait| wait.is_overdue(now)).map(|wait| wait.cause.clone())
    }

    /// The time until something else is to be said. No watch tells of it.
    pub fn look_again(&self, now: Timestamp) -> Option<Duration> {
        let next = self.0.iter().map(|wait| {
            let events = if wait.cause.reason == waits::NOT_STARTED { waits::NEXT_LOOK } else { SignedDuration::MAX };
            let left = wait.left(now);
            if left > SignedDuration::ZERO { left.min(events) } else { events }
        });
        let next = next.min().filter(|next| *next < SignedDuration::MAX)?;
        // Times in a status are whole seconds.
        Some(Duration::try_from(next).unwrap_or_default() + Duration::from_secs(1))
    }
}

/// When the pods of an application began to come or to go.
fn phase_since(application: Option<&Application>) -> Option<Timestamp> {
    Some(application?.since.as_ref()?.0)
}

fn no_leader(facts: &Facts<'_>) -> Option<Wait> {
    if facts.job_managers.wanted == 0 || facts.election.granted() {
        return None;
    }
    let lost = find(&facts.before.conditions, LEADER_ELECTED).filter(|condition| condition.status == "False");
    let lost = lost.map_or(facts.now, |condition| condition.last_transition_time.0);
    let phase = facts.application.map(|application| application.phase);
    let came = phase_since(facts.application).filter(|_| phase == Some(Phase::Starting));
    let begin = came.map_or(lost, |came| came.max(lost));
    let is_first = facts.election.record.term.is_none() || came.is_some();
    let pods = facts.observed.job_manager_pods.iter().filter(|pod| pod.is_live());
    let state = |pod: &crate::cluster::observed::ObservedPod| match (&pod.metadata.deletion_timestamp, pod.is_ready()) {
        (Some(_), _) => "is being deleted",
        (None, true) => "could lead",
        (None, false) => "is not ready",
    };
    let candidates: Vec<String> = pods.take(NAMED).map(|pod| format!("{} {}", pod.name(), state(pod))).collect();
    let candidates =
        if candidates.is_empty() { "there is no JobManager's pod".to_owned() } else { candidates.join(", ") };
    let message = format!("no JobManager leads {}: {}; {candidates}", since(begin), facts.election.verdict().message);
    let limit = if is_first { FIRST_ELECTION } else { ELECTION };
    Some(Wait { since: begin, limit, cause: Cause { reason: "NoLeader", message } })
}

fn no_standby(facts: &Facts<'_>) -> Option<Wait> {
    let now = facts.ready();
    if now.reason != "NoStandby" {
        return None;
    }
    let lost = find(&facts.before.conditions, READY).filter(|condition| condition.status == "False");
    let begin = lost.map_or(facts.now, |condition| condition.last_transition_time.0);
    let message = format!(
        "no standby could take over {}: {} of {} JobManagers are ready; a failover would take as long as a new pod needs",
        since(begin),
        facts.job_managers.members.ready_replicas,
        facts.job_managers.wanted
    );
    Some(Wait { since: begin, limit: STANDBY, cause: Cause { reason: "NoStandby", message } })
}

/// Standbys do not promise the leader to leave the Lease alone, so that it would not survive an outage of the API
/// server.
fn no_promise(facts: &Facts<'_>) -> Option<Wait> {
    let by_lease = facts.resource.spec.high_availability.provider == Provider::Kubernetes;
    let record = &facts.election.record;
    let granted: Timestamp = record.change.as_ref().and_then(|change| change.at.parse().ok())?;
    let silent: Vec<_> = peer_key::silent(facts.observed, record).collect();
    if !by_lease || !facts.election.granted() || silent.is_empty() {
        return None;
    }
    let begin = silent.iter().filter_map(|pod| pod.ready_since()).max().map_or(granted, |ready| ready.max(granted));
    let names: Vec<&str> = silent.iter().take(NAMED).map(|pod| pod.name()).collect();
    let (names, holder) = (names.join(", "), &record.holder);
    let key = names::peers(facts.resource.metadata.name.as_deref().unwrap_or_default());
    let message = format!(
        "{names} could take over, but has not promised {holder} to wait for it {}, so that {holder} would stop leading in \
         an outage of the API server: their gateways have no common key, or a NetworkPolicy keeps them from each other's \
         port {}; a Secret {key} that is gone is made again, and reaches all pods within two minutes, unless an earlier \
         version made the one before: then delete the pods of the JobManagers one after another, {holder} last",
        since(begin),
        names::PROBE_PORT
    );
    Some(Wait { since: begin, limit: PROMISE, cause: Cause { reason: "NoPromise", message } })
}

/// The Secret with the gateways' key is gone, and does not come back.
fn no_key(facts: &Facts<'_>) -> Option<Wait> {
    let begin = peer_key::missing_since(facts.observed).filter(|_| facts.election.granted())?;
    let key = names::peers(facts.resource.metadata.name.as_deref().unwrap_or_default());
    let holder = &facts.election.record.holder;
    let by_lease = facts.resource.spec.high_availability.provider == Provider::Kubernetes;
    let consequence = if by_lease {
        format!("{holder} would stop leading in an outage of the API server")
    } else {
        "a changed Secret of spec.flinkConfigurationFrom is not noticed".to_owned()
    };
    let message = format!(
        "the gateway of {holder} finds no key in Secret {key} {}: gateways that run keep the one that they have read, and \
         those that start have none, so that {consequence}; the operator has made the Secret again: look whether it is there, \
         and whether its key 'key' has at least 16 bytes; if it has fewer, delete it",
        since(begin)
    );
    Some(Wait { since: begin, limit: KEY, cause: Cause { reason: "NoKey", message } })
}

/// An application waits for its pods to be gone, and watches show some.
fn pods_going(facts: &Facts<'_>) -> Option<Wait> {
    let begin = phase_since(facts.application).filter(|_| waits_for_pods(facts.application))?;
    // What the API server itself says is told at once.
    if facts.observed.presence.is_some() {
        return None;
    }
    let pods: Vec<String> = facts.observed.live_pods().take(NAMED).map(|pod| pod.name().to_owned()).collect();
    let pods = (!pods.is_empty()).then(|| format!("pods {} have not ended", pods.join(", ")));
    let deployments = [&facts.observed.job_manager_deployment, &facts.observed.task_manager_deployment];
    let deployments = deployments.into_iter().flatten().filter_map(|deployment| of_deployment(deployment));
    let what: Vec<String> = pods.into_iter().chain(deployments).collect();
    if what.is_empty() {
        return None;
    }
    let ends = facts.observed.live_pods().filter_map(|pod| pod.metadata.deletion_timestamp.as_ref());
    let ends = ends.map(|time| time.0).max().map_or(begin, |last| last.max(begin));
    let message = format!(
        "pods of the former version must end before the application continues, {}: {}",
        since(begin),
        what.join("; ")
    );
    let limit = ends.duration_since(begin) + PODS_GOING;
    Some(Wait { since: begin, limit, cause: Cause { reason: "PodsRemain", message } })
}

/// Why a Deployment that is to have no pods has some.
fn of_deployment(deployment: &ObservedDeployment) -> Option<String> {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let (status, generation) = (&deployment.status, deployment.metadata.generation.unwrap_or_default());
    if status.observed_generation < generation {
        return Some(format!(
            "Deployment {name} is scaled to zero, which its controller has not seen: is kube-controller-manager running?"
        ));
    }
    (status.replicas > 0).then(|| format!("Deployment {name} still has {} pods", status.replicas))
}

fn savepoint(facts: &Facts<'_>) -> Option<Wait> {
    let application = facts.application.filter(|application| application.phase == Phase::Savepointing)?;
    let (begin, id) = (phase_since(Some(application))?, application.savepoint_request.clone().unwrap_or_default());
    let answer = facts.observed.progress().savepoint.filter(|answer| answer.id == id);
    let asked = answer.filter(|answer| !answer.by.is_empty()).map_or_else(
        || "no JobManager has taken the request up".to_owned(),
        |answer| format!("{} was asked for it in term {}", answer.by, answer.attempt),
    );
    let message = format!(
        "the job is being stopped with the savepoint {id} {}: {asked}; it is not given up by itself, because one that is \
         complete later ends the job all the same; see Flink's log and its REST API for what holds it up (back pressure, \
         the savepoint's directory), or cancel the job if its state is not needed",
        since(begin)
    );
    let limit = generation::upgrade_deadline(facts.resource);
    Some(Wait { since: begin, limit, cause: Cause { reason: "SavepointWaits", message } })
}

fn periodic_savepoint(facts: &Facts<'_>) -> Option<Wait> {
    let application = facts.application.filter(|application| application.phase == Phase::Running)?;
    let id = periodic::requested(application)?;
    let begin = application.periodic_savepoints.as_ref()?.last.as_ref()?.0;
    let message = format!(
        "the savepoint {id} is not complete {}, and the job runs on: see Flink's log and its REST API for what holds it up \
         (back pressure, the savepoint's directory); it is given up after an hour, or after the interval if that is longer; \
         without spec.job.savepoints.interval none is taken",
        since(begin)
    );
    let cause = Cause { reason: "PeriodicSavepointWaits", message };
    Some(Wait { since: begin, limit: PERIODIC_SAVEPOINT, cause })
}

fn discovery(facts: &Facts<'_>) -> Option<Wait> {
    let slices = Some(&facts.observed.rest).filter(|slices| !slices.is_empty() && facts.election.granted())?;
    let empty: Vec<_> = slices.iter().filter(|slice| !slice.has_address()).collect();
    // Pods may have an address of one family only, unless the Service has both for certain.
    let needs_all = facts.resource.spec.rest.ip_family_policy == Some(IpFamilyPolicy::RequireDualStack);
    if empty.is_empty() || empty.len() < slices.len() && !needs_all {
        return None;
    }
    let granted = facts.election.record.change.as_ref().and_then(|change| change.at.parse().ok());
    let begin: Timestamp = granted.or_else(|| Some(facts.election.since.as_ref()?.0))?;
    let service = names::rest(facts.resource.metadata.name.as_deref().unwrap_or_default());
    let names: Vec<&str> = empty.iter().filter_map(|slice| slice.metadata.name.as_deref()).collect();
    let holder = &facts.election.record.holder;
    let message = format!(
        "{holder} leads, and EndpointSlice {} has no address {}, so that Service {service} reaches nobody: its gateway \
         cannot write it, or its pod has no address of that family (kubectl logs {holder} --container gateway), and tries \
         again",
        names.join(" and "),
        since(begin)
    );
    Some(Wait { since: begin, limit: DISCOVERY, cause: Cause { reason: "RestWithoutAddress", message } })
}

fn roll_out(facts: &Facts<'_>, generation: &Generation) -> Option<Wait> {
    let Generation::RollingOut { reason, message } = generation else { return None };
    // The condition `Paused` says it.
    if facts.pause.is_some() {
        return None;
    }
    let begin = generation::rolls_since(facts)?;
    let deployments = [&facts.observed.job_manager_deployment, &facts.observed.task_manager_deployment];
    let late = deployments.into_iter().flatten().filter_map(|deployment| late(deployment));
    let late: String = late.map(|late| format!("; {late}")).collect();
    let number = facts.resource.metadata.generation.unwrap_or_default();
    let message = format!("generation {number} is not rolled out {}: {reason}: {message}{late}", since(begin));
    let limit = generation::timeout(facts.resource);
    Some(Wait { since: begin, limit, cause: Cause { reason: "RollOutLate", message } })
}

/// What Kubernetes says of a Deployment that makes no progress.
fn late(deployment: &ObservedDeployment) -> Option<String> {
    let conditions = deployment.status.conditions.iter();
    let mut stuck = conditions.filter(|condition| condition.kind == "Progressing" && condition.status == "False");
    let condition = stuck.next()?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    Some(format!("Deployment {name}: {}: {}", condition.reason, condition.message))
}
