//! Nothing waits in silence, and not for what has ended: the operator against a real kube-apiserver. There are no
//! kubelets and no controllers, so that pods, Leases and events are what a test makes of them.

use crate::presence::{DEMO, delete, is_gone, lease, pod, says, scaled_to_zero, taken};
use crate::support::operator::{Installation, NAMESPACE, cluster, condition};
use crate::support::seconds;
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

async fn set_status<K: kube::Resource<DynamicType = ()>>(installation: &Installation, name: &str, status: Value) {
    let patch = Patch::Merge(json!({ "status": status }));
    installation.api::<K>(NAMESPACE).patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

fn phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["status"]["application"]["phase"] == phase
}

/// A pod in phase `Failed` stays until somebody deletes it: evicted, over its deadline, or of a node that was shut
/// down.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_goes_on_beside_pods_that_have_failed_once_no_process_of_theirs_renews_the_lease() {
    let installation = Installation::start(NAMESPACE).await;
    let version = |argument: &str, state: &str| {
        cluster(json!({ "job": { "jarURI": "local:///app.jar", "args": [argument], "state": state } }))
    };
    installation.apply(&version("1", "running"));
    installation.until::<FlinkHaCluster>("the first version", DEMO, phase("Starting")).await;
    for name in ["demo-jobmanager-a", "demo-taskmanager-a"] {
        pod(&installation, name, name.trim_end_matches("-a"), Some("demo")).await;
        set_status::<Pod>(&installation, name, json!({ "phase": "Failed", "reason": "Evicted" })).await;
    }
    installation.apply(&version("2", "running"));
    scaled_to_zero(&installation).await;
    // The kubelet may be lost that somebody spoke for, and the process may lead on.
    for _ in 0..8 {
        lease(&installation, "demo-jobmanager-a", taken()).await;
        tokio::time::sleep(seconds(1)).await;
        let deployments = installation.api::<Deployment>(NAMESPACE);
        let deployment = deployments.get("demo-jobmanager").await.unwrap();
        assert_eq!(deployment.data["spec"]["replicas"], 0, "another version was started under a living JobManager");
    }
    let told = |object: &Value| says(object, "PodsRemain", &["the Lease is held by demo-jobmanager-a"]);
    installation.until::<FlinkHaCluster>("the cause", DEMO, told).await;
    installation.until::<FlinkHaCluster>("the next version", DEMO, phase("Starting")).await;

    installation.apply(&version("2", "suspended"));
    scaled_to_zero(&installation).await;
    let resource = installation.until::<FlinkHaCluster>("the suspension", DEMO, phase("Suspended")).await;
    assert_eq!(condition(&resource, "Ready")["status"], "True", "it is as it was asked for");
    assert_eq!(resource["status"]["taskManager"]["replicas"], 0, "a pod that has ended counts");
    assert!(installation.api::<Pod>(NAMESPACE).get("demo-taskmanager-a").await.is_ok(), "it is not ours to delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_a_quota_refuses_is_told_of_and_ends_the_deletion_with_what_is_left() {
    let installation = Installation::start_with_flags(NAMESPACE, &["--deletion-deadline", "20s"]).await;
    installation.apply(&cluster(json!({ "haData": { "onDelete": "Delete" } })));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let signed = json!({ "data": { "haData": "{\"state\":\"Collectable\",\"owner\":\"us\"}" } });
    let config_maps = installation.api::<ConfigMap>(NAMESPACE);
    config_maps.patch("demo-ledger", &PatchParams::default(), &Patch::Merge(signed)).await.unwrap();
    let none = json!({ "count/jobs.batch": "0" });
    let quota = json!({ "metadata": { "name": "no-jobs" }, "spec": { "hard": none } });
    let quotas: Api<ResourceQuota> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    set_status::<ResourceQuota>(&installation, "no-jobs", json!({ "hard": none, "used": none })).await;

    delete(&installation).await;
    let told = |object: &Value| says(object, "PurgeRefused", &["Job demo-purge", "quota", "file:///flink/ha"]);
    let resource = installation.until::<FlinkHaCluster>("the cause", DEMO, told).await;
    assert_eq!(condition(&resource, "LeaderElected")["reason"], "Deleting");
    assert_eq!(resource["status"]["leader"], Value::Null);
    is_gone(&installation, seconds(60)).await;
    let events = installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
    let told = events.items.iter().find(|event| event.data["reason"] == "Deleted").expect("an event");
    assert_eq!(told.data["type"], "Warning");
    let note = told.data["note"].as_str().unwrap();
    for words in ["stay", "quota", "flink.demo in file:///flink/ha"] {
        assert!(note.contains(words), "{words} in {note}");
    }
    quotas.delete("no-jobs", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_mounted_is_told_as_kubernetes_says_it() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    pod(&installation, "demo-jobmanager-a", "demo-jobmanager", Some("demo")).await;
    let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
    let container = json!({ "name": "flink-main-container", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": waiting });
    let scheduled = json!({ "type": "PodScheduled", "status": "True" });
    let status = json!({ "phase": "Pending", "conditions": [scheduled], "containerStatuses": [container] });
    set_status::<Pod>(&installation, "demo-jobmanager-a", status).await;
    let pods: Api<Pod> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let uid = pods.get("demo-jobmanager-a").await.unwrap().metadata.uid;
    // As a kubelet writes it.
    let event = json!({
        "metadata": { "name": "demo-jobmanager-a.1" },
        "involvedObject": { "kind": "Pod", "namespace": NAMESPACE, "name": "demo-jobmanager-a", "uid": uid },
        "type": "Warning",
        "reason": "FailedMount",
        "message": "MountVolume.SetUp failed for volume \"keys\" : secret \"keys\" not found",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 3,
    });
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    let told = |object: &Value| {
        says(object, "PodNotStarted", &["pod demo-jobmanager-a", "FailedMount", "secret \"keys\" not found"])
    };
    installation.until::<FlinkHaCluster>("the cause", DEMO, told).await;
}
