//! Applying what was built, and only what is not there already: an object that does not exist is created, and one that
//! does gets a server-side apply.
//!
//! To create is one request that the API server refuses if the name exists, whoever has it. A server-side apply would
//! change another's object, so that a look would have to come first, and it costs the API server more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::error::Error;
use super::fingerprint::{fingerprint, was_created};
use super::observe::Caches;
use super::owners::Owners;
use super::target::{Target, key};
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FIELD_MANAGER};
use crate::cluster::build::{Objects, OfUser, digest, job_manager, network_policy};
use crate::cluster::observed::Observed;
use crate::cluster::plan::Rollout;
use crate::ledger::refusal::NAME_TAKEN;

/// Applies objects, and remembers what it applied.
pub struct Applier {
    client: Client,
    owners: Owners,
    /// What was applied last, and the fingerprint of the object then, by [`Target::key`]. An operator that starts takes
    /// it over from what the one before has noted in the resource's status.
    applied: Mutex<HashMap<String, Memory>>,
    /// UIDs of resources whose JobManagers were made and removed again: names are looked at before the next try.
    taken_back: Mutex<HashSet<String>>,
}

/// A watch shows a write a moment later, and so long at the most. Until then the write is not repeated.
const LATE: Duration = Duration::from_secs(2);

/// What was applied, and how the object looked then.
struct Memory {
    digest: String,
    fingerprint: String,
    /// When it was written, until the watch has shown it.
    unseen: Option<Instant>,
    /// UID of the object, and its generation where the API server counts one.
    written: (String, i64),
    /// UID of the resource.
    owner: String,
}

impl Memory {
    fn of(object: &Value, fingerprint: String, written: (String, i64)) -> Self {
        let owner = Target::of(object).owner().to_owned();
        Self { digest: digest(&object.to_string()), fingerprint, unseen: Some(Instant::now()), written, owner }
    }

    fn is_awaited(&self) -> bool {
        self.unseen.is_some_and(|written| written.elapsed() < LATE)
    }
}

/// The objects that are repaired when somebody changes them.
fn repaired(objects: &Objects) -> impl Iterator<Item = &Value> {
    objects.applied.iter().chain([&objects.job_managers, &objects.task_managers])
}

fn summary<'a>(memories: impl Iterator<Item = (&'a str, &'a Memory)>) -> String {
    let lines = memories.map(|(key, memory)| format!("{key} {} {}\n", memory.digest, memory.fingerprint));
    digest(&lines.collect::<String>())
}

impl Applier {
    pub fn new(client: Client) -> Self {
        Self { owners: Owners::new(client.clone()), client, applied: Mutex::default(), taken_back: Mutex::default() }
    }

    /// Applies everything that is not as it should be, pods last. When the answer is [`Error::Rejected`], nothing that
    /// existed has been changed: the API server does not take a pod template, or an object of such a name is another's.
    /// `noted`: what the resource's status says was applied last. The result is what it should say now.
    ///
    /// # Errors
    /// When that is so, or when a request fails; it is safe to try again.
    pub async fn apply(
        &self,
        cluster: &str,
        rollout: &Rollout,
        noted: Option<&str>,
        caches: &Caches,
    ) -> Result<Option<String>, Error> {
        self.take_over(noted, &rollout.objects, caches);
        if let Some(first) = &rollout.tried_first {
            self.try_templates(first, caches).await?;
        }
        let objects = &rollout.objects;
        self.check(cluster, objects, caches).await?;
        self.try_templates(objects, caches).await?;
        let applied = self.apply_all(rollout, caches).await;
        self.named(applied, cluster, objects, caches).await?;
        for object in &objects.unwanted {
            self.remove(object, caches).await?;
        }
        Ok(self.note(objects))
    }

    /// Before the first JobManager is made: see [`Owners::check`].
    async fn check(&self, cluster: &str, objects: &Objects, caches: &Caches) -> Result<(), Error> {
        let job_managers = Target::of(&objects.job_managers);
        let taken_back = || self.taken_back.lock().unwrap_or_else(PoisonError::into_inner);
        if taken_back().contains(job_managers.owner()) {
            self.owners.check_names(cluster, objects, caches).await?;
            taken_back().remove(job_managers.owner());
        }
        if self.known(&job_managers, caches).is_some() {
            return Ok(());
        }
        self.owners.check(cluster, objects, caches).await
    }

    async fn apply_all(&self, rollout: &Rollout, caches: &Caches) -> Result<(), Error> {
        let objects = &rollout.objects;
        for object in &objects.applied {
            self.apply_one(object, caches).await?;
        }
        for object in &objects.created {
            self.create(object, caches).await?;
        }
        // Not looked up, since the operator may not read Secrets: tried whenever the JobManagers change, too.
        if rollout.creates_key || !self.is_applied(&Target::of(&objects.job_managers), caches) {
            self.create_key(objects).await?;
        }
        self.apply_pods([&objects.job_managers, &objects.task_managers], caches).await
    }

    /// Applies Deployments. One that was created goes again if the next one's name is another's: JobManagers are of no
    /// use without TaskManagers.
    async fn apply_pods(&self, all: impl IntoIterator<Item = &Value>, caches: &Caches) -> Result<(), Error> {
        let mut created = Vec::new();
        for deployment in all {
            match self.apply_one(deployment, caches).await {
                Ok(is_new) => created.extend(Some(deployment).filter(|_| is_new)),
                Err(error) if is_name_taken(&error) => {
                    for deployment in created {
                        self.take_back(deployment).await?;
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One name is another's: the refusal that names all of them.
    async fn named(
        &self,
        applied: Result<(), Error>,
        cluster: &str,
        objects: &Objects,
        caches: &Caches,
    ) -> Result<(), Error> {
        if applied.as_ref().is_err_and(is_name_taken) {
            self.owners.check_names(cluster, objects, caches).await?;
        }
        applied
    }

    /// Remembers the objects as applied, if the resource's status says so and none has been changed since: the digest
    /// of what is asked for and the fingerprint of what is there are as they were noted. It needs no request.
    fn take_over(&self, noted: Option<&str>, objects: &Objects, caches: &Caches) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |object: &Value| applied.contains_key(&Target::of(object).key());
        let Some(noted) = noted.filter(|_| !repaired(objects).any(known)) else { return };
        let found = repaired(objects).map(|object| {
            let target = Target::of(object);
            let fingerprint = caches.fingerprint(target.kind, target.namespace, target.name)?;
            // The caches have just been filled: no watch is late.
            let memory = Memory::of(object, fingerprint, (String::new(), 0));
            Some((target.key(), Memory { unseen: None, ..memory }))
        });
        let Some(found) = found.collect::<Option<Vec<_>>>() else { return };
        if summary(found.iter().map(|(key, memory)| (key.as_str(), memory))) == noted {
            applied.extend(found);
        }
    }

    /// What the resource's status is to say of the objects: a digest of what [`Self::take_over`] compares. `None` if
    /// they are not all as they should be.
    fn note(&self, objects: &Objects) -> Option<String> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<String> = repaired(objects).map(|object| Target::of(object).key()).collect();
        let memories = keys.iter().map(|key| Some((key.as_str(), applied.get(key)?)));
        Some(summary(memories.collect::<Option<Vec<_>>>()?.into_iter()))
    }

    /// Applies only what is not there, and the NetworkPolicy: everything else stays as it is.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub async fn complete_missing(&self, cluster: &str, rollout: &Rollout, caches: &Caches) -> Result<(), Error> {
        let objects = &rollout.objects;
        let is_missing = |object: &&Value| {
            let target = Target::of(object);
            caches.fingerprint(target.kind, target.namespace, target.name).is_none()
        };
        // No pod rests on who may reach it.
        let is_due = |object: &&Value| is_missing(object) || object["kind"] == network_policy::KIND;
        let due: Vec<&Value> = repaired(objects).filter(is_due).collect();
        if !due.is_empty() || objects.created.iter().any(|object| is_missing(&object)) {
            self.check(cluster, objects, caches).await?;
        }
        let completed = self.complete_these(&due, rollout, caches).await;
        self.named(completed, cluster, objects, caches).await
    }

    async fn complete_these(&self, due: &[&Value], rollout: &Rollout, caches: &Caches) -> Result<(), Error> {
        for object in &rollout.objects.created {
            self.create(object, caches).await?;
        }
        let (pods, others): (Vec<&Value>, Vec<&Value>) = due.iter().partition(|object| object["kind"] == "Deployment");
        for object in others {
            self.apply_one(object, caches).await?;
        }
        if rollout.creates_key {
            self.create_key(&rollout.objects).await?;
        }
        self.apply_pods(pods, caches).await
    }

    /// Whether this operator has applied the object.
    pub fn has_applied(&self, object: &Value) -> bool {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.contains_key(&Target::of(object).key())
    }

    /// Creates the Secret with a key for the gateways, unless there is one.
    async fn create_key(&self, objects: &Objects) -> Result<(), Error> {
        if objects.peers.is_null() {
            return Ok(());
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|source| Error::Random { source })?;
        self.create_new(&Target::of(&job_manager::with_key(objects.peers.clone(), &key))).await.map(drop)
    }

    /// Completes what was observed by what has been written since: a watch that is late would show a roll-out that has
    /// just begun as one that has ended.
    pub fn complete(&self, resource: &FlinkHaCluster, observed: &mut Observed) {
        let (name, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        for (deployment, name) in [
            (&mut observed.job_manager_deployment, names::job_manager(&name)),
            (&mut observed.task_manager_deployment, names::task_manager(&name)),
        ] {
            if let (Some(memory), Some(seen)) = (applied.get(&key(&namespace, "Deployment", &name)), &deployment) {
                let (uid, generation) = &memory.written;
                *deployment = Some(Arc::new(seen.written(uid, *generation)));
            }
        }
    }

    async fn try_templates(&self, objects: &Objects, caches: &Caches) -> Result<(), Error> {
        let OfUser { job_managers, task_managers } = objects.is_of_user;
        for (deployment, is_of_user) in [(&objects.job_managers, job_managers), (&objects.task_managers, task_managers)]
        {
            let target = Target::of(deployment);
            // Another number of pods says nothing new.
            let known = caches.template(target.namespace, target.name);
            if is_of_user && known.as_deref() != Some(job_manager::digest_of(deployment)) {
                self.try_template(&target, caches).await?;
            }
        }
        Ok(())
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = resource.metadata.uid.as_deref().unwrap_or_default();
        applied.retain(|_, memory| memory.owner != uid);
        self.taken_back.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn is_applied(&self, target: &Target<'_>, caches: &Caches) -> bool {
        let live = caches.fingerprint(target.kind, target.namespace, target.name);
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(memory) = applied.get_mut(&target.key()) else { return false };
        let is_shown = live.as_ref() == Some(&memory.fingerprint);
        memory.unseen = memory.unseen.filter(|_| !is_shown);
        memory.digest == digest(&target.object.to_string()) && (is_shown || memory.is_awaited())
    }

    /// When to look again for what was written and is not shown yet: somebody may have changed it meanwhile.
    pub fn look_again(&self, objects: &Objects) -> Option<Duration> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memories = repaired(objects).filter_map(|object| applied.get(&Target::of(object).key()));
        memories.any(|memory| memory.unseen.is_some()).then_some(LATE)
    }

    /// The fingerprint of an object that exists, as far as the caches show it and by what was written.
    fn known(&self, target: &Target<'_>, caches: &Caches) -> Option<String> {
        let shown = caches.fingerprint(target.kind, target.namespace, target.name);
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let written = applied.get(&target.key()).filter(|memory| memory.is_awaited());
        written.map(|memory| memory.fingerprint.clone()).or(shown)
    }

    /// A dry run finds what only the API server's own schema knows: fields in a user's pod template that do not exist,
    /// amounts that are none.
    async fn try_template(&self, target: &Target<'_>, caches: &Caches) -> Result<(), Error> {
        if self.known(target, caches).as_deref().is_some_and(was_created) {
            self.owners.prepare(target).await?;
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force().dry_run().validation_strict();
        self.apply_own(target, &parameters).await?.map(drop).map_err(|error| target.refused("try", error))
    }

    /// Creates an object or applies it over the one that exists; returns whether it was created.
    async fn apply_one(&self, object: &Value, caches: &Caches) -> Result<bool, Error> {
        let target = Target::of(object);
        if self.is_applied(&target, caches) {
            return Ok(false);
        }
        let known = self.known(&target, caches);
        let created = if known.is_none() { self.create_new(&target).await? } else { None };
        let is_new = created.is_some();
        let metadata = match created {
            Some(created) => created,
            None => {
                // One that nothing is known of may be another's.
                if known.as_deref().is_none_or(was_created) {
                    self.owners.prepare(&target).await?;
                }
                self.apply_over(&target).await?
            }
        };
        tracing::debug!(kind = target.kind, name = target.name, namespace = target.namespace, "applied");
        let written = (metadata.uid.clone().unwrap_or_default(), metadata.generation.unwrap_or_default());
        // What the cache still shows may be gone, and then an apply creates it.
        let is_new = is_new || known.is_some_and(|known| !known.starts_with(&written.0));
        let memory = Memory::of(object, fingerprint(&metadata), written);
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(target.key(), memory);
        Ok(is_new)
    }

    /// Applies an object over the one that exists.
    async fn apply_over(&self, target: &Target<'_>) -> Result<ObjectMeta, Error> {
        let (parameters, api) = (PatchParams::apply(FIELD_MANAGER).force(), target.api(&self.client));
        let mut applied = self.apply_own(target, &parameters).await?;
        // Ports are merged by number: somebody's port of our name stands beside ours, which is not possible.
        // What is invalid in another way stays so, and the API server's first answer says what it is.
        if is_invalid(&applied) && target.kind == "Service" {
            let ports = json!({ "spec": { "ports": target.object["spec"]["ports"] } });
            if api.patch(target.name, &PatchParams::default(), &Patch::Merge(ports)).await.is_ok() {
                applied = api.patch(target.name, &parameters, &Patch::Apply(target.object)).await;
            }
        }
        applied.map(|applied| applied.metadata).map_err(|error| target.refused("apply", error))
    }

    /// Removes an object that the resource does not want any more. It stays if it is not this resource's own.
    async fn remove(&self, object: &Value, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(object);
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&target.key());
        if caches.fingerprint(target.kind, target.namespace, target.name).is_none() {
            return Ok(());
        }
        let Some(version) = self.owners.owned(&target, target.owner()).await? else { return Ok(()) };
        self.delete(&target, version).await
    }

    /// Removes exactly what was created.
    async fn take_back(&self, object: &Value) -> Result<(), Error> {
        let target = Target::of(object);
        self.taken_back.lock().unwrap_or_else(PoisonError::into_inner).insert(target.owner().to_owned());
        let memory = self.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&target.key());
        let Some(Memory { written: (uid, _), .. }) = memory else { return Ok(()) };
        self.delete(&target, Preconditions { uid: Some(uid), resource_version: None }).await
    }

    async fn delete(&self, target: &Target<'_>, version: Preconditions) -> Result<(), Error> {
        let parameters = DeleteParams { preconditions: Some(version), ..DeleteParams::background() };
        match target.api(&self.client).delete(target.name, &parameters).await {
            Ok(_) => {
                tracing::info!(kind = target.kind, name = target.name, namespace = target.namespace, "removed");
                Ok(())
            }
            // Gone in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(target.failed("remove")(error)),
        }
    }

    /// Server-side apply. An object has one controller: one that was restored from a backup still names the resource of
    /// that time, and gets ours first.
    async fn apply_own(
        &self,
        target: &Target<'_>,
        parameters: &PatchParams,
    ) -> Result<Result<DynamicObject, kube::Error>, Error> {
        let (api, patch) = (target.api(&self.client), Patch::Apply(target.object));
        let applied = api.patch(target.name, parameters, &patch).await;
        if is_invalid(&applied) && self.owners.own(target).await? {
            return Ok(api.patch(target.name, parameters, &patch).await);
        }
        Ok(applied)
    }

    /// Creates an object whose contents belong to the gateways from then on. One that exists keeps them, and gets the
    /// labels by which the watches find it and the owner with which it is removed.
    async fn create(&self, object: &Value, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(object);
        let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str();
        match caches.owners(target.kind, target.namespace, target.name) {
            Some(found) if owner.is_none_or(|owner| found == [owner]) => Ok(()),
            None if self.create_new(&target).await?.is_some() => Ok(()),
            found => {
                if found.is_none() {
                    self.owners.check_name(&target).await?;
                }
                self.owners.own(&target).await.map(drop)
            }
        }
    }

    /// Creates an object; `None` if there is one.
    async fn create_new(&self, target: &Target<'_>) -> Result<Option<ObjectMeta>, Error> {
        let parsed: DynamicObject =
            serde_json::from_value(target.object.clone()).map_err(|source| Error::Malformed { source })?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match target.api(&self.client).create(&parameters, &parsed).await {
            Ok(created) => Ok(Some(created.metadata)),
            // Somebody was faster, or our cache is late.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(target.refused("create", error)),
        }
    }
}

/// One name is another's.
fn is_name_taken(error: &Error) -> bool {
    matches!(error, Error::Rejected(rejection) if rejection.cause.reason == NAME_TAKEN)
}

/// The API server finds that the object as a whole would not be valid.
fn is_invalid<T>(applied: &Result<T, kube::Error>) -> bool {
    matches!(applied, Err(kube::Error::Api(status)) if status.code == 422)
}
