//! One cluster in a namespace of its own, and what kubelets, controllers and gateways write, by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{CHANGE_ANNOTATION, PEERS_ANNOTATION, TERM_ANNOTATION};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::by_hand;
use crate::support::operator::{Installation, condition};
use crate::support::seconds;

/// What is not told by then is silent.
const SILENT: Duration = seconds(60);
/// Time until a wait of a case that is no result is given up.
const LIMIT: Duration = seconds(90);
/// The leader's; an EndpointSlice takes no loopback address.
pub const ADDRESS: &str = "10.0.0.1";
pub const JOB_MANAGER: &str = "demo-jobmanager-a";
pub const STANDBY: &str = "demo-jobmanager-b";
pub const TASK_MANAGER: &str = "demo-taskmanager-a";

/// What a case has shown.
pub struct Seen {
    /// Type and reason of the condition that told, or what was reached.
    pub outcome: String,
    pub message: String,
    pub seconds: f64,
    pub silent: bool,
    /// It was told, and not as this version is to tell it.
    wrong: bool,
}

impl Seen {
    /// The case itself could not be carried out.
    pub fn broken(error: &str) -> Self {
        Self { outcome: "not carried out".into(), message: error.to_owned(), seconds: 0.0, silent: true, wrong: true }
    }

    pub fn reached(what: &str, after: Duration) -> Self {
        let seconds = after.as_secs_f64();
        Self { outcome: what.to_owned(), message: String::new(), seconds, silent: false, wrong: false }
    }

    pub fn failed(&self) -> bool {
        self.silent || self.wrong
    }
}

/// A namespace with the cluster `demo`.
pub struct World {
    pub installation: Arc<Installation>,
    pub namespace: String,
    /// What is not told is a failure, so that the case can end there.
    strict: bool,
}

impl World {
    pub async fn new(installation: &Arc<Installation>, case: &str, strict: bool) -> Self {
        let namespace: String = case.replace('_', "-").chars().take(60).collect();
        let namespace = namespace.trim_end_matches('-').to_owned();
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
        let namespaces: Api<Namespace> = Api::all(installation.admin.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        Self { installation: Arc::clone(installation), namespace, strict }
    }

    pub fn api<K: kube::Resource<DynamicType = ()>>(&self) -> Api<DynamicObject> {
        self.installation.api::<K>(&self.namespace)
    }

    pub fn cluster(&self, spec: Value) -> Value {
        let mut cluster = crate::support::operator::cluster(spec);
        cluster["metadata"]["namespace"] = json!(self.namespace);
        cluster
    }

    /// Applies the cluster with these fields of its spec.
    pub async fn apply(&self, spec: Value) {
        self.apply_object::<FlinkHaCluster>("demo", &self.cluster(spec)).await;
    }

    pub async fn apply_object<K: kube::Resource<DynamicType = ()>>(&self, name: &str, object: &Value) {
        let parameters = PatchParams::apply("user").force();
        self.api::<K>().patch(name, &parameters, &Patch::Apply(object)).await.unwrap();
    }

    pub async fn patch<K: kube::Resource<DynamicType = ()>>(&self, name: &str, patch: Value) {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn patch_status<K: kube::Resource<DynamicType = ()>>(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api::<K>().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// An object once it satisfies the probe; the case ends if it never does.
    pub async fn until<K: kube::Resource<DynamicType = ()>>(
        &self,
        name: &str,
        probe: impl Fn(&Value) -> bool,
    ) -> Value {
        let begin = Instant::now();
        loop {
            if let Some(found) = self.find::<K>(name).await
                && probe(&found)
            {
                return found;
            }
            assert!(begin.elapsed() < LIMIT, "{}: waited in vain for {} {name}", self.namespace, K::kind(&()));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn find<K: kube::Resource<DynamicType = ()>>(&self, name: &str) -> Option<Value> {
        let found = self.api::<K>().get_opt(name).await.expect("the API server answers")?;
        Some(serde_json::to_value(found).expect("an object"))
    }

    pub async fn resource(&self) -> Value {
        self.find::<FlinkHaCluster>("demo").await.unwrap_or_default()
    }

    /// Waits until a condition contains all these words, and judges its reason.
    pub async fn told(&self, reason: &str, words: &[&str]) -> Seen {
        let begin = Instant::now();
        let mut told = None;
        loop {
            let resource = self.resource().await;
            let conditions = resource["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let says = |condition: &&Value| {
                let message = condition["message"].as_str().unwrap_or_default();
                words.iter().all(|word| message.contains(word))
            };
            let of_reason = conditions.iter().filter(|one| one["reason"] == reason).find(says);
            if told.is_none() && conditions.iter().any(|condition| says(&condition)) {
                told = Some(begin.elapsed());
            }
            let seconds = told.unwrap_or(begin.elapsed()).as_secs_f64();
            let silent = told.is_none();
            if let Some(found) = of_reason {
                return seen(found, seconds, silent, false);
            }
            let limit = if self.strict { SILENT + crate::support::seconds(30) } else { SILENT };
            if begin.elapsed() > limit {
                return match conditions.iter().find(says) {
                    Some(found) => seen(found, seconds, silent, true),
                    None => {
                        let degraded = condition(&resource, "Degraded");
                        let said = degraded["reason"].as_str().unwrap_or_default();
                        let message = degraded["message"].as_str().unwrap_or_default().to_owned();
                        Seen { outcome: format!("silent ({said})"), message, seconds, silent: true, wrong: true }
                    }
                };
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until the resource is as it is to become by itself.
    pub async fn reaches(&self, what: &str, probe: impl Fn(&Value) -> bool) -> Seen {
        let begin = Instant::now();
        loop {
            let resource = self.resource().await;
            let seconds = begin.elapsed().as_secs_f64();
            if probe(&resource) {
                return Seen::reached(what, begin.elapsed());
            }
            if begin.elapsed() > SILENT {
                let message = condition(&resource, "Ready")["message"].as_str().unwrap_or_default().to_owned();
                return Seen { outcome: format!("never: {what}"), message, seconds, silent: true, wrong: true };
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// The cause has been removed: the condition says so.
    pub async fn lifted(&self, seen: Seen, reason: &str) -> Seen {
        if seen.failed() || !self.strict {
            return seen;
        }
        let begin = Instant::now();
        while condition(&self.resource().await, "Degraded")["reason"] == reason {
            if begin.elapsed() > LIMIT {
                return Seen { outcome: format!("{reason} stays"), wrong: true, ..seen };
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        seen
    }

    /// A session that works: its pods are ready, `demo-jobmanager-a` leads.
    pub async fn works(&self) {
        self.apply(json!({})).await;
        self.pods_run().await;
    }

    /// What Kubernetes and the gateways do once the operator has made its objects.
    pub async fn pods_run(&self) {
        self.until::<ConfigMap>("demo-ledger", |_| true).await;
        for (name, replicas) in [("demo-jobmanager", 2), ("demo-taskmanager", 1)] {
            self.until::<Deployment>(name, |_| true).await;
            self.carried_out(name, replicas).await;
        }
        self.pod(JOB_MANAGER, ready()).await;
        self.pod(STANDBY, ready()).await;
        self.pod(TASK_MANAGER, ready()).await;
        self.lease(JOB_MANAGER, taken(JOB_MANAGER), 600).await;
        self.addresses(&[ADDRESS]).await;
    }

    /// The Deployment's controller has done what the spec says.
    pub async fn carried_out(&self, name: &str, replicas: i64) {
        let deployment = self.until::<Deployment>(name, |_| true).await;
        let generation = &deployment["metadata"]["generation"];
        let status = json!({
            "observedGeneration": generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": replicas,
            "availableReplicas": replicas,
        });
        self.patch_status::<Deployment>(name, status).await;
    }

    /// Does what the controllers do when Deployments are scaled to zero.
    pub async fn scaled_to_zero(&self) {
        for name in ["demo-jobmanager", "demo-taskmanager"] {
            self.until::<Deployment>(name, |found| found["spec"]["replicas"] == 0).await;
            self.carried_out(name, 0).await;
        }
    }

    /// A pod of the cluster in this status.
    pub async fn pod(&self, name: &str, status: Value) {
        self.pod_with(name, json!({}), status).await;
    }

    pub async fn pod_with(&self, name: &str, change: Value, status: Value) {
        let component = if name.contains("taskmanager") { "taskmanager" } else { "jobmanager" };
        let account = format!("demo-{component}");
        let mut pod = by_hand::pod(name, &account, Some("demo"));
        flinkha::cluster::merge::merge(&mut pod, change);
        let pod = serde_json::from_value(pod).unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        self.patch_status::<Pod>(name, status).await;
    }

    /// The pod ends, and goes.
    pub async fn end(&self, pod: &str) {
        self.api::<Pod>().delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// What a kubelet, a scheduler or a controller warns of.
    pub async fn warning(&self, pod: &str, reason: &str, message: &str) {
        let uid = self.until::<Pod>(pod, |_| true).await["metadata"]["uid"].clone();
        let object = json!({ "kind": "Pod", "namespace": self.namespace, "name": pod, "uid": uid });
        let now = jiff::Timestamp::now();
        let event = json!({
            "metadata": { "name": format!("{pod}.1") },
            "involvedObject": object,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": format!("{now:.0}"),
            "count": 3,
        });
        let event = serde_json::from_value(event).unwrap();
        self.api::<Event>().create(&PostParams::default(), &event).await.unwrap();
    }

    /// Writes the Lease as the gateway of its holder does.
    pub async fn lease(&self, holder: &str, change: Value, duration: u32) {
        let now = jiff::Timestamp::now();
        let mut members = Vec::new();
        for pod in [JOB_MANAGER, STANDBY] {
            members.extend(
                self.find::<Pod>(pod).await.map(|pod| json!({ "podUid": pod["metadata"]["uid"], "address": "" })),
            );
        }
        let peers = json!({ "address": "127.0.0.1:6181", "promiseMillis": 4000, "members": members });
        let patch = json!({
            "metadata": {
                "annotations": {
                    TERM_ANNOTATION: "1.uid.process.1-1",
                    CHANGE_ANNOTATION: change.to_string(),
                    PEERS_ANNOTATION: (!holder.is_empty()).then(|| peers.to_string()),
                },
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration,
                "renewTime": format!("{now:.6}"),
                "acquireTime": format!("{now:.6}"),
            },
        });
        self.until::<Lease>("demo", |_| true).await;
        self.patch::<Lease>("demo", patch).await;
    }

    /// Writes a key of the ledger as a leading gateway does.
    pub async fn ledger(&self, key: &str, value: &Value) {
        self.until::<ConfigMap>("demo-ledger", |_| true).await;
        self.patch::<ConfigMap>("demo-ledger", json!({ "data": { key: value.to_string() } })).await;
    }

    pub async fn ledger_annotation(&self, key: &str, value: Option<&str>) {
        self.until::<ConfigMap>("demo-ledger", |_| true).await;
        self.patch::<ConfigMap>("demo-ledger", json!({ "metadata": { "annotations": { key: value } } })).await;
    }

    /// The leader's address, as its gateway publishes it.
    pub async fn addresses(&self, addresses: &[&str]) {
        self.until::<EndpointSlice>("demo-rest", |_| true).await;
        let endpoints: Vec<Value> = addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
        self.patch::<EndpointSlice>("demo-rest", json!({ "endpoints": endpoints })).await;
    }

    /// Deletes the resource, and does what the garbage collector does once all pods of the ReplicaSet are gone.
    pub async fn delete(&self) {
        self.api::<FlinkHaCluster>().delete("demo", &DeleteParams::default()).await.unwrap();
        let deleting = |deployment: &Value| deployment["metadata"]["deletionTimestamp"].is_string();
        self.until::<Deployment>("demo-jobmanager", deleting).await;
        self.patch::<Deployment>("demo-jobmanager", json!({ "metadata": { "finalizers": null } })).await;
    }

    pub async fn events(&self, reason: &str) -> Vec<String> {
        let events = self.api::<k8s_openapi::api::events::v1::Event>().list(&ListParams::default()).await.unwrap();
        let of_reason = events.items.iter().filter(|event| event.data["reason"] == reason);
        of_reason.map(|event| event.data["note"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn seen(condition: &Value, seconds: f64, silent: bool, wrong: bool) -> Seen {
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let outcome = format!("{}/{}", text("type"), text("reason"));
    Seen { outcome, message: text("message"), seconds, silent: silent || seconds > SILENT.as_secs_f64(), wrong }
}

/// The status of a pod that works.
pub fn ready() -> Value {
    let now = format!("{:.0}", jiff::Timestamp::now());
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": now });
    json!({
        "phase": "Running",
        "conditions": [condition("PodScheduled"), condition("Ready")],
        "containerStatuses": [container(json!({ "running": { "startedAt": now } }), true)],
    })
}

/// The status of a pod that is scheduled and whose container is in this state.
pub fn pending(state: Value) -> Value {
    json!({
        "phase": "Pending",
        "conditions": [{ "type": "PodScheduled", "status": "True" }],
        "containerStatuses": [container(state, false)],
    })
}

pub fn container(state: Value, ready: bool) -> Value {
    json!({
        "name": "flink-main-container",
        "image": "flink:2.3.0",
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    })
}

/// The record of a leader's election, now.
pub fn taken(pod: &str) -> Value {
    let mut record = by_hand::taken(pod);
    record["at"] = format!("{:.3}", jiff::Timestamp::now()).into();
    record
}
