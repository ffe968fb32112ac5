//! The operator: the product's own plan of a reconciliation, carried out one request after another. It may die between
//! any two of them, and what it has observed may be old.

use std::sync::Arc;
use std::time::Duration;

use product::api::FlinkHaCluster;
use product::api::application::{Phase, UpgradeMode};
use product::api::names::FINALIZER;
use product::api::status::FlinkHaClusterStatus;
use product::api::v1alpha1::OnDelete;
use product::cluster::application::{Desired, decided};
use product::cluster::observed::{Observed, StoredHaData};
use product::cluster::plan::requests::Requests;
use product::cluster::plan::{Lookup, decide};
use product::cluster::presence::{ElectionEvidence, Found, Presence, presence};
use product::cluster::rejection::Rejection;
use product::cluster::status::{Applied, status};
use product::ha_data::handover::Stored;
use product::lease::record::Record;
use serde_json::Value;

use super::objects::{COMPONENTS, Deployment, LeaseObject, Ledger, NAME, Template, time};
use super::rules::Mutant;
use super::world::World;

/// Kinds of objects that are watched.
pub const KINDS: u8 = 5;

/// What was applied, its replicas, and the UID and generation of the object then.
type Memory = (Arc<Template>, i32, String, i64);

/// The operator's memory: what its watches have shown, and what it has written.
#[derive(Clone, Debug, Default)]
pub struct Operator {
    pub resource: Option<Arc<FlinkHaCluster>>,
    pub seen: Observed,
    /// The resource as it was written or read again, if that is newer than what the watch shows.
    pub newer: Option<Arc<FlinkHaCluster>>,
    pub doing: Option<Doing>,
    /// Version of a Lease, and when it was seen first.
    stood: Option<(u64, i64)>,
    /// Since when it has waited for the pods of a resource that is being deleted.
    pub waited: Option<(String, i64)>,
    /// What was applied, and the fingerprint of the object then.
    applied: [Option<Memory>; 2],
    /// The world's changes at the last reconciliation, and when to look again.
    pub rested: u64,
    pub wake: Option<i64>,
}

/// What it is at.
#[derive(Clone, Debug)]
pub enum Doing {
    Look {
        resource: Arc<FlinkHaCluster>,
        before: Box<FlinkHaClusterStatus>,
        observed: Box<Observed>,
    },
    Carry(Box<Carried>),
    /// The ConfigMaps to delete, with their content when that was decided; then the ledger, if it is to go.
    Delete {
        resource: Arc<FlinkHaCluster>,
        names: Vec<(String, Value)>,
        ledger: bool,
        release: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Carried {
    resource: Arc<FlinkHaCluster>,
    before: FlinkHaClusterStatus,
    observed: Observed,
    desired: Desired,
    requests: Requests,
    refusal: Option<Rejection>,
    step: u8,
}

pub fn uid(resource: &FlinkHaCluster) -> String {
    resource.metadata.uid.clone().unwrap_or_default()
}

fn version(resource: &FlinkHaCluster) -> u64 {
    resource.metadata.resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl World {
    /// A watch delivers what there is of a kind; of all kinds, if there is no such.
    pub fn watch(&mut self, kind: u8) {
        let all = kind >= KINDS;
        let seen = &mut self.operator.seen;
        if all || kind == 0 {
            self.operator.resource.clone_from(&self.resource);
        }
        if all || kind == 1 {
            seen.lease = self.lease.as_ref().map(LeaseObject::shown);
        }
        if all || kind == 2 {
            let shown = |component: usize| {
                let pods = self.pods.iter().filter(|pod| pod.component == component && pod.exists && pod.labelled);
                pods.map(super::objects::Pod::shown).collect()
            };
            (seen.job_manager_pods, seen.task_manager_pods) = (shown(0), shown(1));
        }
        if all || kind == 3 {
            let shown = |at: usize| self.deployments[at].as_ref().map(|deployment| deployment.shown(COMPONENTS[at]));
            (seen.job_manager_deployment, seen.task_manager_deployment) = (shown(0), shown(1));
        }
        if all || kind == 4 {
            seen.ledger = self.ledger.as_ref().map(Ledger::shown);
        }
    }

    /// The operator dies, and another one begins with what there is.
    pub fn restart_operator(&mut self) {
        self.operator = Operator::default();
        self.watch(KINDS);
        self.tell(|_| "the operator is started anew".to_owned());
    }

    /// The next request of the operator. Whether there is more to do.
    pub fn operate(&mut self) -> bool {
        match self.operator.doing.take() {
            None => self.begin(),
            Some(Doing::Look { resource, before, observed }) => self.look(resource, before, *observed),
            Some(Doing::Carry(carried)) => self.carry(*carried),
            Some(Doing::Delete { resource, names, ledger, release }) => self.delete(resource, names, ledger, release),
        }
        self.operator.doing.is_some()
    }

    fn begin(&mut self) {
        self.operator.rested = self.changes;
        self.operator.wake = None;
        let Some(cached) = self.operator.resource.clone() else { return };
        let newer = self.operator.newer.clone().filter(|newer| uid(newer) == uid(&cached));
        let newer =
            newer.filter(|newer| version(newer) > version(&cached) && !self.rules.lack(Mutant::StatusFromCache));
        let resource = newer.unwrap_or(cached);
        if resource.metadata.deletion_timestamp.is_some() {
            return self.finalize(resource);
        }
        if !resource.metadata.finalizers.as_ref().is_some_and(|all| all.iter().any(|one| one == FINALIZER))
            && !self.write_resource(&resource, |live| live.metadata.finalizers = Some(vec![FINALIZER.to_owned()]))
        {
            return;
        }
        let before = Box::new(resource.status.clone().unwrap_or_default());
        let mut observed = Box::new(self.operator.seen.clone());
        if !self.rules.lack(Mutant::WritesForgotten) {
            self.complete(&mut observed);
        }
        self.operator.doing = Some(Doing::Look { resource, before, observed });
    }

    /// Completes what watches have shown by what has been written since.
    fn complete(&self, observed: &mut Observed) {
        let deployments = [&mut observed.job_manager_deployment, &mut observed.task_manager_deployment];
        for (seen, applied) in deployments.into_iter().zip(&self.operator.applied) {
            if let (Some(shown), Some((_, _, uid, generation))) = (seen.as_ref(), applied) {
                *seen = Some(Arc::new(shown.written(uid, *generation)));
            }
        }
    }

    /// Writes the resource if it is as it was read, but for what this operator has written since. After a conflict it
    /// is read again.
    pub fn write_resource(&mut self, resource: &FlinkHaCluster, change: impl FnOnce(&mut FlinkHaCluster)) -> bool {
        let newer =
            self.operator.newer.as_ref().filter(|newer| uid(newer) == uid(resource)).map(|newer| version(newer));
        let known = newer.map_or(version(resource), |newer| newer.max(version(resource)));
        let live = self.resource.clone().filter(|live| uid(live) == uid(resource));
        let is_current = live.as_ref().is_some_and(|live| version(live) == known);
        if is_current || (live.is_some() && self.rules.lack(Mutant::StatusFromCache)) {
            self.change_resource(change);
            self.operator.newer.clone_from(&self.resource);
            return true;
        }
        (self.operator.newer, self.operator.rested) = (live, u64::MAX);
        false
    }

    fn look(&mut self, resource: Arc<FlinkHaCluster>, before: Box<FlinkHaClusterStatus>, mut observed: Observed) {
        if self.rules.lack(Mutant::PodsNotAwaited) {
            let seen = std::mem::take(&mut observed);
            let (lease, ledger) = (seen.lease, seen.ledger);
            let (presence, stored) = (Some(Presence::Gone), seen.stored);
            observed = Observed { lease, ledger, stored, presence, ..Observed::default() };
            observed.ledger_is_current = seen.ledger_is_current;
        }
        if self.rules.lack(Mutant::TornIsEmpty)
            && let Some(ledger) = &mut observed.ledger
        {
            Arc::make_mut(ledger).data.unreadable.clear();
        }
        if self.rules.lack(Mutant::EndsNotSeen)
            && let Some(ledger) = &mut observed.ledger
        {
            Arc::make_mut(ledger).data.jobs.retain(|job| !job.has_ended());
        }
        match decide(&resource, &before, &observed, time(self.now)) {
            Ok(decided) => {
                let mut desired = decided.desired;
                if self.rules.lack(Mutant::StartNotRaised)
                    && let (Some(decision), Some(application)) = (&mut desired.decision, &before.application)
                {
                    decision.application.starts = application.starts;
                }
                if self.rules.lack(Mutant::FirstStartForgotten)
                    && before.application.is_none()
                    && let Some(decision) = &mut desired.decision
                    && decision.application.phase == Phase::Upgrading
                {
                    (decision.application.phase, decision.stopped) = (Phase::Starting, false);
                }
                if self.rules.lack(Mutant::NoRunNamed)
                    && let Some(decision) = &mut desired.decision
                {
                    decision.application.replaces.clear();
                }
                self.forgive(&resource, &before, &desired);
                let refusal = decided.refusal;
                if refusal.is_some() {
                    desired = desired.frozen(&before);
                }
                let wake = desired.decision.as_ref().and_then(|decision| decision.wake);
                let wake = wake.or(refusal.as_ref().and_then(|refusal| refusal.look_again));
                self.operator.wake = wake.map(|wake| self.now + seconds(wake));
                let requests = decided.requests;
                let carried = Carried { resource, before: *before, observed, desired, requests, refusal, step: 0 };
                self.operator.doing = Some(Doing::Carry(Box::new(carried)));
            }
            Err(lookup) => {
                self.look_up(lookup, &before, &mut observed);
                self.operator.doing = Some(Doing::Look { resource, before, observed: Box::new(observed) });
            }
        }
    }

    /// The user asks for a run without state, and the operator has begun one.
    fn forgive(&mut self, resource: &FlinkHaCluster, before: &FlinkHaClusterStatus, desired: &Desired) {
        let is_stateless = resource.spec.job.as_ref().is_some_and(|job| job.upgrade_mode == UpgradeMode::Stateless);
        if is_stateless && desired.changes_run(before) {
            self.ghost.forgiven.extend(desired.run().map(|run| run.job_id));
        }
    }

    fn look_up(&mut self, lookup: Lookup, before: &FlinkHaClusterStatus, observed: &mut Observed) {
        match lookup {
            Lookup::Presence => {
                observed.presence = Some(self.prove(&[0, 1], false));
            }
            Lookup::Ledger => {
                let found = self.ledger.as_ref().map(Ledger::shown);
                let found = if self.rules.lack(Mutant::LedgerFromCache) { observed.ledger.clone() } else { found };
                observed.complete_ledger(found, decided(before).is_none());
            }
            Lookup::StoredHaData => {
                let found = self.cluster().filter(|_| !self.rules.lack(Mutant::MarkNotRead)).map(Stored::in_config_map);
                observed.stored = match found {
                    None => StoredHaData::Absent,
                    Some(Ok(stored)) => StoredHaData::Found(stored),
                    Some(Err(refusal)) => StoredHaData::Unreadable(refusal),
                };
            }
        }
    }

    /// Asks the API server for pods, and for a process that holds the Lease without one.
    pub fn prove(&mut self, components: &[usize], all: bool) -> Presence {
        let all = all && !self.rules.lack(Mutant::FailedPodsAreGone);
        let by_label = self.rules.lack(Mutant::LabelsProvePresence);
        let mut found = Vec::new();
        for &component in components {
            let pods = self.pods.iter().filter(|pod| pod.component == component && pod.exists);
            let pods = pods.filter(|pod| (all || !pod.failed) && (!by_label || pod.labelled));
            let pods: Vec<_> = pods.map(super::objects::Pod::metadata).collect();
            found.extend(Found::among(NAME, COMPONENTS[component], pods.iter()));
        }
        self.renew();
        let Some(lease) = self.lease.as_ref().filter(|_| !self.rules.lack(Mutant::LeaseNotAwaited)) else {
            return presence(found, ElectionEvidence::Absent);
        };
        // A renewal is a new version.
        let version = lease.version.max(u64::try_from(lease.renewed).unwrap_or_default() << 20);
        let first = self.operator.stood.filter(|(known, _)| *known == version).map_or(self.now, |(_, first)| first);
        self.operator.stood = Some((version, first));
        let stood = Duration::from_secs(u64::try_from(self.now - first).unwrap_or_default());
        let record = Record::of(&lease.shown());
        presence(found, ElectionEvidence::Lease { record: &record, stood })
    }

    fn carry(&mut self, mut carried: Carried) {
        let step = carried.step;
        carried.step += 1;
        let is_refused = carried.refusal.is_some();
        let is_removed_first = !self.rules.lack(Mutant::RemovalAfterStatus);
        match step {
            0 if !is_refused => self.create(&carried),
            1 | 2 if !is_refused => self.apply(&carried, usize::from(step) - 1),
            3 if is_removed_first => self.remove_ended(&carried),
            // Requests come after the status that announces them.
            4 if !self.report(&mut carried) => return,
            4 => {}
            5 => {
                if let Some(note) = carried.requests.savepoint.as_ref().filter(|_| !is_refused) {
                    if self.lease.is_none() {
                        return;
                    }
                    let text = note.text.clone();
                    self.change_lease(|lease| lease.savepoint = text);
                }
            }
            6 if !is_removed_first => self.remove_ended(&carried),
            7 if !is_refused && carried.requests.delete_resource => self.ask_deletion(),
            8.. => return,
            _ => {}
        }
        self.operator.doing = Some(Doing::Carry(Box::new(carried)));
    }

    /// Removes what an ended run has left.
    fn remove_ended(&mut self, carried: &Carried) {
        if carried.refusal.is_none() && carried.requests.remove_ha_data {
            let names = self.planned(OnDelete::Retain).0;
            names.into_iter().for_each(|(name, was)| self.delete_config_map(&name, &was, None));
        }
    }

    /// Creates what the cache does not show.
    fn create(&mut self, carried: &Carried) {
        let owner = uid(&carried.resource);
        if carried.observed.lease.is_none() && self.lease.is_none() {
            self.lease = Some(LeaseObject {
                owner,
                version: self.make(),
                holder: String::new(),
                holder_uid: String::new(),
                term: 0,
                change: None,
                savepoint: None,
                renewed: self.now,
            });
            self.touch();
        }
        if carried.observed.ledger.is_none() && self.ledger.is_none() {
            self.ledger = Some(Ledger::default());
            self.touch();
        }
    }

    fn apply(&mut self, carried: &Carried, at: usize) {
        let Some(run) = carried.desired.run() else { return };
        let spec = &carried.desired.spec;
        let replicas = [spec.job_manager.replicas, spec.task_manager.replicas][at];
        let replicas = if run.stopped { 0 } else { replicas };
        let run = product::ledger::application::Run { stopped: false, ..run };
        let template = Arc::new(Template { run, scale: spec.task_manager.replicas });
        let seen = &carried.observed;
        let shown = [&seen.job_manager_deployment, &seen.task_manager_deployment][at];
        let fingerprint = shown.as_ref().and_then(|one| Some((one.metadata.uid.clone()?, one.metadata.generation?)));
        if let (Some((known, count, of, generation)), Some(shown)) = (&self.operator.applied[at], &fingerprint)
            && (known, *count) == (&template, replicas)
            && (of, generation) == (&shown.0, &shown.1)
        {
            return;
        }
        let owner = uid(&carried.resource);
        let (new, now) = (self.make().to_string(), self.deployments[at].clone());
        let mut after = now.clone().unwrap_or_else(|| Deployment {
            uid: new,
            owner: owner.clone(),
            generation: 0,
            template: Arc::clone(&template),
            replicas: 0,
            deleting: false,
            seen: 0,
            active: 0,
            updated: 0,
        });
        if now.is_none() || after.template != template || after.replicas != replicas || after.owner != owner {
            after.generation += 1;
            (after.template, after.replicas, after.owner) = (Arc::clone(&template), replicas, owner);
            self.tell(|_| format!("Deployment {at} has {replicas} pods of start {}", template.run.start));
            self.touch();
        }
        self.operator.applied[at] = Some((template, replicas, after.uid.clone(), after.generation));
        self.deployments[at] = Some(after);
    }

    /// Whether the status was written.
    fn report(&mut self, carried: &mut Carried) -> bool {
        self.complete(&mut carried.observed);
        let Carried { resource, before, desired, observed, refusal, .. } = &*carried;
        let status = if self.is_told {
            let outcome = match refusal {
                None => Ok(Applied { gateway_image: "g".to_owned(), objects: None, turn: None }),
                Some(refusal) => Err(refusal.clone()),
            };
            let told = status(resource, desired, before, observed, &outcome, time(self.now));
            if let Some(wake) = told.look_again {
                let wake = self.now + seconds(wake);
                self.operator.wake = Some(self.operator.wake.map_or(wake, |other| other.min(wake)));
            }
            told.status
        } else {
            FlinkHaClusterStatus { application: desired.application().cloned(), ..before.clone() }
        };
        self.write_status(resource, status)
    }

    pub fn write_status(&mut self, resource: &FlinkHaCluster, status: FlinkHaClusterStatus) -> bool {
        if resource.status.as_ref() == Some(&status) {
            return true;
        }
        if self.story.is_some() {
            let application = status.application.clone().unwrap_or_default();
            self.tell(|_| {
                format!("phase {:?}, run {}, start {}", application.phase, application.job_id, application.starts)
            });
        }
        self.write_resource(resource, |live| live.status = Some(status))
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(3600).max(1)
}
