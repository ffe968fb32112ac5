//! Nothing goes on under a living JobManager, whatever its labels: neither a deletion nor an application's next
//! version. The operator against a real kube-apiserver; there are no kubelets and no controllers, so that pods and
//! Leases are what a test makes of them.

use std::time::Duration;

use crate::support::by_hand;
use crate::support::operator::{Installation, NAMESPACE, cluster, condition};
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{self, CHANGE_ANNOTATION, LEFT_ANNOTATION, TERM_ANNOTATION};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

const JOB: &str = "0123456789abcdef0123456789abcdef";
pub const DEMO: (&str, &str) = (NAMESPACE, "demo");

pub fn says(object: &Value, reason: &str, words: &[&str]) -> bool {
    let degraded = condition(object, "Degraded");
    let message = degraded["message"].as_str().unwrap_or_default();
    degraded["reason"] == reason && words.iter().all(|word| message.contains(word))
}

/// See [`by_hand::pod`].
pub async fn pod(installation: &Installation, name: &str, service_account: &str, instance: Option<&str>) {
    let pod = by_hand::pod(name, service_account, instance);
    let pods: Api<Pod> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

pub async fn end(installation: &Installation, pod: &str) {
    installation.api::<Pod>(NAMESPACE).delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
}

/// Writes the Lease as the gateway of its holder does.
pub async fn lease(installation: &Installation, holder: &str, change: Value) {
    let now = jiff::Timestamp::now();
    let patch = json!({
        "metadata": { "annotations": { TERM_ANNOTATION: "1.uid.process.1-1", CHANGE_ANNOTATION: change.to_string() } },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 2, "renewTime": format!("{now:.6}") },
    });
    installation.api::<Lease>(NAMESPACE).patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

pub fn taken() -> Value {
    by_hand::taken("demo-jobmanager-a")
}

fn given_back() -> Value {
    by_hand::given_back("demo-jobmanager-a")
}

/// What Flink and its gateway have stored of a job: a plan and a pointer to a checkpoint.
pub async fn store(installation: &Installation, job: &str) {
    let config_maps: Api<ConfigMap> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let labels = json!({ "app": "demo", "type": "flink-native-kubernetes" });
    for (name, key) in [
        ("demo-cluster-config-map".to_owned(), format!("executionPlan-{job}")),
        (format!("demo-{job}-config-map"), "checkpointID-1".to_owned()),
    ] {
        let annotations = json!({ TERM_ANNOTATION: "1.uid.process.1-1" });
        let metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
        let config_map = json!({ "metadata": metadata, "data": { key: "pointer" } });
        config_maps.create(&PostParams::default(), &serde_json::from_value(config_map).unwrap()).await.unwrap();
    }
}

/// A cluster whose HA data goes with it, and one pod of it whose label somebody has removed.
async fn with_stray(installation: &Installation) {
    store(installation, JOB).await;
    installation.apply(&cluster(json!({ "haData": { "onDelete": "Delete" } })));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    pod(installation, "demo-jobmanager-a", "demo-jobmanager", None).await;
    lease(installation, "demo-jobmanager-a", taken()).await;
}

/// Deletes the resource, and does what the garbage collector would do when all pods of the ReplicaSet are gone.
pub async fn delete(installation: &Installation) {
    installation.api::<FlinkHaCluster>(NAMESPACE).delete("demo", &DeleteParams::default()).await.unwrap();
    let deleting = |deployment: &Value| deployment["metadata"]["deletionTimestamp"].is_string();
    installation.until::<Deployment>("the JobManagers to be deleted", (NAMESPACE, "demo-jobmanager"), deleting).await;
    let collected = json!({ "metadata": { "finalizers": null } });
    let deployments = installation.api::<Deployment>(NAMESPACE);
    deployments.patch("demo-jobmanager", &PatchParams::default(), &Patch::Merge(collected)).await.unwrap();
}

async fn left(installation: &Installation) -> usize {
    let config_maps = installation.api::<ConfigMap>(NAMESPACE);
    config_maps.list(&ListParams::default().labels("type=flink-native-kubernetes")).await.unwrap().items.len()
}

/// Does what the controllers do when the Deployments of the cluster `demo` are scaled to zero.
pub async fn scaled_to_zero(installation: &Installation) {
    all_scaled_to_zero(installation, "demo").await;
}

/// The same for any cluster.
pub async fn all_scaled_to_zero(installation: &Installation, cluster: &str) {
    for name in [names::job_manager(cluster), names::task_manager(cluster)] {
        let is_zero = |found: &Value| found["spec"]["replicas"] == 0;
        let deployment = installation.until::<Deployment>(&name, (NAMESPACE, &name), is_zero).await;
        let status = json!({ "status": { "observedGeneration": deployment["metadata"]["generation"], "replicas": 0 } });
        let deployments = installation.api::<Deployment>(NAMESPACE);
        deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

pub async fn is_gone(installation: &Installation, limit: Duration) {
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    eventually("the resource to be gone", limit, async || {
        resources.get_opt("demo").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_a_job_manager_whose_label_was_removed() {
    let installation = Installation::start(NAMESPACE).await;
    with_stray(&installation).await;
    delete(&installation).await;
    // It leads on.
    for _ in 0..8 {
        lease(&installation, "demo-jobmanager-a", taken()).await;
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(left(&installation).await, 2, "HA data was deleted under a living JobManager");
    }
    let told = |object: &Value| {
        let label = "kubectl label pod demo-jobmanager-a app.kubernetes.io/instance=demo";
        says(object, "DeletionWaits", &["demo-jobmanager-a", "kubectl delete pod demo-jobmanager-a", label])
    };
    installation.until::<FlinkHaCluster>("the cause and the way out", DEMO, told).await;

    // Its pod is removed by force, and its process lives.
    end(&installation, "demo-jobmanager-a").await;
    for _ in 0..10 {
        lease(&installation, "demo-jobmanager-a", taken()).await;
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(left(&installation).await, 2, "HA data was deleted although the Lease is still renewed");
    }
    lease(&installation, "", given_back()).await;
    is_gone(&installation, seconds(60)).await;
    assert_eq!(left(&installation).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proven_in_time_is_left_and_told_of() {
    let installation = Installation::start_with_flags(NAMESPACE, &["--deletion-deadline", "8s"]).await;
    with_stray(&installation).await;
    delete(&installation).await;
    is_gone(&installation, seconds(60)).await;
    assert_eq!(left(&installation).await, 2, "HA data was deleted under a living JobManager");
    let ledger = installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let note = ledger["metadata"]["annotations"][LEFT_ANNOTATION].as_str().expect("what was left").to_owned();
    for words in ["demo-cluster-config-map", JOB, "file:///flink/ha", "demo-jobmanager-a"] {
        assert!(note.contains(words), "{words} in {note}");
    }
    let events = installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
    let told = events.items.iter().find(|event| event.data["reason"] == "HaDataLeft").expect("an event");
    assert_eq!(told.data["type"], "Warning");
    assert!(told.data["note"].as_str().unwrap().contains("demo-jobmanager-a"), "{told:?}");

    // The same resource again owns what was left.
    installation.apply(&cluster(json!({})));
    let lifted = |ledger: &Value| ledger["metadata"]["annotations"][LEFT_ANNOTATION].is_null();
    installation.until::<ConfigMap>("no note any more", (NAMESPACE, "demo-ledger"), lifted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_waits_for_pods_whose_label_was_removed() {
    let installation = Installation::start(NAMESPACE).await;
    let version = |argument: &str| cluster(json!({ "job": { "jarURI": "local:///app.jar", "args": [argument] } }));
    installation.apply(&version("1"));
    let phase = |phase: &'static str| move |object: &Value| object["status"]["application"]["phase"] == phase;
    installation.until::<FlinkHaCluster>("the first version", DEMO, phase("Starting")).await;
    pod(&installation, "demo-jobmanager-a", "demo-jobmanager", None).await;
    pod(&installation, "demo-taskmanager-a", "demo-taskmanager", None).await;
    installation.apply(&version("2"));
    scaled_to_zero(&installation).await;
    for _ in 0..5 {
        tokio::time::sleep(seconds(1)).await;
        let deployment =
            installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-jobmanager"), |_| true).await;
        assert_eq!(deployment["spec"]["replicas"], 0, "another version was started under a living JobManager");
    }
    // Of another cluster; somebody has given it our label.
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "other-jobmanager", "namespace": NAMESPACE } });
    installation.apply(&account);
    pod(&installation, "other-jobmanager-a", "other-jobmanager", Some("demo")).await;
    let told = |pod: &'static str| move |object: &Value| says(object, "PodsRemain", &[pod, "kubectl delete pod"]);
    let resource = installation.until::<FlinkHaCluster>("the cause", DEMO, told("demo-jobmanager-a")).await;
    assert_eq!(resource["status"]["application"]["phase"], "Upgrading");

    end(&installation, "demo-jobmanager-a").await;
    installation.until::<FlinkHaCluster>("the other cause", DEMO, told("demo-taskmanager-a")).await;
    end(&installation, "demo-taskmanager-a").await;
    let resource = installation.until::<FlinkHaCluster>("the next version", DEMO, phase("Starting")).await;
    assert_eq!(resource["status"]["jobManager"]["replicas"], 0, "a pod of another cluster counts here");
    let pods = installation.api::<Pod>(NAMESPACE);
    assert!(
        !pods.get("other-jobmanager-a").await.unwrap().labels().contains_key("flinkha.dev/role"),
        "it was given a role here"
    );
}

/// Where Flink elects by ZooKeeper, the Job that purges looks whether somebody holds a latch. There are no controllers:
/// its end is made by hand.
#[tokio::test(flavor = "multi_thread")]
async fn with_zookeeper_too_a_deletion_waits_and_what_the_job_could_not_remove_is_told_of() {
    let installation = Installation::start(NAMESPACE).await;
    let zookeeper = json!({ "provider": "ZooKeeper", "zookeeper": { "quorum": "zk-0.zk:2181" } });
    installation.apply(&cluster(json!({ "highAvailability": zookeeper, "haData": { "onDelete": "Delete" } })));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let signed = json!({ "data": { "haData": "{\"state\":\"Collectable\",\"owner\":\"us\"}" } });
    installation
        .api::<ConfigMap>(NAMESPACE)
        .patch("demo-ledger", &PatchParams::default(), &Patch::Merge(signed))
        .await
        .unwrap();
    pod(&installation, "demo-jobmanager-a", "demo-jobmanager", None).await;
    delete(&installation).await;
    let told = |object: &Value| says(object, "DeletionWaits", &["kubectl delete pod demo-jobmanager-a"]);
    installation.until::<FlinkHaCluster>("the cause and the way out", DEMO, told).await;
    let jobs = installation.api::<Job>(NAMESPACE);
    assert!(jobs.get_opt("demo-purge").await.unwrap().is_none(), "files are removed under a living JobManager");

    end(&installation, "demo-jobmanager-a").await;
    installation.until::<Job>("the Job that purges", (NAMESPACE, "demo-purge"), |_| true).await;
    let at = "2026-01-01T00:00:00Z";
    let failed = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": at, "reason": "BackoffLimitExceeded" });
    let status = json!({ "status": { "startTime": at, "failed": 1, "conditions": [failed("FailureTarget"), failed("Failed")] } });
    jobs.patch_status("demo-purge", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    is_gone(&installation, seconds(60)).await;
    let ledger = installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let note = ledger["metadata"]["annotations"][LEFT_ANNOTATION].as_str().expect("what was left");
    assert!(note.contains("znodes and files could not be removed and stay"), "{note}");
}
