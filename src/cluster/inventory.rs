//! What of a cluster's HA data is in use, from its ConfigMaps: every job, and every file that a pointer names.
//!
//! A pointer that cannot be read names nothing, and so protects everything that it might name: see [`crate::cluster::sweep`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::names;
use crate::flink::{ha_data, pointer};

/// Read in one term: first the storage was listed, then the ConfigMaps were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Jobs and applications with a key in the cluster ConfigMap.
    pub stored: BTreeSet<String>,
    /// Jobs with a ConfigMap of their own.
    pub with_config_map: BTreeSet<String>,
    /// Jobs with a pointer to a checkpoint.
    pub with_checkpoint: BTreeSet<String>,
    /// Names of files that pointers name.
    pub named: BTreeSet<String>,
    /// The file of each stored job's graph or plan.
    pub plans: BTreeMap<String, String>,
    /// A pointer to a graph, plan or application cannot be read.
    pub unreadable_plan: bool,
    /// Jobs with a pointer to a checkpoint that cannot be read.
    pub unreadable_checkpoint: BTreeSet<String>,
    /// Size of each ConfigMap as it counts towards the limit of 1 MiB, in bytes.
    pub bytes: BTreeMap<String, usize>,
}

impl Inventory {
    /// From all HA ConfigMaps of a cluster, as JSON.
    pub fn of(cluster_id: &str, config_maps: &[Value]) -> Self {
        let mut inventory = Self::default();
        for config_map in config_maps {
            let name = config_map["metadata"]["name"].as_str().unwrap_or_default();
            inventory.bytes.insert(name.to_owned(), bytes(config_map));
            if name == names::cluster_config_map(cluster_id) {
                inventory.add_cluster(config_map);
            } else if let Some(job) = names::job_of_config_map(cluster_id, name) {
                inventory.add_job(job, config_map);
            }
        }
        inventory
    }

    fn add_cluster(&mut self, config_map: &Value) {
        for (key, value) in entries(config_map) {
            let Some(id) = ha_data::plan_of(key) else {
                // A key of a version that is not known may name anything.
                self.unreadable_plan |= !ha_data::is_leader(key);
                continue;
            };
            self.stored.insert(id.to_owned());
            match pointer::file(value) {
                Ok(uri) => {
                    self.named.insert(pointer::name(&uri).to_owned());
                    self.plans.insert(id.to_owned(), pointer::name(&uri).to_owned());
                }
                Err(_) => self.unreadable_plan = true,
            }
        }
    }

    fn add_job(&mut self, job: String, config_map: &Value) {
        for (key, value) in entries(config_map).filter(|(key, _)| *key != ha_data::COUNTER) {
            if ha_data::is_checkpoint(key) {
                self.with_checkpoint.insert(job.clone());
            }
            // A key of a version that is not known may name anything.
            match pointer::file(value) {
                Ok(uri) => {
                    self.named.insert(pointer::name(&uri).to_owned());
                }
                Err(_) => {
                    self.unreadable_checkpoint.insert(job.clone());
                }
            }
        }
        self.with_config_map.insert(job);
    }

    /// The job may run, or may be made to run again.
    pub fn may_live(&self, job: &str) -> bool {
        self.stored.contains(job) || self.with_config_map.contains(job)
    }

    /// ConfigMaps with a pointer that cannot be read.
    pub fn unreadable(&self, cluster_id: &str) -> Vec<String> {
        let plans = self.unreadable_plan.then(|| names::cluster_config_map(cluster_id));
        plans.into_iter().chain(self.unreadable_checkpoint.iter().map(|job| names::job_config_map(cluster_id, job))).collect()
    }
}

fn entries(config_map: &Value) -> impl Iterator<Item = (&str, &str)> {
    let data = config_map.get("data").and_then(Value::as_object);
    data.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// As the API server counts (`ValidateConfigMap`): keys are not counted there, but cost as much in etcd.
pub fn bytes(config_map: &Value) -> usize {
    entries(config_map).map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flink::pointer::tests::pointer_to;

    const JOB: &str = "00000000000000000000000000000001";

    fn config_maps(plan: &str, checkpoint: &str) -> [Value; 2] {
        let plan_key = format!("executionPlan-{JOB}");
        [
            json!({ "metadata": { "name": "demo-cluster-config-map" }, "data": { plan_key: plan, "org.apache.flink.k8s.leader.dispatcher": "x" } }),
            json!({ "metadata": { "name": names::job_config_map("demo", JOB) }, "data": { "checkpointID-0000000000000000007": checkpoint, "counter": "8" } }),
        ]
    }

    #[test]
    fn every_file_that_a_pointer_names_is_in_use() {
        let inventory = Inventory::of("demo", &config_maps(&pointer_to("submittedExecutionPlan1"), &pointer_to("completedCheckpoint2")));
        assert_eq!(inventory.named.iter().collect::<Vec<_>>(), ["completedCheckpoint2", "submittedExecutionPlan1"]);
        assert_eq!(inventory.plans[JOB], "submittedExecutionPlan1");
        assert!(inventory.may_live(JOB) && !inventory.unreadable_plan && inventory.unreadable_checkpoint.is_empty());
        assert!(inventory.unreadable("demo").is_empty() && bytes(&config_maps("x", "y")[1]) > 30);
    }

    #[test]
    fn a_pointer_that_cannot_be_read_is_told_of() {
        let inventory = Inventory::of("demo", &config_maps("rO0ABX", "?"));
        assert!(inventory.unreadable_plan && inventory.unreadable_checkpoint.contains(JOB));
        assert!(inventory.named.is_empty());
        assert_eq!(inventory.unreadable("demo"), ["demo-cluster-config-map".to_owned(), names::job_config_map("demo", JOB)]);
    }
}
