//! The objects of the API server, as far as they matter, and as watches show them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use product::api::names::{
    self, CHANGE_ANNOTATION, CLUSTER_LABEL, COMPONENT_LABEL, JOB_MANAGER, MANAGED_BY, MANAGED_BY_LABEL,
    REFUSAL_ANNOTATION, SAVEPOINT_ANNOTATION, TASK_MANAGER, TERM_ANNOTATION,
};
use product::cluster::ledger_data::LedgerData;
use product::cluster::observed::{
    DeploymentStatus, ObservedCondition, ObservedConfigMap, ObservedDeployment, ObservedPod, PodSpec, PodStatus,
};
use product::flink::job_id::JobId;
use product::lease::record::Change;
use product::ledger::application::{Progress, Run, SavepointRequest};
use product::ledger::jobs::{HaData, Job};
use product::ledger::refusal::Refusal;
use serde_json::json;

use super::gateway::Gateway;

pub const NAME: &str = "a";
pub const NAMESPACE: &str = "n";
pub const COMPONENTS: [&str; 2] = [JOB_MANAGER, TASK_MANAGER];

pub fn time(now: i64) -> Timestamp {
    Timestamp::from_second(now).unwrap()
}

/// The Lease.
#[derive(Clone, Debug)]
pub struct LeaseObject {
    pub owner: String,
    /// Rises with every write but renewals.
    pub version: u64,
    pub holder: String,
    pub holder_uid: String,
    pub term: u64,
    pub change: Option<Change>,
    pub savepoint: Option<String>,
    /// When it was renewed last.
    pub renewed: i64,
}

impl LeaseObject {
    pub fn shown(&self) -> Arc<Lease> {
        let mut annotations = BTreeMap::new();
        if self.term > 0 {
            annotations.insert(TERM_ANNOTATION.to_owned(), format!("{}.{}.p.1-1", self.term, self.holder_uid));
        }
        if let Some(change) = &self.change {
            annotations.insert(CHANGE_ANNOTATION.to_owned(), json!(change).to_string());
        }
        if let Some(savepoint) = &self.savepoint {
            annotations.insert(SAVEPOINT_ANNOTATION.to_owned(), savepoint.clone());
        }
        let spec = LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(MicroTime(time(self.renewed))),
            ..LeaseSpec::default()
        };
        let metadata =
            ObjectMeta { name: Some(names::lease(NAME)), annotations: Some(annotations), ..ObjectMeta::default() };
        Arc::new(Lease { metadata, spec: Some(spec) })
    }
}

/// The ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub progress: Option<Progress>,
    pub jobs: Vec<Job>,
    pub ha_data: Option<HaData>,
    /// This key cannot be read.
    pub torn: Option<&'static str>,
    pub refusal: Option<Refusal>,
    /// The term of the last write.
    pub term: u64,
}

impl Ledger {
    pub fn progress(&self) -> Progress {
        self.progress.clone().unwrap_or_default()
    }

    pub fn data(&self) -> LedgerData {
        let mut data = LedgerData {
            jobs: self.jobs.clone(),
            uncollected: 0,
            ha_data: self.ha_data.clone(),
            application: self.progress.clone(),
            unreadable: self.torn.iter().map(|key| (*key).to_owned()).collect(),
            secrets: None,
            certificates: BTreeMap::new(),
            failovers: Default::default(),
            checkpoints: Default::default(),
            savepoints: Default::default(),
        };
        match self.torn {
            Some("jobs") => data.jobs.clear(),
            Some(_) => data.application = None,
            None => {}
        }
        data
    }

    pub fn shown(&self) -> Arc<ObservedConfigMap> {
        let refusal = self.refusal.as_ref().map(|refusal| (REFUSAL_ANNOTATION.to_owned(), json!(refusal).to_string()));
        let annotations = refusal.map(|refusal| BTreeMap::from([refusal]));
        let metadata = ObjectMeta { name: Some(names::ledger(NAME)), annotations, ..ObjectMeta::default() };
        Arc::new(ObservedConfigMap { metadata, data: self.data() })
    }
}

/// What pods are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub run: Run,
    /// Something that no new graph is needed for.
    pub scale: i32,
}

#[derive(Clone, Debug)]
pub struct Deployment {
    pub uid: String,
    /// UID of the resource.
    pub owner: String,
    pub generation: i64,
    pub template: Arc<Template>,
    pub replicas: i32,
    pub deleting: bool,
    /// What its controller has seen, and how many pods it had then.
    pub seen: i64,
    pub active: i32,
    pub updated: i32,
}

impl Deployment {
    pub fn shown(&self, component: &str) -> Arc<ObservedDeployment> {
        let metadata = ObjectMeta {
            name: Some(format!("{NAME}-{component}")),
            uid: Some(self.uid.clone()),
            generation: Some(self.generation),
            resource_version: Some(self.version()),
            owner_references: Some(vec![OwnerReference { uid: self.owner.clone(), ..OwnerReference::default() }]),
            deletion_timestamp: self.deleting.then(|| Time(time(0))),
            ..ObjectMeta::default()
        };
        let status = DeploymentStatus {
            observed_generation: self.seen,
            replicas: self.active,
            updated_replicas: self.updated,
            ready_replicas: self.active,
            conditions: Vec::new(),
        };
        Arc::new(ObservedDeployment { metadata, status, ..ObservedDeployment::default() })
    }

    /// Another one after each change.
    pub fn version(&self) -> String {
        let Self { owner, generation, deleting, seen, active, updated, .. } = self;
        format!("{owner} {generation} {deleting} {seen} {active} {updated}")
    }
}

/// A pod, and its process.
#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: String,
    /// 0: a JobManager's; 1: a TaskManager's.
    pub component: usize,
    /// UID of its Deployment.
    pub deployment: String,
    pub template: Arc<Template>,
    pub labelled: bool,
    pub owned: bool,
    /// When it is to have ended.
    pub deletion: Option<i64>,
    /// Its phase is `Failed`.
    pub failed: bool,
    /// The API server has it.
    pub exists: bool,
    /// Its process lives.
    pub alive: bool,
    /// Its node is lost: the process reaches nobody.
    pub cut: bool,
    pub gateway: Gateway,
    /// What the gateway has seen of the Lease's request for a savepoint.
    pub asked: Option<SavepointRequest>,
    /// The last request with an answer on record.
    pub answered: Option<String>,
    /// Jobs with a tombstone, as the gateway has read.
    pub ended: BTreeSet<JobId>,
    /// Number of the JVM's process.
    pub jvm: u64,
}

impl Pod {
    pub fn run(&self) -> &Run {
        &self.template.run
    }

    /// The API server hears of what it does.
    pub fn is_connected(&self) -> bool {
        self.alive && !self.cut
    }

    /// Its Deployment counts it.
    pub fn is_active(&self) -> bool {
        self.exists && self.labelled && self.owned && self.deletion.is_none() && !self.failed
    }

    pub fn metadata(&self) -> ObjectMeta {
        let component = COMPONENTS[self.component];
        let labels = [(CLUSTER_LABEL, NAME), (COMPONENT_LABEL, component), (MANAGED_BY_LABEL, MANAGED_BY)];
        let labels = labels.into_iter().filter(|(key, _)| self.labelled || *key != CLUSTER_LABEL);
        let owner = OwnerReference {
            kind: "ReplicaSet".to_owned(),
            name: component.to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            name: Some(self.uid.clone()),
            uid: Some(self.uid.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            owner_references: self.owned.then(|| vec![owner]),
            deletion_timestamp: self.deletion.map(|at| Time(time(at))),
            ..ObjectMeta::default()
        }
    }

    pub fn shown(&self) -> Arc<ObservedPod> {
        let ready = ObservedCondition {
            kind: "Ready".to_owned(),
            status: if self.is_connected() { "True" } else { "False" }.to_owned(),
            ..ObservedCondition::default()
        };
        let status = PodStatus {
            phase: if self.failed { "Failed" } else { "Running" }.to_owned(),
            conditions: vec![ready],
            ..PodStatus::default()
        };
        Arc::new(ObservedPod { metadata: self.metadata(), spec: PodSpec::default(), status })
    }
}
