//! Determines which HA data of a cluster is in use, from its ConfigMaps or znodes: every job, and every file that a
//! pointer names.
//!
//! A pointer that cannot be read names no file, so it protects every file that it might name: see
//! [`crate::ha_data::sweep`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::names;
use crate::flink::job_id::JobId;
use crate::flink::serialized::Unreadable;
use crate::flink::znodes::ClusterZnodes;
use crate::flink::{ha_data, pointer};

/// The HA data in use. It is read in one term: the gateway lists the storage first, then reads the ConfigMaps or
/// znodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Jobs and applications with a key in the cluster ConfigMap, or with a znode of their own.
    pub stored: BTreeSet<JobId>,
    /// Jobs with a ConfigMap of their own, or with a pointer below the znode `jobs`.
    pub with_config_map: BTreeSet<JobId>,
    /// Jobs with a pointer to a checkpoint.
    pub with_checkpoint: BTreeSet<JobId>,
    /// Names of the files that pointers name.
    pub named: BTreeSet<String>,
    /// The file of each stored job's graph or plan, unless Flink is about to remove it.
    pub plans: BTreeMap<JobId, String>,
    /// The files of the checkpoints that Flink reads when it recovers a job.
    pub checkpoints: BTreeMap<JobId, BTreeSet<String>>,
    /// The file of the graph or plan of each job in quarantine.
    pub quarantined: BTreeMap<JobId, String>,
    /// A pointer to a graph, plan or application cannot be read.
    pub unreadable_plan: bool,
    /// Jobs with an unreadable pointer to a checkpoint.
    pub unreadable_checkpoint: BTreeSet<JobId>,
    /// Size of each ConfigMap in bytes, as it counts towards the limit of 1 MiB.
    pub bytes: BTreeMap<String, usize>,
    /// Znodes with an unreadable pointer.
    pub unreadable_znodes: BTreeSet<String>,
    /// Jobs with znodes that hold no pointer. Flink leaves them when it dies between two steps of its clean-up.
    pub remnants: BTreeSet<JobId>,
}

impl Inventory {
    /// Reads all HA ConfigMaps of a cluster, given as JSON.
    pub fn of(cluster_id: &str, config_maps: &[Value]) -> Self {
        let mut inventory = Self::default();
        config_maps.iter().for_each(|config_map| inventory.add(cluster_id, config_map));
        inventory
    }

    /// Reads one more HA ConfigMap. Of a large one only what decisions need is kept.
    pub fn add(&mut self, cluster_id: &str, config_map: &Value) {
        let name = config_map["metadata"]["name"].as_str().unwrap_or_default();
        self.bytes.insert(name.to_owned(), bytes(config_map));
        if name == names::cluster_config_map(cluster_id) {
            self.add_cluster(config_map);
        } else if let Some(job) = ha_data::job_of(cluster_id, name) {
            self.add_job(job, config_map);
        }
    }

    /// Reads all znodes of a cluster.
    pub fn of_znodes(znodes: &ClusterZnodes) -> Self {
        let mut inventory = Self { unreadable_plan: !znodes.unknown.is_empty(), ..Self::default() };
        inventory.unreadable_znodes.extend(znodes.unknown.iter().cloned());
        for plan in &znodes.plans {
            let is_read = inventory.add_plan(plan.id, pointer::file_of(&plan.pointer));
            if !is_read {
                inventory.unreadable_znodes.insert(plan.path.clone());
            }
            if let Some(id) = plan.id.filter(|_| plan.is_going) {
                inventory.plans.remove(&id);
            }
        }
        for plan in &znodes.quarantined {
            let is_read = inventory.add_quarantined(plan.id, pointer::file_of(&plan.pointer));
            if !is_read {
                inventory.unreadable_znodes.insert(plan.path.clone());
            }
        }
        for job in &znodes.jobs {
            if job.checkpoints.is_empty() && !job.unknown && job.id.is_some() {
                inventory.remnants.extend(job.id);
                continue;
            }
            inventory.with_config_map.extend(job.id);
            if !job.checkpoints.is_empty() {
                inventory.with_checkpoint.extend(job.id);
            }
            // The job of this znode is unknown, so its plan may be any.
            inventory.unreadable_plan |= job.id.is_none();
            let (readable, unreadable): (Vec<_>, Vec<_>) =
                job.checkpoints.iter().map(|bytes| pointer::file_of(bytes)).partition(Result::is_ok);
            inventory.named.extend(readable.into_iter().flatten().map(|uri| pointer::name(&uri).to_owned()));
            let recovered = job.checkpoints.iter().filter(|bytes| !job.going.contains(bytes));
            let recovered =
                recovered.filter_map(|bytes| Some(pointer::name(&pointer::file_of(bytes).ok()?).to_owned()));
            let recovered: BTreeSet<String> = recovered.collect();
            if let Some(id) = job.id.filter(|_| !recovered.is_empty()) {
                inventory.checkpoints.insert(id, recovered);
            }
            if !unreadable.is_empty() || job.unknown || job.id.is_none() {
                inventory.unreadable_checkpoint.extend(job.id);
                inventory.unreadable_znodes.insert(job.path.clone());
            }
        }
        inventory.remnants.extend(&znodes.with_leader);
        inventory.remnants = inventory.remnants.iter().copied().filter(|job| !inventory.may_live(*job)).collect();
        inventory
    }

    fn add_cluster(&mut self, config_map: &Value) {
        for (key, value) in entries(config_map) {
            if let Some(key) = ha_data::key_in_quarantine(key) {
                self.add_quarantined(ha_data::plan_of(key).and_then(JobId::of), pointer::file(value));
                continue;
            }
            let Some(id) = ha_data::plan_of(key) else {
                // A key of an unknown Flink version may name any file.
                self.unreadable_plan |= !ha_data::is_leader(key);
                continue;
            };
            let id = JobId::of(id);
            self.add_plan(id, pointer::file(value));
            if let Some(id) = id.filter(|_| pointer::is_marked_for_deletion(value)) {
                self.plans.remove(&id);
            }
        }
    }

    /// Adds a pointer to the graph or plan of a job in quarantine. Returns false if its owner or its file is unknown.
    fn add_quarantined(&mut self, id: Option<JobId>, file: Result<String, Unreadable>) -> bool {
        let is_read = id.is_some() && file.is_ok();
        self.unreadable_plan |= !is_read;
        let name = file.as_deref().map(pointer::name).unwrap_or_default().to_owned();
        if let Some(id) = id {
            self.quarantined.insert(id, name.clone());
        }
        if !name.is_empty() {
            self.named.insert(name);
        }
        is_read
    }

    /// Adds a pointer to a graph, plan or application. Returns false if its owner or its file is unknown.
    fn add_plan(&mut self, id: Option<JobId>, file: Result<String, Unreadable>) -> bool {
        self.stored.extend(id);
        let is_read = id.is_some() && file.is_ok();
        self.unreadable_plan |= !is_read;
        if let Ok(uri) = file {
            let name = pointer::name(&uri).to_owned();
            self.plans.extend(id.map(|id| (id, name.clone())));
            self.named.insert(name);
        }
        is_read
    }

    fn add_job(&mut self, job: JobId, config_map: &Value) {
        for (key, value) in entries(config_map).filter(|(key, _)| *key != ha_data::COUNTER) {
            if ha_data::is_checkpoint(key) {
                self.with_checkpoint.insert(job);
            }
            // A key of an unknown Flink version may name any file.
            match pointer::file(value) {
                Ok(uri) => {
                    let name = pointer::name(&uri).to_owned();
                    if ha_data::is_checkpoint(key) && !pointer::is_marked_for_deletion(value) {
                        self.checkpoints.entry(job).or_default().insert(name.clone());
                    }
                    self.named.insert(name);
                }
                Err(_) => {
                    self.unreadable_checkpoint.insert(job);
                }
            }
        }
        self.with_config_map.insert(job);
    }

    /// May the job be running, or run again?
    pub fn may_live(&self, job: JobId) -> bool {
        self.stored.contains(&job) || self.with_config_map.contains(&job) || self.quarantined.contains_key(&job)
    }

    /// Returns the ConfigMaps or znodes with an unreadable pointer.
    pub fn unreadable(&self, cluster_id: &str) -> Vec<String> {
        if !self.unreadable_znodes.is_empty() {
            return self.unreadable_znodes.iter().cloned().collect();
        }
        let plans = self.unreadable_plan.then(|| names::cluster_config_map(cluster_id));
        plans
            .into_iter()
            .chain(self.unreadable_checkpoint.iter().map(|job| names::job_config_map(cluster_id, job.as_str())))
            .collect()
    }
}

fn entries(config_map: &Value) -> impl Iterator<Item = (&str, &str)> {
    let data = config_map.get("data").and_then(Value::as_object);
    // A value that is no text is a pointer that cannot be read.
    data.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// Returns the size of a ConfigMap's data. The API server counts the values (`ValidateConfigMap`); keys cost as much in
/// etcd, so they count here too.
pub fn bytes(config_map: &Value) -> usize {
    entries(config_map).map(|(key, value)| key.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;

    use super::*;
    use crate::flink::pointer::tests::{marked, pointer_to};
    use crate::flink::znodes::{JobZnode, PlanZnode};

    const JOB: JobId = JobId::from_number(1);

    fn config_maps(plan: &str, checkpoint: &str) -> [Value; 2] {
        let plan_key = format!("executionPlan-{JOB}");
        [
            json!({ "metadata": { "name": "demo-cluster-config-map" }, "data": { plan_key: plan, "org.apache.flink.k8s.leader.dispatcher": "x" } }),
            json!({ "metadata": { "name": names::job_config_map("demo", JOB.as_str()) }, "data": { "checkpointID-0000000000000000007": checkpoint, "counter": "8" } }),
        ]
    }

    #[test]
    fn every_file_that_a_pointer_names_is_in_use() {
        let inventory = Inventory::of(
            "demo",
            &config_maps(&pointer_to("submittedExecutionPlan1"), &pointer_to("completedCheckpoint2")),
        );
        assert_eq!(inventory.named.iter().collect::<Vec<_>>(), ["completedCheckpoint2", "submittedExecutionPlan1"]);
        assert_eq!(inventory.plans[&JOB], "submittedExecutionPlan1");
        assert!(inventory.may_live(JOB) && !inventory.unreadable_plan && inventory.unreadable_checkpoint.is_empty());
        assert!(inventory.unreadable("demo").is_empty() && bytes(&config_maps("x", "y")[1]) > 30);
    }

    #[test]
    fn what_is_in_quarantine_is_in_use() {
        let [mut cluster, job] = config_maps("x", &pointer_to("completedCheckpoint2"));
        let key = ha_data::quarantine_key(&format!("executionPlan-{JOB}"));
        cluster["data"] = json!({ key: pointer_to("submittedExecutionPlan1") });
        let inventory = Inventory::of("demo", &[cluster.clone(), job]);
        assert_eq!(inventory.named.iter().collect::<Vec<_>>(), ["completedCheckpoint2", "submittedExecutionPlan1"]);
        assert!(inventory.may_live(JOB) && inventory.stored.is_empty() && !inventory.unreadable_plan);
        assert_eq!(inventory.quarantined[&JOB], "submittedExecutionPlan1");
        let alone = Inventory::of("demo", &[cluster.clone()]);
        assert!(alone.may_live(JOB), "also when its checkpoints are gone");
        cluster["data"] = json!({ ha_data::quarantine_key("executionPlan-x"): "?" });
        assert!(Inventory::of("demo", &[cluster]).unreadable_plan, "it may name any file");
        let path = "/flink/flink.demo/flinkha-quarantine/execution-plans-1".to_owned();
        let plan = PlanZnode {
            path,
            id: Some(JOB),
            pointer: znode_pointer("submittedExecutionPlan1"),
            ..PlanZnode::default()
        };
        let of_znodes = Inventory::of_znodes(&ClusterZnodes { quarantined: vec![plan], ..ClusterZnodes::default() });
        assert!(of_znodes.may_live(JOB) && of_znodes.stored.is_empty() && !of_znodes.unreadable_plan);
        assert!(of_znodes.named.contains("submittedExecutionPlan1"));
    }

    #[test]
    fn what_flink_is_about_to_remove_is_in_use_and_recovers_nothing() {
        let (plan, checkpoint) = (pointer_to("submittedExecutionPlan1"), pointer_to("completedCheckpoint2"));
        let whole = Inventory::of("demo", &config_maps(&plan, &checkpoint));
        assert_eq!(whole.checkpoints[&JOB], BTreeSet::from(["completedCheckpoint2".to_owned()]));
        let going = Inventory::of("demo", &config_maps(&marked(&plan), &marked(&checkpoint)));
        assert!(going.plans.is_empty() && going.checkpoints.is_empty());
        assert!(going.named == whole.named && going.stored == whole.stored);
    }

    fn znode_pointer(name: &str) -> Vec<u8> {
        BASE64_STANDARD.decode(pointer_to(name)).expect("base64")
    }

    #[test]
    fn of_znodes_the_same_is_known() {
        let [path, other] = ["/flink/flink.demo/jobs/1", "/flink/flink.demo/jobs/2"].map(str::to_owned);
        let ended = JobId::from_number(2);
        let job = |id, path: &str, checkpoints| JobZnode {
            id: Some(id),
            path: path.into(),
            checkpoints,
            ..JobZnode::default()
        };
        let mut znodes = ClusterZnodes {
            plans: vec![PlanZnode {
                path: "/flink/flink.demo/execution-plans/1".into(),
                id: Some(JOB),
                pointer: znode_pointer("submittedExecutionPlan1"),
                is_going: false,
            }],
            jobs: vec![job(JOB, &path, vec![znode_pointer("completedCheckpoint2")]), job(ended, &other, vec![])],
            with_leader: vec![JOB, ended],
            ..ClusterZnodes::default()
        };
        let inventory = Inventory::of_znodes(&znodes);
        assert_eq!(inventory.named.iter().collect::<Vec<_>>(), ["completedCheckpoint2", "submittedExecutionPlan1"]);
        assert!(inventory.may_live(JOB) && !inventory.may_live(ended) && !inventory.unreadable_plan);
        assert_eq!(inventory.remnants.iter().copied().collect::<Vec<_>>(), [ended], "what may live leaves no remnant");
        assert!(inventory.plans.contains_key(&JOB) && inventory.checkpoints.contains_key(&JOB));
        let mut going = znodes.clone();
        (going.plans[0].is_going, going.jobs[0].going) = (true, going.jobs[0].checkpoints.clone());
        let going = Inventory::of_znodes(&going);
        assert!(going.plans.is_empty() && going.checkpoints.is_empty() && going.named == inventory.named);
        assert!(going.stored == inventory.stored && going.with_checkpoint == inventory.with_checkpoint);
        znodes.jobs[0].checkpoints.push(b"?".to_vec());
        znodes.unknown.push("/flink/flink.demo/new".into());
        let inventory = Inventory::of_znodes(&znodes);
        assert!(
            inventory.unreadable_plan && inventory.unreadable_checkpoint.contains(&JOB) && inventory.named.len() == 2
        );
        assert_eq!(inventory.unreadable("demo"), [path, "/flink/flink.demo/new".to_owned()]);
    }

    #[test]
    fn a_value_that_is_no_text_is_a_pointer_that_cannot_be_read() {
        let [mut cluster, mut job] = config_maps("x", "y");
        cluster["data"] = json!({ format!("jobGraph-{JOB}"): {} });
        job["data"] = json!({ "checkpointID-0000000000000000007": 1 });
        let inventory = Inventory::of("demo", &[cluster, job]);
        assert!(inventory.stored.contains(&JOB) && inventory.unreadable_plan);
        assert!(inventory.with_checkpoint.contains(&JOB) && inventory.unreadable_checkpoint.contains(&JOB));
    }

    /// Its file stays, and so does every other plan: whose it is nobody knows.
    #[test]
    fn what_is_stored_under_no_id_protects_all_plans() {
        let pointer = pointer_to("submittedExecutionPlan1");
        let inventory = Inventory::of(
            "demo",
            &[json!({ "metadata": { "name": "demo-cluster-config-map" }, "data": { "executionPlan-x": pointer } })],
        );
        assert!(inventory.unreadable_plan && inventory.named.contains("submittedExecutionPlan1"));
        let plan = PlanZnode {
            path: "/p".into(),
            id: None,
            pointer: znode_pointer("submittedExecutionPlan1"),
            ..PlanZnode::default()
        };
        let job = JobZnode { path: "/j".into(), ..JobZnode::default() };
        let of_plan = Inventory::of_znodes(&ClusterZnodes { plans: vec![plan], ..ClusterZnodes::default() });
        let of_job = Inventory::of_znodes(&ClusterZnodes { jobs: vec![job], ..ClusterZnodes::default() });
        assert!(of_plan.unreadable_plan && of_plan.named.contains("submittedExecutionPlan1"));
        assert_eq!(
            (of_plan.unreadable("demo"), of_job.unreadable("demo")),
            (vec!["/p".to_owned()], vec!["/j".to_owned()])
        );
        assert!(of_job.unreadable_plan && of_job.remnants.is_empty());
    }

    #[test]
    fn a_pointer_that_cannot_be_read_is_told_of() {
        let inventory = Inventory::of("demo", &config_maps("rO0ABX", "?"));
        assert!(inventory.unreadable_plan && inventory.unreadable_checkpoint.contains(&JOB));
        assert!(inventory.named.is_empty());
        assert_eq!(
            inventory.unreadable("demo"),
            ["demo-cluster-config-map".to_owned(), names::job_config_map("demo", JOB.as_str())]
        );
    }
}
