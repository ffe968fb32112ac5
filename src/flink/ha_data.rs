//! Flink's HA data in ConfigMaps: labels and keys
//! (`org.apache.flink.kubernetes.utils.Constants` and `KubernetesUtils`, 1.15 to 2.3).

use std::collections::BTreeSet;

use serde_json::Value;

use super::job_id::JobId;
use crate::api::names;

/// Value of the label `type` on every HA ConfigMap of every version (`Constants.LABEL_TYPE_KEY`).
pub const LABEL_TYPE: &str = "flink-native-kubernetes";

/// Keys of the cluster ConfigMap that hold a pointer to a stored job: 1.x and 2.x.
const JOB_KEYS: [&str; 2] = ["jobGraph-", "executionPlan-"];

/// Selector of all HA ConfigMaps of a cluster. Flink 2.x no longer sets `configmap-type`, so it is not part of it.
pub fn selector(cluster_id: &str) -> String {
    format!("app={cluster_id},type={LABEL_TYPE}")
}

/// Key of the cluster ConfigMap that holds a pointer to a stored application (Flink ≥ 2.3).
const APPLICATION_KEY: &str = "application-";

/// Jobs that the cluster ConfigMap knows: those with a stored graph or plan.
pub fn stored_jobs(cluster_config_map: &Value) -> BTreeSet<JobId> {
    ids(cluster_config_map, &JOB_KEYS)
}

/// Applications that the cluster ConfigMap knows.
pub fn stored_applications(cluster_config_map: &Value) -> BTreeSet<JobId> {
    ids(cluster_config_map, &[APPLICATION_KEY])
}

/// Jobs and applications that the cluster ConfigMap knows.
pub fn stored(cluster_config_map: &Value) -> BTreeSet<JobId> {
    stored_jobs(cluster_config_map).into_iter().chain(stored_applications(cluster_config_map)).collect()
}

/// What the cluster ConfigMap names like the id of a job or application although it is none: nothing is known of it.
pub fn stored_by_others(cluster_config_map: &Value) -> BTreeSet<String> {
    let data = cluster_config_map.get("data").and_then(Value::as_object);
    let named = data.into_iter().flat_map(|data| data.keys()).filter_map(|key| plan_of(key));
    named.filter(|id| JobId::of(id).is_none()).map(str::to_owned).collect()
}

/// The job of a ConfigMap, by its name; `None` when it is not that of a job of this cluster.
pub fn job_of(cluster_id: &str, config_map: &str) -> Option<JobId> {
    JobId::of(&names::job_of_config_map(cluster_id, config_map)?)
}

/// What a key of the cluster ConfigMap that points to a graph, plan or application names: the id of a job or
/// application, if Flink wrote it.
pub fn plan_of(key: &str) -> Option<&str> {
    JOB_KEYS.iter().chain([&APPLICATION_KEY]).find_map(|prefix| key.strip_prefix(prefix))
}

/// Does a key of a job's ConfigMap point to a checkpoint (`KubernetesCheckpointStoreUtil`)?
pub fn is_checkpoint(key: &str) -> bool {
    key.starts_with("checkpointID-")
}

/// Prefix of the keys of the cluster ConfigMap under which a leader publishes the address of each of its components
/// (Flink >= 1.15).
const LEADER_KEY: &str = "org.apache.flink.k8s.leader.";

/// Keys of the cluster ConfigMap with the addresses of a leader's components.
pub fn leader_keys(cluster_config_map: &Value) -> impl Iterator<Item = &str> {
    let data = cluster_config_map.get("data").and_then(Value::as_object);
    data.into_iter().flat_map(|data| data.keys()).map(String::as_str).filter(|key| key.starts_with(LEADER_KEY))
}

/// Does a key of the cluster ConfigMap tell who leads?
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
        assert_eq!(stored_by_others(&config_map), BTreeSet::from(["x".to_owned()]));
        assert!(stored_jobs(&json!({})).is_empty());
        assert_eq!(leader_keys(&config_map).collect::<Vec<_>>(), ["org.apache.flink.k8s.leader.job-cc"]);
    }
}
