//! Removing the files of a deleted cluster: the Job that does it, what Kubernetes says of it, and its end in bounded
//! time.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::error::Error;
use super::warnings::Warnings;
use crate::api::FlinkHaCluster;
use crate::api::names;
use crate::api::v1alpha1::{OnDelete, Provider};
use crate::cluster::build::{self, Environment};
use crate::cluster::cause::Cause;
use crate::cluster::causes;
use crate::cluster::deletion::{self, Purge, PurgeJob};
use crate::cluster::observed::Observed;
use crate::cluster::validate;
use crate::ha_data::foreign;
use crate::ha_data::marks::{AUTHORITY, certificates_of};
use crate::ledger::jobs;
use crate::ledger::refusal::Refusal;

/// A Job is given up when it is as old as this: it ends itself before, unless nobody looks after Jobs.
const PURGE_TIMEOUT: SignedDuration = SignedDuration::from_secs(360);

/// How the removal of the files gets on.
pub(super) enum Purging {
    Done(Files),
    /// The Job runs, or is about to. Why it does not get on, once that is to be said.
    Waits(Option<Cause>),
    /// The API server does not take the Job, and said this.
    Refused(String),
}

/// What became of the files.
pub(super) struct Files {
    /// Some stay that should not.
    pub warning: bool,
    pub message: String,
}

impl Files {
    /// Files that stay are named.
    pub fn of(self, resource: &FlinkHaCluster) -> Self {
        if !self.warning {
            return self;
        }
        Self { message: format!("{}. Left: {}", self.message, deletion::files(resource)), ..self }
    }
}

/// Removes the files.
pub struct Purger {
    client: Client,
}

impl Purger {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Removes the files, if they are to go. It ends in bounded time.
    pub(super) async fn purge(
        &self,
        resource: &FlinkHaCluster,
        observed: &Observed,
        environment: &Environment,
        warnings: &Warnings,
    ) -> Result<Purging, Error> {
        let (on_delete, provider) = (resource.spec.ha_data.on_delete, resource.spec.high_availability.provider);
        if on_delete == OnDelete::Retain && provider == Provider::Kubernetes {
            return Ok(Purging::Done(Files { warning: false, message: String::new() }));
        }
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let failed = |error| Error::request("remove the files of", resource)(error);
        let found = jobs.get_opt(&names::purge(&resource.name_any())).await.map_err(failed)?;
        if let Some(job) = found.as_ref().filter(|job| !foreign::is_own(&job.metadata, &resource.name_any())) {
            let message =
                format!("the files in the storage directory stay: Job {} is not of this cluster", job.name_any());
            return Ok(Purging::Done(Files { warning: true, message }));
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
        let said = causes::of_pods(&observed.purge_pods);
        match deletion::purge(on_delete, provider, ha_data, state, said.clone(), &certificates) {
            Purge::Done { warning, message } => Ok(Purging::Done(Files { warning, message })),
            Purge::Wait => {
                let age = found.as_ref().map_or(SignedDuration::ZERO, age);
                let warning = warning(resource, found.as_ref(), observed, warnings).await;
                if age <= PURGE_TIMEOUT {
                    return Ok(Purging::Waits(deletion::purge_waits(resource, None, said, warning, age)));
                }
                let why = said.or(warning);
                let why = why.unwrap_or_else(|| "the Job that removes them did not end in time".to_owned());
                let message = format!("the files in the storage directory stay: {why}");
                Ok(Purging::Done(Files { warning: true, message }))
            }
            Purge::Start { owner, signers } => {
                let Ok(cluster) = validate::validate(resource) else {
                    let message =
                        "the files in the storage directory stay: the resource is not valid, so no pod can reach them";
                    return Ok(Purging::Done(Files { warning: true, message: message.to_owned() }));
                };
                // Where the files are, and not where a change that was refused wants them.
                let place = observed.ha_data().and_then(|ha_data| ha_data.place.as_ref());
                let cluster = match place {
                    Some(place) => cluster.stored_in(&place.storage_dir),
                    None => cluster,
                };
                let signature = build::purge::Signature { owner, certificates, signers };
                let job = serde_json::from_value(build::purge::job(&cluster, environment, &signature));
                match jobs.create(&PostParams::default(), &job.map_err(|source| Error::Malformed { source })?).await {
                    Ok(_) => Ok(Purging::Waits(None)),
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(Purging::Waits(None)),
                    // Nothing can be created in a namespace that is being deleted.
                    Err(kube::Error::Api(status))
                        if status.code == 403 && status.message.contains("being terminated") =>
                    {
                        let message = "the files in the storage directory stay: its namespace is being deleted, so no pod can reach them; \
                                       delete the FlinkHaCluster before its namespace";
                        Ok(Purging::Done(Files { warning: true, message: message.to_owned() }))
                    }
                    // A quota, a right, a policy, a webhook that refuses or fails. It is tried again, within bounds.
                    Err(kube::Error::Api(status)) if ![429, 503, 504].contains(&status.code) => {
                        Ok(Purging::Refused(status.message))
                    }
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }

    /// How this Kubernetes cluster is known.
    async fn certificates(&self, resource: &FlinkHaCluster) -> Result<Vec<String>, Error> {
        let config_maps: Api<ConfigMap> =
            Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default());
        let found = config_maps.get_opt(AUTHORITY).await;
        let found = found.map_err(Error::request("read the certificate of the Kubernetes cluster for", resource))?;
        let certificate = found.and_then(|authority| authority.data?.remove("ca.crt"));
        Ok(certificate.as_deref().map(certificates_of).unwrap_or_default())
    }
}

/// What Kubernetes warns of about the Job, or about its pod that has not started.
async fn warning(
    resource: &FlinkHaCluster,
    job: Option<&Job>,
    observed: &Observed,
    warnings: &Warnings,
) -> Option<String> {
    if let Some(warning) = observed.purge_pods.iter().find_map(|pod| observed.warnings.get(pod.uid())) {
        return Some(warning.clone());
    }
    let job = job.filter(|job| age(job) >= deletion::PURGE_TOLD && observed.purge_pods.is_empty())?;
    warnings.of(&resource.namespace().unwrap_or_default(), &job.uid().unwrap_or_default()).await
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
