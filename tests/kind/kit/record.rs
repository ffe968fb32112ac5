//! What happens to the pods of a cluster, and what the operator's events tell of it, in the order in which the API
//! server shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Mutex};

use flinkha::api::names;
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, ResourceExt};
use kube_runtime::WatchStreamExt;
use kube_runtime::watcher::{self, watcher};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cluster::Cluster;

/// A change of a pod, or an event about a FlinkHaCluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Created(String),
    Ready(String),
    Terminating(String),
    Gone(String),
    Restarted { pod: String, container: String },
    Event { warning: bool, reason: String, note: String },
}

impl What {
    /// The pod that came, went or was restarted. To become Ready is no such thing.
    pub fn moved(&self) -> Option<&str> {
        match self {
            Self::Created(pod) | Self::Terminating(pod) | Self::Gone(pod) | Self::Restarted { pod, .. } => Some(pod),
            Self::Ready(_) | Self::Event { .. } => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// When the API server has shown it.
    pub at: Timestamp,
    pub what: What,
}

impl Display for Entry {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.at.strftime("%H:%M:%S%.3f"))?;
        match &self.what {
            What::Created(pod) => write!(formatter, "pod {pod} was created"),
            What::Ready(pod) => write!(formatter, "pod {pod} is Ready"),
            What::Terminating(pod) => write!(formatter, "pod {pod} terminates"),
            What::Gone(pod) => write!(formatter, "pod {pod} is gone"),
            What::Restarted { pod, container } => write!(formatter, "container {container} of {pod} was restarted"),
            What::Event { warning: true, reason, note } => write!(formatter, "Warning {reason}: {note}"),
            What::Event { reason, note, .. } => write!(formatter, "event {reason}: {note}"),
        }
    }
}

type Entries = Arc<Mutex<Vec<Entry>>>;

/// Watches until it is dropped.
pub struct Record {
    entries: Entries,
    watches: [JoinHandle<()>; 2],
}

impl Record {
    /// Of what happens to the cluster from now on.
    pub async fn begin(cluster: &Cluster) -> Self {
        let entries = Entries::default();
        let (pods_listed, pods_known) = oneshot::channel();
        let (events_listed, events_known) = oneshot::channel();
        let events = Api::namespaced(cluster.client.clone(), &cluster.namespace.0);
        let watches = [
            tokio::spawn(watch_pods(cluster.pods_api(), cluster.name.clone(), Arc::clone(&entries), pods_listed)),
            tokio::spawn(watch_events(events, cluster.name.clone(), Arc::clone(&entries), events_listed)),
        ];
        pods_known.await.expect("a watch of the pods");
        events_known.await.expect("a watch of the events");
        Self { entries, watches }
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("no other thread has panicked").clone()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

fn note(entries: &Entries, what: What) {
    entries.lock().expect("no other thread has panicked").push(Entry { at: Timestamp::now(), what });
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    ready: bool,
    terminating: bool,
    /// By container.
    restarts: BTreeMap<String, i32>,
}

impl State {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let containers = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
        Self {
            ready: super::cluster::is_ready(pod),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            restarts: containers.map(|container| (container.name, container.restart_count)).collect(),
        }
    }
}

/// The pods that are known, by name.
#[derive(Default)]
struct Pods(BTreeMap<String, State>);

impl Pods {
    /// What has happened to a pod that now is so, or is gone.
    fn update(&mut self, pod: &str, now: Option<State>) -> Vec<What> {
        let name = || pod.to_owned();
        let before = self.0.get(pod).cloned();
        let Some(now) = now else {
            return self.0.remove(pod).map(|_| What::Gone(name())).into_iter().collect();
        };
        let mut happened = Vec::new();
        if before.is_none() {
            happened.push(What::Created(name()));
        }
        let before = before.unwrap_or_default();
        for (container, count) in &now.restarts {
            if *count > before.restarts.get(container).copied().unwrap_or_default() {
                happened.push(What::Restarted { pod: name(), container: container.clone() });
            }
        }
        if now.ready && !before.ready {
            happened.push(What::Ready(name()));
        }
        if now.terminating && !before.terminating {
            happened.push(What::Terminating(name()));
        }
        self.0.insert(name(), now);
        happened
    }
}

async fn watch_pods(api: Api<Pod>, cluster: String, entries: Entries, listed: oneshot::Sender<()>) {
    let (mut known, mut list, mut listed) = (Pods::default(), BTreeMap::new(), Some(listed));
    // By names, because somebody may change the labels.
    let own = [names::job_manager(&cluster), names::task_manager(&cluster)].map(|name| format!("{name}-"));
    let is_own = |pod: &str| own.iter().any(|own| pod.starts_with(own));
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let updates = match event {
            Ok(watcher::Event::InitApply(pod)) => {
                list.insert(pod.name_any(), State::of(&pod));
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                let list = std::mem::take(&mut list);
                let names: BTreeSet<String> = known.0.keys().chain(list.keys()).cloned().collect();
                names.into_iter().map(|name| (name.clone(), list.get(&name).cloned())).collect()
            }
            Ok(watcher::Event::Apply(pod)) => vec![(pod.name_any(), Some(State::of(&pod)))],
            Ok(watcher::Event::Delete(pod)) => vec![(pod.name_any(), None)],
            Ok(watcher::Event::Init) | Err(_) => {
                list.clear();
                continue;
            }
        };
        let updates = updates.into_iter().filter(|(pod, _): &(String, _)| is_own(pod));
        let happened = updates.flat_map(|(pod, now)| known.update(&pod, now)).collect::<Vec<_>>();
        match listed.take() {
            // What was there before is no news.
            Some(listed) => drop(listed.send(())),
            None => happened.into_iter().for_each(|what| note(&entries, what)),
        }
    }
}

async fn watch_events(api: Api<Event>, cluster: String, entries: Entries, listed: oneshot::Sender<()>) {
    let (mut known, mut listed) = (BTreeSet::new(), Some(listed));
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::InitApply(event) | watcher::Event::Apply(event)) => {
                let about = event.regarding.as_ref().map(|object| (object.kind.as_deref(), object.name.as_deref()));
                let new = known.insert(event.name_any());
                if listed.is_none() && new && about == Some((Some("FlinkHaCluster"), Some(cluster.as_str()))) {
                    let warning = event.type_.as_deref() == Some("Warning");
                    let (reason, text) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
                    note(&entries, What::Event { warning, reason, note: text });
                }
            }
            Ok(watcher::Event::InitDone) => drop(listed.take().map(|listed| listed.send(()))),
            Ok(watcher::Event::Init | watcher::Event::Delete(_)) | Err(_) => {}
        }
    }
}
