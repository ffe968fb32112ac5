//! What runs beside the operator in `make bench-operator`, in the place of gateways and of Kubernetes' controllers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::support::say;
use flinkha::api::names::{self, CLUSTER_LABEL};
use flinkha::lease::record::{Change, Member, Peers, Record};
use flinkha::lease::term::{Incarnation, Term};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use kube_runtime::watcher::{self, Event};
use serde_json::json;
use tokio::sync::oneshot;

/// Leases are renewed as often as gateways with promises of their peers do it.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);
/// Parts of the interval: renewals are spread over it.
const SLOTS: usize = 100;

/// What the Lease of a cluster says, and its version.
type Known = HashMap<usize, (Record, Option<String>)>;

/// The gateways of all clusters: each cluster's Lease is written every 10 s, by compare-and-swap.
#[derive(Clone)]
pub struct Gateways {
    client: kube::Client,
    place: fn(usize) -> (String, String),
    /// Leases of which no write is on its way.
    known: Arc<Mutex<Known>>,
    written: Arc<AtomicUsize>,
    pub failures: Arc<AtomicUsize>,
}

impl Gateways {
    /// `place`: namespace and name of a cluster.
    pub fn new(client: kube::Client, place: fn(usize) -> (String, String)) -> Self {
        Self { client, place, known: Arc::default(), written: Arc::default(), failures: Arc::default() }
    }

    /// The Lease of this cluster exists: it is renewed from now on, by nobody yet.
    pub fn add(&self, index: usize) {
        self.put(index, (Record::default(), None));
    }

    /// Writes of Leases so far.
    pub fn renewals(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Renews until it is dropped.
    pub async fn renew(self) {
        let mut ticks = tokio::time::interval(RENEWAL_INTERVAL / SLOTS as u32);
        for slot in (0..SLOTS).cycle() {
            ticks.tick().await;
            let due: Vec<usize> = {
                let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.keys().copied().filter(|index| index % SLOTS == slot).collect()
            };
            for index in due {
                let gateways = self.clone();
                tokio::spawn(async move {
                    let Some((record, version)) = gateways.take(index) else { return };
                    gateways.write(index, record, version, false).await;
                });
            }
        }
    }

    /// The first JobManager of a cluster of three is elected.
    pub async fn elect(&self, index: usize) {
        let (_, version) = self.wait(index).await;
        let name = (self.place)(index).1;
        let pod = |number: usize| format!("{name}-jobmanager-{number}");
        let member = |number: usize| Member { pod_uid: pod(number), address: format!("10.0.0.{number}:6181") };
        let jvm = Incarnation { pid: 1, started: 1 };
        let change = Change { term: 1, to: pod(0), why: "FirstLeader".to_owned(), ..Change::default() };
        let record = Record {
            holder: pod(0),
            term: Some(Term { number: 1, pod_uid: pod(0), process: "bench".to_owned(), jvm }),
            duration_millis: 15_000,
            change: Some(Change { at: Timestamp::now().to_string(), lock: "bench".to_owned(), ..change }),
            peers: Peers {
                address: "10.0.0.0:6181".to_owned(),
                promise_millis: 4000,
                members: vec![member(1), member(2)],
            },
            switchover: None,
        };
        self.write(index, record, version, true).await;
    }

    /// The leader of this cluster gives the Lease back, and nobody renews it any more.
    pub async fn release(&self, index: usize) {
        let (record, version) = self.wait(index).await;
        let why = "ShutDown".to_owned();
        let change = Change { from: record.holder.clone(), why, ..Change::default() };
        let free = Record { holder: String::new(), change: Some(change), peers: Peers::default(), ..record };
        self.write(index, free, version, false).await;
        self.take(index);
    }

    async fn write(&self, index: usize, record: Record, version: Option<String>, acquired: bool) {
        let (namespace, name) = (self.place)(index);
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &namespace);
        let mut patch = record.to_patch(version.as_deref().unwrap_or_default(), Timestamp::now(), acquired);
        if version.is_none() {
            // Null would remove it, and the API server updates no Lease without one.
            patch["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
        }
        if record == Record::default() {
            patch = json!({ "spec": { "renewTime": patch["spec"]["renewTime"] } });
        }
        let written = leases.patch(&names::lease(&name), &PatchParams::default(), &Patch::Merge(patch)).await;
        match &written {
            Ok(_) => self.written.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                say(format!("a gateway failed to write Lease {name}: {error}"));
                self.failures.fetch_add(1, Ordering::Relaxed)
            }
        };
        self.put(index, (record, written.ok().and_then(|lease| lease.resource_version())));
    }

    fn take(&self, index: usize) -> Option<(Record, Option<String>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&index)
    }

    fn put(&self, index: usize, known: (Record, Option<String>)) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(index, known);
    }

    async fn wait(&self, index: usize) -> (Record, Option<String>) {
        loop {
            if let Some(known) = self.take(index) {
                return known;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What ends the pods of a Deployment that is deleted in the foreground: the leader gives its Lease back, and the
/// garbage collector lets the Deployment go. `index` tells which cluster a name is. Tells once it is at work.
pub async fn collect_garbage(gateways: Gateways, index: fn(&str) -> usize, ready: oneshot::Sender<()>) {
    let all: Api<PartialObjectMeta<Deployment>> = Api::all(gateways.client.clone());
    let mut changes = Box::pin(watcher::watcher(all, watcher::Config::default().labels(CLUSTER_LABEL)));
    let mut ready = Some(ready);
    while let Some(change) = changes.next().await {
        let deployment = match change {
            Ok(Event::Apply(deployment)) => deployment,
            Ok(Event::InitDone) => {
                if let Some(ready) = ready.take() {
                    ready.send(()).expect("somebody who waits for it");
                }
                continue;
            }
            _ => continue,
        };
        let ends = deployment.metadata.deletion_timestamp.is_some() && !deployment.finalizers().is_empty();
        if !ends || !deployment.name_any().ends_with("-jobmanager") {
            continue;
        }
        let gateways = gateways.clone();
        tokio::spawn(async move {
            let cluster = deployment.labels().get(CLUSTER_LABEL).expect("a cluster's Deployment");
            gateways.release(index(cluster)).await;
            let namespace = deployment.namespace().expect("a namespace");
            let deployments: Api<Deployment> = Api::namespaced(gateways.client.clone(), &namespace);
            let collected = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            // Kubernetes' garbage collector asks for metadata only, too.
            let patched = deployments.patch_metadata(&deployment.name_any(), &PatchParams::default(), &collected).await;
            patched.expect("failed to let a Deployment go");
        });
    }
}
