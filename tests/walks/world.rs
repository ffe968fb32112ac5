//! The world: objects of the API server, files, processes, and the operator's memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use product::api::FlinkHaCluster;
use product::api::names::{self, TERM_ANNOTATION};
use product::cluster::deletion::PurgeJob;
use product::flink::ha_data;
use product::flink::job_id::JobId;
use product::flink::result::{Entry, Store};
use product::ha_data::handover::Stored;
use serde_json::{Value, json};

use super::asked::Asked;
use super::gateway::Gateway;
use super::ghost::Ghost;
use super::objects::{Deployment, LeaseObject, Ledger, NAME, Pod};
use super::operator::Operator;
use super::rules::{Mutant, Rules};

/// A Lease that is not renewed is free after this time, in seconds.
const EXPIRY: i64 = 20;

#[derive(Clone, Debug, Default)]
pub struct World {
    pub rules: Rules,
    pub now: i64,
    /// Makes names, versions and terms.
    pub made: u64,
    /// Rises with every change that a watch shows.
    pub changes: u64,
    pub asked: Asked,
    pub resource: Option<Arc<FlinkHaCluster>>,
    pub lease: Option<LeaseObject>,
    pub ledger: Option<Ledger>,
    /// A copy of the ledger that somebody has made.
    pub copy: Option<Ledger>,
    /// Flink's HA data, by name.
    pub config_maps: BTreeMap<String, Value>,
    pub deployments: [Option<Deployment>; 2],
    pub pods: Vec<Pod>,
    /// The Job that removes files.
    pub purge: Option<PurgeJob>,
    pub entries: Vec<Entry>,
    /// Savepoints and retained checkpoints, with the state in them.
    pub saved: BTreeMap<String, (JobId, u32)>,
    pub operator: Operator,
    /// Conditions are made too.
    pub is_told: bool,
    pub ghost: Ghost,
    /// What has happened, if somebody wants to know.
    pub story: Option<Vec<String>>,
}

impl World {
    pub fn new(rules: Rules) -> Self {
        Self { rules, now: 1_000_000, ..Self::default() }
    }

    pub fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("    {:>5} s  {}", self.now - 1_000_000, line(self));
            self.story.iter_mut().for_each(|story| story.push(line.clone()));
        }
    }

    pub fn make(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    pub fn touch(&mut self) {
        self.changes += 1;
    }

    pub fn change_resource(&mut self, change: impl FnOnce(&mut FlinkHaCluster)) {
        let version = self.make().to_string();
        if let Some(resource) = &mut self.resource {
            let resource = Arc::make_mut(resource);
            change(resource);
            resource.metadata.resource_version = Some(version);
            self.changes += 1;
        }
    }

    pub fn change_lease(&mut self, change: impl FnOnce(&mut LeaseObject)) {
        let (version, now) = (self.make(), self.now);
        if let Some(lease) = &mut self.lease {
            change(lease);
            (lease.version, lease.renewed) = (version, now);
            self.changes += 1;
        }
    }

    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.uid == uid)
    }

    /// The Lease's holder lives and renews it.
    pub fn renew(&mut self) {
        let now = self.now;
        if let Some(lease) = &mut self.lease
            && self
                .pods
                .iter()
                .any(|pod| pod.uid == lease.holder_uid && pod.is_connected() && pod.gateway.term() == Some(lease.term))
        {
            lease.renewed = now;
        }
    }

    pub fn is_lease_free(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.holder.is_empty() || self.now - lease.renewed >= EXPIRY)
    }

    /// The cluster ConfigMap.
    pub fn cluster(&self) -> Option<&Value> {
        self.config_maps.get(&names::cluster_config_map(NAME))
    }

    pub fn stored(&self) -> Option<Stored> {
        self.cluster().and_then(|cluster| Stored::in_config_map(cluster).ok())
    }

    /// Checkpoints of a job: the key's value is the state.
    pub fn checkpoint(&self, job: JobId) -> Option<u32> {
        let config_map = self.config_maps.get(&names::job_config_map(NAME, job.as_str()))?;
        config_map["data"]["checkpointID-1"].as_str()?.parse().ok()
    }

    pub fn jobs_with_config_map(&self) -> impl Iterator<Item = JobId> {
        self.config_maps.keys().filter_map(|name| ha_data::job_of(NAME, name))
    }

    /// Writes an HA ConfigMap in a term: the API server refuses it unless the object carries that term's stamp.
    pub fn write(&mut self, name: &str, term: u64, change: impl FnOnce(&mut Value)) -> bool {
        let fenced = !self.rules.lack(Mutant::NotFenced);
        let Some(config_map) = self.config_maps.get_mut(name) else { return false };
        if fenced && stamp(config_map) != term {
            return false;
        }
        change(config_map);
        self.changes += 1;
        true
    }

    /// Writes the ledger in a term: not if a newer one has written it, and not over what cannot be read.
    pub fn write_ledger(&mut self, key: &str, term: u64, change: impl FnOnce(&mut Ledger)) -> bool {
        let Some(ledger) = &mut self.ledger else { return false };
        if ledger.term > term || ledger.torn == Some(key) {
            return false;
        }
        change(ledger);
        ledger.term = term;
        self.changes += 1;
        true
    }

    pub fn has_result(&self, job: JobId) -> bool {
        self.entries.iter().any(|entry| entry.store == Store::Job && entry.id == job)
    }

    /// Gives the Lease back.
    pub fn release(&mut self, uid: &str) {
        if self.lease.as_ref().is_some_and(|lease| lease.holder_uid == uid) {
            self.change_lease(|lease| {
                let from = std::mem::take(&mut lease.holder);
                lease.change = Some(product::lease::record::Change { from, ..Default::default() });
                lease.holder_uid.clear();
            });
        }
    }

    /// A process ends.
    pub fn end_process(&mut self, uid: &str) {
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid == uid) {
            (pod.alive, pod.gateway) = (false, Gateway::Standby);
            self.changes += 1;
        }
    }

    /// Pods of which nothing is left.
    pub fn forget_pods(&mut self) {
        self.pods.retain(|pod| pod.exists || pod.alive);
    }
}

pub fn stamp(config_map: &Value) -> u64 {
    config_map["metadata"]["annotations"][TERM_ANNOTATION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn config_map(name: &str, term: u64) -> Value {
    json!({ "metadata": { "name": name, "annotations": { TERM_ANNOTATION: term.to_string() } }, "data": {} })
}
