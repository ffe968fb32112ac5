//! Decides what a new leader does with the HA data of another version of the application, before its JVM sees a free
//! lock.
//!
//! Flink recovers every graph or plan that it finds, so it would run the former version, or a former run, beside the
//! new one. The leader therefore removes their keys or znodes. Checkpoints of the same run stay, and the new version
//! resumes from the last one. When another run begins, the former run is superseded: its tombstone is written before
//! any of its data is removed, and the collector then treats it as any ended job.
//!
//! Two rules bound this. The leader supersedes only runs that the operator names. And pods whose start is lower than
//! the one stored beside the mark, or in the ledger, do nothing. The start is stored behind the fence, so it survives
//! the loss of the ledger.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::names::{APPLICATION_ANNOTATION, START_ANNOTATION};
use crate::flink::ha_data;
use crate::flink::job_id::JobId;
use crate::flink::result::{Entry, Outcome, Store};
use crate::ledger::application::{Before, Progress, Run};
use crate::ledger::jobs::Job;
use crate::ledger::refusal::{Refusal, STORED_BY_ANOTHER};

/// What the cluster ConfigMap or the cluster's znodes store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The run that wrote it, as `<job>/<version>`. `None` before the first application.
    pub mark: Option<String>,
    /// The start of the pods that took it over last. `None` before the first application, and after a gateway of an
    /// earlier version.
    pub start: Option<i64>,
    /// Ids of jobs and applications with a stored graph, plan or application.
    pub plans: BTreeSet<JobId>,
    /// What is stored like a graph, plan or application under a name that is no id.
    pub unknown: BTreeSet<String>,
}

impl Stored {
    /// Reads the cluster ConfigMap, given as JSON.
    ///
    /// # Errors
    /// When the annotation with the start is not a number.
    pub fn in_config_map(cluster: &Value) -> Result<Self, Refusal> {
        let annotation = |key: &str| cluster["metadata"]["annotations"][key].as_str();
        let unreadable = || {
            let name = cluster["metadata"]["name"].as_str().unwrap_or_default();
            let message = format!(
                "the annotation {START_ANNOTATION} of ConfigMap {name} is no number, so it is not known whether later pods have begun; nothing is \
                 removed: write status.application.starts of the FlinkHaCluster there"
            );
            Refusal::new(STORED_BY_ANOTHER, message)
        };
        let start = annotation(START_ANNOTATION).map(|text| text.parse().map_err(|_| unreadable())).transpose()?;
        Ok(Self {
            mark: annotation(APPLICATION_ANNOTATION).map(str::to_owned),
            start,
            plans: ha_data::stored(cluster),
            unknown: ha_data::stored_by_others(cluster),
        })
    }

    /// The same of a znode with the mark, with the names of those that hold a graph, plan or application.
    pub fn in_znodes(mark: Option<String>, start: Option<i64>, names: &BTreeSet<String>) -> Self {
        let (plans, unknown): (Vec<_>, Vec<_>) =
            names.iter().map(|name| (JobId::of(name), name)).partition(|(id, _)| id.is_some());
        Self {
            mark,
            start,
            plans: plans.into_iter().filter_map(|(id, _)| id).collect(),
            unknown: unknown.into_iter().map(|(_, name)| name.clone()).collect(),
        }
    }

    /// Returns the job id of the run that wrote it.
    pub fn job(&self) -> Option<JobId> {
        self.mark.as_deref()?.split_once('/').and_then(|(job, _)| JobId::of(job))
    }
}

/// Parses the data of the znode with the mark: `<job>/<version>` from earlier versions, `<job>/<version>/<start>` from
/// this one, or nothing before the first application. Returns mark and start; `None` for other data.
pub fn parse_znode(data: &[u8]) -> Option<(Option<String>, Option<i64>)> {
    let text = std::str::from_utf8(data).ok()?;
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [""] => Some((None, None)),
        [job, version] => Some((Some(format!("{job}/{version}")), None)),
        [job, version, start] => Some((Some(format!("{job}/{version}")), Some(start.parse().ok()?))),
        _ => None,
    }
}

/// Returns the data of the znode with this run's mark.
pub fn znode_of(run: &Run) -> String {
    format!("{}/{}", mark(run), run.start)
}

/// Returns the merge patch that raises the start beside this run's own mark.
pub fn raising(run: &Run) -> Value {
    json!({ "metadata": { "annotations": { START_ANNOTATION: run.start.to_string() } } })
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum StoredState {
    /// What is stored is this version's own, or nothing is.
    Ours,
    /// The run has ended, so no JobManager leads any more. Carries the outcome if its result still exists.
    Finished(Option<Outcome>),
    /// The run has ended, and Flink has not finished its clean-up: the JobManager leads for that alone.
    Finishing,
    /// Names of jobs that no application of this resource has run: a session cluster of the same name left them.
    Foreign(BTreeSet<String>),
    /// Pods of this later start have begun. The own pods are from a lost node, or the resource was created again
    /// without its ledger.
    Later(i64),
    /// These runs have stored data or have not ended, and the operator does not name them as runs that this one
    /// replaces.
    Unnamed(BTreeSet<String>),
    /// Another version's.
    Supersede(HandoverPlan),
}

/// In this order.
#[derive(Clone, Debug, PartialEq)]
pub struct HandoverPlan {
    /// The run whose last checkpoint is to be noted.
    pub from: Option<JobId>,
    /// Runs that are over. Their tombstones stand before anything of theirs goes.
    pub superseded: BTreeSet<JobId>,
    /// Entries of result stores that would keep Flink from running the application although its job has not ended.
    pub entries: Vec<Entry>,
    /// The mark that is written when all plans of other versions are removed: the run that owns the rest.
    pub mark: String,
    /// The start that is written with the mark.
    pub start: i64,
}

impl HandoverPlan {
    /// Merge patch of the cluster ConfigMap's keys and annotation.
    pub fn patch(&self, cluster: &Value) -> Value {
        let data = cluster["data"].as_object().into_iter().flatten();
        let gone: serde_json::Map<String, Value> = data
            .filter(|(key, _)| ha_data::plan_of(key).is_some())
            .map(|(key, _)| (key.clone(), Value::Null))
            .collect();
        let annotations = json!({ APPLICATION_ANNOTATION: self.mark, START_ANNOTATION: self.start.to_string() });
        json!({ "metadata": { "annotations": annotations }, "data": gone })
    }
}

/// Decides. `stored` was read in this term, `progress` and `jobs` come from the ledger, `entries` from the result
/// stores.
pub fn judge(run: &Run, stored: &Stored, progress: &Progress, jobs: &[Job], entries: &[Entry]) -> StoredState {
    // This comes first: pods of an earlier start may neither lead nor collect anything.
    let begun = stored.start.unwrap_or_default().max(progress.start);
    if begun > run.start {
        return StoredState::Later(begun);
    }
    if jobs.iter().any(|job| job.id == run.job_id && job.has_ended()) {
        return StoredState::Finished(None);
    }
    // A job whose end is recorded has ended, even before its tombstone is written. A JVM that began to lead now would
    // run the main method, and would run the job again once the collector has removed the result.
    let of_run: Vec<&Entry> = entries.iter().filter(|entry| entry.id == run.job_id && !entry.torn).collect();
    if let Some(result) = of_run.iter().find(|entry| entry.store == Store::Job) {
        let outcome = result.outcome.clone().filter(|_| of_run.iter().all(|entry| !entry.dirty));
        return outcome.map_or(StoredState::Finishing, |outcome| StoredState::Finished(Some(outcome)));
    }
    let (mark, before) = (mark(run), stored.mark.as_deref());
    if before == Some(&mark) {
        return StoredState::Ours;
    }
    let unended = jobs.iter().filter(|job| !job.has_ended()).map(|job| job.id);
    let former = stored.job();
    let is_named = |id: &JobId| run.replaces.contains(id);
    let others: BTreeSet<JobId> = stored.plans.iter().copied().chain(unended).filter(|id| *id != run.job_id).collect();
    // What nobody knows is not named either.
    let unnamed = |runs: BTreeSet<JobId>| -> BTreeSet<String> {
        let runs = runs.into_iter().filter(|id| !is_named(id)).map(|id| id.to_string());
        runs.chain(stored.unknown.iter().cloned()).collect()
    };
    if before.is_none() && !unnamed(others.clone()).is_empty() {
        return StoredState::Foreign(unnamed(others));
    }
    // An ended run is collected as any job is.
    let has_ended = |id: JobId| jobs.iter().any(|job| job.id == id && job.has_ended());
    // A run that only the mark names, and whose plan is gone, is ignored unless the operator names it.
    let others = others.into_iter().chain(former.filter(is_named));
    let superseded: BTreeSet<JobId> = others.filter(|id| *id != run.job_id && !has_ended(*id)).collect();
    if !unnamed(superseded.clone()).is_empty() {
        return StoredState::Unnamed(unnamed(superseded));
    }
    // The entry of an application whose job has not ended: its main method failed, in this run or in the version
    // before.
    let obstacles =
        entries.iter().filter(|entry| superseded.contains(&entry.id) || entry.id == run.job_id).cloned().collect();
    let same_run = jobs.iter().any(|job| job.id == run.job_id) || former == Some(run.job_id);
    let from =
        if same_run { Some(run.job_id) } else { former.filter(is_named).or_else(|| superseded.first().copied()) };
    StoredState::Supersede(HandoverPlan { from, superseded, entries: obstacles, mark, start: run.start })
}

/// Why pods of an earlier start do not lead.
pub fn later(run: &Run, begun: i64) -> Refusal {
    let message = format!(
        "these pods are of start {} of the application, but pods of start {begun} have already taken over its HA data; these pods do not lead and change \
         nothing. Pods from a lost node end soon; otherwise the ledger was lost: restore its ConfigMap and create the FlinkHaCluster again",
        run.start
    );
    Refusal::new(STORED_BY_ANOTHER, message)
}

/// Returns the refusal for runs that the operator has not named. `ledger`: the name of its ConfigMap.
pub fn unnamed(run: &Run, runs: &BTreeSet<String>, ledger: &str) -> Refusal {
    let ids = runs.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let message = format!(
        "HA data of runs {ids} is stored, but run {} was not started to replace them; nothing is touched: to resume them, restore ConfigMap {ledger} \
         and create the FlinkHaCluster again; to keep their HA data, give this application another name; to discard it, remove what Flink stored \
         under these ids",
        run.job_id
    );
    Refusal::new(STORED_BY_ANOTHER, message)
}

/// The run and version that own the HA data: the value of the cluster ConfigMap's annotation, and the first part of the
/// znode's data.
fn mark(run: &Run) -> String {
    format!("{}/{}", run.job_id, run.version)
}

/// Returns the ledger's progress at the beginning of a run or version.
pub fn begin(run: &Run, progress: &Progress, before: Option<Before>) -> Progress {
    Progress {
        job: Some(run.job_id),
        version: run.version.clone(),
        start: run.start,
        state: None,
        up: None,
        error: None,
        before,
        savepoint: progress.savepoint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flink::job_state::End;

    const OURS: JobId = JobId::from_number(0xa);
    const FORMER: JobId = JobId::from_number(0xb);

    fn run() -> Run {
        Run { replaces: vec![FORMER], ..Run::new(OURS, "v2", 2) }
    }

    fn stored(cluster: &Value) -> Stored {
        Stored::in_config_map(cluster).expect("a start")
    }

    fn cluster(mark: &str, job: JobId) -> Value {
        json!({
            "metadata": { "annotations": { APPLICATION_ANNOTATION: mark } },
            "data": { format!("executionPlan-{job}"): "x", "org.apache.flink.k8s.leader.dispatcher": "y" },
        })
    }

    fn job(id: JobId, ended: bool) -> Job {
        Job { ended: ended.then(|| "then".to_owned()), ..Job::of(id) }
    }

    fn entry(store: Store, id: JobId) -> Entry {
        let outcome = Outcome::of(End::Failed);
        Entry { store, id, dirty: false, outcome: Some(outcome), torn: false }
    }

    fn decide(cluster: &Value, jobs: &[Job], entries: &[Entry]) -> StoredState {
        judge(&run(), &stored(cluster), &Progress::default(), jobs, entries)
    }

    fn plan(state: StoredState) -> HandoverPlan {
        let StoredState::Supersede(plan) = state else { panic!("{state:?}") };
        plan
    }

    #[test]
    fn what_is_stored_by_the_same_version_is_recovered_and_an_ended_run_has_no_leader() {
        let cluster = cluster(&format!("{OURS}/v2"), OURS);
        assert_eq!(decide(&cluster, &[job(OURS, false)], &[]), StoredState::Ours);
        assert_eq!(decide(&cluster, &[job(OURS, true)], &[]), StoredState::Finished(None));
    }

    #[test]
    fn another_version_of_the_same_run_keeps_its_checkpoints_and_loses_its_plan() {
        let entries = [entry(Store::Application, OURS)];
        let cluster = cluster(&format!("{OURS}/v1"), OURS);
        let plan = plan(decide(&cluster, &[job(OURS, false)], &entries));
        assert_eq!((plan.from, plan.superseded.len()), (Some(OURS), 0));
        let patch = plan.patch(&cluster);
        assert_eq!(patch["data"], json!({ format!("executionPlan-{OURS}"): null }));
        let annotations = &patch["metadata"]["annotations"];
        assert_eq!(
            (&annotations[APPLICATION_ANNOTATION], &annotations[START_ANNOTATION]),
            (&json!(format!("{OURS}/v2")), &json!("2"))
        );
        assert_eq!(plan.entries, entries, "a main method that failed does not end a job that has checkpoints");
    }

    #[test]
    fn a_former_run_is_over_when_another_one_begins() {
        let plan = plan(decide(&cluster(&format!("{FORMER}/v1"), FORMER), &[job(FORMER, false)], &[]));
        assert_eq!(plan.from, Some(FORMER));
        assert_eq!(plan.superseded, BTreeSet::from([FORMER]));
    }

    #[test]
    fn jobs_of_a_session_cluster_of_the_same_name_are_not_touched() {
        let mut cluster = cluster("", FORMER);
        cluster["metadata"]["annotations"] = json!({});
        let alone = Run { replaces: Vec::new(), ..run() };
        let state = judge(&alone, &stored(&cluster), &Progress::default(), &[job(FORMER, false)], &[]);
        assert_eq!(state, StoredState::Foreign(BTreeSet::from([FORMER.to_string()])));
        assert!(matches!(decide(&json!({}), &[], &[]), StoredState::Supersede(_)), "a new cluster");
    }

    #[test]
    fn what_is_stored_under_no_id_is_never_taken_over() {
        let mut marked = cluster(&format!("{OURS}/v1"), OURS);
        marked["data"]["executionPlan-x"] = json!("z");
        let others = BTreeSet::from(["x".to_owned()]);
        assert_eq!(decide(&marked, &[job(OURS, false)], &[]), StoredState::Unnamed(others.clone()));
        marked["metadata"]["annotations"] = json!({});
        assert_eq!(decide(&marked, &[job(OURS, false)], &[]), StoredState::Foreign(others.clone()));
        let names = BTreeSet::from([OURS.to_string(), "x".to_owned()]);
        let found = Stored::in_znodes(Some(format!("{OURS}/v1")), None, &names);
        assert_eq!((found.plans.len(), &found.unknown, found.job()), (1, &others, Some(OURS)));
        let nobody = Stored { mark: Some("x/v1".to_owned()), ..Stored::default() };
        assert_eq!(nobody.job(), None);
    }

    #[test]
    fn a_run_whose_result_is_stored_is_over_when_flink_has_cleaned_up() {
        for version in ["v1", "v2"] {
            let cluster = cluster(&format!("{OURS}/{version}"), FORMER);
            let decide = |entries: &[Entry]| decide(&cluster, &[job(OURS, false)], entries);
            let mut entries = [entry(Store::Job, OURS), entry(Store::Application, OURS)];
            assert!(matches!(decide(&entries), StoredState::Finished(Some(_))));
            entries[1].dirty = true;
            assert_eq!(decide(&entries), StoredState::Finishing);
            let torn = Entry { torn: true, outcome: None, dirty: true, ..entry(Store::Job, OURS) };
            assert!(
                !matches!(decide(&[torn]), StoredState::Finished(_) | StoredState::Finishing),
                "no record of an end"
            );
        }
    }
}
