//! What goes when a resource is deleted, and in which order.
//!
//! JobManagers go first, and all of them, before anything that they could still write or wait for: a JobManager that
//! outlives the TaskManagers would see its jobs fail, and would delete their data itself. Unknown never deletes.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::Value;

use super::cause::Cause;
use super::ledger_data::LedgerData;
use crate::api::v1alpha1::{OnDelete, Provider};
use crate::api::{FlinkHaCluster, names};
use crate::flink::ha_data;
use crate::flink::job_id::JobId;
use crate::ha_data::foreign::is_marked;
use crate::ha_data::marks::is_foreign;
use crate::ledger::jobs::{HaData, Job};

/// Keys of the cluster ConfigMap that only tell who leads. All other keys point to data of jobs.
const LEADER_KEYS: &str = "org.apache.flink.k8s.leader.";

/// Which of Flink's HA ConfigMaps go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletionPlan {
    /// ConfigMaps to delete.
    pub delete: Vec<String>,
    /// ConfigMaps that stay, for jobs that have not ended or may not have ended.
    pub keep: Vec<String>,
    /// ConfigMaps that carry no mark of this cluster and are another's: Flink labels everything of a native cluster as
    /// it labels HA data.
    pub foreign: Vec<String>,
}

impl DeletionPlan {
    /// What is said of others' ConfigMaps, to follow another sentence; empty when there are none.
    pub fn of_others(&self) -> String {
        match self.foreign.as_slice() {
            [] => String::new(),
            names => format!("; ConfigMaps {} carry no mark of this cluster and stay", names.join(", ")),
        }
    }
}

/// Decides for every ConfigMap that is labelled as HA data of the cluster, given as JSON. `jobs` are those of the
/// ledger; none when it cannot be read.
pub fn plan(on_delete: OnDelete, cluster_id: &str, config_maps: &[Value], jobs: &[Job]) -> DeletionPlan {
    let name = |config_map: &Value| config_map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let keeps = |config_map: &Value| match on_delete {
        OnDelete::Delete => false,
        OnDelete::Retain => holds_live_data(cluster_id, config_map, &live_jobs(cluster_id, config_maps), jobs),
    };
    let (ours, foreign) = config_maps.iter().partition::<Vec<_>, _>(|config_map| is_marked(config_map));
    let (keep, delete) = ours.into_iter().partition::<Vec<_>, _>(|config_map| keeps(config_map));
    let names = |config_maps: Vec<&Value>| config_maps.into_iter().map(name).collect();
    DeletionPlan { delete: names(delete), keep: names(keep), foreign: names(foreign) }
}

/// Jobs with a stored graph or plan.
fn live_jobs(cluster_id: &str, config_maps: &[Value]) -> BTreeSet<JobId> {
    let cluster = names::cluster_config_map(cluster_id);
    config_maps
        .iter()
        .filter(|config_map| config_map["metadata"]["name"] == cluster)
        .flat_map(ha_data::stored_jobs)
        .collect()
}

fn holds_live_data(cluster_id: &str, config_map: &Value, live: &BTreeSet<JobId>, jobs: &[Job]) -> bool {
    let name = config_map["metadata"]["name"].as_str().unwrap_or_default();
    if name == names::cluster_config_map(cluster_id) {
        let mut keys = config_map["data"].as_object().into_iter().flat_map(|data| data.keys());
        return keys.any(|key| !key.starts_with(LEADER_KEYS));
    }
    match ha_data::job_of(cluster_id, name) {
        Some(job) => live.contains(&job) || !jobs.iter().any(|known| known.id == job && known.has_ended()),
        None => true,
    }
}

/// The Job that removes files, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeJob {
    Absent,
    Runs,
    Succeeded,
    Failed,
}

/// What to do about the files of a deleted cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Nothing more. Whether files stay that should not, and the sentence for an event.
    Done { warning: bool, message: String },
    /// Create the Job for a directory that is signed so, last by one of these gateway processes.
    Start { owner: String, signers: Vec<String> },
    /// The Job runs.
    Wait,
}

/// Does the ledger stay? It explains what is retained: ConfigMaps, or with ZooKeeper the znodes of jobs that have not
/// ended. The operator does not see those, and the ledger never forgets such a job. One that cannot be read may tell of
/// such a job. It also names the savepoint with which a job was stopped, from which another run is to go on.
pub fn keeps_ledger(on_delete: OnDelete, provider: Provider, plan: &DeletionPlan, ledger: &LedgerData) -> bool {
    let has_ended = |id: JobId| ledger.jobs.iter().any(|job| job.id == id && job.has_ended());
    let goes_on = || ledger.application.as_ref().and_then(|progress| progress.job).is_some_and(|job| !has_ended(job));
    // The savepoint with which a job was stopped stands nowhere else.
    let application = ledger.application.as_ref();
    let is_stopped = application.is_some_and(|one| one.job.is_some_and(|job| one.stopped_with(job).is_some()));
    let is_needed = on_delete == OnDelete::Retain && (is_stopped || !ledger.unreadable.is_empty());
    match provider {
        Provider::Kubernetes => !plan.keep.is_empty() || is_needed,
        Provider::ZooKeeper => {
            on_delete == OnDelete::Retain && (ledger.jobs.iter().any(|job| !job.has_ended()) || goes_on() || is_needed)
        }
    }
}

/// Decides what to do about files and znodes, once all JobManagers are gone. `said`: the last words of the Job's pod;
/// `certificates`: of this Kubernetes cluster, because a ledger may be a copy of another cluster's, whose files are in
/// use there.
pub fn purge(
    on_delete: OnDelete,
    provider: Provider,
    ha_data: Option<&HaData>,
    job: PurgeJob,
    said: Option<String>,
    certificates: &[String],
) -> Purge {
    let done = |warning: bool, message: String| Purge::Done { warning, message };
    if on_delete == OnDelete::Retain && provider == Provider::Kubernetes {
        return done(false, String::new());
    }
    let said = said.unwrap_or_else(|| "it left no message".to_owned());
    match (job, ha_data) {
        (PurgeJob::Succeeded, _) => done(false, format!("storage directory: {said}")),
        (PurgeJob::Failed, _) if provider == Provider::ZooKeeper => {
            done(true, format!("znodes and files could not be removed and stay: {said}"))
        }
        (PurgeJob::Failed, _) => {
            done(true, format!("the files in the storage directory could not be removed and stay: {said}"))
        }
        (PurgeJob::Runs, _) => Purge::Wait,
        (PurgeJob::Absent, None) => done(false, "the ledger lists no files in the storage directory".to_owned()),
        (PurgeJob::Absent, Some(ha_data)) if is_foreign(&ha_data.certificates, certificates) => {
            let why = "the ledger is a copy of one in another Kubernetes cluster, where they may be in use";
            done(true, format!("the files in the storage directory stay: {why}"))
        }
        (PurgeJob::Absent, Some(HaData { owner: Some(owner), signers, .. })) => {
            Purge::Start { owner: owner.clone(), signers: signers.clone() }
        }
        (PurgeJob::Absent, Some(HaData { message, .. })) => {
            done(true, format!("files in the storage directory stay: {message}"))
        }
    }
}

/// What is said while the Job that removes the files does not get on; `None` while it is too soon to say. `refused`:
/// what the API server said to the Job itself. `said`: why its pod does not get on. `warning`: what Kubernetes' events
/// warn of about the Job, such as a pod that may not be created. `age`: of the Job.
pub fn purge_waits(
    resource: &FlinkHaCluster,
    refused: Option<&str>,
    said: Option<String>,
    warning: Option<String>,
    age: SignedDuration,
) -> Option<Cause> {
    let job = names::purge(resource.metadata.name.as_deref().unwrap_or_default());
    let files = files(resource);
    if let Some(refused) = refused {
        let message = format!(
            "the deletion waits for Job {job}, which is to remove {files}, and which the API server refuses: {refused}; \
             allow it, or wait until the files are left"
        );
        return Some(Cause { reason: "PurgeRefused", message });
    }
    if let Some(warning) = warning.filter(|_| said.is_none()) {
        let message =
            format!("the deletion waits for Job {job}, which removes {files}, and whose pod is refused: {warning}");
        return Some(Cause { reason: "PurgeRefused", message });
    }
    let why = said.or_else(|| (age >= PURGE_TOLD).then(|| "its pod has said nothing yet".to_owned()))?;
    let message = format!("the deletion waits for Job {job}, which removes {files}: {why}");
    Some(Cause { reason: "PurgeWaits", message })
}

/// A Job that has not ended by then is told of.
pub const PURGE_TOLD: SignedDuration = SignedDuration::from_secs(30);

/// The files of a cluster, as a sentence names them.
pub fn files(resource: &FlinkHaCluster) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let directory =
        names::high_availability_cluster_id(&text(&resource.metadata.namespace), &text(&resource.metadata.name));
    format!("files of {directory} in {}", resource.spec.high_availability.storage_dir)
}

/// ConfigMaps that a sentence names.
const NAMED: usize = 10;

/// What a deletion leaves because JobManagers may live, and the way out.
pub fn left(resource: &FlinkHaCluster, config_maps: &[String], why: &str) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let directory =
        names::high_availability_cluster_id(&text(&resource.metadata.namespace), &text(&resource.metadata.name));
    let high_availability = &resource.spec.high_availability;
    let more = config_maps.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let pointers = match (&high_availability.zookeeper, config_maps) {
        (Some(zookeeper), _) => format!("the znodes below {}/{directory}", zookeeper.root_path),
        (None, []) => "no ConfigMap".to_owned(),
        (None, all) => format!("ConfigMaps {}{more}", all.get(..NAMED).unwrap_or(all).join(", ")),
    };
    format!(
        "no HA data was removed, because it was not proven in time that no JobManager lives: {why}. Left: {pointers}, and {}. \
         When no JobManager lives, apply the same resource again and delete it",
        files(resource)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::jobs::RecordedState;

    const RUNNING: JobId = JobId::from_number(1);
    const ENDED: JobId = JobId::from_number(2);
    const UNKNOWN: JobId = JobId::from_number(3);

    fn config_map(name: &str, data: Value) -> Value {
        json!({ "metadata": { "name": name, "annotations": { "flinkha.dev/term": "1.uid.process.1-1" } }, "data": data })
    }

    fn cluster(data: Value) -> Value {
        config_map("demo-cluster-config-map", data)
    }

    fn job(id: JobId) -> Value {
        config_map(&names::job_config_map("demo", id.as_str()), json!({}))
    }

    fn tombstone(id: JobId) -> Job {
        let json = json!({ "id": id, "state": "Finished", "ended": "2026-01-01T00:00:00Z" });
        serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn files_go_only_with_delete_and_only_from_a_directory_that_is_signed() {
        let signed = HaData { owner: Some("us".to_owned()), ..HaData::default() };
        let unreached = HaData { message: "no way".to_owned(), ..HaData::default() };
        let decide = |on_delete, ha_data, job| {
            purge(on_delete, Provider::Kubernetes, ha_data, job, Some("said".to_owned()), &["c".to_owned()])
        };
        assert!(matches!(
            decide(OnDelete::Retain, Some(&signed), PurgeJob::Absent),
            Purge::Done { warning: false, .. }
        ));
        let start = Purge::Start { owner: "us".to_owned(), signers: Vec::new() };
        assert_eq!(decide(OnDelete::Delete, Some(&signed), PurgeJob::Absent), start);
        let copied = HaData { certificates: vec!["another".to_owned()], ..signed.clone() };
        let stays = decide(OnDelete::Delete, Some(&copied), PurgeJob::Absent);
        assert!(
            matches!(stays, Purge::Done { warning: true, message } if message.contains("another Kubernetes cluster"))
        );
        assert_eq!(decide(OnDelete::Delete, Some(&signed), PurgeJob::Runs), Purge::Wait);
        assert!(matches!(decide(OnDelete::Delete, Some(&signed), PurgeJob::Failed), Purge::Done { warning: true, .. }));
        assert!(matches!(
            decide(OnDelete::Delete, Some(&unreached), PurgeJob::Absent),
            Purge::Done { warning: true, .. }
        ));
        assert!(matches!(decide(OnDelete::Delete, None, PurgeJob::Absent), Purge::Done { warning: false, .. }));
    }

    #[test]
    fn znodes_are_looked_after_also_when_jobs_are_retained_and_the_ledger_stays_with_them() {
        let signed = HaData { owner: Some("us".to_owned()), ..HaData::default() };
        let decide =
            |job| purge(OnDelete::Retain, Provider::ZooKeeper, Some(&signed), job, Some("said".to_owned()), &[]);
        assert_eq!(decide(PurgeJob::Absent), Purge::Start { owner: "us".to_owned(), signers: Vec::new() });
        assert!(
            matches!(decide(PurgeJob::Failed), Purge::Done { warning: true, message } if message.contains("znodes"))
        );
        let running = Job { state: RecordedState::Running, ..Job::of(RUNNING) };
        let keeps = |on_delete, jobs: &[Job]| {
            let ledger = LedgerData { jobs: jobs.to_vec(), ..LedgerData::default() };
            keeps_ledger(on_delete, Provider::ZooKeeper, &DeletionPlan::default(), &ledger)
        };
        assert!(keeps(OnDelete::Retain, std::slice::from_ref(&running)));
        assert!(!keeps(OnDelete::Retain, &[tombstone(ENDED)]) && !keeps(OnDelete::Delete, &[running]));
        for (data, kept) in [(json!({ "jobs": "?" }), true), (json!({ "application": "?" }), true), (json!({}), false)]
        {
            let ledger: LedgerData = serde_json::from_value(data).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(keeps_ledger(OnDelete::Retain, Provider::ZooKeeper, &DeletionPlan::default(), &ledger), kept);
        }
        let begun = json!({ "application": json!({ "job": RUNNING }).to_string() });
        let begun: LedgerData = serde_json::from_value(begun).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            keeps_ledger(OnDelete::Retain, Provider::ZooKeeper, &DeletionPlan::default(), &begun),
            "not noted among the jobs yet"
        );
    }

    #[test]
    fn what_is_left_is_named_with_the_way_out() {
        let resource = super::super::tests::resource();
        let many: Vec<String> = (0..12).map(|number| format!("demo-{number}")).collect();
        let text = left(&resource, &many, "pod a leads");
        for words in [
            "pod a leads",
            "demo-9 and 2 more",
            "files of flink.demo in file:///flink/ha",
            "apply the same resource again",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(left(&resource, &[], "x").contains("no ConfigMap"));
    }

    #[test]
    fn a_purge_that_does_not_get_on_is_told_of_with_what_kubernetes_says() {
        let resource = super::super::tests::resource();
        let told = |refused: Option<&str>, said: Option<&str>, warning: Option<&str>, seconds: i64| {
            let age = SignedDuration::from_secs(seconds);
            purge_waits(&resource, refused, said.map(str::to_owned), warning.map(str::to_owned), age)
                .map(|cause| (cause.reason, cause.message))
        };
        assert_eq!(told(None, None, None, 29), None);
        let (reason, message) = told(Some("exceeded quota"), None, None, 0).unwrap_or_default();
        assert_eq!(reason, "PurgeRefused");
        for words in ["Job demo-purge", "exceeded quota", "files of flink.demo in file:///flink/ha"] {
            assert!(message.contains(words), "{words} in {message}");
        }
        let (reason, message) = told(None, None, Some("FailedCreate: violates PodSecurity"), 5).unwrap_or_default();
        assert!(reason == "PurgeRefused" && message.contains("violates PodSecurity"), "{message}");
        let (reason, message) =
            told(None, Some("cannot pull image"), Some("FailedCreate: once"), 5).unwrap_or_default();
        assert!(reason == "PurgeWaits" && message.ends_with("cannot pull image"), "{message}");
        assert_eq!(told(None, None, None, 30).map(|told| told.0), Some("PurgeWaits"));
    }

    #[test]
    fn delete_takes_everything() {
        let config_maps = [cluster(json!({ format!("executionPlan-{RUNNING}"): "x" })), job(RUNNING)];
        let plan = plan(OnDelete::Delete, "demo", &config_maps, &[]);
        assert_eq!((plan.delete.len(), plan.keep.len()), (2, 0));
    }

    #[test]
    fn what_carries_no_mark_of_ours_stays_in_either_case_and_is_named() {
        let unmarked = |name: &str| json!({ "metadata": { "name": name, "labels": { "app": "demo" } } });
        let config_maps = [
            cluster(json!({})),
            unmarked("flink-config-demo"),
            unmarked(&names::job_config_map("demo", ENDED.as_str())),
        ];
        for on_delete in [OnDelete::Delete, OnDelete::Retain] {
            let plan = plan(on_delete, "demo", &config_maps, &[tombstone(ENDED)]);
            assert_eq!(plan.delete, ["demo-cluster-config-map"]);
            assert_eq!(
                plan.of_others(),
                format!(
                    "; ConfigMaps flink-config-demo, demo-{ENDED}-config-map carry no mark of this cluster and stay"
                )
            );
        }
    }

    #[test]
    fn retain_takes_only_what_is_known_to_have_ended() {
        let plan_key = format!("executionPlan-{RUNNING}");
        let config_maps = [
            cluster(json!({ plan_key: "x" })),
            job(RUNNING),
            job(ENDED),
            job(UNKNOWN),
            config_map("demo-other", json!({})),
        ];
        let plan = plan(OnDelete::Retain, "demo", &config_maps, &[tombstone(ENDED), tombstone(RUNNING)]);
        assert_eq!(plan.delete, [names::job_config_map("demo", ENDED.as_str())]);
        assert_eq!(plan.keep.len(), 4);
    }

    #[test]
    fn without_jobs_nothing_is_retained() {
        let leaders =
            json!({ "org.apache.flink.k8s.leader.dispatcher": "x", "org.apache.flink.k8s.leader.restserver": "y" });
        let plan = plan(OnDelete::Retain, "demo", &[cluster(leaders), job(ENDED)], &[tombstone(ENDED)]);
        assert_eq!((plan.delete.len(), plan.keep.len()), (2, 0));
    }

    #[test]
    fn a_key_that_is_not_understood_keeps_the_cluster_config_map() {
        let plan = plan(OnDelete::Retain, "demo", &[cluster(json!({ "application-1": "x" }))], &[]);
        assert_eq!(plan.keep.len(), 1);
    }
}
