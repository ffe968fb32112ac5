//! Roll-outs that nobody has asked for: they are announced before, and can be held.

use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

const TEMPLATE: &str = "flinkha.dev/template";
const NAME: &str = "demo-jobmanager";

fn template(deployment: &Value) -> &Value {
    &deployment["metadata"]["annotations"][TEMPLATE]
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_only_the_operator_replaces_can_be_held_and_are_announced_before() {
    let mut installation = Installation::start(NAMESPACE).await;
    let mut resource = cluster(json!({}));
    resource["metadata"]["annotations"] = json!({ "flinkha.dev/rollout": "hold" });
    installation.apply(&resource);
    installation
        .until::<FlinkHaCluster>("what was applied", (NAMESPACE, "demo"), |resource| {
            resource["status"]["applied"]["objects"].is_string()
        })
        .await;
    let built = installation.until::<Deployment>("the Deployment", (NAMESPACE, NAME), |_| true).await;

    // As an operator of another version has left it: pods exist, and their template differs.
    installation.operator.terminate();
    installation.operator.wait(seconds(30)).await.expect("an operator that ends when it is told to");
    let deployments = installation.api::<Deployment>(NAMESPACE);
    let other = json!({ "metadata": { "annotations": { TEMPLATE: "other" } } });
    deployments.patch(NAME, &PatchParams::default(), &Patch::Merge(other)).await.unwrap();
    let pods = json!({ "status": { "replicas": 2, "updatedReplicas": 2, "observedGeneration": 1 } });
    deployments.patch_status(NAME, &PatchParams::default(), &Patch::Merge(pods)).await.unwrap();
    installation.operator.restart();
    let held = |resource: &Value| condition(resource, "OperatorRollOut")["reason"] == "Held";
    installation.until::<FlinkHaCluster>("a roll-out that is held", (NAMESPACE, "demo"), held).await;

    // What is missing comes back, and the pods stay.
    installation.api::<Service>(NAMESPACE).delete("demo-rest", &DeleteParams::default()).await.unwrap();
    installation.until::<Service>("the Service to come back", (NAMESPACE, "demo-rest"), |_| true).await;
    assert_eq!(template(&json!(deployments.get(NAME).await.unwrap())), "other");

    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let free = json!({ "metadata": { "annotations": { "flinkha.dev/rollout": null } } });
    resources.patch("demo", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    let replaced = |deployment: &Value| template(deployment) == template(&built);
    installation.until::<Deployment>("the pods to be replaced", (NAMESPACE, NAME), replaced).await;
    let order = eventually("the announcement", seconds(10), async || {
        let requests = installation.plane.servers[0].audit().summaries();
        let of_operator = |one: &&_| -> bool {
            let one: &crate::support::audit::Summary = one;
            one.user == OPERATOR
        };
        let own: Vec<_> = requests.iter().filter(of_operator).collect();
        let replaced = own.iter().rposition(|one| one.resource == "deployments" && one.name == NAME)?;
        let announced = own[..replaced].iter().rposition(|one| one.resource == "events" && one.verb == "create")?;
        let noted = own[..replaced].iter().rposition(|one| one.resource == "flinkhaclusters" && one.verb == "patch")?;
        Some((announced, noted, replaced))
    })
    .await;
    assert!(order.0 < order.1 && order.1 < order.2, "announced, noted in the status, replaced: {order:?}");
}
