//! The operator deletes a resource: the order of `operator/finalize.rs`, with the product's decisions.

use std::sync::Arc;

use product::api::FlinkHaCluster;
use product::api::v1alpha1::OnDelete;
use product::cluster::application::Desired;
use product::cluster::deletion::{self, PurgeJob};
use product::cluster::deployment::{WatchedDeployment, watched};
use product::cluster::presence::Presence;
use product::cluster::rejection::Rejection;
use product::cluster::status::{Applied, status};
use serde_json::Value;

use super::objects::{Ledger, NAME, time};
use super::operator::{Doing, uid};
use super::rules::Mutant;
use super::world::World;

/// As `--deletion-deadline` is by default, in seconds.
const DELETION_DEADLINE: i64 = 600;
const POD_END_TIMEOUT: i64 = 60;

impl World {
    /// As somebody asks for the deletion.
    pub fn ask_deletion(&mut self) {
        let now = time(self.now);
        self.tell(|world| format!("the deletion is asked for; {:?}", world.asked));
        if self.resource.as_ref().is_some_and(|live| live.metadata.finalizers.is_none()) {
            self.resource = None;
            return self.touch();
        }
        self.change_resource(|live| {
            let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now);
            live.metadata.deletion_timestamp.get_or_insert(at);
        });
    }

    /// One step of a deletion, as `operator/finalize.rs` orders them.
    pub fn finalize(&mut self, resource: Arc<FlinkHaCluster>) {
        let now = time(self.now);
        let asked = resource.metadata.deletion_timestamp.as_ref().map_or(now, |at| at.0);
        let waited = now.duration_since(asked).as_secs();
        let is_gone = self.deployment_is_gone(&resource, waited < POD_END_TIMEOUT);
        self.operator.wake = Some(self.now + 5);
        let ends = !is_gone || !self.operator.seen.job_manager_pods.is_empty();
        if ends && waited < POD_END_TIMEOUT {
            return self.tell_deletion(&resource, None);
        }
        let presence = self.prove(&[0], true);
        let key = uid(&resource);
        if ends || presence != Presence::Gone {
            let began = self.operator.waited.clone().filter(|(of, _)| *of == key).map_or(self.now, |(_, since)| since);
            self.operator.waited = Some((key, began));
            let why = presence.sentence().unwrap_or_else(|| "the Deployment is not gone".to_owned());
            if waited >= DELETION_DEADLINE && self.now - began >= DELETION_DEADLINE / 5 {
                self.tell(|_| format!("the data is left: {why}"));
                self.operator.doing = Some(Doing::Delete { resource, names: Vec::new(), ledger: false, release: true });
                return;
            }
            let told = waited >= POD_END_TIMEOUT || presence.has_stray();
            return self.tell_deletion(&resource, told.then(|| Rejection::deletion_waits(why)));
        }
        let spec = &resource.spec;
        let state = self.purge.unwrap_or(PurgeJob::Absent);
        let ha_data = self.operator.seen.ha_data().cloned();
        let purge = deletion::purge(
            spec.ha_data.on_delete,
            spec.high_availability.provider,
            ha_data.as_ref(),
            state,
            None,
            &[],
        );
        match purge {
            deletion::Purge::Start { .. } => {
                self.purge = Some(PurgeJob::Runs);
                self.touch();
            }
            deletion::Purge::Wait => {}
            deletion::Purge::Done { .. } => {
                let on_delete = match self.rules.lack(Mutant::NothingRetained) {
                    true => OnDelete::Delete,
                    false => spec.ha_data.on_delete,
                };
                let (names, ledger) = self.planned(on_delete);
                self.operator.doing = Some(Doing::Delete { resource, names, ledger, release: true });
            }
        }
    }

    /// As `operator/finalizer.rs` does it.
    fn deployment_is_gone(&mut self, resource: &FlinkHaCluster, in_time: bool) -> bool {
        let seen = self.operator.seen.job_manager_deployment.as_ref().filter(|_| in_time);
        let shown = watched(resource.metadata.uid.as_deref(), seen.map(|seen| &seen.metadata));
        if shown == WatchedDeployment::Ends {
            return false;
        }
        let is_this = self.resource.as_ref().is_some_and(|live| uid(live) == uid(resource));
        let Some(deployment) = &mut self.deployments[0] else { return true };
        let as_shown = shown == WatchedDeployment::Own { uid: deployment.uid.clone(), version: deployment.version() };
        deployment.deleting |= as_shown || is_this;
        false
    }

    /// The ConfigMaps that go, and whether the ledger does.
    pub fn planned(&self, on_delete: OnDelete) -> (Vec<(String, Value)>, bool) {
        let values: Vec<Value> = self.config_maps.values().cloned().collect();
        let data = self.ledger.as_ref().map(Ledger::data).unwrap_or_default();
        let plan = deletion::plan(on_delete, NAME, &values, &data.jobs);
        let keeps = deletion::keeps_ledger(on_delete, Default::default(), &plan, &data);
        let with_content = |name: String| self.config_maps.get(&name).cloned().map(|content| (name, content));
        (plan.delete.into_iter().filter_map(with_content).collect(), !keeps)
    }

    pub fn delete(
        &mut self,
        resource: Arc<FlinkHaCluster>,
        mut names: Vec<(String, Value)>,
        ledger: bool,
        release: bool,
    ) {
        if let Some((name, was)) = names.pop() {
            self.delete_config_map(&name, &was, Some(resource.spec.ha_data.on_delete));
            self.operator.doing = Some(Doing::Delete { resource, names, ledger, release });
        } else if ledger {
            self.tell(|_| "the ledger is deleted".to_owned());
            self.ledger = None;
            self.copy = None;
            self.touch();
            self.operator.doing = Some(Doing::Delete { resource, names, ledger: false, release });
        } else if release {
            // Deleted in the meantime, which is what a release wants.
            if self.write_resource(&resource, |_| ()) {
                (self.operator.newer, self.operator.waited, self.purge, self.resource) = (None, None, None, None);
                self.tell(|_| "the resource is gone".to_owned());
                if self.config_maps.is_empty() && (self.ledger.is_none() || self.ghost.ledger_was_lost) {
                    self.ghost.start = 0;
                }
            }
        }
    }

    /// Only the version that was seen.
    pub fn delete_config_map(&mut self, name: &str, was: &Value, deletion: Option<OnDelete>) {
        if self.config_maps.get(name) != Some(was) {
            return;
        }
        self.tell(|_| format!("ConfigMap {name} is deleted"));
        self.config_maps.remove(name);
        self.touch();
        // Of an application that has ended, a process in a pod that has failed by its phase removes nothing of use.
        let may_write = |pod: &&super::objects::Pod| {
            pod.component == 0 && pod.exists && pod.alive && (deletion.is_some() || !pod.failed)
        };
        if let Some(pod) = self.pods.iter().find(may_write) {
            let uid = pod.uid.clone();
            self.ghost.violated("no data goes under a living process", || format!("{name}, while {uid} lives"));
        }
        self.ghost.is_forgiven |= deletion == Some(OnDelete::Delete);
        let jobs = self.ledger.as_ref().map(|ledger| ledger.jobs.clone()).unwrap_or_default();
        if let Some(job) = product::flink::ha_data::job_of(NAME, name) {
            let has_ended = jobs.iter().any(|known| known.id == job && known.has_ended());
            self.ghost.removed(job, has_ended);
        }
    }

    fn tell_deletion(&mut self, resource: &Arc<FlinkHaCluster>, waits: Option<Rejection>) {
        if !self.is_told {
            return;
        }
        let (before, observed) = (resource.status.clone().unwrap_or_default(), self.operator.seen.clone());
        let desired = Desired::of(resource, &before, &observed, time(self.now));
        let desired = desired.map_or_else(|_| Desired::kept(resource, &before), |desired| desired.frozen(&before));
        let outcome = waits.map_or(Ok(Applied { gateway_image: "g".to_owned(), objects: None, turn: None }), Err);
        let told = status(resource, &desired, &before, &observed, &outcome, time(self.now));
        self.write_status(resource, told.status);
    }
}
