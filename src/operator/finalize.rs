//! Deleting: JobManagers first, then the HA data that `spec.haData.onDelete` does not retain, then the resource itself.
//!
//! Everything else of the cluster goes with the resource, by its owner references.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::Error;
use super::reconcile::Context;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FINALIZER};
use crate::api::v1alpha1::{OnDelete, Provider};
use crate::cluster::application::Course;
use crate::cluster::cause::{self, Cause};
use crate::cluster::deletion::{self, Plan, Purge, PurgeJob};
use crate::cluster::news::News;
use crate::cluster::observed::Observed;
use crate::cluster::status::Outcome;
use crate::cluster::{build, foreign, ledger, validate};
use crate::flink::ha_data;

/// Makes deletion wait for us, and deletes.
pub struct Finalizer {
    client: Client,
}

/// While something is waited for that no watch tells of.
const SOON: Duration = Duration::from_secs(5);

/// Pods that take longer than this to end are told of.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// A Job is given up when it is as old as this: it ends itself before, unless nobody looks after Jobs.
const PURGE_PATIENCE: SignedDuration = SignedDuration::from_secs(360);

/// Takes the next step of a deletion. Steps that must wait for another return without removing the finalizer.
///
/// # Errors
/// When a request fails; it is safe to try again.
pub async fn finalize(resource: &FlinkHaCluster, observed: &Observed, context: &Context) -> Result<Action, Error> {
    let finalizer = &context.finalizer;
    if !resource.finalizers().iter().any(|name| name == FINALIZER) {
        context.report.forget(resource);
        return Ok(Action::await_change());
    }
    let asked = resource.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let waited = Timestamp::now().duration_since(asked);
    if !finalizer.job_managers_are_gone(resource, observed).await? {
        let pods: Vec<&str> = observed.job_manager_pods.iter().map(|pod| pod.name()).collect();
        if waited < PATIENCE || pods.is_empty() {
            return Ok(Action::requeue(SOON));
        }
        let message = format!(
            "deletion waits for pods {} to end, because a JobManager that still runs could write; if their node is lost, remove them: kubectl delete pod --force {}",
            pods.join(", "),
            pods.join(" ")
        );
        let waits = Outcome::Refused(Cause { reason: "DeletionWaits", message });
        let before = context.report.before(resource);
        let course = Course::of(resource, &before, observed, Timestamp::now()).held(&before);
        context.report.report(resource, &course, observed, &waits).await?;
        return Ok(Action::requeue(SOON * 6));
    }
    let Some(files) = finalizer.purge(resource, observed, context).await? else { return Ok(Action::requeue(SOON)) };
    let plan = finalizer.delete_data(resource).await?;
    let message = match (resource.spec.ha_data.on_delete, plan.keep.as_slice()) {
        (OnDelete::Delete, _) => format!("deleted {} ConfigMaps with HA data; {}", plan.delete.len(), files.message),
        _ if resource.spec.high_availability.provider == Provider::ZooKeeper => files.message,
        (OnDelete::Retain, []) => "no job was left to retain HA data for".to_owned(),
        (OnDelete::Retain, kept) => format!("retained the HA data of jobs that have not ended: ConfigMaps {}", kept.join(", ")),
    };
    let message = format!("{message}{}", plan.of_others());
    context.report.publish(resource, &News { warning: files.warning, reason: "Deleted".to_owned(), message }).await;
    finalizer.release(resource).await?;
    context.applier.forget(resource);
    context.report.forget(resource);
    Ok(Action::await_change())
}

/// What became of the files.
struct Files {
    /// Some stay that should not.
    warning: bool,
    message: String,
}

impl Finalizer {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Puts our finalizer on the resource before anything is made for it.
    ///
    /// # Errors
    /// When the request fails, also because the resource has changed in between.
    pub async fn ensure(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        if resource.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        let finalizers: Vec<&str> = resource.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        self.set(resource, &finalizers).await
    }

    async fn release(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let finalizers: Vec<&str> = resource.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        self.set(resource, &finalizers).await
    }

    async fn set(&self, resource: &FlinkHaCluster, finalizers: &[&str]) -> Result<(), Error> {
        let patch = json!({ "metadata": { "resourceVersion": resource.resource_version(), "finalizers": finalizers } });
        let api: Api<FlinkHaCluster> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        match api.patch(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // Deleted in the meantime, which is what a release wants.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("set the finalizer of", resource)(error)),
        }
    }

    /// Deletes the JobManagers' Deployment in the foreground, and tells whether it is gone: then all its pods are gone. Asked of the API server
    /// itself, because a cache that is late would let data be deleted under a living JobManager.
    async fn job_managers_are_gone(&self, resource: &FlinkHaCluster, observed: &Observed) -> Result<bool, Error> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let name = names::job_manager(&resource.name_any());
        let failed = |error| Error::request("delete the JobManagers of", resource)(error);
        match deployments.get_metadata_opt(&name).await.map_err(failed)? {
            None => Ok(observed.job_manager_pods.is_empty()),
            // Another's of the same name, for which the resource was refused.
            Some(deployment) if !foreign::is_own(&deployment.metadata, &resource.name_any()) => Ok(observed.job_manager_pods.is_empty()),
            Some(deployment) if deployment.metadata.deletion_timestamp.is_some() => Ok(false),
            Some(_) => {
                deployments.delete(&name, &DeleteParams::foreground()).await.map_err(failed)?;
                Ok(false)
            }
        }
    }

    /// Removes the files, if they are to go; `None` while that is under way. It ends in bounded time.
    async fn purge(&self, resource: &FlinkHaCluster, observed: &Observed, context: &Context) -> Result<Option<Files>, Error> {
        let (on_delete, provider) = (resource.spec.ha_data.on_delete, resource.spec.high_availability.provider);
        if on_delete == OnDelete::Retain && provider == Provider::Kubernetes {
            return Ok(Some(Files { warning: false, message: String::new() }));
        }
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let failed = |error| Error::request("remove the files of", resource)(error);
        let found = jobs.get_opt(&names::purge(&resource.name_any())).await.map_err(failed)?;
        if let Some(job) = found.as_ref().filter(|job| !foreign::is_own(&job.metadata, &resource.name_any())) {
            let message = format!("the files in the storage directory stay: Job {} is not of this cluster", job.name_any());
            return Ok(Some(Files { warning: true, message }));
        }
        let state = found.as_ref().map_or(PurgeJob::Absent, purge_job);
        match deletion::purge(on_delete, provider, observed.ha_data(), state, cause::of_pods(&observed.purge_pods)) {
            Purge::Done { warning, message } => Ok(Some(Files { warning, message })),
            Purge::Wait if found.as_ref().is_some_and(|job| age(job) > PURGE_PATIENCE) => {
                let why =
                    cause::of_pods(&observed.purge_pods).unwrap_or_else(|| "the Job that removes them did not end in time".to_owned());
                Ok(Some(Files { warning: true, message: format!("the files in the storage directory stay: {why}") }))
            }
            Purge::Wait => Ok(None),
            Purge::Start { owner } => {
                let Ok(cluster) = validate::validate(resource) else {
                    let message = "the files in the storage directory stay: the resource is not valid, so no pod can reach them";
                    return Ok(Some(Files { warning: true, message: message.to_owned() }));
                };
                let job = serde_json::from_value(build::purge::job(&cluster, &context.environment, &owner));
                match jobs.create(&PostParams::default(), &job.map_err(|source| Error::Malformed { source })?).await {
                    Ok(_) => Ok(None),
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                    // Nothing can be created in a namespace that is being deleted.
                    Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("being terminated") => {
                        let message = "the files in the storage directory stay: its namespace is being deleted, so no pod can reach them; \
                                       delete the FlinkHaCluster before its namespace";
                        Ok(Some(Files { warning: true, message: message.to_owned() }))
                    }
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }

    /// Deletes the ConfigMaps that may go, and the ledger with the last of them: it stays with what it explains.
    async fn delete_data(&self, resource: &FlinkHaCluster) -> Result<Plan, Error> {
        let spec = &resource.spec;
        let (plan, found, ledger) = self.plan(resource, spec.ha_data.on_delete).await?;
        let keeps = deletion::keeps_ledger(spec.ha_data.on_delete, spec.high_availability.provider, &plan, &jobs(ledger.as_ref()));
        let ledger = ledger.filter(|_| !keeps);
        self.delete_planned(resource, &plan, &found).await?;
        if let Some(ledger) = ledger {
            let deleted = delete(&self.config_maps(resource), &ledger).await;
            deleted.map_err(Error::request("delete the ledger of", resource))?;
        }
        Ok(plan)
    }

    /// Deletes the ConfigMaps of an application whose job has ended and whose pods are gone. The ledger stays with the resource.
    ///
    /// # Errors
    /// When a request fails; it is safe to try again.
    pub async fn delete_ended(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let (plan, found, _) = self.plan(resource, OnDelete::Retain).await?;
        self.delete_planned(resource, &plan, &found).await
    }

    async fn plan(&self, resource: &FlinkHaCluster, on_delete: OnDelete) -> Result<(Plan, Vec<ConfigMap>, Option<ConfigMap>), Error> {
        let cluster_id = names::kubernetes_cluster_id(&resource.name_any());
        let config_maps = self.config_maps(resource);
        let failed = |error| Error::request("read the HA data of", resource)(error);
        let selector = ListParams::default().labels(&ha_data::selector(&cluster_id));
        let found = config_maps.list(&selector).await.map_err(failed)?.items;
        let ledger = config_maps.get_opt(&names::ledger(&resource.name_any())).await.map_err(failed)?;
        let ledger = ledger.filter(|ledger| foreign::is_own(&ledger.metadata, &resource.name_any()));
        let values: Vec<Value> = found.iter().map(|config_map| json!(config_map)).collect();
        Ok((deletion::plan(on_delete, &cluster_id, &values, &jobs(ledger.as_ref())), found, ledger))
    }

    async fn delete_planned(&self, resource: &FlinkHaCluster, plan: &Plan, found: &[ConfigMap]) -> Result<(), Error> {
        for config_map in found.iter().filter(|config_map| plan.delete.contains(&config_map.name_any())) {
            delete(&self.config_maps(resource), config_map).await.map_err(Error::request("delete the HA data of", resource))?;
        }
        Ok(())
    }

    fn config_maps(&self, resource: &FlinkHaCluster) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default())
    }
}

fn age(job: &Job) -> SignedDuration {
    let created = job.metadata.creation_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    Timestamp::now().duration_since(created)
}

fn purge_job(job: &Job) -> PurgeJob {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut holding = conditions.filter(|condition| condition.status == "True").map(|condition| condition.type_.as_str());
    match holding.find(|kind| ["Complete", "Failed"].contains(kind)) {
        Some("Complete") => PurgeJob::Succeeded,
        Some(_) => PurgeJob::Failed,
        None => PurgeJob::Runs,
    }
}

/// The jobs that the ledger knows. A ledger that cannot be read says nothing.
fn jobs(ledger: Option<&ConfigMap>) -> Vec<ledger::Job> {
    let text = ledger.and_then(|ledger| ledger.data.as_ref()?.get(ledger::JOBS_KEY));
    ledger::read(text.map(String::as_str)).unwrap_or_default()
}

/// Deletes exactly the version that the decision was made on.
async fn delete(config_maps: &Api<ConfigMap>, config_map: &ConfigMap) -> kube::Result<()> {
    let preconditions = Preconditions { uid: config_map.uid(), resource_version: config_map.resource_version() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match config_maps.delete(&config_map.name_any(), &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
