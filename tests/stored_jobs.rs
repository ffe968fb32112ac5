//! What the operator does when a resource wants its HA data elsewhere while jobs are stored, against a real
//! kube-apiserver.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::operator::Installation;

const NAMESPACE: &str = "flink";

fn cluster(spec: Value) -> Value {
    let mut cluster = json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": NAMESPACE },
        "spec": { "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" } },
    });
    flinkha::cluster::merge::merge(&mut cluster["spec"], spec);
    cluster
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_stored_jobs_is_not_left_behind() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    let job = "0123456789abcdef0123456789abcdef";
    let write = async |jobs: Value| {
        let ha_data = json!({ "state": "Collectable", "place": { "storageDir": "file:///flink/ha" } });
        let patch = json!({ "data": { "jobs": jobs.to_string(), "haData": ha_data.to_string() } });
        ledgers.patch("demo-ledger", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    write(json!([{ "id": job, "state": "Running" }])).await;
    let told = |resource: &Value| resource["status"]["jobs"][0]["id"] == job;
    installation.until::<FlinkHaCluster>("the job in the status", (NAMESPACE, "demo"), told).await;
    let uses = |directory: &'static str| move |deployment: &Value| deployment.to_string().contains(directory);
    installation.until::<Deployment>("the JobManagers", (NAMESPACE, "demo-jobmanager"), uses("file:///flink/ha")).await;

    installation.apply(&cluster(json!({ "highAvailability": { "storageDir": "file:///flink/other" } })));
    let refused = |resource: &Value| condition(resource, "Degraded")["reason"] == "JobsStoredElsewhere";
    let resource = installation.until::<FlinkHaCluster>("a refusal", (NAMESPACE, "demo"), refused).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    for expected in ["spec.highAvailability.storageDir", "file:///flink/ha", "file:///flink/other", job, "set it back"]
    {
        assert!(message.contains(expected), "{expected} not in {message}");
    }
    let deployment = installation.api::<Deployment>(NAMESPACE).get("demo-jobmanager").await.unwrap();
    assert!(!json!(deployment).to_string().contains("file:///flink/other"), "the JobManagers run on as they were");

    write(json!([{ "id": job, "state": "Finished", "ended": "2026-01-01T00:00:00Z" }])).await;
    installation
        .until::<Deployment>(
            "the change, without a stored job",
            (NAMESPACE, "demo-jobmanager"),
            uses("file:///flink/other"),
        )
        .await;
    let accepted = |resource: &Value| condition(resource, "Degraded")["reason"] != "JobsStoredElsewhere";
    installation.until::<FlinkHaCluster>("no refusal", (NAMESPACE, "demo"), accepted).await;
}
