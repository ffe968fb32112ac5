//! Finds out to whom an object belongs before the operator writes it: an object that is not in the caches may be a
//! foreign one of the same name, and a forced apply would take it over.

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;

use super::error::Error;
use super::fingerprint::counted_as_applied;
use super::foreign_ha_data::ForeignHaData;
use super::observe::Caches;
use super::target::Target;
use crate::api::names;
use crate::cluster::build::Objects;
use crate::cluster::rejection::Rejection;
use crate::ha_data::foreign;

/// Number of concurrent requests.
const PARALLEL: usize = 8;

/// Asks the API server.
pub struct Owners {
    client: Client,
    ha_data: ForeignHaData,
}

impl Owners {
    pub fn new(client: Client) -> Self {
        Self { ha_data: ForeignHaData::new(client.clone()), client }
    }

    /// Checks, before the first JobManager is made, what does not show when its objects are created one after another:
    /// the API server refuses a name that exists.
    ///
    /// # Errors
    /// When the HA data that JobManagers and TaskManagers would use is foreign. Also when a request fails; a retry is
    /// safe.
    pub async fn check(&self, cluster: &str, objects: &Objects, caches: &Caches) -> Result<(), Error> {
        if objects.created.iter().all(|object| object["kind"] != "Lease") {
            return Ok(());
        }
        let target = Target::of(&objects.job_managers);
        if let Err(error) = self.ha_data.check(cluster, target.owner(), target.namespace, caches).await {
            // Whoever has written it may have objects of the same names, which is the nearer cause.
            self.check_names(cluster, objects, caches).await?;
            return Err(error);
        }
        Ok(())
    }

    /// Looks for foreign objects under all names. Objects in the caches carry our labels and need no request.
    ///
    /// # Errors
    /// When there are such; the sentence names all of them. Also when a request fails; a retry is safe.
    pub async fn check_names(&self, cluster: &str, objects: &Objects, caches: &Caches) -> Result<(), Error> {
        let pods = [&objects.job_managers, &objects.task_managers];
        let all = objects.applied.iter().chain(&objects.created).chain(pods).map(Target::of);
        let unknown: Vec<Target<'_>> = all.filter(|target| !is_known(target, caches)).collect();
        let looks = stream::iter(unknown).map(|target| async move { self.taken(cluster, &target).await });
        let taken: Vec<Option<String>> = looks.buffered(PARALLEL).try_collect().await?;
        refuse(cluster, &taken.into_iter().flatten().collect::<Vec<_>>())
    }

    /// Looks whose an object is whose name exists.
    ///
    /// # Errors
    /// When it is a foreign one, or when the request fails; a retry is safe.
    pub async fn check_name(&self, target: &Target<'_>) -> Result<(), Error> {
        let cluster = cluster_of(target);
        refuse(cluster, self.taken(cluster, target).await?.as_slice())
    }

    /// Prepares an object that exists for server-side apply, which removes fields that are not wanted any more only if
    /// they count as applied.
    ///
    /// # Errors
    /// When it is a foreign object, has changed meanwhile, or when a request fails; a retry is safe.
    pub async fn prepare(&self, target: &Target<'_>) -> Result<(), Error> {
        let Some(found) = self.find(target).await? else { return Ok(()) };
        let cluster = cluster_of(target);
        if !foreign::is_own(&found, cluster) {
            return refuse(cluster, &[described(target)]);
        }
        let Some(patch) = counted_as_applied(&found) else { return Ok(()) };
        let (api, parameters) = (target.api(&self.client), PatchParams::default());
        let patched = api.patch_metadata(target.name, &parameters, &Patch::Merge(patch)).await;
        patched.map(drop).map_err(target.failed("take over the fields of"))
    }

    /// Gives an object our labels and our resource as its owner, where it has not both; returns whether it had not.
    /// Everything else stays, other owners too. Nothing is done to another's object.
    pub async fn own(&self, target: &Target<'_>) -> Result<bool, Error> {
        let own = self.find(target).await?.filter(|found| foreign::is_own(found, cluster_of(target)));
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
        Ok(is_taken.then(|| described(target)))
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
}

fn is_known(target: &Target<'_>, caches: &Caches) -> bool {
    caches.fingerprint(target.kind, target.namespace, target.name).is_some()
}

fn cluster_of<'a>(target: &Target<'a>) -> &'a str {
    target.object["metadata"]["labels"][names::CLUSTER_LABEL].as_str().unwrap_or_default()
}

fn described(target: &Target<'_>) -> String {
    format!("{} {}", target.kind, target.name)
}

fn refuse(cluster: &str, taken: &[String]) -> Result<(), Error> {
    foreign::name_taken(cluster, taken).map_or(Ok(()), |refusal| Err(Rejection::unwatched(refusal).into()))
}
