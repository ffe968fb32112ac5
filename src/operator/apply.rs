//! Applies the built objects by server-side apply, and only those that differ from the live ones.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use serde_json::Value;

use super::error::Error;
use super::observe::{Caches, fingerprint};
use super::owners::Owners;
use super::target::Target;
use crate::api::FlinkHaCluster;
use crate::api::names::FIELD_MANAGER;
use crate::cluster::build::{Objects, digest, job_manager};
use crate::cluster::plan::Rollout;
use crate::cluster::rejection::Rejection;

/// Applies objects, and remembers what it applied.
pub struct Applier {
    client: Client,
    owners: Owners,
    /// What was last applied, and the fingerprint of the object then, by [`Target::key`]. A restart of the operator
    /// loses it; the operator then applies everything once more, which changes nothing.
    applied: Mutex<HashMap<String, Memory>>,
}

/// What was applied, and the object's fingerprint then.
struct Memory {
    digest: String,
    fingerprint: String,
    /// UID of the resource.
    owner: String,
}

impl Applier {
    pub fn new(client: Client) -> Self {
        Self { owners: Owners::new(client.clone()), client, applied: Mutex::default() }
    }

    /// Applies everything that differs, pods last. [`Error::Rejected`] means that nothing has changed: an object of
    /// such a name is foreign, or the API server refuses a pod template.
    ///
    /// # Errors
    /// When that is the case, or when a request fails; a retry is safe.
    pub async fn apply(&self, cluster: &str, rollout: &Rollout, caches: &Caches) -> Result<(), Error> {
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
        // The operator cannot read Secrets, so it tries whenever the JobManagers change.
        if !objects.peers.is_null() && !self.is_applied(&Target::of(&objects.job_managers), caches) {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|source| Error::Random { source })?;
            self.create(&job_manager::with_key(objects.peers.clone(), &key), caches).await?;
        }
        self.apply_one(&objects.job_managers, caches).await?;
        self.apply_one(&objects.task_managers, caches).await
    }

    async fn try_templates(&self, objects: &Objects, caches: &Caches) -> Result<(), Error> {
        self.try_template(&objects.job_managers, "spec.jobManager.podTemplate", caches).await?;
        self.try_template(&objects.task_managers, "spec.taskManager.podTemplate", caches).await
    }

    /// Forgets a removed cluster.
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

    /// Tries a pod template by a dry run, which finds what only the API server's own schema knows: unknown fields in a
    /// user's pod template, invalid amounts.
    async fn try_template(&self, deployment: &Value, field: &str, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(deployment);
        if self.is_applied(&target, caches) {
            return Ok(());
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force().dry_run().validation_strict();
        match target.api(&self.client).patch(target.name, &parameters, &Patch::Apply(deployment)).await {
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
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let applied = target.api(&self.client).patch(target.name, &parameters, &Patch::Apply(object)).await;
        let metadata: ObjectMeta = applied.map_err(target.failed("apply"))?.metadata;
        tracing::debug!(kind = target.kind, name = target.name, namespace = target.namespace, "applied");
        let owner = object["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default().to_owned();
        let memory = Memory { digest: digest(&object.to_string()), fingerprint: fingerprint(&metadata), owner };
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(target.key(), memory);
        Ok(())
    }

    /// Creates an object whose contents belong to another component afterwards.
    async fn create(&self, object: &Value, caches: &Caches) -> Result<(), Error> {
        let target = Target::of(object);
        if caches.fingerprint(target.kind, target.namespace, target.name).is_some() {
            return Ok(());
        }
        let parsed: DynamicObject =
            serde_json::from_value(object.clone()).map_err(|source| Error::Malformed { source })?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match target.api(&self.client).create(&parameters, &parsed).await {
            Ok(_) => Ok(()),
            // Another client was faster, or the cache is late.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(target.failed("create")(error)),
        }
    }
}

/// Does an answer mean that the object is wrong, and not that the API server was unable now? Server-side apply reports
/// a field that the schema does not know as an internal error.
fn is_refusal(code: u16, message: &str) -> bool {
    matches!(code, 400 | 422)
        || message.contains("field not declared in schema")
        || message.contains("failed to create typed patch object")
}
