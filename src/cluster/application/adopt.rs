//! What a new leader does with what another version of the application has stored, before its JVM is shown the lock.
//!
//! Flink recovers every graph or plan that it finds stored, and would run the former version, or a former run, beside the new one. So their keys or
//! znodes go. Checkpoints of the same run stay: the new version goes on from the last. A former run is over once another one begins; its tombstone
//! stands before anything of it goes, and what it leaves is collected as of any ended job.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Before, Progress, Run};
use crate::api::names::APPLICATION_ANNOTATION;
use crate::cluster::ledger::Job;
use crate::flink::ha_data;
use crate::flink::result::{Entry, Outcome, Store};

/// What is stored, by the cluster ConfigMap or by the cluster's znodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Whose it is, as [`mark`] writes it. `None` before the first application.
    pub mark: Option<String>,
    /// Jobs and applications with a graph, plan or application.
    pub plans: BTreeSet<String>,
}

impl Stored {
    /// `cluster`: the cluster ConfigMap, as JSON.
    pub fn in_config_map(cluster: &Value) -> Self {
        let mark = cluster["metadata"]["annotations"][APPLICATION_ANNOTATION].as_str().map(str::to_owned);
        Self { mark, plans: ha_data::stored(cluster).into_iter().collect() }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Adoption {
    /// What is stored is this version's own, or nothing is.
    Own,
    /// The run has ended: nobody leads any more. Its outcome, as far as its result is still there.
    Over(Option<Outcome>),
    /// The run has ended, and Flink has not finished cleaning up: it leads for that, and for nothing else.
    Ending,
    /// Jobs that no application of this resource has run: a session cluster of the same name left them.
    Foreign(BTreeSet<String>),
    /// Another version's.
    Adopt(Plan),
}

/// In this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The run whose last checkpoint is to be noted.
    pub from: Option<String>,
    /// Runs that are over. Their tombstones stand before anything of theirs goes.
    pub superseded: BTreeSet<String>,
    /// Entries of result stores that would keep Flink from running the application, although its job has not ended.
    pub entries: Vec<Entry>,
    /// Then all that is stored of other versions goes, and this says whose the rest is.
    pub mark: String,
}

impl Plan {
    /// Merge patch of the cluster ConfigMap's keys and annotation.
    pub fn patch(&self, cluster: &Value) -> Value {
        let data = cluster["data"].as_object().into_iter().flatten();
        let gone: serde_json::Map<String, Value> =
            data.filter(|(key, _)| ha_data::plan_of(key).is_some()).map(|(key, _)| (key.clone(), Value::Null)).collect();
        json!({ "metadata": { "annotations": { APPLICATION_ANNOTATION: self.mark } }, "data": gone })
    }
}

/// Decides. `stored` was read in this term, `jobs` are the ledger's, `entries` those of the result stores.
pub fn adopt(run: &Run, stored: &Stored, jobs: &[Job], entries: &[Entry]) -> Adoption {
    if jobs.iter().any(|job| job.id == run.job_id && job.has_ended()) {
        return Adoption::Over(None);
    }
    // A job whose end is recorded has ended, even if nobody has come to its tombstone. A JVM that began to lead now would run the main method, and run
    // the job again once the collector has removed the result.
    let of_run: Vec<&Entry> = entries.iter().filter(|entry| entry.id == run.job_id && !entry.torn).collect();
    if let Some(result) = of_run.iter().find(|entry| entry.store == Store::Job) {
        let outcome = result.outcome.clone().filter(|_| of_run.iter().all(|entry| !entry.dirty));
        return outcome.map_or(Adoption::Ending, |outcome| Adoption::Over(Some(outcome)));
    }
    let (mark, before) = (mark(run), stored.mark.as_deref());
    if before == Some(&mark) {
        return Adoption::Own;
    }
    let unended = jobs.iter().filter(|job| !job.has_ended()).map(|job| job.id.clone());
    let former = before.and_then(|mark| mark.split_once('/')).map(|(job, _)| job.to_owned());
    let others: BTreeSet<String> = stored.plans.iter().cloned().chain(unended).filter(|id| *id != run.job_id).collect();
    if before.is_none() && !others.is_empty() {
        return Adoption::Foreign(others);
    }
    // A run that has ended is collected as any job is.
    let has_ended = |id: &str| jobs.iter().any(|job| job.id == id && job.has_ended());
    let superseded: BTreeSet<String> = others.into_iter().chain(former.clone()).filter(|id| *id != run.job_id && !has_ended(id)).collect();
    // An application's entry beside a job that goes on: its main method failed, in this run or in the version before.
    let obstacles = entries.iter().filter(|entry| superseded.contains(&entry.id) || entry.id == run.job_id).cloned().collect();
    let same_run = jobs.iter().any(|job| job.id == run.job_id) || former.as_deref() == Some(&run.job_id);
    let from = if same_run { Some(run.job_id.clone()) } else { former.or_else(|| superseded.first().cloned()) };
    Adoption::Adopt(Plan { from, superseded, entries: obstacles, mark })
}

/// Who has stored what is there: run and version. The value of the cluster ConfigMap's annotation, or the data of a znode.
fn mark(run: &Run) -> String {
    format!("{}/{}", run.job_id, run.version)
}

/// What the ledger says of the application from now on.
pub fn begin(run: &Run, progress: &Progress, before: Option<Before>) -> Progress {
    Progress {
        job: run.job_id.clone(),
        version: run.version.clone(),
        start: run.start,
        state: String::new(),
        up: None,
        error: None,
        before,
        savepoint: progress.savepoint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "0000000000000000000000000000000a";
    const FORMER: &str = "0000000000000000000000000000000b";

    fn run() -> Run {
        Run { job_id: OURS.to_owned(), version: "v2".to_owned(), ..Run::default() }
    }

    fn cluster(mark: &str, job: &str) -> Value {
        json!({
            "metadata": { "annotations": { APPLICATION_ANNOTATION: mark } },
            "data": { format!("executionPlan-{job}"): "x", "org.apache.flink.k8s.leader.dispatcher": "y" },
        })
    }

    fn job(id: &str, ended: bool) -> Job {
        Job { id: id.to_owned(), ended: ended.then(|| "then".to_owned()), ..Job::default() }
    }

    fn entry(store: Store, id: &str) -> Entry {
        let outcome = Outcome { state: "Failed", ..Outcome::default() };
        Entry { store, id: id.to_owned(), dirty: false, outcome: Some(outcome), torn: false }
    }

    fn decide(cluster: &Value, jobs: &[Job], entries: &[Entry]) -> Adoption {
        adopt(&run(), &Stored::in_config_map(cluster), jobs, entries)
    }

    fn plan(adoption: Adoption) -> Plan {
        let Adoption::Adopt(plan) = adoption else { panic!("{adoption:?}") };
        plan
    }

    #[test]
    fn what_is_stored_by_the_same_version_is_recovered_and_an_ended_run_has_no_leader() {
        let cluster = cluster(&format!("{OURS}/v2"), OURS);
        assert_eq!(decide(&cluster, &[job(OURS, false)], &[]), Adoption::Own);
        assert_eq!(decide(&cluster, &[job(OURS, true)], &[]), Adoption::Over(None));
    }

    #[test]
    fn another_version_of_the_same_run_keeps_its_checkpoints_and_loses_its_plan() {
        let entries = [entry(Store::Application, OURS)];
        let cluster = cluster(&format!("{OURS}/v1"), OURS);
        let plan = plan(decide(&cluster, &[job(OURS, false)], &entries));
        assert_eq!((plan.from.as_deref(), plan.superseded.len()), (Some(OURS), 0));
        let patch = plan.patch(&cluster);
        assert_eq!(patch["data"], json!({ format!("executionPlan-{OURS}"): null }));
        assert_eq!(patch["metadata"]["annotations"][APPLICATION_ANNOTATION], format!("{OURS}/v2"));
        assert_eq!(plan.entries, entries, "a main method that failed does not end a job that has checkpoints");
    }

    #[test]
    fn a_former_run_is_over_when_another_one_begins() {
        let plan = plan(decide(&cluster(&format!("{FORMER}/v1"), FORMER), &[job(FORMER, false)], &[]));
        assert_eq!(plan.from.as_deref(), Some(FORMER));
        assert_eq!(plan.superseded, BTreeSet::from([FORMER.to_owned()]));
    }

    #[test]
    fn jobs_of_a_session_cluster_of_the_same_name_are_not_touched() {
        let mut cluster = cluster("", FORMER);
        cluster["metadata"]["annotations"] = json!({});
        assert_eq!(decide(&cluster, &[job(FORMER, false)], &[]), Adoption::Foreign(BTreeSet::from([FORMER.to_owned()])));
        assert!(matches!(decide(&json!({}), &[], &[]), Adoption::Adopt(_)), "a new cluster");
    }

    #[test]
    fn a_run_whose_result_is_stored_is_over_when_flink_has_cleaned_up() {
        for version in ["v1", "v2"] {
            let cluster = cluster(&format!("{OURS}/{version}"), FORMER);
            let decide = |entries: &[Entry]| decide(&cluster, &[job(OURS, false)], entries);
            let mut entries = [entry(Store::Job, OURS), entry(Store::Application, OURS)];
            assert!(matches!(decide(&entries), Adoption::Over(Some(_))));
            entries[1].dirty = true;
            assert_eq!(decide(&entries), Adoption::Ending);
            let torn = Entry { torn: true, outcome: None, dirty: true, ..entry(Store::Job, OURS) };
            assert!(!matches!(decide(&[torn]), Adoption::Over(_) | Adoption::Ending), "no record of an end");
        }
    }
}
