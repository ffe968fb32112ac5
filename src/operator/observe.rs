//! Observing: one watch per kind, over all clusters, kept in memory. A change that could matter to a cluster makes it
//! reconcile.
//!
//! Only objects that carry our label are watched, and of most kinds only the metadata. No request is made to look
//! something up.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use futures::future::{BoxFuture, try_join_all};
use futures::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::{core, networking, policy, rbac};
use kube::api::DynamicObject;
use kube::core::{ApiResource, NamespaceScope, ObjectMeta, PartialObjectMeta};
use kube::{Api, Client, Resource};
use kube_runtime::reflector::store::WriterDropped;
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::fingerprint::{fingerprint, reduce_managed_fields};
use crate::api::FlinkHaCluster;
use crate::api::names::{
    self, ANNOTATION_PREFIX, CLUSTER_LABEL, COMPONENT_LABEL, JOB_MANAGER, MANAGED_BY, MANAGED_BY_LABEL, PURGE,
    TASK_MANAGER,
};
use crate::cluster::account::Account;
use crate::cluster::observed::{
    Observed, ObservedConfigMap, ObservedDeployment, ObservedEndpointSlice, ObservedPod, StoredHaData,
};
use crate::ha_data::foreign;
use crate::ledger::election;
use crate::world::error_text::chain;

/// Objects in one answer to a list: of kinds whose objects may be large, and of the others. With 1,000 clusters an
/// operator that starts waits for the pages, and keeps the memory that it needed for those in flight.
const PAGE_OF_LARGE: u32 = 50;
const PAGE: u32 = 250;

type Metadata = PartialObjectMeta<DynamicObject>;

/// Where changes are announced.
pub type Triggers = UnboundedSender<ObjectRef<FlinkHaCluster>>;

/// Everything that is watched, as last seen.
pub struct Caches {
    pub clusters: Store<FlinkHaCluster>,
    leases: Store<Lease>,
    pods: Store<ObservedPod>,
    deployments: Store<ObservedDeployment>,
    config_maps: Store<ObservedConfigMap>,
    slices: Store<ObservedEndpointSlice>,
    /// Metadata of the other kinds, by kind.
    others: HashMap<String, (ApiResource, Store<Metadata>)>,
}

/// Starts all watches, and returns when all of them have delivered what there is.
///
/// # Errors
/// When a watch ends before that.
pub async fn start(
    client: &Client,
    namespace: Option<&str>,
    triggers: &Triggers,
) -> anyhow::Result<(Caches, JoinSet<()>)> {
    let mut watches = Watches { client, namespace, triggers, running: JoinSet::new(), filling: Vec::new() };
    let all = watcher::Config::default().page_size(PAGE_OF_LARGE);
    let ours_large = all.clone().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let ours = ours_large.clone().page_size(PAGE);
    let clusters = watches.start((), all, own_name, |cluster: &FlinkHaCluster| {
        let metadata = &cluster.metadata;
        let asked = metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
        let asked: Vec<_> = asked.collect();
        digest((metadata.generation, metadata.finalizers.as_ref(), metadata.deletion_timestamp.is_some(), asked))
    });
    let leases = watches.start((), ours.clone(), label, |lease: &Lease| {
        // Not its renewals.
        let holder = lease.spec.as_ref().map(|spec| (spec.holder_identity.as_ref(), spec.lease_transitions));
        let metadata = &lease.metadata;
        digest((holder, metadata.annotations.as_ref(), metadata.deletion_timestamp.is_some(), owners(metadata)))
    });
    let pods = watches.start((), ours_large.clone(), label, |pod: &ObservedPod| version(&pod.metadata));
    let deployments =
        watches.start((), ours_large.clone(), label, |deployment: &ObservedDeployment| version(&deployment.metadata));
    let config_maps =
        watches.start((), ours_large, label, |config_map: &ObservedConfigMap| version(&config_map.metadata));
    let slices = watches.start((), ours.clone(), label, |slice: &ObservedEndpointSlice| version(&slice.metadata));
    let mut others = HashMap::new();
    for kind in other_kinds() {
        let interest = |object: &Metadata| digest(fingerprint(&object.metadata));
        let store = watches.start(kind.clone(), ours.clone(), label, interest);
        others.insert(kind.kind.clone(), (kind, store));
    }
    try_join_all(watches.filling).await?;
    Ok((Caches { clusters, leases, pods, deployments, config_maps, slices, others }, watches.running))
}

/// Kinds of which only the metadata is kept: to see that they are there and unchanged.
fn other_kinds() -> Vec<ApiResource> {
    vec![
        ApiResource::erase::<core::v1::Service>(&()),
        ApiResource::erase::<core::v1::ServiceAccount>(&()),
        ApiResource::erase::<rbac::v1::Role>(&()),
        ApiResource::erase::<rbac::v1::RoleBinding>(&()),
        ApiResource::erase::<policy::v1::PodDisruptionBudget>(&()),
        ApiResource::erase::<networking::v1::NetworkPolicy>(&()),
    ]
}

impl Caches {
    /// Everything known of a cluster.
    pub fn observe(&self, namespace: &str, name: &str) -> Observed {
        let of_cluster = |metadata: &ObjectMeta| {
            metadata.namespace.as_deref() == Some(namespace) && labelled(metadata, CLUSTER_LABEL) == Some(name)
        };
        let pods = |component| {
            let account = names::service_account(name, component);
            let is_one =
                |metadata: &ObjectMeta| of_cluster(metadata) && labelled(metadata, COMPONENT_LABEL) == Some(component);
            self.pods.state_filter(|pod| is_one(&pod.metadata) && pod.runs_as(&account))
        };
        let ledger = self.config_maps.get(&ObjectRef::new(&names::ledger(name)).within(namespace));
        // Where Flink elects by ZooKeeper, the ledger tells what a Lease would.
        let told = || ledger.as_ref().and_then(|ledger| election::lease_of(&ledger.metadata)).map(Arc::new);
        Observed {
            lease: self.leases.get(&ObjectRef::new(&names::lease(name)).within(namespace)).or_else(told),
            job_manager_pods: pods(JOB_MANAGER),
            task_manager_pods: pods(TASK_MANAGER),
            purge_pods: pods(PURGE),
            ledger: ledger.clone(),
            rest: self.slices.get(&ObjectRef::new(&names::rest(name)).within(namespace)),
            ledger_is_current: false,
            stored: StoredHaData::Unknown,
            presence: None,
            warnings: BTreeMap::new(),
            job_manager_deployment: self.deployments.get(&ObjectRef::new(&names::job_manager(name)).within(namespace)),
            task_manager_deployment: self
                .deployments
                .get(&ObjectRef::new(&names::task_manager(name)).within(namespace)),
            job_manager_account: self.account(namespace, &names::service_account(name, JOB_MANAGER)),
            task_manager_account: self.account(namespace, &names::service_account(name, TASK_MANAGER)),
        }
    }

    fn account(&self, namespace: &str, name: &str) -> Option<Account> {
        let (resource, store) = self.others.get("ServiceAccount")?;
        let reference = ObjectRef::new_with(name, resource.clone()).within(namespace);
        store.get(&reference).and_then(|account| Account::of(&account.metadata))
    }

    /// UIDs of the resources that own an object whose contents are the gateways', if it exists.
    pub fn owners(&self, kind: &str, namespace: &str, name: &str) -> Option<Vec<String>> {
        match kind {
            "Lease" => self.leases.get(&ObjectRef::new(name).within(namespace)).map(|lease| owners(&lease.metadata)),
            "EndpointSlice" => {
                self.slices.get(&ObjectRef::new(name).within(namespace)).map(|slice| owners(&slice.metadata))
            }
            _ => self
                .config_maps
                .get(&ObjectRef::new(name).within(namespace))
                .map(|config_map| owners(&config_map.metadata)),
        }
    }

    /// The fingerprint of an object, if it exists.
    pub fn fingerprint(&self, kind: &str, namespace: &str, name: &str) -> Option<String> {
        match kind {
            "Lease" => {
                self.leases.get(&ObjectRef::new(name).within(namespace)).map(|lease| fingerprint(&lease.metadata))
            }
            "ConfigMap" => self
                .config_maps
                .get(&ObjectRef::new(name).within(namespace))
                .map(|config_map| fingerprint(&config_map.metadata)),
            "Deployment" => self
                .deployments
                .get(&ObjectRef::new(name).within(namespace))
                .map(|deployment| fingerprint(&deployment.metadata)),
            "EndpointSlice" => {
                self.slices.get(&ObjectRef::new(name).within(namespace)).map(|slice| fingerprint(&slice.metadata))
            }
            other => {
                let (resource, store) = self.others.get(other)?;
                let reference = ObjectRef::new_with(name, resource.clone()).within(namespace);
                store.get(&reference).map(|object| fingerprint(&object.metadata))
            }
        }
    }
}

/// UIDs of the resources that own an object.
fn owners(metadata: &ObjectMeta) -> Vec<String> {
    let owners = metadata.owner_references.iter().flatten().filter(|owner| owner.kind == foreign::OWNER);
    owners.map(|owner| owner.uid.clone()).collect()
}

fn labelled<'a>(metadata: &'a ObjectMeta, label: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(label).map(String::as_str)
}

fn label(metadata: &ObjectMeta) -> Option<String> {
    labelled(metadata, CLUSTER_LABEL).map(str::to_owned)
}

fn own_name(metadata: &ObjectMeta) -> Option<String> {
    metadata.name.clone()
}

fn version(metadata: &ObjectMeta) -> u64 {
    digest(metadata.resource_version.as_ref())
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

struct Watches<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    triggers: &'a Triggers,
    running: JoinSet<()>,
    /// Each ends when all that there is of a kind is known.
    filling: Vec<BoxFuture<'static, Result<(), WriterDropped>>>,
}

impl Watches<'_> {
    /// Watches a kind. `cluster_of` tells whose an object is; a change of `interest` makes that cluster reconcile.
    fn start<K>(
        &mut self,
        kind: K::DynamicType,
        config: watcher::Config,
        cluster_of: fn(&ObjectMeta) -> Option<String>,
        interest: fn(&K) -> u64,
    ) -> Store<K>
    where
        K: Resource<Scope: NamespaceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync,
    {
        let api: Api<K> = Api::all_with(self.client.clone(), &kind).constrain(self.namespace.unwrap_or_default());
        let writer = reflector::store::Writer::new(kind.clone());
        let store = writer.as_reader();
        let stream = watcher(api, config).default_backoff().modify(|object| trim(object.meta_mut())).reflect(writer);
        self.running.spawn(announce(stream, kind, cluster_of, interest, self.triggers.clone()));
        let filling = store.clone();
        self.filling.push(Box::pin(async move { filling.wait_until_ready().await }));
        store
    }
}

/// Takes away what only costs memory.
fn trim(metadata: &mut ObjectMeta) {
    reduce_managed_fields(metadata);
    if let Some(owners) = &mut metadata.owner_references {
        owners.retain(|owner| owner.kind == foreign::OWNER);
        owners.shrink_to_fit();
    }
    metadata.generate_name = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// What is remembered of an object to tell whether a change matters.
struct LastSeen {
    interest: u64,
    cluster: Option<ObjectRef<FlinkHaCluster>>,
    /// Seen since the watch last began anew.
    seen: bool,
}

/// Announces changes that matter, deletions, and deletions that happened while the watch was interrupted.
async fn announce<K: Resource>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    kind: K::DynamicType,
    cluster_of: fn(&ObjectMeta) -> Option<String>,
    interest: fn(&K) -> u64,
    triggers: Triggers,
) {
    let mut known: HashMap<(Option<String>, Option<String>), LastSeen> = HashMap::new();
    let announce = |cluster: Option<ObjectRef<FlinkHaCluster>>| {
        if let Some(cluster) = cluster {
            // The receiver is gone only when the process ends.
            let _ = triggers.unbounded_send(cluster);
        }
    };
    let key = |object: &K| (object.meta().namespace.clone(), object.meta().name.clone());
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                let metadata = object.meta();
                let namespace = metadata.namespace.as_deref().unwrap_or_default();
                let cluster = cluster_of(metadata).map(|name| ObjectRef::new(&name).within(namespace));
                let now = LastSeen { interest: interest(&object), cluster: cluster.clone(), seen: true };
                let mut before = known.insert(key(&object), now);
                // A label was changed: it is gone from the cluster that it belonged to.
                if let Some(before) = before.take_if(|before| before.cluster != cluster) {
                    announce(before.cluster);
                }
                if before.is_none_or(|before| before.interest != interest(&object)) {
                    announce(cluster);
                }
            }
            Ok(watcher::Event::Delete(object)) => announce(known.remove(&key(&object)).and_then(|known| known.cluster)),
            Ok(watcher::Event::Init) => known.values_mut().for_each(|known| known.seen = false),
            Ok(watcher::Event::InitDone) => known.retain(|_, known| {
                if !known.seen {
                    announce(known.cluster.take());
                }
                known.seen
            }),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&kind), error = %chain(&error), "a watch was interrupted and begins anew")
            }
        }
    }
}
