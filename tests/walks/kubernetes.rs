//! Kubernetes: its controllers, its garbage collector, and the kubelets.

use std::collections::BTreeSet;
use std::sync::Arc;

use product::cluster::deletion::PurgeJob;

use super::gateway::Gateway;
use super::objects::Pod;
use super::world::World;

/// Grace period of pods, in seconds.
const GRACE: i64 = 30;

impl World {
    /// One step of a Deployment's controllers.
    pub fn control(&mut self, component: usize) {
        let Some(deployment) = self.deployments[component].clone() else { return };
        let own = |pod: &Pod| pod.deployment == deployment.uid;
        if deployment.deleting {
            let (now, mut left) = (self.now, false);
            for pod in self.pods.iter_mut().filter(|pod| own(pod) && pod.exists && pod.owned) {
                left = true;
                pod.deletion = pod.deletion.or(Some(now + GRACE));
            }
            if !left {
                self.deployments[component] = None;
                self.tell(|_| format!("Deployment {component} is gone"));
            }
            return self.touch();
        }
        let wanted = usize::try_from(deployment.replicas).unwrap_or_default();
        // A pod that has its labels again is adopted.
        self.pods.iter_mut().filter(|pod| own(pod) && pod.labelled).for_each(|pod| pod.owned = true);
        let active: Vec<usize> =
            (0..self.pods.len()).filter(|&at| own(&self.pods[at]) && self.pods[at].is_active()).collect();
        let is_new = |world: &Self, at: usize| world.pods[at].template == deployment.template;
        let (new, old): (Vec<usize>, Vec<usize>) = active.iter().copied().partition(|&at| is_new(self, at));
        let goes = if wanted < active.len() && (wanted == 0 || new.len() >= wanted) {
            old.last().or(new.last()).copied()
        } else {
            None
        };
        if wanted == 0 {
            for at in active {
                self.pods[at].deletion = Some(self.now + GRACE);
            }
        } else if new.len() < wanted {
            self.create_pod(component);
        } else if let Some(at) = goes {
            self.pods[at].deletion = Some(self.now + GRACE);
        }
        let active: Vec<&Pod> = self.pods.iter().filter(|pod| own(pod) && pod.is_active()).collect();
        let count = |of: usize| i32::try_from(of).unwrap_or_default();
        let updated = active.iter().filter(|pod| pod.template == deployment.template).count();
        let (active, updated, seen) = (count(active.len()), count(updated), deployment.generation);
        if let Some(after) = &mut self.deployments[component]
            && (after.active, after.updated, after.seen) != (active, updated, seen)
        {
            (after.active, after.updated, after.seen) = (active, updated, seen);
            self.touch();
        }
    }

    fn create_pod(&mut self, component: usize) {
        let Some(deployment) = self.deployments[component].clone() else { return };
        let (uid, jvm) = (format!("{}{}", ["j", "t"][component], self.make()), self.make());
        let run = &deployment.template.run;
        let version = |pod: &Pod| (pod.run().job_id, pod.run().version.clone());
        let own = (run.job_id, run.version.clone());
        let lease = self.lease.as_ref().filter(|_| !self.is_lease_free()).map(|lease| lease.holder_uid.clone());
        let other = self.pods.iter().find(|pod| {
            let may_lead = (pod.exists && !pod.failed) || lease.as_ref() == Some(&pod.uid);
            component == 0 && pod.component == 0 && pod.alive && may_lead && version(pod) != own
        });
        if let Some(other) = other {
            let (other, of) = (other.uid.clone(), other.run().version.clone());
            let version = &run.version;
            self.ghost.violated("one version", || {
                format!("JobManager {uid} of version {version} comes while {other} of version {of} lives")
            });
        }
        self.tell(|_| format!("pod {uid} comes, of start {} of run {}", run.start, run.job_id));
        self.pods.push(Pod {
            uid,
            component,
            deployment: deployment.uid.clone(),
            template: Arc::clone(&deployment.template),
            labelled: true,
            owned: true,
            deletion: None,
            failed: false,
            exists: true,
            alive: true,
            cut: false,
            gateway: Gateway::Standby,
            asked: None,
            answered: None,
            ended: BTreeSet::new(),
            jvm,
        });
        self.touch();
    }

    /// The kubelet of a pod ends it, if that is asked for and its node is not lost. A gateway that ends gives the Lease
    /// back.
    pub fn kubelet(&mut self, uid: &str) {
        let Some(pod) = self.pod(uid) else { return };
        let deleted = pod.deletion.is_some() || !pod.exists;
        if pod.cut || !(deleted || (pod.failed && pod.alive)) {
            return;
        }
        if pod.alive {
            self.release(uid);
        }
        self.end_process(uid);
        if deleted {
            self.tell(|_| format!("pod {uid} is gone"));
            self.pods.retain(|pod| pod.uid != *uid);
        }
        self.touch();
    }

    /// Kubernetes' garbage collector: what belongs to a resource that is gone.
    pub fn collect_garbage(&mut self) {
        let living = self.resource.as_ref().and_then(|resource| resource.metadata.uid.clone());
        let is_orphan = |owner: &str| living.as_deref() != Some(owner);
        if self.lease.as_ref().is_some_and(|lease| is_orphan(&lease.owner)) {
            self.lease = None;
            self.changes += 1;
        }
        for component in 0..2 {
            if self.deployments[component].as_ref().is_some_and(|deployment| is_orphan(&deployment.owner)) {
                self.deployments[component] = None;
                self.changes += 1;
            }
        }
        let uids: Vec<String> = self.deployments.iter().flatten().map(|deployment| deployment.uid.clone()).collect();
        let now = self.now;
        for pod in self.pods.iter_mut().filter(|pod| pod.exists && pod.owned && pod.deletion.is_none()) {
            if !uids.contains(&pod.deployment) {
                pod.deletion = Some(now + GRACE);
                self.changes += 1;
            }
        }
    }

    /// The Job that removes the files of a deleted cluster.
    pub fn purge_files(&mut self) {
        if self.purge == Some(PurgeJob::Runs) {
            self.entries.clear();
            self.saved.clear();
            self.purge = Some(PurgeJob::Succeeded);
            self.touch();
        }
    }
}
