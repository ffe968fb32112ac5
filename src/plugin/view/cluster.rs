//! The state of one cluster, made of what was read of it: `status NAME`.
//!
//! The Lease, the ledger and the pods say how things are now. The resource's status says how the operator saw them
//! last, so it counts only where nothing else is known.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use super::candidates::{CandidateReport, PlacedPod, candidates};
use super::problems::{ProblemReport, problems, work};
use crate::api::FlinkHaCluster;
use crate::api::application::Upgrade;
use crate::api::names::{
    RECONCILE_ANNOTATION, ROLL_OUT_ANNOTATION, SWITCHOVER_ANNOTATION, UPGRADE_GATEWAYS_ANNOTATION,
};
use crate::api::status::{Failover, FailoverEntry, FlinkHaClusterStatus, HaDataStatus, JobStatus};
use crate::api::v1alpha1::Provider;
use crate::cluster::failovers::failovers;
use crate::cluster::ha_status::{self, with_checkpoint};
use crate::cluster::observed::ObservedConfigMap;
use crate::cluster::operators::{self, GONE};
use crate::lease::record::Record;
use crate::ledger::election;

/// What was read of a cluster. An error is a sentence that says why something is not known.
pub struct ClusterSources {
    pub resource: FlinkHaCluster,
    pub lease: Result<Option<Lease>, String>,
    pub ledger: Result<Option<ObservedConfigMap>, String>,
    pub pods: Result<Vec<PlacedPod>, String>,
    /// The Lease of the operator that reconciles the resource.
    pub operator: Result<Option<Lease>, String>,
}

/// The state of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReport {
    pub namespace: String,
    pub name: String,
    pub image: String,
    /// `Kubernetes` or `ZooKeeper`.
    pub provider: &'static str,
    /// `session` or `application`.
    pub mode: &'static str,
    /// Status and reason of the condition `Ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<ReadyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderReport>,
    pub candidates: Vec<CandidateReport>,
    /// Ready TaskManagers of those desired, for example `2/2`.
    pub task_managers: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationReport>,
    pub jobs: Vec<JobStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha_data: Option<HaDataStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,
    /// The last changes of leader, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failovers: Vec<FailoverEntry>,
    /// What the operator or Kubernetes is at work on.
    pub in_progress: Vec<String>,
    pub problems: Vec<ProblemReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorReport>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_known: BTreeMap<&'static str, String>,
}

/// The condition `Ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyReport {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
}

/// The elected JobManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderReport {
    pub pod: String,
    pub term: u64,
    /// Its Flink has taken over; until then it reads the stored data and recovers the jobs.
    pub granted: bool,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When it wrote the Lease last, RFC 3339, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed: Option<String>,
}

/// What becomes of `spec.job`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationReport {
    pub phase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    pub job_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub job_state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_savepoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_upgrade: Option<Upgrade>,
}

/// The operator that reconciles the resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorReport {
    /// `<namespace>/<name>` of its Lease.
    pub lease: String,
    /// Name of its pod.
    pub pod: String,
    /// When it wrote the Lease last, RFC 3339, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed: Option<String>,
}

impl ClusterReport {
    pub fn of(sources: &ClusterSources, now: Timestamp) -> Self {
        let ClusterSources { resource, lease, ledger, pods, operator } = sources;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&resource.metadata.namespace), text(&resource.metadata.name));
        let status = resource.status.clone().unwrap_or_default();
        let mut not_known = BTreeMap::new();
        let ledger = known("ledger", ledger, &mut not_known).and_then(Option::as_ref);
        let is_zookeeper = resource.spec.high_availability.provider == Provider::ZooKeeper;
        let of_ledger = ledger.and_then(|ledger| election::lease_of(&ledger.metadata));
        let lease = if is_zookeeper {
            of_ledger.as_ref()
        } else {
            known("lease", lease, &mut not_known).and_then(Option::as_ref)
        };
        let record = lease.map(Record::of).unwrap_or_default();
        let pods = known("pods", pods, &mut not_known).map_or(&[][..], Vec::as_slice);
        let data = ledger.map(|ledger| &ledger.data);
        let (operator, gone) = of_operator(resource, known("operator", operator, &mut not_known), now);
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        Self {
            image: resource.spec.image.clone(),
            provider: if is_zookeeper { "ZooKeeper" } else { "Kubernetes" },
            mode: if resource.spec.job.is_some() { "application" } else { "session" },
            ready: ready.map(|ready| ReadyReport { status: ready.status.clone(), reason: ready.reason.clone() }),
            leader: leader(lease, &record).or_else(|| leader_of_status(&status).filter(|_| lease.is_none())),
            candidates: candidates(&name, pods, &record, ledger.map(|ledger| &ledger.metadata)),
            task_managers: status.task_manager.ready.clone(),
            application: application(&status),
            jobs: data.map_or_else(
                || status.jobs.clone(),
                |data| data.jobs.iter().map(|job| with_checkpoint(job, &data.checkpoints)).collect(),
            ),
            ha_data: data.and_then(|data| data.ha_data.as_ref()).map(ha_status::ha_data).or(status.ha_data.clone()),
            last_failover: last_failover(&record).or_else(|| status.last_failover.clone()),
            failovers: failovers(&record, data.map(|data| &data.failovers), &status.failovers),
            in_progress: in_progress(resource, &status),
            problems: gone.into_iter().chain(problems(&status)).collect(),
            operator,
            not_known,
            namespace,
            name,
        }
    }

    pub fn is_on_zookeeper(&self) -> bool {
        self.provider == "ZooKeeper"
    }
}

/// What was read, or a note of why it is not known.
fn known<'a, T>(
    what: &'static str,
    read: &'a Result<T, String>,
    not_known: &mut BTreeMap<&'static str, String>,
) -> Option<&'a T> {
    read.as_ref().map_err(|why| not_known.insert(what, why.clone())).ok()
}

/// The leader, as the Lease or the ledger says it.
pub fn leader(lease: Option<&Lease>, record: &Record) -> Option<LeaderReport> {
    let spec = lease?.spec.as_ref();
    (!record.holder.is_empty()).then(|| LeaderReport {
        pod: record.holder.clone(),
        term: record.term.as_ref().map_or(0, |term| term.number),
        granted: record.change.as_ref().is_some_and(|change| change.to == record.holder),
        since: spec.and_then(|spec| spec.acquire_time.as_ref()).map(|time| format!("{:.0}", time.0)),
        renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| format!("{:.0}", time.0)),
    })
}

/// The leader, as the operator has seen it.
pub fn leader_of_status(status: &FlinkHaClusterStatus) -> Option<LeaderReport> {
    let leader = status.leader.as_ref()?;
    Some(LeaderReport {
        pod: leader.pod.clone(),
        term: u64::try_from(leader.term).unwrap_or_default(),
        granted: true,
        since: leader.since.as_ref().map(|since| format!("{:.0}", since.0)),
        renewed: None,
    })
}

/// The last change of leader that is complete.
pub fn last_failover(record: &Record) -> Option<Failover> {
    let change = record.change.as_ref().filter(|change| !change.from.is_empty() && !change.to.is_empty())?;
    Some(Failover {
        from: change.from.clone(),
        to: change.to.clone(),
        why: change.why.clone(),
        leaderless_milliseconds: i64::try_from(change.leaderless_millis).ok(),
        at: change.at.parse().ok().map(crate::api::time::seconds),
    })
}

fn application(status: &FlinkHaClusterStatus) -> Option<ApplicationReport> {
    let application = status.application.as_ref()?;
    let phase = serde_json::to_value(application.phase).unwrap_or_default();
    Some(ApplicationReport {
        phase: phase.as_str().unwrap_or_default().to_owned(),
        since: application.since.as_ref().map(|since| since.0.to_string()),
        job_id: application.job_id.clone(),
        job_state: application.job_state.clone(),
        error: application.error.clone(),
        last_savepoint: application.last_savepoint.as_ref().map(|savepoint| savepoint.path.clone()),
        last_upgrade: application.upgrades.last().cloned(),
    })
}

/// What goes on, and what has been asked for and not been answered.
fn in_progress(resource: &FlinkHaCluster, status: &FlinkHaClusterStatus) -> Vec<String> {
    let generations = resource.metadata.generation.zip(status.observed_generation);
    let behind = generations.filter(|(wanted, acted)| wanted != acted).map(|(wanted, acted)| {
        format!("generation {wanted} of the resource is not acted on yet; the operator acted on {acted} last")
    });
    let asked = |key: &str, what: &str| resource.annotation(key).map(|value| format!("{what} ({key}: {value})"));
    behind
        .into_iter()
        .chain(work(status))
        .chain(asked(SWITCHOVER_ANNOTATION, "a switchover was requested and is not answered yet"))
        .chain(asked(UPGRADE_GATEWAYS_ANNOTATION, "the gateways are to take the operator's image"))
        .chain(asked(ROLL_OUT_ANNOTATION, "an annotation decides about roll-outs that only the operator wants"))
        .collect()
}

/// The operator, and the problem that it is gone.
fn of_operator(
    resource: &FlinkHaCluster,
    lease: Option<&Option<Lease>>,
    now: Timestamp,
) -> (Option<OperatorReport>, Option<ProblemReport>) {
    let Some((noted, lease)) = operators::noted(resource).zip(lease) else { return (None, None) };
    let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    let pod = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    let silent = renewed.map(|renewed| now.duration_since(renewed));
    let is_gone =
        pod.is_empty() || silent.is_none_or(|silent| silent > SignedDuration::try_from(GONE).unwrap_or_default());
    let is_paused = resource.annotation(RECONCILE_ANNOTATION).is_some();
    let problem = is_gone.then(|| ProblemReport {
        conditions: vec!["Operator".to_owned()],
        reason: "OperatorGone".to_owned(),
        message: format!(
            "no operator has renewed Lease {noted} for {} s, so the conditions are as it saw them last, and nothing that \
             is requested of it happens; JobManagers fail over as always{}; see the pods of the operator's Deployment",
            GONE.as_secs(),
            if is_paused { ", and the resource is paused" } else { "" },
        ),
        since: renewed.map(|renewed| renewed.to_string()),
        see: "docs/operations.md#the-operators-pods".to_owned(),
        is_expected: false,
    });
    let report =
        OperatorReport { lease: noted.to_owned(), pod, renewed: renewed.map(|renewed| format!("{renewed:.0}")) };
    (Some(report), problem)
}
