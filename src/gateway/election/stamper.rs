//! Stamps HA ConfigMaps: every one carries the term before the JVM sees a free lock.
//!
//! Once the cluster ConfigMap is stamped, no older term can register a job. The stamper finds all ConfigMaps of jobs by
//! a quorum list that begins after that, *and* by the job keys of the cluster ConfigMap. It creates an empty ConfigMap
//! for a registered job without one, so that a late create of an older term conflicts. First it decides whether the
//! objects belong to this cluster, and leaves foreign ones as they are ([`crate::ha_data::foreign`]). Nobody leads
//! until then, so the gateway looks up the objects while the Lease is being written and stamps them beside the cluster
//! ConfigMap: the list then finds them stamped.
//!
//! Of the ConfigMaps of jobs it reads and receives only the metadata, which is all that a stamp needs: together they
//! may hold more data than a gateway has memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::api::names::{self, TERM_ANNOTATION};
use crate::flink::{ha_data, lock};
use crate::gateway::gc::flink_version::VersionGuard;
use crate::gateway::proxy::request::Names;
use crate::ha_data::foreign::{self, HaConfigMaps};
use crate::ha_data::versions::StoredJobs;
use crate::lease::elector::Stamping;
use crate::lease::stamp::version;
use crate::lease::stamp::{relation, stamp_patch};
use crate::lease::term::{Incarnation, Relation, Term};
use crate::ledger::refusal::Refusal;
use crate::world::error_text::brief;

/// Number of concurrent writes. A grant has one write per job, so this bounds how its duration grows with jobs.
const PARALLEL: usize = 16;

/// Pause after an unexpected answer of the API server.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Writes stamps with the gateway's own client, which must not retry by itself.
#[derive(Clone)]
pub struct Stamper {
    pub client: Client,
    pub names: Names,
    /// Name of the ledger, which shows whether the cluster has a history.
    pub ledger_name: String,
    /// Holder identity of the JVM of this cluster that led last, as the Lease names it. A lock with this holder belongs
    /// to this cluster, even if it was renewed a moment ago.
    pub last_leader: Option<String>,
    /// Keeps a JVM from leading that would not see stored jobs.
    pub versions: Arc<VersionGuard>,
}

/// The result of stamping.
pub struct Stamped {
    pub outcome: Stamping,
    /// The cluster ConfigMap as stored, once everything is stamped.
    pub cluster: Option<Value>,
    /// Why nothing was stamped, if the objects are foreign or the JVM may not lead over them.
    pub refusal: Option<Refusal>,
}

/// Number of reads, one per second, of a lock that may be another Flink's. Flink renews its lock every five seconds by
/// default.
const LOOKS: usize = 7;
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Time for a predecessor to restore a cluster ConfigMap that was deleted while it led.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_millis(500);

/// The objects as they were before the Lease was acquired. They only save time: every stamp is a compare-and-swap.
pub struct StoredObjects {
    cluster: Option<Value>,
    /// Without their data.
    jobs: BTreeMap<String, Value>,
}

/// The lock that the JVM finds afterwards.
pub enum Holder {
    /// A free lock.
    Nobody,
    /// The lock of the JVM that still leads. Carries its holder identity, if known: somebody may have edited the lock
    /// while no gateway remembered it.
    Kept(Option<String>),
}

enum Stop {
    Higher(Term),
    Refused(Refusal),
    Api(kube::Error),
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Self {
        Stop::Api(error)
    }
}

impl Stamper {
    /// Reads all objects to stamp. `None` if that fails; stamping then reads them itself.
    pub async fn look(&self) -> Option<StoredObjects> {
        self.read_all().await.ok()
    }

    async fn read_all(&self) -> Result<StoredObjects, Stop> {
        let name = self.names.cluster_config_map();
        let (cluster, jobs) = tokio::try_join!(self.read(&name), self.jobs())?;
        Ok(StoredObjects { cluster, jobs })
    }

    /// Returns the refusal if the stored objects still keep this JVM from leading. The election asks before it takes
    /// the Lease again, so that terms do not rise meanwhile.
    ///
    /// # Errors
    /// When something cannot be read; nothing is known then.
    pub async fn refusal(&self, jvm: Incarnation) -> anyhow::Result<Option<Refusal>> {
        let examined = async { self.examine(self.read_all().await?, &Holder::Nobody, jvm).await };
        match examined.await {
            Ok(_) => Ok(None),
            Err(Stop::Refused(refusal)) => Ok(Some(refusal)),
            Err(Stop::Higher(_)) => Ok(None),
            Err(Stop::Api(error)) => Err(error.into()),
        }
    }

    /// Stamps everything. It retries until it succeeds, finds a stamp that is not lower, or `patience` is over. It
    /// leaves foreign objects as they are.
    pub async fn stamp(
        &self,
        term: &Term,
        holder: &Holder,
        patience: Duration,
        mut look: Option<StoredObjects>,
    ) -> Stamped {
        let ended = |outcome, refusal| Stamped { outcome, cluster: None, refusal };
        let attempts = async {
            loop {
                match self.stamp_once(term, holder, look.take()).await {
                    Ok(cluster) => return Stamped { cluster: Some(cluster), ..ended(Stamping::Done, None) },
                    Err(Stop::Higher(stamp)) => return ended(Stamping::Higher(stamp), None),
                    Err(Stop::Refused(refusal)) => return ended(Stamping::Failed, Some(refusal)),
                    // The objects that had been looked up were old; a retry needs no pause.
                    Err(Stop::Api(kube::Error::Api(status))) if status.code == 409 => continue,
                    Err(Stop::Api(error)) => {
                        tracing::warn!(error = brief(&error), term = term.number, "failed to stamp; trying again")
                    }
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        };
        tokio::time::timeout(patience, attempts).await.unwrap_or_else(|_| ended(Stamping::Failed, None))
    }

    async fn stamp_once(&self, term: &Term, holder: &Holder, look: Option<StoredObjects>) -> Result<Value, Stop> {
        let mut look = match look {
            Some(look) => look,
            None => self.read_all().await?,
        };
        if look.cluster.is_none() && term.number > 1 {
            // Somebody has deleted it; the former leader's gateway restores it with its jobs.
            tokio::time::sleep(PREDECESSOR_TIMEOUT).await;
            look.cluster = self.read(&self.names.cluster_config_map()).await?;
        }
        let look = self.examine(look, holder, term.jvm).await?;
        let known = look.jobs.into_iter().map(|(name, read)| (name, Some(read), false)).collect();
        let (cluster, ()) =
            tokio::try_join!(self.stamp_cluster(look.cluster, holder, term), self.stamp_jobs(known, term))?;
        let mut found: Vec<_> = self.jobs().await?.into_iter().map(|(name, read)| (name, Some(read), false)).collect();
        for job in ha_data::stored_jobs(&cluster) {
            let name = names::job_config_map(&self.names.cluster_id, job.as_str());
            if found.iter().all(|(known, ..)| *known != name) {
                // A JVM that still leads may have deleted it just now, before it deletes the key.
                found.push((name, None, matches!(holder, Holder::Nobody)));
            }
        }
        self.stamp_jobs(found, term).await?;
        Ok(cluster)
    }

    /// Which jobs of this cluster are stored, for a JVM that is not about to lead.
    ///
    /// # Errors
    /// When the cluster ConfigMap cannot be read.
    pub async fn stored_jobs(&self) -> anyhow::Result<StoredJobs> {
        let cluster = self.api().get_opt(&self.names.cluster_config_map()).await?;
        let ours = cluster.filter(|cluster| cluster.annotations().contains_key(TERM_ANNOTATION));
        Ok(ours.map(|cluster| StoredJobs::in_config_map(&value(&cluster))).unwrap_or_default())
    }

    /// Returns the objects if they belong to this cluster and this JVM may lead over them. It costs a request only
    /// where a mark is missing, somebody seems to renew the lock, or jobs are stored that the JVM may not see.
    async fn examine(&self, look: StoredObjects, holder: &Holder, jvm: Incarnation) -> Result<StoredObjects, Stop> {
        let found =
            HaConfigMaps { cluster_id: &self.names.cluster_id, cluster: look.cluster.as_ref(), jobs: &look.jobs };
        if !found.is_ours()
            && let Some(refusal) = found.refusal()
            && !self.has_history().await?
        {
            return Err(Stop::Refused(refusal));
        }
        let stored = found.cluster.map(StoredJobs::in_config_map).unwrap_or_default();
        if matches!(holder, Holder::Nobody)
            && let Some(refusal) = self.versions.refusal(jvm, &stored).await
        {
            return Err(Stop::Refused(refusal));
        }
        let Some(cluster) =
            found.cluster.filter(|cluster| foreign::may_be_renewed_elsewhere(cluster, Timestamp::now()))
        else {
            return Ok(look);
        };
        let stored = lock::of_object(cluster).and_then(lock::holder);
        let is_kept = match holder {
            Holder::Nobody => self.last_leader.is_some() && stored == self.last_leader,
            Holder::Kept(Some(name)) => stored.as_ref() == Some(name),
            // It belongs to our own JVM, as far as is known.
            Holder::Kept(None) => true,
        };
        if !is_kept && self.is_renewed(cluster).await? {
            return Err(Stop::Refused(found.refusal_of_living()));
        }
        Ok(look)
    }

    /// Does somebody renew the lock in the store? No gateway of ours does while none of their JVMs leads.
    async fn is_renewed(&self, cluster: &Value) -> Result<bool, Stop> {
        let name = self.names.cluster_config_map();
        tracing::info!(
            name,
            "the leader lock was renewed in the store; watching whether another Flink goes on doing so"
        );
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK_PAUSE).await;
            let now = self.read(&name).await?;
            let now = now.as_ref().and_then(lock::of_object);
            if now != lock::of_object(cluster) {
                return Ok(now.and_then(lock::HeldLock::of).is_some());
            }
        }
        Ok(false)
    }

    /// A missing ledger means that there is no history.
    async fn has_history(&self) -> Result<bool, Stop> {
        Ok(self.read(&self.ledger_name).await?.is_some_and(|ledger| foreign::has_history(&ledger)))
    }

    /// Returns the ConfigMaps of jobs without their data, by a quorum list.
    async fn jobs(&self) -> Result<BTreeMap<String, Value>, Stop> {
        let list = ListParams::default().labels(&ha_data::selector(&self.names.cluster_id));
        let named = self
            .api()
            .list_metadata(&list)
            .await?
            .into_iter()
            .filter_map(|object| Some((object.metadata.name.clone()?, without_data(object))));
        Ok(named.filter(|(name, _)| names::job_of_config_map(&self.names.cluster_id, name).is_some()).collect())
    }

    /// Stamps ConfigMaps of jobs. `jobs`: name, the object as read, and whether to create a missing one.
    async fn stamp_jobs(&self, jobs: Vec<(String, Option<Value>, bool)>, term: &Term) -> Result<(), Stop> {
        stream::iter(jobs.into_iter().map(Ok::<_, Stop>))
            .try_for_each_concurrent(PARALLEL, |(name, read, create)| async move {
                self.stamp_job(&name, read, create, term).await
            })
            .await
    }

    /// Writes the cluster ConfigMap with our stamp and, unless the holder is kept, with a free lock.
    async fn stamp_cluster(&self, read: Option<Value>, holder: &Holder, term: &Term) -> Result<Value, Stop> {
        let name = self.names.cluster_config_map();
        let Some(read) = read else {
            return Ok(value(&self.api().create(&PostParams::default(), &self.new_cluster(term)?).await?));
        };
        let stored = lock::of_object(&read).and_then(lock::holder);
        let lock = match holder {
            Holder::Kept(Some(name)) if stored.as_ref() != Some(name) => Some(lock::held(name, Timestamp::now())),
            Holder::Kept(_) if stored.is_some() => None,
            // Flink never takes a lock whose annotation is missing, so there must always be one.
            _ => Some(lock::free(Timestamp::now())),
        };
        match relation(&read, term) {
            (Relation::Higher, Some(stamp)) => return Err(Stop::Higher(stamp)),
            (Relation::Same, _) if lock.is_none() => return Ok(read),
            _ => {}
        }
        let mut patch = stamp_patch(version(&read).unwrap_or_default(), term);
        if let Some(lock) = lock {
            patch["metadata"]["annotations"][lock::LOCK_ANNOTATION] = json!(lock);
        }
        // Removes the addresses of the former leader at once. Flink's new leader would remove them one by one, and
        // those of jobs only when they run again. Until then a ResourceManager that reads such an address refuses its
        // own JobMaster, which then pauses for 30 s.
        if matches!(holder, Holder::Nobody) {
            ha_data::leader_keys(&read).for_each(|key| patch["data"][key] = Value::Null);
        }
        self.patch(&name, patch).await
    }

    async fn stamp_job(&self, name: &str, read: Option<Value>, create: bool, term: &Term) -> Result<(), Stop> {
        let mut next = read;
        loop {
            let object = match next.take() {
                Some(object) => object,
                None => match self.api().get_metadata_opt(name).await? {
                    Some(object) => without_data(object),
                    None if create => {
                        match self.api().create(&PostParams::default(), &self.new_object(name, term)?).await {
                            Err(kube::Error::Api(status)) if status.code == 409 => continue,
                            // An exhausted quota must not keep every JobManager from leading: the empty ConfigMap only
                            // blocks a late write of an older term.
                            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(()),
                            created => return created.map(|_| ()).map_err(Stop::Api),
                        }
                    }
                    None => return Ok(()),
                },
            };
            match relation(&object, term) {
                (Relation::Same, _) => return Ok(()),
                (Relation::Higher, Some(stamp)) => return Err(Stop::Higher(stamp)),
                _ => {}
            }
            let patch = Patch::Merge(stamp_patch(version(&object).unwrap_or_default(), term));
            match self.api().patch_metadata(name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(()),
                // Somebody has written or deleted it meanwhile: read it again.
                Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads by quorum: without a resourceVersion.
    async fn read(&self, name: &str) -> Result<Option<Value>, Stop> {
        Ok(self.api().get_opt(name).await?.as_ref().map(value))
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<Value, Stop> {
        Ok(value(&self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?))
    }

    fn new_cluster(&self, term: &Term) -> Result<ConfigMap, Stop> {
        let mut cluster = self.new_object(&self.names.cluster_config_map(), term)?;
        cluster
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(lock::LOCK_ANNOTATION.to_owned(), lock::free(Timestamp::now()));
        Ok(cluster)
    }

    /// Returns an HA ConfigMap without data, labelled as Flink does.
    fn new_object(&self, name: &str, term: &Term) -> Result<ConfigMap, Stop> {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": name, "namespace": self.names.namespace,
            "labels": { "app": self.names.cluster_id, "type": ha_data::LABEL_TYPE },
            "annotations": { TERM_ANNOTATION: term.to_string() } } });
        serde_json::from_value(object).map_err(|error| Stop::Api(kube::Error::SerdeError(error)))
    }

    fn api(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }
}

/// Returns the object as JSON, with the type that objects of a list lack.
fn value(config_map: &ConfigMap) -> Value {
    // Serializing a ConfigMap cannot fail: its keys are strings.
    let mut value = serde_json::to_value(config_map).unwrap_or_default();
    value["apiVersion"] = json!("v1");
    value["kind"] = json!("ConfigMap");
    value
}

/// The same of an object of which only the metadata was read. Nobody needs who has written which field, which takes a
/// line for each key of the data.
fn without_data(object: PartialObjectMeta<ConfigMap>) -> Value {
    let mut metadata = object.metadata;
    metadata.managed_fields = None;
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata })
}
