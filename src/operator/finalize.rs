//! Deletes a cluster: JobManagers first, then the HA data that `spec.haData.onDelete` does not retain, then the
//! resource itself. Owner references remove everything else with the resource.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use kube_runtime::controller::Action;
use serde_json::{Value, json};

use super::context::Context;
use super::error::Error;
use crate::api::FlinkHaCluster;
use crate::api::names::{self, FINALIZER, JOB_MANAGER, LEFT_ANNOTATION};
use crate::api::v1alpha1::{OnDelete, Provider};
use crate::cluster::application::Desired;
use crate::cluster::cause;
use crate::cluster::deletion::{self, Plan, Purge, PurgeJob};
use crate::cluster::events::EventNote;
use crate::cluster::observed::{LedgerData, Observed};
use crate::cluster::presence::Presence;
use crate::cluster::rejection::Rejection;
use crate::cluster::{build, validate};
use crate::flink::ha_data;
use crate::ha_data::foreign;
use crate::ha_data::marks::{AUTHORITY, certificates_of};
use crate::ledger::jobs;
use crate::ledger::refusal::Refusal;

/// Makes deletion wait for us, and deletes.
pub struct Finalizer {
    client: Client,
}

/// While something is waited for that no watch tells of.
const REQUEUE_INTERVAL: Duration = Duration::from_secs(5);

/// Pods that take longer than this to end are told of.
const POD_END_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);

/// A Job is given up when it is as old as this: it ends itself before, unless nobody looks after Jobs.
const PURGE_TIMEOUT: SignedDuration = SignedDuration::from_secs(360);

/// Takes the next step of a deletion. Steps that must wait for another return without removing the finalizer.
///
/// # Errors
/// When a request fails; a retry is safe.
pub async fn finalize(resource: &FlinkHaCluster, observed: &Observed, context: &Context) -> Result<Action, Error> {
    let finalizer = &context.finalizer;
    if !resource.finalizers().iter().any(|name| name == FINALIZER) {
        context.report.forget(resource);
        return Ok(Action::await_change());
    }
    let asked = resource.metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let waited = Timestamp::now().duration_since(asked);
    let ends = !finalizer.deployment_is_gone(resource).await? || !observed.job_manager_pods.is_empty();
    // What Kubernetes ends is given time to.
    if ends && waited < POD_END_TIMEOUT.min(signed(context.deletion_deadline)) {
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    }
    let presence = context.prover.prove(resource, observed, &[JOB_MANAGER]).await?;
    if ends || presence != Presence::Gone {
        let why = presence.sentence().unwrap_or_else(|| {
            let deployment = names::job_manager(&resource.name_any());
            format!(
                "Kubernetes has not finished to delete Deployment {deployment}, which its garbage collector does when all its pods are gone"
            )
        });
        // An operator that was away meanwhile looks for some time itself.
        let deadline = context.deletion_deadline;
        if waited >= signed(deadline) && context.prover.waited(resource) >= deadline / 5 {
            finalizer.leave(resource, &why, context).await?;
            return Ok(Action::await_change());
        }
        if waited >= POD_END_TIMEOUT || presence.has_stray() {
            let message = format!("deletion waits, because a JobManager that still runs could write: {why}");
            let before = context.report.before(resource);
            let desired = Desired::of(resource, &before, observed, Timestamp::now());
            let desired = desired.map_or_else(|_| Desired::kept(resource, &before), |desired| desired.frozen(&before));
            let waits = Err(Rejection::deletion_waits(message));
            context.report.report(resource, &desired, observed, &waits).await?;
        }
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    }
    let Some(files) = finalizer.purge(resource, observed, context).await? else {
        return Ok(Action::requeue(REQUEUE_INTERVAL));
    };
    // The ledger explains the znodes that the Job could not remove.
    let stays = files.warning && resource.spec.high_availability.provider == Provider::ZooKeeper;
    if stays {
        finalizer.note(resource, &files.message).await?;
    }
    let plan = finalizer.delete_data(resource, stays).await?;
    let message = match (resource.spec.ha_data.on_delete, plan.keep.as_slice()) {
        (OnDelete::Delete, _) => format!("deleted {} ConfigMaps with HA data; {}", plan.delete.len(), files.message),
        _ if resource.spec.high_availability.provider == Provider::ZooKeeper => files.message,
        (OnDelete::Retain, []) => "no job was left to retain HA data for".to_owned(),
        (OnDelete::Retain, kept) => {
            format!("retained the HA data of jobs that have not ended: ConfigMaps {}", kept.join(", "))
        }
    };
    let message = format!("{message}{}", plan.of_others());
    context
        .report
        .publish(resource, &EventNote { warning: files.warning, reason: "Deleted".to_owned(), message })
        .await;
    finalizer.release(resource).await?;
    forget(resource, context);
    Ok(Action::await_change())
}

fn forget(resource: &FlinkHaCluster, context: &Context) {
    context.applier.forget(resource);
    context.report.forget(resource);
    context.prover.forget(resource);
}

fn signed(duration: Duration) -> SignedDuration {
    duration.try_into().unwrap_or(SignedDuration::MAX)
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
    pub async fn ensure(&self, resource: &FlinkHaCluster, observed: &Observed) -> Result<(), Error> {
        if observed.ledger.as_ref().is_some_and(|ledger| ledger.annotations().contains_key(LEFT_ANNOTATION)) {
            // The data belongs to this resource again.
            self.annotate_ledger(resource, None).await?;
        }
        if resource.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(());
        }
        let finalizers: Vec<&str> = resource.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        self.set(resource, &finalizers).await
    }

    async fn release(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let finalizers: Vec<&str> =
            resource.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
        self.set(resource, &finalizers).await
    }

    async fn set(&self, resource: &FlinkHaCluster, finalizers: &[&str]) -> Result<(), Error> {
        let patch = json!({ "metadata": { "resourceVersion": resource.resource_version(), "finalizers": finalizers } });
        let api: Api<FlinkHaCluster> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        match api.patch(&resource.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // The resource was deleted in the meantime, so its finalizer is gone.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("set the finalizer of", resource)(error)),
        }
    }

    /// Leaves the HA data, because a process that writes it may be alive: removes nothing, reports that, and releases
    /// the resource.
    async fn leave(&self, resource: &FlinkHaCluster, why: &str, context: &Context) -> Result<(), Error> {
        let (_, found, _) = self.plan(resource, OnDelete::Retain).await?;
        let config_maps: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        let message = deletion::left(resource, &config_maps, why);
        self.note(resource, &message).await?;
        context.report.publish(resource, &EventNote { warning: true, reason: "HaDataLeft".to_owned(), message }).await;
        self.release(resource).await?;
        forget(resource, context);
        Ok(())
    }

    /// Notes in the ledger what a deletion has left, and why.
    async fn note(&self, resource: &FlinkHaCluster, message: &str) -> Result<(), Error> {
        self.annotate_ledger(resource, Some(&format!("{:.0}: {message}", Timestamp::now()))).await
    }

    async fn annotate_ledger(&self, resource: &FlinkHaCluster, text: Option<&str>) -> Result<(), Error> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { LEFT_ANNOTATION: text } } }));
        let ledger = names::ledger(&resource.name_any());
        match self.config_maps(resource).patch(&ledger, &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request("write the ledger of", resource)(error)),
        }
    }

    /// Deletes the JobManagers' Deployment in the foreground, and returns whether it is gone: then all pods of its
    /// ReplicaSets are too. It asks the API server itself, because a late cache would allow the deletion of data while
    /// a JobManager is alive.
    async fn deployment_is_gone(&self, resource: &FlinkHaCluster) -> Result<bool, Error> {
        let deployments: Api<Deployment> =
            Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let name = names::job_manager(&resource.name_any());
        let failed = |error| Error::request("delete the JobManagers of", resource)(error);
        match deployments.get_metadata_opt(&name).await.map_err(failed)? {
            None => Ok(true),
            // A foreign Deployment of the same name, for which the resource was refused.
            Some(deployment) if !foreign::is_own(&deployment.metadata, &resource.name_any()) => Ok(true),
            Some(deployment) if deployment.metadata.deletion_timestamp.is_some() => Ok(false),
            Some(_) => {
                deployments.delete(&name, &DeleteParams::foreground()).await.map_err(failed)?;
                Ok(false)
            }
        }
    }

    /// Removes the files, if they are to go; `None` while that is under way. It ends in bounded time.
    async fn purge(
        &self,
        resource: &FlinkHaCluster,
        observed: &Observed,
        context: &Context,
    ) -> Result<Option<Files>, Error> {
        let (on_delete, provider) = (resource.spec.ha_data.on_delete, resource.spec.high_availability.provider);
        if on_delete == OnDelete::Retain && provider == Provider::Kubernetes {
            return Ok(Some(Files { warning: false, message: String::new() }));
        }
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let failed = |error| Error::request("remove the files of", resource)(error);
        let found = jobs.get_opt(&names::purge(&resource.name_any())).await.map_err(failed)?;
        if let Some(job) = found.as_ref().filter(|job| !foreign::is_own(&job.metadata, &resource.name_any())) {
            let message =
                format!("the files in the storage directory stay: Job {} is not of this cluster", job.name_any());
            return Ok(Some(Files { warning: true, message }));
        }
        let state = found.as_ref().map_or(PurgeJob::Absent, purge_job);
        let unreadable = observed
            .ledger
            .as_ref()
            .is_some_and(|ledger| ledger.data.unreadable.iter().any(|key| key == jobs::HA_DATA_KEY));
        let unknown = || jobs::HaData {
            message: Refusal::unreadable(&resource.name_any(), jobs::HA_DATA_KEY).message,
            ..jobs::HaData::default()
        };
        let unknown = unreadable.then(unknown);
        let certificates = if found.is_none() { self.certificates(resource).await? } else { Vec::new() };
        let ha_data = unknown.as_ref().or(observed.ha_data());
        match deletion::purge(on_delete, provider, ha_data, state, cause::of_pods(&observed.purge_pods), &certificates)
        {
            Purge::Done { warning, message } => Ok(Some(Files { warning, message })),
            Purge::Wait if found.as_ref().is_some_and(|job| age(job) > PURGE_TIMEOUT) => {
                let why = cause::of_pods(&observed.purge_pods)
                    .unwrap_or_else(|| "the Job that removes them did not end in time".to_owned());
                Ok(Some(Files { warning: true, message: format!("the files in the storage directory stay: {why}") }))
            }
            Purge::Wait => Ok(None),
            Purge::Start { owner, signers } => {
                let Ok(cluster) = validate::validate(resource) else {
                    let message =
                        "the files in the storage directory stay: the resource is not valid, so no pod can reach them";
                    return Ok(Some(Files { warning: true, message: message.to_owned() }));
                };
                // Where the files are, and not where a change that was refused wants them.
                let place = observed.ha_data().and_then(|ha_data| ha_data.place.as_ref());
                let cluster = match place {
                    Some(place) => cluster.stored_in(&place.storage_dir),
                    None => cluster,
                };
                let signature = build::purge::Signature { owner, certificates, signers };
                let job = serde_json::from_value(build::purge::job(&cluster, &context.environment, &signature));
                match jobs.create(&PostParams::default(), &job.map_err(|source| Error::Malformed { source })?).await {
                    Ok(_) => Ok(None),
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                    // Nothing can be created in a namespace that is being deleted.
                    Err(kube::Error::Api(status))
                        if status.code == 403 && status.message.contains("being terminated") =>
                    {
                        let message = "the files in the storage directory stay: its namespace is being deleted, so no pod can reach them; \
                                       delete the FlinkHaCluster before its namespace";
                        Ok(Some(Files { warning: true, message: message.to_owned() }))
                    }
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }

    /// How this Kubernetes cluster is known.
    async fn certificates(&self, resource: &FlinkHaCluster) -> Result<Vec<String>, Error> {
        let found = self.config_maps(resource).get_opt(AUTHORITY).await;
        let found = found.map_err(Error::request("read the certificate of the Kubernetes cluster for", resource))?;
        let certificate = found.and_then(|authority| authority.data?.remove("ca.crt"));
        Ok(certificate.as_deref().map(certificates_of).unwrap_or_default())
    }

    /// Deletes the ConfigMaps that may go, and the ledger with the last of them: it stays with what it explains, and if
    /// `stays`.
    async fn delete_data(&self, resource: &FlinkHaCluster, stays: bool) -> Result<Plan, Error> {
        let spec = &resource.spec;
        let (plan, found, ledger) = self.plan(resource, spec.ha_data.on_delete).await?;
        let keeps = deletion::keeps_ledger(
            spec.ha_data.on_delete,
            spec.high_availability.provider,
            &plan,
            &data(ledger.as_ref()),
        );
        let ledger = ledger.filter(|_| !keeps && !stays);
        self.delete_planned(resource, &plan, &found).await?;
        if let Some(ledger) = ledger {
            let deleted = delete(&self.config_maps(resource), &ledger).await;
            deleted.map_err(Error::request("delete the ledger of", resource))?;
        }
        Ok(plan)
    }

    /// Deletes the ConfigMaps of an application whose job has ended and whose pods are gone. The ledger stays with the
    /// resource.
    ///
    /// # Errors
    /// When a request fails; a retry is safe.
    pub async fn delete_ended(&self, resource: &FlinkHaCluster) -> Result<(), Error> {
        let (plan, found, _) = self.plan(resource, OnDelete::Retain).await?;
        self.delete_planned(resource, &plan, &found).await
    }

    async fn plan(
        &self,
        resource: &FlinkHaCluster,
        on_delete: OnDelete,
    ) -> Result<(Plan, Vec<ConfigMap>, Option<ConfigMap>), Error> {
        let cluster_id = names::kubernetes_cluster_id(&resource.name_any());
        let config_maps = self.config_maps(resource);
        let failed = |error| Error::request("read the HA data of", resource)(error);
        let selector = ListParams::default().labels(&ha_data::selector(&cluster_id));
        let found = config_maps.list(&selector).await.map_err(failed)?.items;
        let ledger = config_maps.get_opt(&names::ledger(&resource.name_any())).await.map_err(failed)?;
        let ledger = ledger.filter(|ledger| foreign::is_own(&ledger.metadata, &resource.name_any()));
        let values: Vec<Value> = found.iter().map(|config_map| json!(config_map)).collect();
        Ok((deletion::plan(on_delete, &cluster_id, &values, &data(ledger.as_ref()).jobs), found, ledger))
    }

    async fn delete_planned(&self, resource: &FlinkHaCluster, plan: &Plan, found: &[ConfigMap]) -> Result<(), Error> {
        for config_map in found.iter().filter(|config_map| plan.delete.contains(&config_map.name_any())) {
            delete(&self.config_maps(resource), config_map)
                .await
                .map_err(Error::request("delete the HA data of", resource))?;
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
    let mut holding =
        conditions.filter(|condition| condition.status == "True").map(|condition| condition.type_.as_str());
    match holding.find(|kind| ["Complete", "Failed"].contains(kind)) {
        Some("Complete") => PurgeJob::Succeeded,
        Some(_) => PurgeJob::Failed,
        None => PurgeJob::Runs,
    }
}

/// What the ledger says.
fn data(ledger: Option<&ConfigMap>) -> LedgerData {
    let data = ledger.map(|ledger| json!(ledger.data)).filter(|data| !data.is_null());
    let shown: LedgerData = data.and_then(|data| serde_json::from_value(data).ok()).unwrap_or_default();
    let text = ledger.and_then(|ledger| ledger.data.as_ref()?.get(jobs::JOBS_KEY));
    // All jobs, and not only those that the status shows.
    LedgerData { jobs: jobs::read(text.map(String::as_str)).unwrap_or_default(), ..shown }
}

/// Deletes exactly the version on which the decision was made.
async fn delete(config_maps: &Api<ConfigMap>, config_map: &ConfigMap) -> kube::Result<()> {
    let preconditions = Preconditions { uid: config_map.uid(), resource_version: config_map.resource_version() };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match config_maps.delete(&config_map.name_any(), &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
