//! An operator that starts again: it writes nothing that is as it should be, and finds what was changed meanwhile.

use std::time::Duration;

use crate::support::operator::{Installation, NAMESPACE, cluster, condition};
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

/// Rest after which the operator has nothing to do.
const QUIET: Duration = seconds(3);

async fn stop(installation: &mut Installation) {
    installation.operator.terminate();
    installation.operator.wait(seconds(30)).await.expect("an operator that ends when it is told to");
}

/// Starts it again, and waits until it has looked at all resources.
async fn start(installation: &mut Installation) {
    installation.operator.restart();
    let url = format!("{}/metrics", installation.probe_url);
    eventually("a reconciliation", seconds(60), async || {
        let metrics = reqwest::get(&url).await.ok()?.text().await.ok()?;
        metrics.contains("flinkha_reconciles_total{result=\"success\"}").then_some(())
    })
    .await;
    installation.quiet(QUIET, seconds(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_restarts_writes_nothing_anew_and_finds_what_was_changed() {
    let mut installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({ "jobManager": { "replicas": 3 } })));
    installation
        .until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), |resource| {
            condition(resource, "LeaderElected")["reason"] == "NoLeader"
        })
        .await;
    installation.quiet(QUIET, seconds(60)).await;

    stop(&mut installation).await;
    let before = installation.operator_requests().len();
    start(&mut installation).await;
    // An operator that starts asks for the API server's version, which is no resource.
    let made: Vec<_> =
        installation.operator_requests().split_off(before).into_iter().filter(|one| !one.resource.is_empty()).collect();
    assert!(made.is_empty(), "nothing was changed: {made:?}");

    // Each of these is found by itself: an operator that finds one applies everything.
    let merge = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    let deployments = installation.api::<Deployment>(NAMESPACE);
    let (config_maps, roles) = (installation.api::<ConfigMap>(NAMESPACE), installation.api::<Role>(NAMESPACE));
    let services = installation.api::<Service>(NAMESPACE);
    for (case, api, name, patch) in [
        ("a spec", &deployments, "demo-taskmanager", json!({ "spec": { "replicas": 7 } })),
        ("a file", &config_maps, "demo-flink-config", json!({ "data": { "config.yaml": "a: b" } })),
        ("an owner", &deployments, "demo-jobmanager", json!({ "metadata": { "ownerReferences": [] } })),
        (
            "a label",
            &roles,
            "demo-jobmanager",
            json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "b" } } }),
        ),
        ("a deleted object", &services, "demo-rest", Value::Null),
    ] {
        stop(&mut installation).await;
        if patch.is_null() {
            api.delete(name, &DeleteParams::default()).await.unwrap();
        } else {
            api.patch(name, &merge, &Patch::Merge(patch)).await.unwrap();
        }
        start(&mut installation).await;
        let task_managers = json!(deployments.get("demo-taskmanager").await.unwrap());
        assert_eq!(task_managers["spec"]["replicas"], 1, "{case}");
        let file = json!(config_maps.get("demo-flink-config").await.unwrap());
        assert_ne!(file["data"]["config.yaml"], "a: b", "{case}");
        let job_managers = json!(deployments.get("demo-jobmanager").await.unwrap());
        assert_eq!(job_managers["metadata"]["ownerReferences"][0]["name"], "demo", "{case}");
        let role = json!(roles.get("demo-jobmanager").await.unwrap());
        assert_eq!(role["metadata"]["labels"]["app.kubernetes.io/instance"], "demo", "{case}");
        assert!(services.get_opt("demo-rest").await.unwrap().is_some(), "{case}");
    }
}
