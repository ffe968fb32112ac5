//! Finds out to whom an object belongs before the operator writes it: an object that is not in the caches may be a
//! foreign one of the same name, and a forced apply would take it over.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::error::Error;
use super::ha_config_maps::labelled;
use super::observe::Caches;
use super::target::Target;
use crate::api::names;
use crate::cluster::build::Objects;
use crate::cluster::rejection::Rejection;
use crate::ha_data::foreign::{self, HaConfigMaps};

/// Number of concurrent requests.
const PARALLEL: usize = 8;

/// Asks the API server.
pub struct Owners {
    client: Client,
}

impl Owners {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Checks whether all objects may be applied. Objects in the caches carry our labels and need no request.
    ///
    /// # Errors
    /// When a required name belongs to a foreign object, or when the HA data that JobManagers and TaskManagers would
    /// use is foreign. Also when a request fails; a retry is safe.
    pub async fn check(&self, cluster: &str, objects: &Objects, caches: &Caches) -> Result<(), Error> {
        let pods = [&objects.job_managers, &objects.task_managers];
        let all = objects.applied.iter().chain(&objects.created).chain(pods).map(Target::of);
        let unknown: Vec<Target<'_>> =
            all.filter(|target| caches.fingerprint(target.kind, target.namespace, target.name).is_none()).collect();
        let starts =
            unknown.iter().any(|target| target.kind == "Deployment" && target.name == names::job_manager(cluster));
        let by_lease = objects.created.iter().any(|object| object["kind"] == "Lease");
        let looks = stream::iter(unknown).map(|target| async move { self.taken(cluster, &target).await });
        let taken: Vec<Option<String>> = looks.buffered(PARALLEL).try_collect().await?;
        let taken: Vec<String> = taken.into_iter().flatten().collect();
        if let Some(refusal) = foreign::name_taken(cluster, &taken) {
            return Err(Rejection::unwatched(refusal).into());
        }
        if !starts || !by_lease {
            return Ok(());
        }
        // TaskManagers would offer their slots to any leader there.
        let namespace = Target::of(&objects.job_managers).namespace;
        self.check_ha_data(cluster, namespace).await
    }

    /// Gives an object our labels and our resource as its owner, where it has not both; returns whether it had not.
    /// Everything else stays, other owners too. Nothing is done to another's object.
    pub async fn own(&self, target: &Target<'_>) -> Result<bool, Error> {
        let cluster = target.object["metadata"]["labels"][names::CLUSTER_LABEL].as_str().unwrap_or_default();
        let own = self.find(target).await?.filter(|found| foreign::is_own(found, cluster));
        let Some(patch) = own.and_then(|own| foreign::owning(&own, target.object)) else { return Ok(false) };
        match target.api(&self.client).patch_metadata(target.name, &PatchParams::default(), &Patch::Merge(patch)).await
        {
            Ok(_) => Ok(true),
            // Changed or gone meanwhile, which the watches show.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
            Err(error) => Err(target.failed("take over")(error)),
        }
    }

    /// Returns the foreign object of this name, if there is one.
    async fn taken(&self, cluster: &str, target: &Target<'_>) -> Result<Option<String>, Error> {
        let found = self.find(target).await?;
        let is_taken = found.is_some_and(|metadata| !foreign::is_own(&metadata, cluster));
        Ok(is_taken.then(|| format!("{} {}", target.kind, target.name)))
    }

    /// Returns the present version of an object, if the resource of this UID owns it.
    ///
    /// # Errors
    /// When a request fails; a retry is safe.
    pub async fn owned(&self, target: &Target<'_>, owner: &str) -> Result<Option<Preconditions>, Error> {
        let found = self.find(target).await?;
        let owned = found.filter(|found| found.owner_references.iter().flatten().any(|one| one.uid == owner));
        Ok(owned.map(|found| Preconditions { uid: found.uid, resource_version: found.resource_version }))
    }

    /// It lists, because the operator may list more kinds than it may get.
    async fn find(&self, target: &Target<'_>) -> Result<Option<ObjectMeta>, Error> {
        let named = ListParams::default().fields(&format!("metadata.name={}", target.name));
        let found = target.api(&self.client).list_metadata(&named).await.map_err(target.failed("look for"))?;
        Ok(found.into_iter().next().map(|object| object.metadata))
    }

    /// Returns an error for HA data under the cluster's name that no JobManager of this cluster has written. The
    /// gateways check again before each of their terms.
    async fn check_ha_data(&self, cluster: &str, namespace: &str) -> Result<(), Error> {
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let cluster_id = names::kubernetes_cluster_id(cluster);
        let failed = |source| Error::Request {
            action: "read the HA data of",
            object: format!("FlinkHaCluster {cluster}"),
            source,
        };
        let name = names::cluster_config_map(&cluster_id);
        let labelled = labelled(&self.client, namespace, &cluster_id, |_| false);
        let found = async { tokio::try_join!(config_maps.get_opt(&name), labelled) };
        let (stored, labelled) = found.await.map_err(failed)?;
        let jobs = labelled.iter().map(|one| (one.name_any(), json!(one)));
        let jobs: BTreeMap<_, _> =
            jobs.filter(|(name, _)| names::job_of_config_map(&cluster_id, name).is_some()).collect();
        let stored = stored.map(|stored| json!(stored));
        let ha_data = HaConfigMaps { cluster_id: &cluster_id, cluster: stored.as_ref(), jobs: &jobs };
        let Some(refusal) = ha_data.refusal().filter(|_| !ha_data.is_ours()) else { return Ok(()) };
        let ledger = config_maps.get_opt(&names::ledger(cluster)).await.map_err(failed)?;
        let known = ledger.is_some_and(|ledger| foreign::has_history(&json!(ledger)));
        if known { Ok(()) } else { Err(Rejection::unwatched(refusal).into()) }
    }
}
