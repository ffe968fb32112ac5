//! The operators of two releases of the chart over the same namespace, on a real kube-apiserver.

use crate::support::eventually;
use crate::support::identity::create_all;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR_NAMESPACE, cluster, condition, readyz, release};
use crate::support::seconds;
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
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
