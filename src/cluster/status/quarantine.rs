//! What is said of jobs that are set aside, and of those that Flink could not recover: which files are gone, and the
//! two ways out.

use super::facts::Facts;
use super::kinds::{JOBS_QUARANTINED, Verdict};
use crate::api::names::{self, DROP_JOB_ANNOTATION};
use crate::cluster::cause::Cause;
use crate::ledger::jobs::{Job, RecordedState};

/// Jobs that a message names.
const NAMED: usize = 5;

/// The condition; `None` while no file is missing.
pub(super) fn verdict(facts: &Facts<'_>) -> Option<Verdict> {
    let found = find(facts);
    let (reason, holds) = if found.quarantined.is_empty() { ("FilesMissing", false) } else { ("FilesGone", true) };
    let message: Vec<String> = found.causes(facts).into_iter().map(|cause| cause.message).collect();
    (!message.is_empty()).then(|| Verdict::new(JOBS_QUARANTINED, holds, reason, message.join("; ")))
}

/// The same as causes of a cluster that does not do what it should.
pub(super) fn causes(facts: &Facts<'_>) -> Vec<Cause> {
    find(facts).causes(facts)
}

struct BrokenJobs<'a> {
    quarantined: Vec<&'a Job>,
    /// Jobs that are not set aside.
    others: Vec<&'a Job>,
}

fn find<'a>(facts: &Facts<'a>) -> BrokenJobs<'a> {
    let jobs = if facts.is_deleted() { &[] } else { facts.observed.jobs() };
    let open = jobs.iter().filter(|job| !job.has_ended());
    let (quarantined, others) = open.partition(|job| job.state == RecordedState::Quarantined);
    let others: Vec<&Job> = others;
    BrokenJobs { quarantined, others: others.into_iter().filter(|job| !job.missing.is_empty()).collect() }
}

impl BrokenJobs<'_> {
    fn causes(&self, facts: &Facts<'_>) -> Vec<Cause> {
        let metadata = &facts.resource.metadata;
        let (name, namespace) =
            (metadata.name.as_deref().unwrap_or_default(), metadata.namespace.as_deref().unwrap_or_default());
        let directory = format!(
            "{}/{}",
            facts.resource.spec.high_availability.storage_dir.trim_end_matches('/'),
            names::high_availability_cluster_id(namespace, name)
        );
        let quarantined = self.quarantined.first().map(|first| {
            let message = format!(
                "set aside, because Flink could recover no job of the session with files of these gone: {}; nothing of \
                 them is removed. Put the files back below {directory}, and a job comes back by itself, with the next \
                 leader; or remove a job: kubectl annotate fhc {name} --namespace {namespace} {DROP_JOB_ANNOTATION}={}",
                listed(&self.quarantined),
                first.id
            );
            Cause { reason: JOBS_QUARANTINED, message }
        });
        let others = (!self.others.is_empty()).then(|| {
            let of_session = "with the next leader such a job is set aside, unless no graph and no jar of any job is \
                              there: then the volume may be another one, and every JobManager that leads ends";
            let consequence = match facts.application {
                None => of_session,
                Some(_) => "a JobManager that begins to lead ends",
            };
            let message = format!(
                "files are gone without which Flink cannot recover a job: {}; {consequence}. Put them back below \
                 {directory}; or, while the job runs, take a savepoint, cancel it, and submit it from the savepoint",
                listed(&self.others)
            );
            Cause { reason: "JobFilesMissing", message }
        });
        quarantined.into_iter().chain(others).collect()
    }
}

fn listed(jobs: &[&Job]) -> String {
    let one = |job: &&Job| {
        let files = if job.missing.is_empty() { "being looked for".to_owned() } else { job.missing.join(", ") };
        let name = if job.name.is_empty() { String::new() } else { format!("{} ", job.name) };
        format!("job {name}({}): {files}", job.id)
    };
    let named: Vec<String> = jobs.iter().take(NAMED).map(one).collect();
    let more = jobs.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::api::status::FlinkHaClusterStatus;
    use crate::cluster::application::Desired;
    use crate::cluster::observed::Observed;
    use crate::cluster::status::{Applied, status};
    use crate::cluster::tests as fixture;

    /// Status, reason and message of a condition.
    fn condition(jobs: &Value, kind: &str) -> Option<(String, String, String)> {
        let (resource, before, now) = (fixture::resource(), FlinkHaClusterStatus::default(), Timestamp::UNIX_EPOCH);
        let ledger = json!({ "metadata": {}, "data": { "jobs": jobs.to_string() } });
        let observed = Observed { ledger: serde_json::from_value(ledger).ok().map(Arc::new), ..Observed::default() };
        let desired = Desired::of(&resource, &before, &observed, now).expect("a desired state");
        let applied = Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None });
        let told = status(&resource, &desired, &before, &observed, &applied, now).status;
        let found = told.conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((found.status, found.reason, found.message))
    }

    #[test]
    fn a_job_in_quarantine_is_named_with_its_file_and_the_ways_out() {
        let (id, plan) = ("a".repeat(32), "submittedExecutionPlanab");
        let jobs = json!([{ "id": id, "name": "words", "state": "Quarantined", "missing": [plan] }]);
        let (status, reason, message) = condition(&jobs, "JobsQuarantined").expect("a condition");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "FilesGone"));
        let drop = format!("kubectl annotate fhc demo --namespace flink flinkha.dev/drop-job={id}");
        for part in [&*id, "words", plan, "file:///flink/ha/flink.demo", &drop, "comes back by itself"] {
            assert!(message.contains(part), "{part} not in {message}");
        }
        let (status, reason, told) = condition(&jobs, "Degraded").expect("a condition");
        assert_eq!((status.as_str(), reason.as_str(), told), ("True", "JobsQuarantined", message));
    }

    #[test]
    fn a_file_that_is_missing_is_told_of_before_the_leader_changes_and_nothing_is_said_of_others() {
        let (id, jar) = ("a".repeat(32), "blob/job_a/blob_p-1");
        let jobs = json!([{ "id": id, "state": "Running", "missing": [jar] }]);
        let (status, reason, message) = condition(&jobs, "JobsQuarantined").expect("a condition");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "FilesMissing"));
        assert!(message.contains(jar) && message.contains("with the next leader"), "{message}");
        assert_eq!(condition(&jobs, "Degraded").map(|(_, reason, _)| reason).as_deref(), Some("JobFilesMissing"));
        assert_eq!(condition(&json!([{ "id": id, "state": "Running" }]), "JobsQuarantined"), None);
        let dropped = json!([{ "id": id, "state": "Dropped", "ended": "2026-01-01T00:00:00Z" }]);
        assert_eq!(condition(&dropped, "JobsQuarantined"), None);
    }
}
