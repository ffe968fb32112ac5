//! Which resources an operator reconciles, on a real kube-apiserver: those of its namespaces, those with its labels,
//! and of two releases over the same ones the first.

use crate::support::eventually;
use crate::support::identity::create_all;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR_NAMESPACE, cluster, condition, readyz, release};
use crate::support::seconds;
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

const DEMO: (&str, &str) = (NAMESPACE, "demo");

fn operator_of(resource: &Value) -> &Value {
    &resource["metadata"]["annotations"]["flinkha.dev/operator"]
}

fn is_contested(resource: &Value, by: &str) -> bool {
    let contested = condition(resource, "Contested");
    let words = format!("operator {by} (namespace/Lease) reconciles this resource");
    contested["reason"] == "ManagedByAnother" && contested["message"].as_str().is_some_and(|text| text.contains(&words))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_over_a_namespace_one_works_and_the_other_says_so_until_it_has_to_take_over() {
    let mut installation = Installation::start(NAMESPACE).await;
    let own = format!("{OPERATOR_NAMESPACE}/flinkha-operator");
    let of_generation = |generation: i64| move |found: &Value| found["status"]["observedGeneration"] == generation;
    let replicas = |replicas: u32| cluster(json!({ "taskManager": { "replicas": replicas } }));
    installation.apply(&replicas(1));
    let resource = installation.until::<FlinkHaCluster>("a status", DEMO, of_generation(1)).await;
    assert_eq!(operator_of(&resource), &json!(own));
    assert_eq!(resource["metadata"]["finalizers"], json!(["flinkha.dev/ha-data"]));

    let other = "b-system";
    let named = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}}).to_string();
    create_all(&installation.admin, &named).await;
    create_all(&installation.admin, &release("b", other, &[])).await;
    let (_second, probes) =
        installation.start_another(other, "b-operator", "b-operator-1-1", &["--lease-name", "b-operator"]).await;
    let contested = |by: String| move |found: &Value| is_contested(found, &by);
    installation.until::<FlinkHaCluster>("a word of the second operator", DEMO, contested(own.clone())).await;
    assert!(readyz(&probes).await.starts_with("ok: elected"), "each release has its own election");
    let events = installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
    assert!(events.items.iter().any(|event| event.data["reason"] == "ManagedByAnother"));

    // The first works on, and what the second one says stays.
    installation.apply(&replicas(2));
    let resource = installation.until::<FlinkHaCluster>("the change", DEMO, of_generation(2)).await;
    assert!(is_contested(&resource, &own), "{resource}");
    let requests = installation.plane.servers[0].audit().requests();
    let user = "system:serviceaccount:b-system:b-operator";
    let of_second = requests.into_iter().filter(|request| request.user == user && request.is_write());
    let kinds = ["leases", "events", "flinkhaclusters"];
    let touched: Vec<_> = of_second.filter(|request| !kinds.contains(&request.resource.as_str())).collect();
    assert!(touched.is_empty(), "the second operator wrote: {touched:?}");

    // The first is gone for good.
    installation.operator.kill();
    installation.apply(&replicas(3));
    let api = installation.api::<FlinkHaCluster>(NAMESPACE);
    let taken = async || {
        let found = serde_json::to_value(api.get("demo").await.unwrap()).unwrap();
        (operator_of(&found) == "b-system/b-operator" && found["status"]["observedGeneration"] == 3).then_some(found)
    };
    let resource = eventually("the second operator to take over", seconds(180), taken).await;
    assert_eq!(condition(&resource, "Contested"), &Value::Null, "{resource}");

    // It comes back, and leaves the resource to the second.
    installation.operator.restart();
    let by = "b-system/b-operator".to_owned();
    installation.until::<FlinkHaCluster>("a word of the first operator", DEMO, contested(by)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_share_a_namespace_by_labels_and_one_takes_over_what_the_other_does_not_select_any_more() {
    let installation = Installation::start_with_flags(NAMESPACE, &["--label-selector", "team=a"]).await;
    let (own, other) = (format!("{OPERATOR_NAMESPACE}/flinkha-operator"), "b-system/b-operator");
    let named = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b-system"}}).to_string();
    create_all(&installation.admin, &named).await;
    create_all(&installation.admin, &release("b", "b-system", &[])).await;
    let flags = ["--lease-name", "b-operator", "--label-selector", "team=b"];
    let (_second, _probes) = installation.start_another("b-system", "b-operator", "b-operator-1-1", &flags).await;
    let labelled = |team: &str, replicas: u32| {
        let mut cluster = cluster(json!({ "taskManager": { "replicas": replicas } }));
        cluster["metadata"]["labels"] = json!({ "team": team });
        cluster
    };
    let is_by = |operator: String, generation: i64| {
        move |found: &Value| {
            operator_of(found) == &json!(operator) && found["status"]["observedGeneration"] == generation
        }
    };
    installation.apply(&labelled("a", 1));
    installation.until::<FlinkHaCluster>("a status of the first operator", DEMO, is_by(own.clone(), 1)).await;

    // The label and the definition change together: the second operator goes on with what is there.
    installation.apply(&labelled("b", 2));
    let by_other = is_by(other.to_owned(), 2);
    let resource = installation.until::<FlinkHaCluster>("a status of the second operator", DEMO, by_other).await;
    assert_eq!(condition(&resource, "Contested"), &Value::Null, "{resource}");
    assert_eq!(resource["metadata"]["finalizers"], json!(["flinkha.dev/ha-data"]));
    let events = installation.api::<Event>(NAMESPACE);
    let told = async |reason: &str, words: &str| {
        eventually(&format!("an event {reason}"), seconds(20), async || {
            let found = events.list(&ListParams::default()).await.unwrap().items;
            let is_it = |event: &Value| {
                event["reason"] == reason && event["note"].as_str().is_some_and(|note| note.contains(words))
            };
            found.iter().any(|event| is_it(&event.data)).then_some(())
        })
        .await;
    };
    told("NotSelected", &format!("operator {own} reconciles resources with the labels team=a")).await;
    told("OperatorChanged", "reconciles only resources with the labels team=a").await;

    // Nobody selects it: nothing is changed, and its deletion waits for the operator that selects it next.
    installation.apply(&labelled("nobody", 3));
    told("NotSelected", &format!("operator {other} reconciles resources with the labels team=b")).await;
    let clusters = installation.api::<FlinkHaCluster>(NAMESPACE);
    clusters.delete("demo", &DeleteParams::default()).await.unwrap();
    let waiting = clusters.get("demo").await.unwrap();
    assert_eq!(waiting.data["status"]["observedGeneration"], 2, "{:?}", waiting.data);
    let deployments = installation.api::<Deployment>(NAMESPACE);
    let is_deleted = async || deployments.get("demo-jobmanager").await.unwrap().metadata.deletion_timestamp.is_some();
    assert!(!is_deleted().await);
    let label = Patch::Merge(json!({ "metadata": { "labels": { "team": "a" } } }));
    clusters.patch("demo", &PatchParams::default(), &label).await.unwrap();
    eventually("the first operator to run the finalizer", seconds(60), async || is_deleted().await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_two_namespaces_reconciles_in_both_and_in_no_other() {
    let installation = Installation::start_with(NAMESPACE, "flink,second").await;
    let named = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "third"}}).to_string();
    create_all(&installation.admin, &named).await;
    let namespaces = ["third", NAMESPACE, "second"];
    for namespace in namespaces {
        let mut cluster = cluster(json!({}));
        cluster["metadata"]["namespace"] = namespace.into();
        installation.apply(&cluster);
    }
    for namespace in [NAMESPACE, "second"] {
        let is_reconciled = |found: &Value| found["status"]["observedGeneration"] == 1;
        installation.until::<FlinkHaCluster>("a status", (namespace, "demo"), is_reconciled).await;
        // What belongs to the resource is watched too.
        let services = installation.api::<Service>(namespace);
        let before = services.get("demo-jobmanagers").await.unwrap().metadata.uid;
        services.delete("demo-jobmanagers", &DeleteParams::default()).await.unwrap();
        let is_new = |found: &Value| found["metadata"]["uid"].as_str() != before.as_deref();
        installation.until::<Service>("the Service again", (namespace, "demo-jobmanagers"), is_new).await;
    }
    let third = installation.api::<FlinkHaCluster>("third").get("demo").await.unwrap();
    assert_eq!(operator_of(&serde_json::to_value(&third).unwrap()), &Value::Null, "it has no right to touch it");
    let log = installation.operator.log();
    assert!(!log.contains("forbidden"), "the operator asks for more than its Roles grant: {log}");
}
