//! What GitOps tools rely on, on a real kube-apiserver: a definition that is applied again changes nothing, in either
//! way of applying; what a field of the resource asks for comes and goes with it; and no object of a cluster looks as
//! if a tool that tracks by label had made it.

use crate::support::operator::{Installation, NAMESPACE, cluster};
use crate::support::{eventually, say, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{CLUSTER_LABEL, FIELD_MANAGER};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

/// A resource of which much is said: what has defaults, what the API server could write in another way, what is ours.
fn definition() -> Value {
    let flink = json!({ "name": "flink-main-container", "env": [{ "name": "A", "value": "b" }] });
    let mut definition = cluster(json!({
        "jobManager": {
            "replicas": 2,
            "resources": { "requests": { "cpu": 1, "memory": "1024Mi" }, "limits": { "memory": "1Gi" } },
            "podTemplate": { "spec": { "containers": [flink] } },
        },
        "taskManager": { "replicas": 1, "maxUnavailable": "25%" },
        "flinkConfiguration": { "parallelism.default": 2, "pipeline.name": "x" },
        "commonMetadata": { "labels": { "team": "a" } },
        "networkPolicy": { "metricsFrom": ["monitoring"] },
        "rest": { "serviceType": "NodePort", "annotations": { "example.org/a": "b" } },
        "ingress": { "host": "flink.example.org", "tls": { "name": "certificate" } },
    }));
    definition["metadata"]["labels"] = json!({ "team": "a" });
    definition
}

/// The FlinkHaClusters of `examples`.
fn examples() -> Vec<Value> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let all = serde_yaml::Deserializer::from_str(&text).map(<Value as serde::Deserialize>::deserialize);
        let ours = all.map(Result::unwrap).filter(|object| object["kind"] == "FlinkHaCluster");
        found.extend(ours.map(|mut object| {
            object["metadata"]["namespace"] = NAMESPACE.into();
            object
        }));
    }
    found
}

/// All objects of the cluster.
async fn objects(installation: &Installation) -> Vec<DynamicObject> {
    let labelled = ListParams::default().labels(&format!("{CLUSTER_LABEL}=demo"));
    let mut all = Vec::new();
    let apis = [
        installation.api::<Deployment>(NAMESPACE),
        installation.api::<Service>(NAMESPACE),
        installation.api::<ServiceAccount>(NAMESPACE),
        installation.api::<Role>(NAMESPACE),
        installation.api::<RoleBinding>(NAMESPACE),
        installation.api::<ConfigMap>(NAMESPACE),
        installation.api::<Secret>(NAMESPACE),
        installation.api::<Lease>(NAMESPACE),
        installation.api::<EndpointSlice>(NAMESPACE),
        installation.api::<PodDisruptionBudget>(NAMESPACE),
        installation.api::<NetworkPolicy>(NAMESPACE),
        installation.api::<Ingress>(NAMESPACE),
    ];
    for api in apis {
        all.extend(api.list(&labelled).await.unwrap().items);
    }
    all
}

async fn resource(installation: &Installation) -> DynamicObject {
    installation.api::<FlinkHaCluster>(NAMESPACE).get("demo").await.unwrap()
}

fn versions(objects: &[DynamicObject]) -> Vec<(String, Option<String>)> {
    objects.iter().map(|object| (object.name_any(), object.resource_version())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_applied_again_changes_nothing_and_nothing_of_a_cluster_is_pruned() {
    let installation = Installation::start(NAMESPACE).await;
    let definition = definition();
    installation.apply(&definition);
    let is_reconciled = |found: &Value| found["status"]["observedGeneration"] == 1;
    installation.until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), is_reconciled).await;
    installation.quiet(seconds(3), seconds(60)).await;
    let made = objects(&installation).await;
    let apply = |arguments: &[&str]| {
        let output = installation.kubectl(arguments, &definition);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments:?}: {out}{error}");
        out.into_owned()
    };

    // As `kubectl apply`, Flux of old and Argo CD without server-side apply do it.
    let said = apply(&["apply"]);
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!(resource(&installation).await.metadata.generation, Some(1));

    // As Flux, and Argo CD with server-side apply.
    let server_side = ["apply", "--server-side", "--force-conflicts", "--field-manager", "argocd-controller"];
    apply(&server_side);
    let first = resource(&installation).await;
    assert_eq!(first.metadata.generation, Some(1), "the first one takes ownership and changes no field");
    apply(&server_side);
    // The API server notes no other time if nothing is changed.
    let owned = |object: &DynamicObject| {
        let entries = object.metadata.managed_fields.iter().flatten();
        json!(entries.filter(|entry| entry.manager.as_deref() == Some("argocd-controller")).collect::<Vec<_>>())
    };
    let second = resource(&installation).await;
    assert_eq!((owned(&second), second.metadata.generation), (owned(&first), Some(1)));
    assert!(owned(&first)[0]["fieldsV1"]["f:spec"].is_object(), "{}", owned(&first));
    for arguments in
        [&["diff"][..], &["diff", "--server-side", "--force-conflicts", "--field-manager", "argocd-controller"]]
    {
        let output = installation.kubectl(arguments, &definition);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    installation.quiet(seconds(3), seconds(60)).await;
    assert_eq!(versions(&objects(&installation).await), versions(&made), "the operator wrote for nothing");

    // The operator owns nothing of what is in Git.
    let entries = first.metadata.managed_fields.unwrap_or_default();
    for entry in entries.iter().filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER)) {
        let fields = json!(entry.fields_v1);
        assert_eq!(fields["f:spec"], Value::Null, "{fields}");
    }

    // A tool that tracks by the label that Helm, too, gives its objects prunes what has no owner and is not in Git.
    say(format!("objects of the cluster: {}", made.len()));
    for object in &made {
        let owned = object.owner_references().iter().any(|owner| owner.kind == "FlinkHaCluster");
        let options = object.annotations().get("argocd.argoproj.io/sync-options").map(String::as_str);
        assert!(owned || options == Some("Prune=false,Delete=false"), "{} would be pruned", object.name_any());
        let tracked = ["argocd.argoproj.io/tracking-id", "kustomize.toolkit.fluxcd.io/name"];
        let is_tracked = |key: &&str| object.annotations().contains_key(*key) || object.labels().contains_key(*key);
        assert!(!tracked.iter().any(is_tracked), "{} would be adopted", object.name_any());
    }

    // What the fields asked for is there, and goes with them.
    let services = installation.api::<Service>(NAMESPACE);
    let service = services.get("demo-rest").await.unwrap();
    assert_eq!(service.data["spec"]["type"], "NodePort");
    assert_eq!(service.annotations()["example.org/a"], "b");
    let ingresses = installation.api::<Ingress>(NAMESPACE);
    let rules = &ingresses.get("demo-rest").await.unwrap().data["spec"]["rules"];
    assert_eq!(rules[0]["http"]["paths"][0]["backend"]["service"]["name"], "demo-rest");
    let without = Patch::Merge(json!({ "spec": { "rest": null, "ingress": null } }));
    let clusters = installation.api::<FlinkHaCluster>(NAMESPACE);
    clusters.patch("demo", &PatchParams::default(), &without).await.unwrap();
    eventually("the Ingress and the type of the Service to go", seconds(60), async || {
        let service = services.get("demo-rest").await.unwrap();
        let is_plain =
            service.data["spec"]["type"] == "ClusterIP" && !service.annotations().contains_key("example.org/a");
        (is_plain && ingresses.get_opt("demo-rest").await.unwrap().is_none()).then_some(())
    })
    .await;
    // The examples are what people apply first.
    for example in examples() {
        let output = installation.kubectl(&["apply", "--dry-run=server"], &example);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", example["metadata"]["name"]);
    }
    let output = installation.kubectl(&["apply", "--server-side", "--force-conflicts"], &{
        let mut wrong = definition.clone();
        wrong["spec"]["ingress"]["path"] = "flink".into();
        wrong
    });
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert!(refusal.contains("spec.ingress.path must begin with '/'"), "{refusal}");
}
