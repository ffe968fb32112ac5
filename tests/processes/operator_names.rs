//! Objects of somebody else under the names of a FlinkHaCluster: the operator changes and deletes none of them, and
//! says so. On a real kube-apiserver.

use crate::support::operator::Installation;
use crate::support::{eventually, say, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::flink::ha_data::LABEL_TYPE;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

const NAMESPACE: &str = "flink";

fn cluster() -> Value {
    json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": NAMESPACE },
        "spec": { "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" } },
    })
}

fn degraded(resource: &Value) -> &Value {
    let conditions = resource["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == "Degraded").unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_somebody_else_is_neither_changed_nor_deleted_and_the_condition_names_it() {
    let installation = Installation::start(NAMESPACE).await;
    let labels = json!({ "app": "mine" });
    let template =
        json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "mine", "image": "mine" }] } });
    let spec = json!({ "selector": { "matchLabels": labels }, "template": template });
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "demo-jobmanager", "namespace": NAMESPACE }, "spec": spec });
    let config_map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "demo-flink-config", "namespace": NAMESPACE } });
    let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "demo-taskmanager", "namespace": NAMESPACE }, "rules": [] });
    for object in [&deployment, &config_map, &role] {
        installation.apply(object);
    }
    installation.apply(&cluster());
    let taken = |resource: &Value| degraded(resource)["reason"] == "NameTaken";
    let resource = installation.until::<FlinkHaCluster>("the refusal", (NAMESPACE, "demo"), taken).await;
    let message = degraded(&resource)["message"].as_str().unwrap();
    say(message);
    assert_eq!(
        message,
        "Role demo-taskmanager exists and does not belong to this FlinkHaCluster (and ConfigMap demo-flink-config, Deployment demo-jobmanager); \
         nothing is changed: give the FlinkHaCluster another name, or, if the object is not needed, delete it, and demo is created within a minute"
    );
    let untouched = async || {
        for object in [&deployment, &config_map, &role] {
            let output =
                installation.kubectl(&["get", "--output", "jsonpath={.metadata.managedFields[*].manager}"], object);
            let managers = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && !managers.contains("flinkha"), "{managers}");
        }
    };
    untouched().await;
    assert!(installation.api::<Lease>(NAMESPACE).get_opt("demo").await.unwrap().is_none(), "nothing is made beside it");

    // What is deleted is the resource alone.
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    resources.delete("demo", &DeleteParams::default()).await.unwrap();
    eventually("the resource to be gone", seconds(20), async || {
        resources.get_opt("demo").await.unwrap().is_none().then_some(())
    })
    .await;
    untouched().await;

    // HA data of another Flink: no pod is made that would go there.
    for object in [&deployment, &config_map, &role] {
        assert!(installation.kubectl(&["delete"], object).status.success());
    }
    let lock = json!({ "control-plane.alpha.kubernetes.io/leader": r#"{"holderIdentity":"7f","acquireTime":"a","renewTime":"b"}"# });
    // As Flink labels what it writes.
    let labels = json!({ "app": "demo", "type": LABEL_TYPE });
    let metadata = json!({ "name": "demo-cluster-config-map", "labels": labels, "annotations": lock });
    let stored = json!({ "metadata": metadata });
    let config_maps = installation.api::<ConfigMap>(NAMESPACE);
    config_maps.create(&PostParams::default(), &serde_json::from_value(stored).unwrap()).await.unwrap();
    // Where that Flink's objects have our names, they are the nearer cause.
    installation.apply(&deployment);
    installation.apply(&cluster());
    installation.until::<FlinkHaCluster>("the taken name", (NAMESPACE, "demo"), taken).await;
    assert!(installation.kubectl(&["delete"], &deployment).status.success());
    let foreign = |resource: &Value| degraded(resource)["reason"] == "ForeignHaData";
    installation.until::<FlinkHaCluster>("the refusal", (NAMESPACE, "demo"), foreign).await;
    assert!(installation.api::<Deployment>(NAMESPACE).get_opt("demo-taskmanager").await.unwrap().is_none());

    // The way out, which nothing but time tells of once what was still to be done for the resource is done.
    tokio::time::sleep(seconds(3)).await;
    config_maps.delete("demo-cluster-config-map", &DeleteParams::default()).await.unwrap();
    installation.until::<Deployment>("the cluster", (NAMESPACE, "demo-taskmanager"), |_| true).await;

    // The name of the TaskManagers alone is another's, which shows when the JobManagers have been made: they go again.
    let named = |object: &Value, name: &str| {
        let mut named = object.clone();
        named["metadata"]["name"] = name.into();
        named
    };
    let task_managers = named(&deployment, "other-taskmanager");
    installation.apply(&task_managers);
    installation.apply(&named(&cluster(), "other"));
    let resource = installation.until::<FlinkHaCluster>("the refusal", (NAMESPACE, "other"), taken).await;
    let message = degraded(&resource)["message"].as_str().unwrap();
    assert!(message.starts_with("Deployment other-taskmanager exists and does not belong to this"), "{message}");
    let deployments = installation.api::<Deployment>(NAMESPACE);
    assert!(deployments.get_opt("other-jobmanager").await.unwrap().is_none(), "JobManagers without TaskManagers");
    let audit = installation.plane.servers[0].audit().of(NAMESPACE, "deployments");
    let of_job_managers = audit.iter().filter(|one| one.name == "other-jobmanager" && one.is_write());
    let of_job_managers: Vec<&str> = of_job_managers.map(|one| one.verb.as_str()).collect();
    assert_eq!(of_job_managers, ["create", "delete"]);
    assert_eq!(deployments.get("other-taskmanager").await.unwrap().metadata.generation, Some(1));
    assert!(installation.kubectl(&["delete"], &task_managers).status.success());
    installation.until::<Deployment>("the cluster", (NAMESPACE, "other-jobmanager"), |_| true).await;
}
