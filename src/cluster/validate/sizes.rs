//! Decides whether a resource leaves room for its status: both are one object, and etcd stores no request of more than
//! 1.5 MiB by default (`--max-request-bytes`).

use serde_json::Value;

use super::Problems;
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec};
use crate::cluster::application::{definitions, deployed};

/// Bytes of a definition of an application. The status holds up to two of them, the one that runs and the last one that
/// worked, each as JSON in a string.
const DEFINITION: usize = 256 << 10;

/// Bytes of the spec of a session cluster, whose status holds no definitions.
const SPEC: usize = 1 << 20;

const KIBIBYTE: usize = 1 << 10;

impl Problems {
    /// A definition that runs already fits.
    pub(super) fn sizes(&mut self, resource: &FlinkHaCluster) {
        let spec = &resource.spec;
        let status = resource.status.as_ref();
        let runs = || status.and_then(|status| deployed(status, spec)).is_some_and(|deployed| deployed == *spec);
        let (size, limit) = if spec.job.is_some() {
            (definition(spec), DEFINITION)
        } else {
            (serde_json::to_string(spec).map_or(0, |text| text.len()), SPEC)
        };
        if size > limit && !runs() {
            let problem = format!(
                "has {} KiB of the {} KiB that leave room for its status in the same object: shorten logConfiguration, \
                 flinkConfiguration or the podTemplates, or put files into the image or a ConfigMap of your own that \
                 the podTemplates mount",
                size.div_ceil(KIBIBYTE),
                limit / KIBIBYTE
            );
            self.add("spec".to_owned(), problem);
        }
    }
}

/// Bytes of the definition in the status.
fn definition(spec: &FlinkHaClusterSpec) -> usize {
    Value::from(definitions::text(spec)).to_string().len()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use serde_json::json;

    use super::*;
    use crate::api::application::{Application, Upgrade};
    use crate::api::status::{FailoverEntry, FlinkHaClusterStatus, RestoredJobStatus};
    use crate::cluster::ha_status::jobs;
    use crate::cluster::tests as fixture;
    use crate::cluster::validate::problems;
    use crate::flink::job_id::JobId;
    use crate::ledger::checkpoints::{Checkpoints, NotedCheckpoint};
    use crate::ledger::jobs::{Begun, UNENDED, note};

    /// What etcd takes at once.
    const ETCD: usize = 3 << 19;

    fn found(resource: &FlinkHaCluster) -> Vec<String> {
        problems(resource).iter().map(ToString::to_string).collect()
    }

    /// A resource whose spec is as large as it may be, by the text of its log configuration.
    fn filled(mut resource: FlinkHaCluster) -> FlinkHaCluster {
        let fill = |resource: &mut FlinkHaCluster, lines: usize| {
            let text = "logger.a.level = \"INFO\"\n".repeat(lines);
            resource.spec.log_configuration.insert("log4j-console.properties".to_owned(), text);
        };
        let mut lines = 0;
        for step in [1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1] {
            loop {
                fill(&mut resource, lines + step);
                if !found(&resource).is_empty() {
                    break;
                }
                lines += step;
            }
        }
        let problem = found(&resource);
        assert!(problem.len() == 1 && problem[0].contains("spec: has"), "{problem:?}");
        assert!(problem[0].contains("room for its status in the same object: shorten logConfiguration"), "{problem:?}");
        fill(&mut resource, lines);
        resource
    }

    /// As large as a status is made: the largest text of each kind.
    fn status(application: Option<Application>) -> FlinkHaClusterStatus {
        let begun = Begun { name: "\u{e9}".repeat(200), started: Timestamp::UNIX_EPOCH.to_string(), plan: None };
        let stored = (0..UNENDED).map(|number| (JobId::from_number(number as u128), begun.clone()));
        let mut all = Vec::new();
        note(&mut all, &stored.collect(), &BTreeSet::new());
        let path = Some("p".repeat(512));
        let noted = NotedCheckpoint { id: u64::MAX, completed: Timestamp::UNIX_EPOCH.to_string(), path };
        let checkpoints = Checkpoints(all.iter().rev().map(|job| (job.id, noted.clone())).take(200).collect());
        let checkpoints = serde_json::from_str(&checkpoints.to_text()).expect("checkpoints");
        let (jobs, jobs_left_out) = jobs(&all, &checkpoints);
        let restored = vec![RestoredJobStatus { job: "j".repeat(32), checkpoint: Some(i64::MAX) }; 10];
        let text = "p".repeat(253);
        let failover =
            FailoverEntry { from: text.clone(), to: text.clone(), reason: text, restored, ..Default::default() };
        let condition = |number: usize| Condition {
            type_: format!("Condition{number}"),
            status: "True".to_owned(),
            reason: "Reason".to_owned(),
            message: "m".repeat(8_000),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        FlinkHaClusterStatus {
            application,
            jobs,
            jobs_left_out,
            failovers: vec![failover; 20],
            conditions: (0..11).map(condition).collect(),
            ..FlinkHaClusterStatus::default()
        }
    }

    /// Who has written which field: a line for each (`metadata.managedFields`).
    fn fields(value: &Value) -> Value {
        let key =
            |one: &Value| ["id", "type"].iter().find_map(|key| Some(format!("k:{{\"{key}\":{}}}", one.get(key)?)));
        match value {
            Value::Object(map) => map.iter().map(|(key, value)| (format!("f:{key}"), fields(value))).collect(),
            Value::Array(list) if list.iter().any(|one| key(one).is_some()) => {
                list.iter().filter_map(|one| Some((key(one)?, fields(one)))).collect()
            }
            _ => json!({}),
        }
    }

    /// Bytes of the object as the API server stores it. `applied`: the copy that `kubectl apply` keeps, which the API
    /// server refuses beyond 256 KiB.
    fn stored(mut resource: FlinkHaCluster) -> usize {
        let applied = json!({ "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "spec": resource.spec });
        let applied = Some(applied.to_string()).filter(|applied| applied.len() < 256 << 10);
        let annotation = |text| BTreeMap::from([("kubectl.kubernetes.io/last-applied-configuration".to_owned(), text)]);
        resource.metadata.annotations = applied.map(annotation);
        let mut object = json!(resource);
        let managed = fields(&object);
        object["metadata"]["managedFields"] = json!([{ "manager": "kubectl", "fieldsV1": managed }]);
        object.to_string().len()
    }

    #[test]
    fn the_largest_application_and_the_largest_session_fit_with_their_status() {
        let application = filled(fixture::application_resource());
        let text = definitions::text(&application.spec);
        let upgrade = Upgrade { why: Some("w".repeat(2_000)), ..Upgrade::default() };
        let state = Application {
            deployed: text.clone(),
            stable: Some(text),
            upgrades: vec![upgrade; 10],
            error: Some("e".repeat(2_000)),
            ..Application::default()
        };
        let sizes = [(application, status(Some(state))), (filled(fixture::resource()), status(None))]
            .map(|(resource, status)| stored(FlinkHaCluster { status: Some(status), ..resource }));
        println!("the largest application: {} bytes, the largest session: {} bytes", sizes[0], sizes[1]);
        assert!(sizes.iter().all(|size| *size < ETCD), "{sizes:?}");
    }

    #[test]
    fn a_large_definition_that_runs_already_is_not_refused() {
        let mut resource = filled(fixture::application_resource());
        let text = resource.spec.log_configuration["log4j-console.properties"].repeat(2);
        resource.spec.log_configuration.insert("log4j-console.properties".to_owned(), text);
        assert_eq!(found(&resource).len(), 1);
        let state = Application { deployed: definitions::text(&resource.spec), ..Application::default() };
        resource.status = Some(FlinkHaClusterStatus { application: Some(state), ..FlinkHaClusterStatus::default() });
        assert_eq!(found(&resource), Vec::<String>::new());
        resource.spec.image = "flink:next".to_owned();
        assert_eq!(found(&resource).len(), 1, "another one of that size does not fit beside it");
    }
}
