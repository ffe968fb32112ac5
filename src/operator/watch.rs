//! One watch over all namespaces, or over some: what it keeps, whom it tells, and when it begins anew.
//!
//! Objects are kept only of clusters that are known, and only under the names that a cluster's objects have: anybody
//! may label an object as ours. When a cluster becomes known whose objects were ignored before, the watch begins anew.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use kube::core::ObjectMeta;
use kube::{Api, Resource};
use kube_runtime::reflector::store::Writer;
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::watcher::Event;
use kube_runtime::{WatchStreamExt, watcher};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::ignored::Ignored;
use super::kinds::Observable;
use super::namespaces::{ListPhase, Listed, NamespaceWatches};
use super::received::Received;
use crate::api::FlinkHaCluster;
use crate::api::names::{CLUSTER_LABEL, is_of_cluster};
use crate::cluster::operators::Selection;
use crate::world::error_text::chain;

/// A watch begins anew at most once in this time for clusters that become known.
const PAUSE: Duration = Duration::from_secs(5);
/// Clusters that are not known and whose objects were ignored: so many are told apart.
const UNKNOWN: usize = 10_000;

type ClusterRef = ObjectRef<FlinkHaCluster>;

/// Which objects are kept.
pub enum Kept {
    /// Resources that this operator selects. Who waits for them learns of new ones.
    Resources { appeared: Sender<ClusterRef>, selection: Option<Selection> },
    /// Objects of resources that are known.
    Owned { known: Store<FlinkHaCluster>, appeared: Receiver<ClusterRef>, unknown: UnknownClusters },
}

/// Clusters that are not known and whose objects were ignored, by a digest of namespace and name.
#[derive(Default)]
pub struct UnknownClusters {
    digests: HashSet<u64>,
    /// There were more.
    overflowed: bool,
}

impl UnknownClusters {
    fn add(&mut self, cluster: &ClusterRef) {
        if self.digests.len() < UNKNOWN {
            self.digests.insert(digest_of(cluster));
        } else {
            self.overflowed = true;
        }
    }

    fn may_contain(&self, cluster: &ClusterRef) -> bool {
        self.overflowed || self.digests.contains(&digest_of(cluster))
    }
}

/// The value of a label.
pub fn labelled<'a>(metadata: &'a ObjectMeta, label: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(label).map(String::as_str)
}

/// A number that is the same for the same value, in this process.
pub fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn digest_of(cluster: &ClusterRef) -> u64 {
    digest((&cluster.namespace, &cluster.name))
}

/// A watch of one kind.
pub struct KindWatch<K: Observable + Clone + 'static>
where
    K::DynamicType: Eq + Hash + Clone,
{
    pub kind: K::DynamicType,
    pub kept: Kept,
    pub writer: Writer<K>,
    /// Lists are read one after another: their answers are the largest things in memory.
    pub lists: Arc<Semaphore>,
    pub ignored: Ignored,
    pub announcer: Announcer<K>,
    /// Resources of the present list that were not known before: they are when it is done.
    pub new: Vec<ClusterRef>,
    /// What is watched, one watch each; none: all namespaces, by one watch.
    pub namespaces: Vec<String>,
    pub listed: Listed<ObjectRef<K>>,
}

impl<K> KindWatch<K>
where
    K: Observable + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync,
{
    /// Watches these namespaces until a stream ends by itself, which none ever does.
    pub async fn run(mut self, apis: Vec<Api<Received<K>>>, config: watcher::Config) {
        loop {
            let one = |api: &Api<Received<K>>| watcher(api.clone(), config.clone()).default_backoff().boxed();
            self.listed = Listed::new(apis.len());
            if !self.follow(NamespaceWatches::new(apis.iter().map(one).collect())).await {
                return;
            }
        }
    }

    /// Follows watches until they have to begin anew; `false`: one has ended.
    async fn follow(&mut self, mut watches: NamespaceWatches<Received<K>>) -> bool {
        let mut list: Option<OwnedSemaphorePermit> = None;
        let (mut since, mut due) = (Instant::now(), None);
        loop {
            let may_begin_anew = due.is_some() && list.is_none() && !watches.is_first();
            let said = tokio::select! {
                said = watches.next() => said,
                is_wanted = self.kept.wanted() => {
                    due = due.or(is_wanted.then(|| since + PAUSE));
                    continue;
                }
                () = sleep_until(due.unwrap_or(since)), if may_begin_anew => return true,
            };
            match said {
                Some((watch, Ok(event), phase)) => {
                    match &event {
                        // The list is read when the stream is asked for more. The semaphore is never closed.
                        Event::Init => {
                            list = Arc::clone(&self.lists).acquire_owned().await.ok();
                            since = Instant::now();
                        }
                        Event::InitDone => list = None,
                        Event::Apply(_) | Event::InitApply(_) | Event::Delete(_) => {}
                    }
                    self.take(watch, event, phase);
                }
                Some((_, Err(error), _)) => {
                    list = None;
                    let kind = K::kind(&self.kind);
                    tracing::warn!(%kind, error = %chain(&error), "a watch was interrupted and begins anew");
                }
                None => return false,
            }
        }
    }

    /// Takes a part of the first list, which is that of all namespaces, or what comes afterwards.
    fn take(&mut self, watch: usize, event: Event<Received<K>>, phase: ListPhase) {
        match event {
            event if phase == ListPhase::Later => self.take_later(watch, event),
            Event::Init => {
                self.listed.begin(watch);
                if watch == 0 {
                    self.kept.forget_unknown();
                    self.store(Event::Init);
                }
            }
            Event::InitApply(received) => {
                if let Some(object) = self.admit(received) {
                    self.listed.add(watch, ObjectRef::from_obj_with(&object, self.kind.clone()));
                    self.store(Event::InitApply(object));
                }
            }
            Event::InitDone if phase == ListPhase::FirstDone => {
                self.store(Event::InitDone);
                // A namespace may have been listed twice, after an error.
                (0..self.namespaces.len()).for_each(|watch| self.remove_unlisted(watch));
            }
            // While the lists of others are read, nobody is asked for changes.
            Event::InitDone | Event::Apply(_) | Event::Delete(_) => {}
        }
    }

    /// Takes what comes afterwards: changes, and a list of one of several namespaces.
    fn take_later(&mut self, watch: usize, event: Event<Received<K>>) {
        let is_listed = matches!(event, Event::InitApply(_));
        match event {
            Event::Init => self.listed.begin(watch),
            Event::InitDone => self.remove_unlisted(watch),
            Event::InitApply(received) | Event::Apply(received) => {
                let reference = reference(&received, &self.kind);
                match self.admit(received) {
                    Some(object) => {
                        if is_listed {
                            self.listed.add(watch, reference);
                        }
                        self.store(Event::Apply(object));
                    }
                    None => self.remove(&reference),
                }
            }
            Event::Delete(received) => {
                if let Kept::Resources { selection: Some(selection), .. } = &self.kept
                    && let Some(note) = selection.left(received.meta())
                {
                    self.ignored.tell(received.meta(), note);
                }
                self.remove(&reference(&received, &self.kind));
            }
        }
    }

    fn remove(&mut self, reference: &ObjectRef<K>) {
        if let Some(known) = self.writer.as_reader().get(reference) {
            self.store(Event::Delete(K::clone(&known)));
        }
    }

    /// Removes what a list that has ended does not show.
    fn remove_unlisted(&mut self, watch: usize) {
        let several = self.namespaces.len() > 1;
        let Some(namespace) = self.namespaces.get(watch).filter(|_| several).cloned() else { return };
        let is_gone = |object: &Arc<K>| {
            object.meta().namespace.as_ref() == Some(&namespace)
                && self.listed.lacks(watch, &ObjectRef::from_obj_with(&**object, self.kind.clone()))
        };
        let gone: Vec<Arc<K>> = self.writer.as_reader().state().into_iter().filter(is_gone).collect();
        self.listed.begin(watch);
        gone.into_iter().for_each(|object| self.store(Event::Delete(K::clone(&object))));
    }

    fn store(&mut self, event: Event<K>) {
        let new = self.new_resource(&event);
        self.writer.apply_watcher_event(&event);
        match (&event, new) {
            (Event::InitApply(_), Some(new)) => self.new.push(new),
            (Event::InitDone, _) => std::mem::take(&mut self.new).into_iter().for_each(|new| self.kept.appears(new)),
            (_, Some(new)) => self.kept.appears(new),
            (_, None) => {}
        }
        self.announcer.announce(event);
    }

    /// The resource that this event makes known.
    fn new_resource(&self, event: &Event<K>) -> Option<ClusterRef> {
        let (Kept::Resources { .. }, Event::Apply(object) | Event::InitApply(object)) = (&self.kept, event) else {
            return None;
        };
        let is_new = self.writer.as_reader().get(&ObjectRef::from_obj_with(object, self.kind.clone())).is_none();
        is_new.then(|| cluster(object.meta(), object.meta().name.as_deref().unwrap_or_default()))
    }

    /// An object that is to be kept.
    fn admit(&mut self, received: Received<K>) -> Option<K> {
        let object = match received {
            Received::Read(object) => object,
            Received::Unread(metadata, why) => {
                self.ignored.unread(&K::kind(&self.kind), &metadata, &why);
                return None;
            }
        };
        let kind = K::kind(&self.kind);
        match self.kept.whose(&kind, object.meta()) {
            Whose::Clusters => return Some(object),
            Whose::Anothers => self.ignored.foreign(&kind, object.meta()),
            Whose::Copied => {}
        }
        None
    }
}

fn reference<K: Resource>(received: &Received<K>, kind: &K::DynamicType) -> ObjectRef<K>
where
    K::DynamicType: Clone,
{
    let metadata = received.meta();
    let reference = ObjectRef::new_with(metadata.name.as_deref().unwrap_or_default(), kind.clone());
    match &metadata.namespace {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

fn cluster(metadata: &ObjectMeta, name: &str) -> ClusterRef {
    ObjectRef::new(name).within(metadata.namespace.as_deref().unwrap_or_default())
}

/// Whose an object is that carries our label.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    /// A cluster's that is known.
    Clusters,
    /// Of a cluster that is known, under a name that none of its objects has: Kubernetes gives the EndpointSlices of a
    /// Service its labels.
    Copied,
    /// Of no cluster that is known.
    Anothers,
}

impl Kept {
    fn whose(&mut self, kind: &str, metadata: &ObjectMeta) -> Whose {
        let Self::Owned { known, unknown, .. } = self else { return Whose::Clusters };
        let Some(name) = labelled(metadata, CLUSTER_LABEL) else { return Whose::Anothers };
        let cluster = cluster(metadata, name);
        let is_ours = is_of_cluster(kind, metadata.name.as_deref().unwrap_or_default(), name);
        match (known.get(&cluster).is_some(), is_ours) {
            (true, true) => Whose::Clusters,
            (true, false) => Whose::Copied,
            (false, is_ours) => {
                if is_ours {
                    unknown.add(&cluster);
                }
                Whose::Anothers
            }
        }
    }

    fn appears(&self, cluster: ClusterRef) {
        if let Self::Resources { appeared, .. } = self {
            // While the first list is read nobody waits.
            let _ = appeared.send(cluster);
        }
    }

    fn forget_unknown(&mut self) {
        if let Self::Owned { unknown, .. } = self {
            *unknown = UnknownClusters::default();
        }
    }

    /// Waits for a cluster that becomes known: have objects of it been ignored?
    async fn wanted(&mut self) -> bool {
        let Self::Owned { appeared, unknown, .. } = self else { return std::future::pending().await };
        match appeared.recv().await {
            Ok(cluster) => unknown.may_contain(&cluster),
            Err(RecvError::Lagged(_)) => !unknown.digests.is_empty(),
            // No resource is watched any more: the process ends.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// What is remembered of an object to tell whether a change matters.
struct LastSeen {
    interest: u64,
    cluster: Option<ClusterRef>,
    /// Seen since the watch last began anew.
    seen: bool,
}

/// Announces changes that matter, deletions, and deletions that happened while the watch was interrupted.
pub struct Announcer<K> {
    cluster_of: fn(&ObjectMeta) -> Option<String>,
    interest: fn(&K) -> u64,
    triggers: UnboundedSender<ClusterRef>,
    known: HashMap<(Option<String>, Option<String>), LastSeen>,
}

impl<K: Resource> Announcer<K> {
    /// `cluster_of` tells whose an object is; a change of `interest` makes that cluster reconcile.
    pub fn new(
        cluster_of: fn(&ObjectMeta) -> Option<String>,
        interest: fn(&K) -> u64,
        triggers: UnboundedSender<ClusterRef>,
    ) -> Self {
        Self { cluster_of, interest, triggers, known: HashMap::new() }
    }

    fn announce(&mut self, event: Event<K>) {
        let Self { cluster_of, interest, triggers, known } = self;
        let announce = |cluster: Option<ClusterRef>| {
            if let Some(cluster) = cluster {
                // The receiver is gone only when the process ends.
                let _ = triggers.unbounded_send(cluster);
            }
        };
        let key = |object: &K| (object.meta().namespace.clone(), object.meta().name.clone());
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let of_object = cluster_of(object.meta()).map(|name| cluster(object.meta(), &name));
                let now = LastSeen { interest: interest(&object), cluster: of_object.clone(), seen: true };
                let mut before = known.insert(key(&object), now);
                // A label was changed: it is gone from the cluster that it belonged to.
                if let Some(before) = before.take_if(|before| before.cluster != of_object) {
                    announce(before.cluster);
                }
                if before.is_none_or(|before| before.interest != interest(&object)) {
                    announce(of_object);
                }
            }
            Event::Delete(object) => announce(known.remove(&key(&object)).and_then(|known| known.cluster)),
            Event::Init => known.values_mut().for_each(|known| known.seen = false),
            Event::InitDone => known.retain(|_, known| {
                if !known.seen {
                    announce(known.cluster.take());
                }
                known.seen
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::broadcast;

    use super::*;

    fn known(name: &str) -> Store<FlinkHaCluster> {
        let spec = json!({ "image": "flink", "highAvailability": { "storageDir": "file:///ha" } });
        let resource = json!({ "metadata": { "name": name, "namespace": "flink" }, "spec": spec });
        let mut writer = Writer::<FlinkHaCluster>::new(());
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(resource).expect("a resource")));
        writer.as_reader()
    }

    #[test]
    fn an_object_is_kept_for_a_known_cluster_and_under_the_name_that_its_objects_have() {
        let (_sender, appeared) = broadcast::channel(1);
        let mut kept = Kept::Owned { known: known("demo"), appeared, unknown: UnknownClusters::default() };
        for (kind, namespace, name, cluster, expected) in [
            ("ConfigMap", "flink", "demo-ledger", Some("demo"), Whose::Clusters),
            ("NetworkPolicy", "flink", "demo-flinkha", Some("demo"), Whose::Clusters),
            ("Pod", "flink", "demo-jobmanager-7f-x", Some("demo"), Whose::Clusters),
            ("EndpointSlice", "flink", "demo-jobmanagers-x", Some("demo"), Whose::Copied),
            ("ConfigMap", "flink", "demo-ledger", None, Whose::Anothers),
            ("ConfigMap", "elsewhere", "demo-ledger", Some("demo"), Whose::Anothers),
            ("ConfigMap", "flink", "other-x", Some("other"), Whose::Anothers),
            ("ConfigMap", "flink", "third-ledger", Some("third"), Whose::Anothers),
        ] {
            let labels = cluster.map(|cluster| json!({ CLUSTER_LABEL: cluster }));
            let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
            let metadata = serde_json::from_value(metadata).expect("metadata");
            assert_eq!(kept.whose(kind, &metadata), expected, "{kind} {namespace}/{name} of {cluster:?}");
        }
        // Whose objects are read again when their resource comes.
        let Kept::Owned { unknown, .. } = kept else { panic!("not what was made") };
        let may_contain = |namespace: &str, name: &str| {
            let metadata = ObjectMeta { namespace: Some(namespace.to_owned()), ..ObjectMeta::default() };
            unknown.may_contain(&cluster(&metadata, name))
        };
        assert!(may_contain("flink", "third") && may_contain("elsewhere", "demo"));
        assert!(!may_contain("flink", "other") && !may_contain("flink", "demo"));
    }
}
