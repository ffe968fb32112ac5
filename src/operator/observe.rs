//! Observing: one watch per kind, over all clusters, kept in memory. A change that could matter to a cluster makes it
//! reconcile.
//!
//! Only objects that carry our label are watched, and of most kinds only the metadata. No request is made to look
//! something up.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::channel::mpsc::UnboundedSender;
use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::{core, networking, policy, rbac};
use kube::core::{ApiResource, NamespaceScope, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use kube_runtime::reflector::store::WriterDropped;
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::watcher;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::JoinSet;

use super::fingerprint::fingerprint;
use super::ignored::Ignored;
use super::kinds::{Metadata, Observable};
use super::namespaces::Listed;
use super::received::Received;
use super::watch::{Announcer, Kept, KindWatch, UnknownClusters, digest, labelled};
use crate::api::FlinkHaCluster;
use crate::api::names::{
    self, ANNOTATION_PREFIX, CLUSTER_LABEL, COMPONENT_LABEL, JOB_MANAGER, MANAGED_BY, MANAGED_BY_LABEL, PURGE,
    TASK_MANAGER,
};
use crate::api::rest::IpFamily;
use crate::cluster::account::Account;
use crate::cluster::build::job_manager::TEMPLATE_ANNOTATION;
use crate::cluster::observed::{
    Observed, ObservedConfigMap, ObservedDeployment, ObservedEndpointSlice, ObservedPod, StoredHaData,
};
use crate::cluster::operators::Selection;
use crate::ha_data::foreign;
use crate::ledger::election;

/// Objects in one answer to a list: of kinds whose objects may be large, and of the others. Anybody may fill all of
/// them up to the largest size, with text that is six times as long in JSON, and two copies of an answer are in memory.
const PAGE_OF_LARGE: u32 = 16;
const PAGE: u32 = 40;
/// Resources that become known and that a watch has not looked at yet. Of more, it begins anew.
const APPEARED: usize = 1024;

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
    (namespaces, selection): (&[String], Option<Selection>),
    triggers: &Triggers,
    ignored: &Ignored,
) -> anyhow::Result<(Caches, JoinSet<()>)> {
    let lists = Arc::new(Semaphore::new(1));
    let mut watches =
        Watches { client, namespaces, triggers, ignored, lists, running: JoinSet::new(), filling: Vec::new() };
    let (appeared, _) = broadcast::channel(APPEARED);
    let all = watcher::Config::default().page_size(PAGE_OF_LARGE);
    let ours_large = all.clone().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let ours = ours_large.clone().page_size(PAGE);
    let selected = selection.as_ref().map_or_else(|| all.clone(), |selection| all.clone().labels(&selection.selector));
    let resources = Kept::Resources { appeared: appeared.clone(), selection };
    let clusters = watches.start((), selected, resources, own_name, |cluster: &FlinkHaCluster| {
        let metadata = &cluster.metadata;
        let asked = metadata.annotations.iter().flatten().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
        let asked: Vec<_> = asked.collect();
        digest((metadata.generation, metadata.finalizers.as_ref(), metadata.deletion_timestamp.is_some(), asked))
    });
    // Of the others only what belongs to one of them is kept.
    try_join_all(std::mem::take(&mut watches.filling)).await?;
    let owned =
        || Kept::Owned { known: clusters.clone(), appeared: appeared.subscribe(), unknown: UnknownClusters::default() };
    let leases = watches.start((), ours.clone(), owned(), label, |lease: &Lease| {
        // Not its renewals.
        let holder = lease.spec.as_ref().map(|spec| (spec.holder_identity.as_ref(), spec.lease_transitions));
        let metadata = &lease.metadata;
        digest((holder, metadata.annotations.as_ref(), metadata.deletion_timestamp.is_some(), owners(metadata)))
    });
    let pods = watches.start((), ours_large.clone(), owned(), label, |pod: &ObservedPod| version(&pod.metadata));
    let deployments = watches
        .start((), ours_large.clone(), owned(), label, |deployment: &ObservedDeployment| version(&deployment.metadata));
    let config_maps = watches
        .start((), ours_large.clone(), owned(), label, |config_map: &ObservedConfigMap| version(&config_map.metadata));
    // Up to 100,000 addresses each.
    let slices =
        watches.start((), ours_large, owned(), label, |slice: &ObservedEndpointSlice| version(&slice.metadata));
    let mut others = HashMap::new();
    for kind in other_kinds() {
        let interest = |object: &Metadata| digest(fingerprint(&object.metadata));
        let store = watches.start(kind.clone(), ours.clone(), owned(), label, interest);
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
        ApiResource::erase::<networking::v1::Ingress>(&()),
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
            rest: IpFamily::ALL.into_iter().filter_map(|family| self.rest_slice(namespace, name, family)).collect(),
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

    fn rest_slice(&self, namespace: &str, name: &str, family: IpFamily) -> Option<Arc<ObservedEndpointSlice>> {
        self.slices.get(&ObjectRef::new(&family.rest_slice(name)).within(namespace))
    }

    /// UIDs and names of the resources of a namespace for which no JobManager has been made yet.
    pub fn unmade(&self, namespace: &str) -> Vec<(String, String)> {
        let is_unmade = |name: &str| {
            let deployment = ObjectRef::new(&names::job_manager(name)).within(namespace);
            self.deployments.get(&deployment).is_none()
        };
        let all = self.clusters.state().into_iter();
        let names = all.filter(|one| one.namespace().as_deref() == Some(namespace));
        let names = names.map(|one| (one.uid().unwrap_or_default(), one.name_any()));
        names.filter(|(_, name)| is_unmade(name)).collect()
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

    /// The digest of the pods' template that is noted on a Deployment.
    pub fn template(&self, namespace: &str, name: &str) -> Option<String> {
        let deployment = self.deployments.get(&ObjectRef::new(name).within(namespace))?;
        deployment.metadata.annotations.as_ref()?.get(TEMPLATE_ANNOTATION).cloned()
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

fn label(metadata: &ObjectMeta) -> Option<String> {
    labelled(metadata, CLUSTER_LABEL).map(str::to_owned)
}

fn own_name(metadata: &ObjectMeta) -> Option<String> {
    metadata.name.clone()
}

fn version(metadata: &ObjectMeta) -> u64 {
    digest(metadata.resource_version.as_ref())
}

struct Watches<'a> {
    client: &'a Client,
    /// None: all.
    namespaces: &'a [String],
    triggers: &'a Triggers,
    ignored: &'a Ignored,
    lists: Arc<Semaphore>,
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
        kept: Kept,
        cluster_of: fn(&ObjectMeta) -> Option<String>,
        interest: fn(&K) -> u64,
    ) -> Store<K>
    where
        K: Observable<Scope: NamespaceScope> + Clone + Debug + Send + Sync + 'static,
        K::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync,
    {
        let all: Api<Received<K>> = Api::all_with(self.client.clone(), &kind);
        let apis = match self.namespaces {
            [] => vec![all],
            namespaces => namespaces.iter().map(|namespace| all.clone().constrain(namespace)).collect(),
        };
        let writer = reflector::store::Writer::new(kind.clone());
        let store = writer.as_reader();
        let watch = KindWatch {
            kind,
            kept,
            writer,
            lists: Arc::clone(&self.lists),
            ignored: self.ignored.clone(),
            announcer: Announcer::new(cluster_of, interest, self.triggers.clone()),
            new: Vec::new(),
            namespaces: self.namespaces.to_vec(),
            listed: Listed::new(apis.len()),
        };
        self.running.spawn(watch.run(apis, config));
        let filling = store.clone();
        self.filling.push(Box::pin(async move { filling.wait_until_ready().await }));
        store
    }
}
