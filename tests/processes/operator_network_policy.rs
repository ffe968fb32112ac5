//! The NetworkPolicy of a cluster, made by the operator on a real kube-apiserver with the rights that the chart gives
//! it. Nothing enforces it here: the tests in kind do that.

use std::time::Instant;

use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, say, seconds};
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const NAME: &str = "demo-flinkha";

fn policy_of(labels: &Value, owner: Option<&str>) -> Value {
    let owners = owner.map(
        |uid| json!([{ "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "name": "demo", "uid": uid }]),
    );
    json!({
        "metadata": { "name": NAME, "labels": labels, "ownerReferences": owners },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
    })
}

async fn gone(installation: &Installation) {
    let policies = installation.api::<NetworkPolicy>(NAMESPACE);
    let begin = Instant::now();
    eventually("the NetworkPolicy to be gone", seconds(20), async || {
        policies.get_opt(NAME).await.unwrap().is_none().then_some(())
    })
    .await;
    say(format!("the NetworkPolicy is gone after {:.1} s", begin.elapsed().as_secs_f32()));
}

/// Messages of the events that tell of a new NetworkPolicy.
async fn told(installation: &Installation) -> Vec<String> {
    let events = installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
    let told = events.into_iter().filter(|event| event.data["reason"] == "NetworkPolicyCreated");
    told.map(|event| event.data["note"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_is_made_repaired_changed_and_removed_and_no_pod_is_touched() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    let at = (NAMESPACE, NAME);
    let made = installation.until::<NetworkPolicy>("the NetworkPolicy", at, |_| true).await;
    let deployment = installation.until::<Deployment>("pods", (NAMESPACE, "demo-jobmanager"), |_| true).await;
    let labels = json!({ "app.kubernetes.io/instance": "demo", "app.kubernetes.io/managed-by": "flinkha" });
    assert_eq!(made["spec"]["podSelector"]["matchLabels"], labels);
    let template = &deployment["spec"]["template"]["metadata"]["labels"];
    for (key, value) in labels.as_object().into_iter().flatten() {
        assert_eq!(&template[key], value, "the policy selects the pods");
    }
    let rules = made["spec"]["ingress"].clone();
    assert_eq!(rules.as_array().map(Vec::len), Some(2), "{rules:#}");
    let resource = installation.until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), |_| true).await;
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], resource["metadata"]["uid"]);

    // What somebody changes or deletes comes back.
    let policies = installation.api::<NetworkPolicy>(NAMESPACE);
    let nobody = Patch::Merge(json!({ "spec": { "ingress": [{}] } }));
    let none = Patch::Merge(json!({ "spec": { "podSelector": { "matchLabels": { "app": "none" } } } }));
    let unseen = Patch::Merge(json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } }));
    for (what, change) in [("rules", nobody), ("selector", none), ("labels", unseen)] {
        let begin = Instant::now();
        policies.patch(NAME, &PatchParams::default(), &change).await.unwrap();
        let is_back = |policy: &Value| {
            policy["spec"]["ingress"] == rules
                && policy["spec"]["podSelector"]["matchLabels"] == labels
                && policy["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "flinkha"
        };
        installation.until::<NetworkPolicy>(what, at, is_back).await;
        say(format!("changed {what} are repaired after {:.1} s", begin.elapsed().as_secs_f32()));
    }
    let begin = Instant::now();
    policies.delete(NAME, &DeleteParams::default()).await.unwrap();
    let is_another = |policy: &Value| policy["metadata"]["uid"] != made["metadata"]["uid"];
    installation.until::<NetworkPolicy>("another NetworkPolicy", at, is_another).await;
    say(format!("a deleted NetworkPolicy is back after {:.1} s", begin.elapsed().as_secs_f32()));
    assert_eq!(told(&installation).await, Vec::<String>::new(), "a new cluster has had it from the beginning");

    installation.apply(&cluster(json!({ "networkPolicy": { "metricsFrom": ["monitoring"], "restFrom": [] } })));
    let has_rest = |policy: &Value| policy["spec"]["ingress"].to_string().contains("8081");
    let names_monitoring = |policy: &Value| policy["spec"]["ingress"].to_string().contains("monitoring");
    let closed = |policy: &Value| names_monitoring(policy) && !has_rest(policy);
    installation.until::<NetworkPolicy>("the changed rules", at, closed).await;

    installation.apply(&cluster(json!({ "networkPolicy": { "enabled": false } })));
    gone(&installation).await;
    installation.quiet(seconds(3), seconds(60)).await;
    assert!(policies.get_opt(NAME).await.unwrap().is_none(), "it does not come back");
    installation.apply(&cluster(json!({})));
    installation.until::<NetworkPolicy>("the NetworkPolicy", at, |_| true).await;
    let messages = eventually("the event", seconds(20), async || {
        Some(told(&installation).await).filter(|messages| !messages.is_empty())
    })
    .await;
    assert!(messages.len() == 1 && messages[0].contains("spec.networkPolicy.enabled: false"), "{messages:?}");

    let generation = |deployment: &Value| deployment["metadata"]["generation"] == 1;
    for name in ["demo-jobmanager", "demo-taskmanager"] {
        installation.until::<Deployment>("pods that were never changed", (NAMESPACE, name), generation).await;
    }
    let requests = installation.plane.servers[0].audit().requests();
    let refused = requests.iter().filter(|request| request.user == OPERATOR && request.code == 403);
    assert_eq!(refused.count(), 0, "the chart's rights do not suffice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_of_somebody_else_is_neither_changed_nor_deleted() {
    let installation = Installation::start(NAMESPACE).await;
    let policies = installation.api::<NetworkPolicy>(NAMESPACE);
    let create = async |policy: Value| {
        policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    };
    let untouched = async |uid: &Option<String>| {
        let found = policies.get(NAME).await.unwrap();
        assert_eq!((&found.metadata.uid, found.metadata.generation), (uid, Some(1)));
    };
    create(policy_of(&json!({ "app": "mine" }), None)).await;
    let uid = policies.get(NAME).await.unwrap().metadata.uid;
    installation.apply(&cluster(json!({})));
    let taken = |resource: &Value| condition(resource, "Degraded")["reason"] == "NameTaken";
    let resource = installation.until::<FlinkHaCluster>("the refusal", (NAMESPACE, "demo"), taken).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    say(message);
    assert!(message.starts_with("NetworkPolicy demo-flinkha exists and does not belong to this FlinkHaCluster"));
    untouched(&uid).await;

    // The way out that deletes nothing.
    let off = json!({ "networkPolicy": { "enabled": false } });
    installation.apply(&cluster(off.clone()));
    installation.until::<Deployment>("the cluster", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    installation.quiet(seconds(3), seconds(60)).await;
    untouched(&uid).await;

    // It carries our labels, and belongs to another resource: one of this name that was there before.
    policies.delete(NAME, &DeleteParams::default()).await.unwrap();
    let labels = json!({ "app.kubernetes.io/instance": "demo", "app.kubernetes.io/managed-by": "flinkha" });
    create(policy_of(&labels, Some("7f5a2f5e-0000-4000-8000-000000000000"))).await;
    let uid = policies.get(NAME).await.unwrap().metadata.uid;
    let mut nudged = off;
    nudged["taskManager"] = json!({ "replicas": 2 });
    installation.apply(&cluster(nudged));
    let scaled = |deployment: &Value| deployment["spec"]["replicas"] == 2;
    installation.until::<Deployment>("the scale", (NAMESPACE, "demo-taskmanager"), scaled).await;
    installation.quiet(seconds(3), seconds(60)).await;
    untouched(&uid).await;
}
