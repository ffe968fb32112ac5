//! Decides whether a JVM may lead over HA data that another version of Flink has stored. A version that is not known
//! refuses nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::entrance::Entrance;
use super::handover::{HandoverPlan, StoredState};
use crate::flink::ha_data;
use crate::flink::job_id::{JobId, listed};
use crate::flink::version::{FlinkVersion, StoredForm};
use crate::ledger::refusal::{FLINK_VERSION_MISMATCH, JOBS_OF_ANOTHER_FLINK, LAST_STATE_REFUSED, Refusal};

/// Stored jobs by the form in which they are stored: ids, or what stands in place of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredJobs {
    pub job_graphs: BTreeSet<String>,
    pub execution_plans: BTreeSet<String>,
}

impl StoredJobs {
    /// `cluster`: the cluster ConfigMap, as JSON.
    pub fn in_config_map(cluster: &Value) -> Self {
        let of = |form| ha_data::stored_in_form(cluster, form);
        Self { job_graphs: of(StoredForm::JobGraph), execution_plans: of(StoredForm::ExecutionPlan) }
    }

    fn of(&self, form: StoredForm) -> &BTreeSet<String> {
        match form {
            StoredForm::JobGraph => &self.job_graphs,
            StoredForm::ExecutionPlan => &self.execution_plans,
        }
    }

    /// Jobs that a JVM of this version would not see. `noted`: the version that led last, if it is known. Where a JVM
    /// of the same form has led since, it has been so before, and what is left of the other form keeps nobody.
    pub fn unseen_by(&self, jvm: &FlinkVersion, noted: Option<&FlinkVersion>) -> Option<&BTreeSet<String>> {
        let (form, other) = (jvm.stored_form(), self.of(jvm.stored_form().other()));
        let has_led = !self.of(form).is_empty() || noted.is_some_and(|noted| noted.stored_form() == form);
        (!has_led && !other.is_empty()).then_some(other)
    }
}

/// Refuses a session cluster's JVM that would not see stored jobs: it would never run them again.
pub fn of_session(jvm: &FlinkVersion, noted: Option<&FlinkVersion>, stored: &StoredJobs) -> Option<Refusal> {
    let unseen = stored.unseen_by(jvm, noted)?;
    let by = noted.map_or(jvm.stored_form().other().versions(), FlinkVersion::as_str);
    let message = unseen_jobs("this image runs", by, jvm.as_str(), unseen.iter().map(String::as_str));
    Some(Refusal::new(JOBS_OF_ANOTHER_FLINK, message))
}

/// Why jobs would be lost. `what`: what says that Flink is to be of the version `to`.
pub fn unseen_jobs<'a>(what: &str, from: &str, to: &str, jobs: impl ExactSizeIterator<Item = &'a str>) -> String {
    format!(
        "{what} Flink {to}, which does not see the jobs that Flink {from} has stored and would lose them: {}; no JobManager of Flink {to} leads: set \
         spec.image back to Flink {from}, and stop the jobs there with savepoints (flink stop), or cancel them, before the change",
        listed(jobs)
    )
}

/// Whether the JVM of this run is to go on from HA data that the run has stored before.
pub fn goes_on(run: JobId, entrance: &Entrance) -> bool {
    match entrance {
        Entrance::Enter { .. } => true,
        Entrance::Begin(plan) => is_same_run(run, plan),
        Entrance::Finish | Entrance::Collect(_) | Entrance::Refuse(_) | Entrance::Foreign(_) => false,
    }
}

/// The same of what a gateway finds in a quorum.
pub fn goes_on_in_quorum(run: JobId, state: &StoredState) -> bool {
    match state {
        StoredState::Ours => true,
        StoredState::Supersede(plan) => is_same_run(run, plan),
        _ => false,
    }
}

fn is_same_run(run: JobId, plan: &HandoverPlan) -> bool {
    plan.from == Some(run)
}

/// Refuses an application's JVM that would go on from HA data of a version of which that is not known to work.
pub fn of_application(jvm: &FlinkVersion, noted: Option<&FlinkVersion>, stored: &StoredJobs) -> Option<Refusal> {
    let from = match noted {
        Some(noted) if !jvm.goes_on_from(noted) => noted.as_str(),
        None => stored.unseen_by(jvm, None).map(|_| jvm.stored_form().other().versions())?,
        Some(_) => return None,
    };
    Some(Refusal::new(LAST_STATE_REFUSED, last_state(from, jvm.as_str())))
}

/// Why an application does not go on from its last state.
pub fn last_state(from: &str, to: &str) -> String {
    format!(
        "the job was last run by Flink {from}, and it is not known that Flink {to} goes on from its last state: nothing of it is touched; set spec.image back \
         to Flink {from}, let the job run, and change the image with spec.job.upgradeMode: savepoint"
    )
}

/// Refuses a JVM that is not what `spec.flinkVersion` says.
pub fn of_declared(jvm: &FlinkVersion, declared: &str) -> Option<Refusal> {
    let message = format!(
        "spec.flinkVersion: it says {declared}, but the image runs Flink {jvm}; no JobManager of it leads: correct spec.flinkVersion or spec.image"
    );
    (!jvm.is_meant_by(declared)).then(|| Refusal::new(FLINK_VERSION_MISMATCH, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RUN: JobId = JobId::from_number(0xa);

    fn version(text: &str) -> FlinkVersion {
        FlinkVersion::of(text).unwrap_or_else(|| panic!("{text} is no version"))
    }

    fn stored(keys: &[String]) -> StoredJobs {
        let data: serde_json::Map<String, Value> = keys.iter().map(|key| (key.clone(), json!("x"))).collect();
        StoredJobs::in_config_map(&json!({ "data": data }))
    }

    fn graph() -> String {
        format!("jobGraph-{RUN}")
    }

    fn plan() -> String {
        format!("executionPlan-{RUN}")
    }

    fn session(jvm: &str, noted: Option<&str>, keys: &[String]) -> Option<String> {
        of_session(&version(jvm), noted.map(version).as_ref(), &stored(keys)).map(|refusal| refusal.message)
    }

    #[test]
    fn jobs_of_the_other_form_keep_a_session_from_a_leader_that_does_not_see_them() {
        let message = session("2.3.0", Some("1.20.5"), &[graph()]).unwrap_or_default();
        for part in ["Flink 2.3.0", "Flink 1.20.5", RUN.as_str(), "spec.image back", "flink stop"] {
            assert!(message.contains(part), "{part} not in {message}");
        }
        let back = session("1.20.5", Some("2.3.0"), &[plan()]).unwrap_or_default();
        assert!(back.starts_with("this image runs Flink 1.20.5"), "{back}");
        let unknown = session("2.3.0", None, &[graph()]).unwrap_or_default();
        assert!(unknown.contains("Flink 1.x"), "the key says it without a note: {unknown}");
    }

    #[test]
    fn nothing_else_is_refused_to_a_session() {
        for (jvm, noted, keys) in [
            ("2.3.0", Some("1.20.5"), vec![]),
            ("2.3.0", Some("2.2.1"), vec![plan()]),
            ("2.2.1", Some("2.3.0"), vec![plan()]),
            ("1.20.5", Some("1.20.1"), vec![graph()]),
            ("1.20.5", None, vec![graph()]),
            ("2.3.0", Some("1.20.5"), vec!["application-x".to_owned(), "org.apache.flink.k8s.leader.rest".to_owned()]),
        ] {
            assert_eq!(session(jvm, noted, &keys), None, "{jvm} after {noted:?} with {keys:?}");
        }
    }

    /// Somebody has lost these jobs by an upgrade before; the cluster works since.
    #[test]
    fn what_an_earlier_upgrade_has_left_keeps_nobody_from_leading() {
        assert_eq!(session("2.3.0", Some("2.3.0"), &[graph()]), None);
        assert_eq!(session("2.3.0", None, &[graph(), plan()]), None);
        assert_eq!(session("2.3.0", Some("1.20.5"), &[graph(), plan()]), None);
    }

    fn application(jvm: &str, noted: Option<&str>, keys: &[String]) -> Option<String> {
        of_application(&version(jvm), noted.map(version).as_ref(), &stored(keys)).map(|refusal| refusal.message)
    }

    #[test]
    fn an_application_goes_on_from_its_last_state_where_that_is_known() {
        for (jvm, noted, keys) in [
            ("1.20.5", Some("1.20.1"), vec![graph()]),
            ("2.3.0", Some("2.2.1"), vec![plan()]),
            ("2.2.1", Some("2.3.0"), vec![plan()]),
            ("2.3.0", None, vec![plan()]),
            ("2.3.0", None, vec![]),
        ] {
            assert_eq!(application(jvm, noted, &keys), None, "{jvm} after {noted:?}");
        }
        for (jvm, noted, from) in [
            ("2.3.0", Some("1.20.5"), "1.20.5"),
            ("2.4.0", Some("2.3.0"), "2.3.0"),
            ("2.3.0", Some("2.4.0"), "2.4.0"),
            ("2.3.0", None, "1.x"),
        ] {
            let message = application(jvm, noted, &[graph()]).unwrap_or_default();
            for part in [format!("Flink {from},"), format!("Flink {jvm} "), "upgradeMode: savepoint".to_owned()] {
                assert!(message.contains(&part), "{part} not in {message}");
            }
        }
    }

    #[test]
    fn only_a_run_that_goes_on_reads_what_another_version_has_stored() {
        let begin = |from| {
            let plan =
                HandoverPlan { from, superseded: BTreeSet::new(), entries: Vec::new(), mark: String::new(), start: 2 };
            (goes_on(RUN, &Entrance::Begin(plan.clone())), goes_on_in_quorum(RUN, &StoredState::Supersede(plan)))
        };
        assert_eq!(begin(Some(RUN)), (true, true));
        assert_eq!(begin(Some(JobId::from_number(0xb))), (false, false), "it starts from a savepoint, or anew");
        assert_eq!(begin(None), (false, false));
        assert!(goes_on(RUN, &Entrance::Enter { raises: false }) && goes_on_in_quorum(RUN, &StoredState::Ours));
        assert!(!goes_on(RUN, &Entrance::Finish) && !goes_on_in_quorum(RUN, &StoredState::Finishing));
    }

    #[test]
    fn a_declared_version_is_checked() {
        assert_eq!(of_declared(&version("2.3.0"), "2.3"), None);
        let message = of_declared(&version("2.3.0"), "2.2").map(|refusal| refusal.message).unwrap_or_default();
        assert!(message.starts_with("spec.flinkVersion: it says 2.2, but the image runs Flink 2.3.0"), "{message}");
    }
}
