//! Defines the labels and keys of Flink's HA data in ConfigMaps (`org.apache.flink.kubernetes.utils.Constants` and
//! `KubernetesUtils`, 1.15 to 2.3).

use std::collections::BTreeSet;

use serde_json::Value;

use super::job_id::JobId;
use super::version::StoredForm;
use crate::api::names;

/// Value of the label `type` on every HA ConfigMap, in every version (`Constants.LABEL_TYPE_KEY`).
pub const LABEL_TYPE: &str = "flink-native-kubernetes";

/// Prefixes of the keys in the cluster ConfigMap that hold a pointer to a stored job.
const JOB_KEYS: [&str; 2] = [job_key(StoredForm::JobGraph), job_key(StoredForm::ExecutionPlan)];

const fn job_key(form: StoredForm) -> &'static str {
    match form {
        StoredForm::JobGraph => "jobGraph-",
        StoredForm::ExecutionPlan => "executionPlan-",
    }
}

/// Returns the selector of all HA ConfigMaps of a cluster. It omits `configmap-type`, which Flink 2.x no longer sets.
pub fn selector(cluster_id: &str) -> String {
    format!("app={cluster_id},type={LABEL_TYPE}")
}

/// The same of several clusters.
pub fn selector_of_any(cluster_ids: &[String]) -> String {
    format!("app in ({}),type={LABEL_TYPE}", cluster_ids.join(","))
}

/// Prefix of the keys in the cluster ConfigMap that hold a pointer to a stored application (Flink ≥ 2.3).
const APPLICATION_KEY: &str = "application-";

/// Returns the jobs with a stored graph or plan in the cluster ConfigMap.
pub fn stored_jobs(cluster_config_map: &Value) -> BTreeSet<JobId> {
    ids(cluster_config_map, &JOB_KEYS)
}

/// Returns what is stored in this form in the cluster ConfigMap: ids of jobs, if Flink wrote the keys.
pub fn stored_in_form(cluster_config_map: &Value, form: StoredForm) -> BTreeSet<String> {
    let data = cluster_config_map.get("data").and_then(Value::as_object);
    let keys = data.into_iter().flat_map(|data| data.keys());
    keys.filter_map(|key| key.strip_prefix(job_key(form))).map(str::to_owned).collect()
}

/// Returns the stored applications in the cluster ConfigMap.
pub fn stored_applications(cluster_config_map: &Value) -> BTreeSet<JobId> {
    ids(cluster_config_map, &[APPLICATION_KEY])
}

/// Returns the stored jobs and applications in the cluster ConfigMap.
pub fn stored(cluster_config_map: &Value) -> BTreeSet<JobId> {
    stored_jobs(cluster_config_map).into_iter().chain(stored_applications(cluster_config_map)).collect()
}

/// Returns the parts of such keys that are not an id of Flink's. Nothing is known about what they name.
pub fn stored_by_others(cluster_config_map: &Value) -> BTreeSet<String> {
    let data = cluster_config_map.get("data").and_then(Value::as_object);
    let named = data.into_iter().flat_map(|data| data.keys()).filter_map(|key| plan_of(key));
    named.filter(|id| JobId::of(id).is_none()).map(str::to_owned).collect()
}

/// Returns the job of a ConfigMap from its name; `None` if no job of this cluster has that name.
pub fn job_of(cluster_id: &str, config_map: &str) -> Option<JobId> {
    JobId::of(&names::job_of_config_map(cluster_id, config_map)?)
}

/// Returns the rest of a key of the cluster ConfigMap that points to a graph, plan or application: the id of a job or
/// application, if Flink wrote the key.
pub fn plan_of(key: &str) -> Option<&str> {
    JOB_KEYS.iter().chain([&APPLICATION_KEY]).find_map(|prefix| key.strip_prefix(prefix))
}

/// Returns the rest of a key of the cluster ConfigMap that points to a graph or plan.
pub fn job_key_of(key: &str) -> Option<&str> {
    JOB_KEYS.iter().find_map(|prefix| key.strip_prefix(prefix))
}

/// Prefix of a key of the cluster ConfigMap under which a gateway keeps a pointer that Flink is not to find; the rest
/// is the key that Flink has written. Flink reads keys that begin with `jobGraph-`, `executionPlan-`, `application-` or
/// `org.apache.flink.k8s.leader.`, and writes all others back unchanged (`KubernetesUtils`,
/// `KubernetesStateHandleStore`; 1.20 to 2.3).
const QUARANTINE: &str = "flinkha.quarantine.";

/// Returns the key under which a pointer of this key is set aside.
pub fn quarantine_key(key: &str) -> String {
    format!("{QUARANTINE}{key}")
}

/// Returns the key from which a pointer was set aside; `None` for other keys.
pub fn key_in_quarantine(key: &str) -> Option<&str> {
    key.strip_prefix(QUARANTINE)
}

/// Does a key of a job's ConfigMap point to a checkpoint (`KubernetesCheckpointStoreUtil`)?
pub fn is_checkpoint(key: &str) -> bool {
    key.starts_with("checkpointID-")
}

/// Returns the number of the last checkpoint to which the ConfigMap of a job points. Flink pads it to a fixed width.
pub fn last_checkpoint(config_map: &Value) -> Option<u64> {
    keys(config_map).filter(|key| is_checkpoint(key)).filter_map(|key| key.rsplit('-').next()?.parse().ok()).max()
}

/// Prefix of the keys in the cluster ConfigMap under which a leader publishes the addresses of its components (Flink ≥
/// 1.15).
const LEADER_KEY: &str = "org.apache.flink.k8s.leader.";

/// Returns the keys of the cluster ConfigMap with the addresses of a leader's components.
pub fn leader_keys(cluster_config_map: &Value) -> impl Iterator<Item = &str> {
    keys(cluster_config_map).filter(|key| key.starts_with(LEADER_KEY))
}

/// Returns all keys of a ConfigMap.
pub fn keys(config_map: &Value) -> impl Iterator<Item = &str> {
    let data = config_map.get("data").and_then(Value::as_object);
    data.into_iter().flat_map(|data| data.keys()).map(String::as_str)
}

/// Does a key of the cluster ConfigMap hold the address of a leader's component?
pub fn is_leader(key: &str) -> bool {
    key.starts_with(LEADER_KEY)
}

/// Key of a job's ConfigMap with the number of the next checkpoint.
pub const COUNTER: &str = "counter";

fn ids(cluster_config_map: &Value, prefixes: &[&str]) -> BTreeSet<JobId> {
    let data = cluster_config_map.get("data").and_then(Value::as_object);
    let keys = data.into_iter().flat_map(|data| data.keys());
    keys.filter_map(|key| prefixes.iter().find_map(|prefix| key.strip_prefix(prefix))).filter_map(JobId::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stored_jobs_are_found_by_the_keys_of_both_generations() {
        let (first, second) = (JobId::from_number(1), JobId::from_number(2));
        let (graph, plan) = (format!("jobGraph-{first}"), format!("executionPlan-{second}"));
        let config_map =
            json!({ "data": { graph: "x", plan: "y", "jobGraph-x": "?", "org.apache.flink.k8s.leader.job-cc": "z" } });
        assert_eq!(stored_jobs(&config_map), BTreeSet::from([first, second]));
        let of_1_x = BTreeSet::from([first.to_string(), "x".to_owned()]);
        assert_eq!(stored_in_form(&config_map, StoredForm::JobGraph), of_1_x);
        assert_eq!(stored_in_form(&config_map, StoredForm::ExecutionPlan), BTreeSet::from([second.to_string()]));
        assert_eq!(stored_by_others(&config_map), BTreeSet::from(["x".to_owned()]));
        assert!(stored_jobs(&json!({})).is_empty());
        let checkpoints = json!({ "data": { "counter": "12", "checkpointID-0000000000000000009": "x",
            "checkpointID-0000000000000000011": "y", "checkpointID-?": "z" } });
        assert_eq!([last_checkpoint(&checkpoints), last_checkpoint(&config_map)], [Some(11), None]);
        assert_eq!(leader_keys(&config_map).collect::<Vec<_>>(), ["org.apache.flink.k8s.leader.job-cc"]);
    }
}
