//! Resources that cannot be applied.

use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::deletion::{policy, policy_lifted};
use super::world::{Seen, World};

fn task_manager(pod_spec: Value) -> Value {
    json!({ "taskManager": { "podTemplate": { "spec": pod_spec } } })
}

pub async fn fields_contradict_each_other(world: World) -> Seen {
    world.works().await;
    world.apply(task_manager(json!({ "volumes": [{ "name": "flinkha-mine", "emptyDir": {} }] }))).await;
    let seen = world.told("InvalidSpec", &["taskManager.podTemplate.spec.volumes", "flinkha-mine"]).await;
    world.apply(json!({})).await;
    world.lifted(seen, "InvalidSpec").await
}

pub async fn a_pod_template_is_invalid(world: World) -> Seen {
    world.apply(task_manager(json!({ "dnsPolicy": "Sometimes" }))).await;
    let seen = world.told("InvalidPodTemplate", &["taskManager.podTemplate", "dnsPolicy"]).await;
    world.apply(json!({})).await;
    world.lifted(seen, "InvalidPodTemplate").await
}

pub async fn a_deployment_is_somebody_elses(world: World) -> Seen {
    let labels = json!({ "app": "mine" });
    let template =
        json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "mine", "image": "mine" }] } });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "demo-jobmanager", "namespace": world.namespace },
        "spec": { "selector": { "matchLabels": labels }, "template": template },
    });
    world.apply_object::<Deployment>("demo-jobmanager", &deployment).await;
    world.apply(json!({})).await;
    let seen = world.told("NameTaken", &["Deployment demo-jobmanager", "does not belong"]).await;
    world.api::<Deployment>().delete("demo-jobmanager", &DeleteParams::default()).await.unwrap();
    seen
}

pub async fn a_policy_refuses_an_object(world: World) -> Seen {
    policy(&world, &[""], &["services"], "false", "no Services in this namespace").await;
    world.apply(json!({})).await;
    let seen = world.told("ApplyFailed", &["no Services in this namespace"]).await;
    policy_lifted(&world).await;
    world.lifted(seen, "ApplyFailed").await
}

pub async fn the_directory_changes_under_jobs(world: World) -> Seen {
    world.works().await;
    let place = json!({ "provider": "Kubernetes", "storageDir": "file:///flink/ha" });
    world.ledger("haData", &json!({ "state": "Collectable", "owner": "us", "place": place })).await;
    let job = json!({ "id": "0123456789abcdef0123456789abcdef", "name": "words", "state": "Running" });
    world.ledger("jobs", &json!([job])).await;
    world.until::<FlinkHaCluster>("demo", |resource| !resource["status"]["jobs"][0].is_null()).await;
    world.apply(json!({ "highAvailability": { "storageDir": "file:///flink/other" } })).await;
    let seen = world.told("JobsStoredElsewhere", &["file:///flink/ha"]).await;
    world.apply(json!({})).await;
    world.lifted(seen, "JobsStoredElsewhere").await
}

/// A request that nobody carries out is answered.
pub async fn an_annotation_is_not_understood(world: World) -> Seen {
    world.works().await;
    let annotation = json!({ "metadata": { "annotations": { "flinkha.dev/switchover": "no-such-pod" } } });
    world.patch::<FlinkHaCluster>("demo", annotation).await;
    let begin = std::time::Instant::now();
    while begin.elapsed() < crate::support::seconds(60) {
        if world.events("SwitchoverRefused").await.iter().any(|note| note.contains("no-such-pod")) {
            return Seen::reached("event SwitchoverRefused", begin.elapsed());
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    Seen::broken("no event")
}

/// The API server answers 500: whether that lasts, nobody knows.
pub async fn a_webhook_does_not_answer(world: World) -> Seen {
    let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"] });
    let labels = json!({ "kubernetes.io/metadata.name": world.namespace });
    let webhook = json!({
        "metadata": { "name": world.namespace },
        "webhooks": [{
            "name": "services.example.com",
            // Nobody listens there.
            "clientConfig": { "url": "https://127.0.0.1:1/validate" },
            "rules": [rule],
            "namespaceSelector": { "matchLabels": labels },
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 2,
        }],
    });
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(world.installation.admin.clone());
    webhooks.create(&PostParams::default(), &serde_json::from_value(webhook).unwrap()).await.unwrap();
    tokio::time::sleep(crate::support::seconds(3)).await;
    world.apply(json!({})).await;
    let seen = world.told("ReconcileFailed", &["services.example.com"]).await;
    webhooks.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    world.lifted(seen, "ReconcileFailed").await
}

pub async fn the_finalizer_is_refused(world: World) -> Seen {
    let message = "no finalizers in this namespace";
    let expression = "!has(object.metadata.finalizers)";
    policy(&world, &["flinkha.dev"], &["flinkhaclusters"], expression, message).await;
    world.apply(json!({})).await;
    let seen = world.told("ReconcileFailed", &[message]).await;
    policy_lifted(&world).await;
    world.lifted(seen, "ReconcileFailed").await
}

pub async fn labels_of_pods_are_refused(world: World) -> Seen {
    let message = "nobody changes pods in this namespace";
    policy(&world, &[""], &["pods"], "request.operation == 'CREATE'", message).await;
    world.works().await;
    let seen = world.told("ReconcileFailed", &[message]).await;
    policy_lifted(&world).await;
    world.lifted(seen, "ReconcileFailed").await
}
