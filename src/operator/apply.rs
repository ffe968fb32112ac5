//! Applying: server-side apply of what was built, and only of what is not there already.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::error::Error;
use super::fingerprint::fingerprint;
use super::observe::Caches;
use super::owners::Owners;
use super::target::{Target, key};
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FIELD_MANAGER};
use crate::cluster::build::{Objects, digest, job_manager, network_policy};
use crate::cluster::observed::Observed;
use crate::cluster::plan::Rollout;
use crate::cluster::rejection::Rejection;

/// Applies objects, and remembers what it applied.
pub struct Applier {
    client: Client,
    owners: Owners,
    /// What was applied last, and the fingerprint of the object then, by [`Target::key`]. An operator that starts takes
    /// it over from what the one before has noted in the resource's status.
    applied: Mutex<HashMap<String, Memory>>,
}

/// What was applied, and how the object looked then.
struct Memory {
    digest: String,
    fingerprint: String,
    /// UID of the object, and its generation where the API server counts one.
    written: (String, i64),
    /// UID of the resource.
    owner: String,
}

impl Memory {
    fn of(object: &Value, fingerprint: String, written: (String, i64)) -> Self {
        let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default().to_owned();
        Self { digest: digest(&object.to_string()), fingerprint, written, owner }
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
        Self { owners: Owners::new(client.clone()), client, applied: Mutex::default() }
    }

    /// Applies everything that is not as it should be, pods last. Nothing has been changed when the answer is
    /// [`Error::Rejected`]: an object of such a name is another's, or the API server does not take a pod template.
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
        self.owners.check(cluster, objects, caches).await?;
        self.try_templates(objects, caches).await?;
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
        self.apply_one(&objects.job_managers, caches).await?;
        self.apply_one(&objects.task_managers, caches).await?;
        for object in &objects.unwanted {
            self.remove(object, caches).await?;
        }
        Ok(self.note(objects))
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
            Some((target.key(), Memory::of(object, fingerprint, (String::new(), 0))))
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
            self.owners.check(cluster, objects, caches).await?;
        }
        for object in &objects.created {
            self.create(object, caches).await?;
        }
        for object in due {
            self.apply_one(object, caches).await?;
        }
        if rollout.creates_key {
            self.create_key(objects).await?;
        }
        Ok(())
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
        self.try_template(&objects.job_managers, "spec.jobManager.podTemplate", caches).await?;
        self.try_template(&objects.task_managers, "spec.taskManager.podTemplate", caches).await
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.retain(|_, memory| memory.owner != resource.metadata.uid.as_deref().unwrap_or_default());
    }

    fn is_applied(&self, target: &Target<'_>, caches: &Caches) -> bool {
        let Some(live) = caches.fingerprint(target.kind, target.namespace, target.name) else { return false };
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied
            .get(&target.key())
            .is_some_and(|memory| memory.digest == digest(&target.object.to_string()) && memory.fingerprint == live)
    }

    /// A dry run finds what only the API server's own schema knows: fields in a user's pod template that do not exist,
    /// amounts that are none.
    async fn try_template(&self, deployment: &Value, field: &str, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(deployment);
        if self.is_applied(&target, caches) {
            return Ok(());
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force().dry_run().validation_strict();
        match self.apply_own(&target, &parameters).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_refusal(status.code, &status.message) => {
                Err(Rejection::invalid_template(field, &status.message).into())
            }
            Err(error) => Err(target.failed("try")(error)),
        }
    }

    async fn apply_one(&self, object: &Value, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(object);
        if self.is_applied(&target, caches) {
            return Ok(());
        }
        let (parameters, api) = (PatchParams::apply(FIELD_MANAGER).force(), target.api(&self.client));
        let mut applied = self.apply_own(&target, &parameters).await?;
        // Ports are merged by number: somebody's port of our name stands beside ours, which is not possible.
        // What is invalid in another way stays so, and the API server's first answer says what it is.
        if is_invalid(&applied) && target.kind == "Service" {
            let ports = json!({ "spec": { "ports": object["spec"]["ports"] } });
            if api.patch(target.name, &PatchParams::default(), &Patch::Merge(ports)).await.is_ok() {
                applied = api.patch(target.name, &parameters, &Patch::Apply(object)).await;
            }
        }
        let metadata: ObjectMeta = applied.map_err(target.failed("apply"))?.metadata;
        tracing::debug!(kind = target.kind, name = target.name, namespace = target.namespace, "applied");
        let written = (metadata.uid.clone().unwrap_or_default(), metadata.generation.unwrap_or_default());
        let memory = Memory::of(object, fingerprint(&metadata), written);
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(target.key(), memory);
        Ok(())
    }

    /// Removes an object that the resource does not want any more. It stays if it is not this resource's own.
    async fn remove(&self, object: &Value, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(object);
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&target.key());
        if caches.fingerprint(target.kind, target.namespace, target.name).is_none() {
            return Ok(());
        }
        let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default();
        let Some(version) = self.owners.owned(&target, owner).await? else { return Ok(()) };
        let parameters = DeleteParams { preconditions: Some(version), ..DeleteParams::default() };
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
            None if self.create_new(&target).await? => Ok(()),
            _ => self.owners.own(&target).await.map(drop),
        }
    }

    /// Creates an object; `false` if there is one.
    async fn create_new(&self, target: &Target<'_>) -> Result<bool, Error> {
        let parsed: DynamicObject =
            serde_json::from_value(target.object.clone()).map_err(|source| Error::Malformed { source })?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match target.api(&self.client).create(&parameters, &parsed).await {
            Ok(_) => Ok(true),
            // Somebody was faster, or our cache is late.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(target.failed("create")(error)),
        }
    }
}

/// The API server finds that the object as a whole would not be valid.
fn is_invalid<T>(applied: &Result<T, kube::Error>) -> bool {
    matches!(applied, Err(kube::Error::Api(status)) if status.code == 422)
}

/// Whether an answer means that the object is wrong, and not that the API server could not do it now. A field that the
/// schema does not know is reported by server-side apply as an internal error.
fn is_refusal(code: u16, message: &str) -> bool {
    matches!(code, 400 | 422)
        || message.contains("field not declared in schema")
        || message.contains("failed to create typed patch object")
}
