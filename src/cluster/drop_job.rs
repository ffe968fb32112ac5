//! Decides about a request to remove a job in quarantine: a person names it by an annotation on the resource.

use super::observed::Observed;
use crate::api::names::DROP_JOB_ANNOTATION;
use crate::ledger::jobs::RecordedState;

/// The answer to a request. It is given once, so the annotation is removed in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropJob {
    /// Pass the request on to the leader.
    Ask { job: String },
    /// Refuse the request, with the reason.
    Refuse { why: String },
}

/// Decides about a request for the job with this id.
pub fn drop_job(wanted: &str, observed: &Observed) -> DropJob {
    let job = observed.jobs().iter().find(|job| job.id.as_str() == wanted);
    let why = match job.map(|job| &job.state) {
        Some(RecordedState::Quarantined) => return DropJob::Ask { job: wanted.to_owned() },
        Some(state) => format!("job {wanted} is not in quarantine but {state}; cancel a job that runs in Flink"),
        None => format!("{wanted} is no id in status.jobs; write that of a job whose state is Quarantined"),
    };
    DropJob::Refuse { why: format!("{DROP_JOB_ANNOTATION}: {why}; nothing is removed") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_job_in_quarantine_is_dropped() {
        let [aside, running] = ["a", "b"].map(|digit| digit.repeat(32));
        let jobs = json!([{ "id": aside, "state": "Quarantined" }, { "id": running, "state": "Running" }]).to_string();
        let ledger = serde_json::from_value(json!({ "metadata": {}, "data": { "jobs": jobs } })).ok().map(Arc::new);
        let observed = Observed { ledger, ..Observed::default() };
        assert_eq!(drop_job(&aside, &observed), DropJob::Ask { job: aside.clone() });
        for (wanted, told) in [(running.as_str(), "is not in quarantine but Running"), ("x", "is no id in status.jobs")]
        {
            let DropJob::Refuse { why } = drop_job(wanted, &observed) else { panic!("{wanted} was not refused") };
            assert!(why.starts_with("flinkha.dev/drop-job: ") && why.contains(told), "{why}");
        }
    }
}
