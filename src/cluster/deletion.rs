//! What goes when a resource is deleted, and in which order.
//!
//! JobManagers go first, and all of them, before anything that they could still write or wait for: a JobManager that outlives the TaskManagers
//! would see its jobs fail, and would delete their data itself. Unknown never deletes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ledger::Tombstone;
use crate::api::names;
use crate::api::v1alpha1::OnDelete;
use crate::flink::ha_data;

/// Keys of the cluster ConfigMap that only tell who leads. All other keys point to data of jobs.
const LEADER_KEYS: &str = "org.apache.flink.k8s.leader.";

/// Which of Flink's HA ConfigMaps go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// ConfigMaps to delete.
    pub delete: Vec<String>,
    /// ConfigMaps that stay, for jobs that have not ended or may not have ended.
    pub keep: Vec<String>,
}

/// Decides for every HA ConfigMap of the cluster, given as JSON. `tombstones` are the jobs known to have ended; none are known when the ledger
/// cannot be read.
pub fn plan(on_delete: OnDelete, cluster_id: &str, config_maps: &[Value], tombstones: &[Tombstone]) -> Plan {
    let name = |config_map: &Value| config_map["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let keeps = |config_map: &Value| match on_delete {
        OnDelete::Delete => false,
        OnDelete::Retain => holds_live_data(cluster_id, config_map, &live_jobs(cluster_id, config_maps), tombstones),
    };
    let (keep, delete) = config_maps.iter().partition::<Vec<_>, _>(|config_map| keeps(config_map));
    Plan { delete: delete.into_iter().map(name).collect(), keep: keep.into_iter().map(name).collect() }
}

/// Jobs with a stored graph or plan.
fn live_jobs(cluster_id: &str, config_maps: &[Value]) -> BTreeSet<String> {
    let cluster = names::cluster_config_map(cluster_id);
    config_maps.iter().filter(|config_map| config_map["metadata"]["name"] == cluster).flat_map(ha_data::stored_jobs).collect()
}

fn holds_live_data(cluster_id: &str, config_map: &Value, live: &BTreeSet<String>, tombstones: &[Tombstone]) -> bool {
    let name = config_map["metadata"]["name"].as_str().unwrap_or_default();
    if name == names::cluster_config_map(cluster_id) {
        let mut keys = config_map["data"].as_object().into_iter().flat_map(|data| data.keys());
        return keys.any(|key| !key.starts_with(LEADER_KEYS));
    }
    match names::job_of_config_map(cluster_id, name) {
        Some(job) => live.contains(&job) || !tombstones.iter().any(|tombstone| tombstone.id == job),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RUNNING: &str = "00000000000000000000000000000001";
    const ENDED: &str = "00000000000000000000000000000002";
    const UNKNOWN: &str = "00000000000000000000000000000003";

    fn config_map(name: &str, data: Value) -> Value {
        json!({ "metadata": { "name": name }, "data": data })
    }

    fn cluster(data: Value) -> Value {
        config_map("demo-cluster-config-map", data)
    }

    fn job(id: &str) -> Value {
        config_map(&names::job_config_map("demo", id), json!({}))
    }

    fn tombstone(id: &str) -> Tombstone {
        let json = json!({ "id": id, "state": "Finished", "ended": "2026-01-01T00:00:00Z" });
        serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn delete_takes_everything() {
        let config_maps = [cluster(json!({ format!("executionPlan-{RUNNING}"): "x" })), job(RUNNING)];
        let plan = plan(OnDelete::Delete, "demo", &config_maps, &[]);
        assert_eq!((plan.delete.len(), plan.keep.len()), (2, 0));
    }

    #[test]
    fn retain_takes_only_what_is_known_to_have_ended() {
        let plan_key = format!("executionPlan-{RUNNING}");
        let config_maps = [cluster(json!({ plan_key: "x" })), job(RUNNING), job(ENDED), job(UNKNOWN), config_map("demo-other", json!({}))];
        let plan = plan(OnDelete::Retain, "demo", &config_maps, &[tombstone(ENDED), tombstone(RUNNING)]);
        assert_eq!(plan.delete, [names::job_config_map("demo", ENDED)]);
        assert_eq!(plan.keep.len(), 4);
    }

    #[test]
    fn without_jobs_nothing_is_retained() {
        let leaders = json!({ "org.apache.flink.k8s.leader.dispatcher": "x", "org.apache.flink.k8s.leader.restserver": "y" });
        let plan = plan(OnDelete::Retain, "demo", &[cluster(leaders), job(ENDED)], &[tombstone(ENDED)]);
        assert_eq!((plan.delete.len(), plan.keep.len()), (2, 0));
    }

    #[test]
    fn a_key_that_is_not_understood_keeps_the_cluster_config_map() {
        let plan = plan(OnDelete::Retain, "demo", &[cluster(json!({ "application-1": "x" }))], &[]);
        assert_eq!(plan.keep.len(), 1);
    }
}
