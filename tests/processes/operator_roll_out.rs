//! Roll-outs that nobody has asked for: they are announced before, and can be held.

use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, say, seconds};
use flinkha::api::{FlinkHaCluster, names};
use flinkha::cluster::build::tls::RENEWALS_ANNOTATION;
use flinkha::ledger::certificates::{self, CertificateNote};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
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

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_notes_of_certificates_replaces_the_pods_that_use_them_and_is_announced() {
    let installation = Installation::start(NAMESPACE).await;
    let resource = cluster(json!({ "tls": { "internal": { "name": "a" }, "rest": { "name": "b" } } }));
    installation.apply(&resource);
    let is_applied = |resource: &Value| resource["status"]["applied"]["objects"].is_string();
    installation.until::<FlinkHaCluster>("what was applied", (NAMESPACE, "demo"), is_applied).await;
    let config = installation.until::<ConfigMap>("Flink's configuration", (NAMESPACE, "demo-flink-config"), |_| true);
    assert_eq!(config.await["data"][names::TLS_SECRETS_FILE], r#"{"internal":"a","rest":"b"}"#);
    let deployments = installation.api::<Deployment>(NAMESPACE);
    let pods = json!({ "status": { "replicas": 2, "updatedReplicas": 2, "observedGeneration": 1 } });
    for name in [NAME, "demo-taskmanager"] {
        let built = installation.until::<Deployment>("the Deployment", (NAMESPACE, name), |_| true).await;
        assert_eq!(built["metadata"]["annotations"][RENEWALS_ANNOTATION], Value::Null);
        deployments.patch_status(name, &PatchParams::default(), &Patch::Merge(&pods)).await.unwrap();
    }

    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    let note = async |internal: u64, rest: u64| {
        let note = |changes: u64| CertificateNote { secret: "a".to_owned(), digest: "d".to_owned(), changes };
        let notes = json!({ "internal": note(internal), "rest": note(rest) }).to_string();
        let patch = Patch::Merge(json!({ "data": { certificates::LEDGER_KEY: notes } }));
        ledgers.patch(&names::ledger("demo"), &PatchParams::default(), &patch).await.unwrap();
    };
    let replaced = async |name: &str, number: &str| {
        let has = |object: &Value| object["metadata"]["annotations"][RENEWALS_ANNOTATION] == number;
        let both = |deployment: &Value| has(deployment) && has(&deployment["spec"]["template"]);
        installation.until::<Deployment>("pods with the renewed certificate", (NAMESPACE, name), both).await
    };
    note(0, 0).await;
    note(0, 1).await;
    replaced(NAME, "1").await;
    let task_managers = json!(deployments.get("demo-taskmanager").await.unwrap());
    assert_eq!(task_managers["metadata"]["annotations"][RENEWALS_ANNOTATION], Value::Null, "they do not serve REST");
    note(1, 1).await;
    replaced(NAME, "2").await;
    replaced("demo-taskmanager", "1").await;
    let events = installation.api::<Event>(NAMESPACE);
    let announced = eventually("the announcement", seconds(30), async || {
        let all = events.list(&ListParams::default()).await.ok()?.items;
        let of = all.iter().filter(|event| event.data["reason"] == "SecretChanged");
        let notes: Vec<String> = of.filter_map(|event| event.data["note"].as_str().map(str::to_owned)).collect();
        (!notes.is_empty()).then_some(notes)
    })
    .await;
    say(announced.join("; "));
    assert!(announced.iter().all(|note| note.contains("a Secret of spec.tls has changed")), "{announced:?}");
}
