//! HA data as ConfigMaps hold it, decoded: `inspect`. It is the same whether this product or Flink alone wrote it
//! (`KubernetesHaServicesBase`, 1.15 to 2.3): keys of the cluster ConfigMap point to graphs, plans and applications,
//! and each job has a ConfigMap whose keys point to its checkpoints.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::api::names;
use crate::api::status::{HaDataStatus, JobStatus, OrphansStatus};
use crate::cluster::ha_status;
use crate::cluster::observed::ObservedConfigMap;
use crate::flink::job_id::JobId;
use crate::flink::lock::{self, HeldLock};
use crate::flink::{ha_data, pointer};
use crate::ha_data::inventory::bytes;
use crate::lease::stamp::stamp;
use crate::ledger::asked::{StoredFile, StoredMark, StoredResult};
use crate::ledger::jobs::Size;

/// Prefix of the keys of a leader's components (`KubernetesUtils`, 1.15 to 2.3).
const LEADER_KEY: &str = "org.apache.flink.k8s.leader.";
/// Prefix of the keys of checkpoints (`KubernetesCheckpointStoreUtil`).
const CHECKPOINT_KEY: &str = "checkpointID-";

/// What was read. An error is a sentence that says why something is not known.
pub struct StoredSources<'a> {
    pub namespace: &'a str,
    /// Name of the FlinkHaCluster, and Flink's `kubernetes.cluster-id`.
    pub name: &'a str,
    /// HA ConfigMaps, as JSON.
    pub config_maps: &'a [Value],
    pub ledger: Result<Option<ObservedConfigMap>, String>,
    /// Servers of the quorum, with provider ZooKeeper.
    pub quorum: Option<String>,
}

/// HA data of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredReport {
    pub namespace: String,
    pub name: String,
    /// Number of the term that the cluster ConfigMap carries; absent if Flink alone wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockReport>,
    /// Addresses of the leader's components, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leaders: BTreeMap<String, String>,
    /// Graphs, plans and applications.
    pub plans: Vec<PlanReport>,
    /// Jobs with a ConfigMap of their own.
    pub jobs: Vec<StoredJobReport>,
    /// Ended jobs of which the ledger knows.
    pub ended: Vec<JobStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha_data: Option<HaDataStatus>,
    /// Size of all HA ConfigMaps.
    pub bytes: usize,
    /// What is there and should not be, or the other way round.
    pub findings: Vec<String>,
    /// Whether the files were looked up: `checked`, or `not checked` with the reason.
    pub files: String,
    /// Entries of Flink's result stores, if the files were looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<StoredResult>,
    /// Clusters that have signed the storage directory, if the files were looked up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<StoredMark>,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_known: BTreeMap<&'static str, String>,
}

/// Flink's leader lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockReport {
    /// Identity of a JVM, which changes with each.
    pub holder: String,
    /// RFC 3339, by the holder's clock.
    pub renewed: String,
}

/// A pointer to a graph, plan or application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Key of the cluster ConfigMap.
    pub key: String,
    #[serde(flatten)]
    pub pointer: PointerReport,
}

/// A pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PointerReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Bytes of the file, as the pointer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Flink is removing it.
    pub is_marked: bool,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// What the storage says of the file, if it was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredFile>,
    /// When its key was written, RFC 3339, if the ConfigMap's `managedFields` say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

/// What is stored of a job in its ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredJobReport {
    pub id: String,
    /// As the ledger has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub config_map: String,
    pub bytes: usize,
    /// Percentage of the limit of a ConfigMap.
    pub per_cent: usize,
    /// Number of the next checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<String>,
    /// The latest at the end.
    pub checkpoints: Vec<CheckpointReport>,
}

/// A pointer to a completed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointReport {
    /// Number of the checkpoint, or the whole key if it has none.
    pub checkpoint: String,
    #[serde(flatten)]
    pub pointer: PointerReport,
}

impl StoredReport {
    pub fn of(sources: &StoredSources<'_>) -> Self {
        let (namespace, name) = (sources.namespace.to_owned(), sources.name.to_owned());
        let mut report = Self { namespace, name, files: "not checked".to_owned(), ..Self::default() };
        let ledger = match &sources.ledger {
            Ok(ledger) => ledger.as_ref().map(|ledger| &ledger.data),
            Err(why) => {
                report.not_known.insert("ledger", why.clone());
                None
            }
        };
        if let Some(quorum) = &sources.quorum {
            let why = format!("they are znodes of the ZooKeeper quorum {quorum}, which the plugin does not read");
            report.not_known.insert("pointers", why);
        }
        for config_map in sources.config_maps {
            report.bytes += bytes(config_map);
            let own = config_map["metadata"]["name"].as_str().unwrap_or_default();
            if own == names::cluster_config_map(sources.name) {
                report.add_cluster(config_map);
            } else if let Some(job) = ha_data::job_of(sources.name, own) {
                report.add_job(job, own, config_map);
            } else {
                report
                    .findings
                    .push(format!("ConfigMap {own} has the labels of HA data, and a name that Flink gives none"));
            }
        }
        if let Some(data) = ledger {
            report.ha_data = data.ha_data.as_ref().map(ha_status::ha_data);
            report.ended = data.jobs.iter().filter(|job| job.has_ended()).map(ha_status::job).collect();
            for stored in &mut report.jobs {
                let known = data.jobs.iter().find(|job| job.id == stored.id);
                stored.name = known.map(|job| job.name.clone()).filter(|name| !name.is_empty());
            }
            report.findings.extend(data.unreadable.iter().map(|key| format!("key {key} of the ledger cannot be read")));
        }
        report.jobs.sort_by(|one, other| one.id.cmp(&other.id));
        report.compare();
        report
    }

    /// ConfigMaps hold nothing.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty() && self.jobs.is_empty() && self.lock.is_none() && self.leaders.is_empty()
    }

    pub fn orphans(&self) -> Option<&OrphansStatus> {
        self.ha_data.as_ref()?.orphans.as_ref()
    }

    fn add_cluster(&mut self, config_map: &Value) {
        self.term = stamp(config_map).and_then(Result::ok).map(|term| term.number);
        let held = lock::of_object(config_map).and_then(HeldLock::of);
        self.lock = held.map(|held| LockReport { holder: held.holder, renewed: held.renewed });
        for (key, value) in entries(config_map) {
            if let Some(component) = key.strip_prefix(LEADER_KEY) {
                // `<session>,<address>`.
                let address = value.split_once(',').map_or(value, |(_, address)| address);
                self.leaders.insert(component.to_owned(), address.to_owned());
            } else if ha_data::plan_of(key).is_some() {
                let pointer = PointerReport::of(value, written(config_map, key));
                self.plans.push(PlanReport { key: key.to_owned(), pointer });
            } else {
                let name = names::cluster_config_map(&self.name);
                self.findings.push(format!("key {key} of ConfigMap {name} is not known; it may be a later Flink's"));
            }
        }
    }

    fn add_job(&mut self, job: JobId, config_map_name: &str, config_map: &Value) {
        let bytes = bytes(config_map);
        let (mut counter, mut checkpoints) = (None, Vec::new());
        for (key, value) in entries(config_map) {
            if key == ha_data::COUNTER {
                counter = Some(value.to_owned());
            } else if ha_data::is_checkpoint(key) {
                let number = key.strip_prefix(CHECKPOINT_KEY).unwrap_or(key);
                let checkpoint = number.parse::<u64>().map_or_else(|_| key.to_owned(), |number| number.to_string());
                let pointer = PointerReport::of(value, written(config_map, key));
                checkpoints.push(CheckpointReport { checkpoint, pointer });
            } else {
                let finding =
                    format!("key {key} of ConfigMap {config_map_name} is not known; it may be a later Flink's");
                self.findings.push(finding);
            }
        }
        let size = Size { name: config_map_name.to_owned(), bytes };
        let (id, per_cent, config_map) = (job.to_string(), size.per_cent(), size.name);
        self.jobs.push(StoredJobReport { id, name: None, config_map, bytes, per_cent, counter, checkpoints });
    }

    /// Finds what does not go together.
    fn compare(&mut self) {
        let planned: BTreeSet<&str> = self.plans.iter().filter_map(|plan| ha_data::plan_of(&plan.key)).collect();
        let mut found = Vec::new();
        for job in self.jobs.iter().filter(|job| !planned.contains(job.id.as_str())) {
            found.push(format!(
                "job {}: no graph or plan of it is stored, so it is ending, or this is left over",
                job.id
            ));
        }
        let mut look = |what: String, pointer: &PointerReport| {
            if let Some(why) = &pointer.unreadable {
                found.push(format!("{what}: the pointer cannot be read: {why}; files that it may name are kept"));
            }
        };
        self.plans.iter().for_each(|plan| look(format!("key {}", plan.key), &plan.pointer));
        for job in &self.jobs {
            for one in &job.checkpoints {
                look(format!("checkpoint {} of job {}", one.checkpoint, job.id), &one.pointer);
            }
        }
        self.findings.extend(found);
    }
}

impl PointerReport {
    fn of(value: &str, written: Option<Timestamp>) -> Self {
        let written = written.map(|at| format!("{at:.0}"));
        match pointer::details(value) {
            Ok(details) => Self {
                file: Some(details.uri),
                size: details.size,
                is_marked: details.is_marked,
                written,
                ..Self::default()
            },
            Err(why) => Self { unreadable: Some(why.to_string()), written, ..Self::default() },
        }
    }
}

fn entries(config_map: &Value) -> impl Iterator<Item = (&str, &str)> {
    let data = config_map["data"].as_object();
    data.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// When whoever wrote this key wrote last. Other keys of the same writer count too: for a checkpoint that is the latest
/// one's, for others a moment after it.
fn written(config_map: &Value, key: &str) -> Option<Timestamp> {
    let fields = config_map["metadata"]["managedFields"].as_array()?;
    let owns = |entry: &&Value| entry["fieldsV1"]["f:data"].get(format!("f:{key}")).is_some();
    fields.iter().filter(owns).filter_map(|entry| entry["time"].as_str()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flink::pointer::tests::pointer_to;
    use crate::plugin::view::stored_text::screen;

    const JOB: JobId = JobId::from_number(1);
    const OTHER: JobId = JobId::from_number(2);

    fn config_maps(stamp: Option<&str>) -> Vec<Value> {
        let lock = json!({ "holderIdentity": "7f", "acquireTime": "a", "renewTime": "2026-01-01T00:59:58.000000Z" });
        let mut annotations = json!({ "control-plane.alpha.kubernetes.io/leader": lock.to_string() });
        if let Some(stamp) = stamp {
            annotations["flinkha.dev/term"] = json!(stamp);
        }
        let plan_key = format!("executionPlan-{JOB}");
        let written = json!([{
            "manager": "fabric8", "time": "2026-01-01T00:59:50Z",
            "fieldsV1": { "f:data": { "f:checkpointID-0000000000000000007": {}, "f:counter": {} } },
        }]);
        vec![
            json!({
                "metadata": { "name": "demo-cluster-config-map", "annotations": annotations },
                "data": {
                    plan_key: pointer_to("submittedExecutionPlan1"),
                    "org.apache.flink.k8s.leader.dispatcher": "5f,pekko.tcp://flink@10.0.0.1:6123/user/rpc/dispatcher_1",
                },
            }),
            json!({
                "metadata": { "name": names::job_config_map("demo", JOB.as_str()), "managedFields": written },
                "data": {
                    "counter": "8", "checkpointID-0000000000000000006": pointer_to("completedCheckpoint6"),
                    "checkpointID-0000000000000000007": pointer_to("completedCheckpoint7"),
                },
            }),
            json!({
                "metadata": { "name": names::job_config_map("demo", OTHER.as_str()) },
                "data": { "checkpointID-0000000000000000001": "?\u{1b}[2J" },
            }),
        ]
    }

    fn report(config_maps: &[Value], ledger: Result<Option<Value>, String>) -> StoredReport {
        let ledger = ledger.map(|ledger| {
            ledger.map(|data| ObservedConfigMap {
                data: serde_json::from_value(data).expect("a ledger"),
                ..ObservedConfigMap::default()
            })
        });
        StoredReport::of(&StoredSources { namespace: "flink", name: "demo", config_maps, ledger, quorum: None })
    }

    #[test]
    fn pointers_are_decoded_and_what_does_not_go_together_is_found() {
        let jobs = json!([
            { "id": JOB, "name": "sequence", "state": "Running" },
            { "id": JobId::from_number(3), "name": "batch", "state": "Finished", "ended": "2026-01-01T00:00:00Z",
              "collected": "2026-01-01T00:00:10Z" },
        ]);
        let report = report(&config_maps(Some("5.u.p.1-2")), Ok(Some(json!({ "jobs": jobs.to_string() }))));
        let now = "2026-01-01T01:00:00Z".parse().expect("a time");
        let text = screen(&report, now, false);
        for part in [
            "HA data of flink/demo: written by FlinkHaCluster, term 5, ",
            "Leader of dispatcher: pekko.tcp://flink@10.0.0.1:6123/user/rpc/dispatcher_1",
            "submittedExecutionPlan1   36.6 KiB   readable\n",
            "(sequence): ConfigMap demo-00000000000000000000000000000001-config-map (",
            "next checkpoint 8\n",
            "completedCheckpoint7   36.6 KiB   readable   written 10s ago\n",
            "batch       00000000000000000000000000000003   Finished   1h ago   removed 59m50s ago\n",
            "job 00000000000000000000000000000002: no graph or plan of it is stored",
            "checkpoint 1 of job 00000000000000000000000000000002: the pointer cannot be read: it is not a stream",
            "Files: not checked.",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let counted = text.matches("written 10s ago").count();
        assert!(counted == 1 && !text.contains("Leader lock") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn what_flink_alone_wrote_is_shown_with_its_lock() {
        let report = report(&config_maps(None), Ok(None));
        let text = screen(&report, "2026-01-01T01:00:00Z".parse().expect("a time"), false);
        assert!(text.starts_with("HA data of flink/demo: written by Flink alone (no term), "), "{text}");
        assert!(text.contains("\nLeader lock: 7f, renewed 2026-01-01T00:59:58Z (2s ago)\n"), "{text}");
        assert!(report.jobs[0].name.is_none() && report.ended.is_empty());
    }

    #[test]
    fn what_is_not_known_is_no_finding() {
        let strange = json!({ "metadata": { "name": "x" }, "data": { "a": "b" } });
        let mut all = config_maps(None);
        all[0]["data"]["new-key"] = json!("v");
        all.push(strange);
        let report = report(&all, Err("forbidden".to_owned()));
        assert_eq!(report.not_known["ledger"], "forbidden");
        assert!(report.findings.iter().any(|one| one.starts_with("key new-key of ConfigMap demo-cluster-config-map")));
        assert!(report.findings.iter().any(|one| one.starts_with("ConfigMap x has the labels of HA data")));
        let empty = super::StoredReport::of(&StoredSources {
            namespace: "flink",
            name: "demo",
            config_maps: &[],
            ledger: Ok(None),
            quorum: Some("zk:2181".to_owned()),
        });
        assert!(empty.is_empty() && empty.not_known["pointers"].contains("quorum zk:2181"));
    }
}
