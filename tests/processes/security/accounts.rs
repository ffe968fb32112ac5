//! What the tokens of pods and of people open at the API server, with the rights that the operator and its chart give.

use flinkha::api::names;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{Got, Target};
use crate::support::identity::{create_all, token};
use crate::support::{eventually, seconds};

/// Requests as one ServiceAccount.
struct Account(kube::Client);

impl Account {
    async fn of(target: &Target, namespace: &str, name: &str) -> Self {
        let token = token(&target.installation.admin, namespace, name, None).await;
        Self(target.installation.plane.servers[0].client(&token).await)
    }

    /// The status of an answer.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> u16 {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
        match self.0.request::<Value>(request).await {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// The API server begins to enforce an admission policy some seconds after it was made.
    async fn until_refused(&self, method: &str, path: &str, body: &Value) {
        let refused = async || (self.ask(method, path, body).await == 403).then_some(());
        eventually("the admission policy to be enforced", seconds(60), refused).await;
    }

    /// Tries all of them; what is allowed.
    async fn try_all(&self, attempts: &[(&str, &str, Value)]) -> Got {
        let mut allowed = Vec::new();
        for (method, path, body) in attempts {
            let code = self.ask(method, path, body).await;
            if code != 403 {
                allowed.push(format!("{method} {path}: {code}"));
            }
        }
        Got::of(
            !allowed.is_empty(),
            &match allowed.len() {
                0 => format!("403 to {} requests", attempts.len()),
                _ => allowed.join(", "),
            },
        )
    }
}

/// A namespace with the cluster `demo`, and perhaps others.
async fn clusters(target: &Target, namespace: &str, clusters: &[&str]) {
    target.namespace(namespace).await;
    for name in clusters {
        target.apply(namespace, name, json!({})).await;
        let deployment = names::task_manager(name);
        target.installation.until::<Deployment>("the cluster", (namespace, &deployment), |_| true).await;
    }
}

fn stamp() -> Value {
    json!({ "metadata": { "annotations": { names::TERM_ANNOTATION: "99.evil.process.1-1" } } })
}

fn pod() -> Value {
    json!({ "metadata": { "name": "evil" }, "spec": { "containers": [{ "name": "evil", "image": "evil" }] } })
}

pub async fn uses_a_task_managers_token(target: Target) -> Got {
    let namespace = "security-task-manager";
    clusters(&target, namespace, &["demo"]).await;
    let account = Account::of(&target, namespace, "demo-taskmanager").await;
    let core = format!("/api/v1/namespaces/{namespace}");
    let attempts = [
        ("GET", format!("{core}/secrets"), Value::Null),
        ("GET", format!("{core}/secrets/demo-peers"), Value::Null),
        ("GET", format!("{core}/configmaps"), Value::Null),
        ("GET", format!("{core}/configmaps/demo-ledger"), Value::Null),
        ("PATCH", format!("{core}/configmaps/demo-cluster-config-map"), stamp()),
        ("DELETE", format!("{core}/configmaps/demo-cluster-config-map"), Value::Null),
        ("PATCH", format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/demo"), stamp()),
        ("POST", format!("{core}/pods"), pod()),
        ("POST", format!("{core}/serviceaccounts/demo-jobmanager/token"), json!({})),
    ];
    account.try_all(&attempts.each_ref().map(|(method, path, body)| (*method, path.as_str(), body.clone()))).await
}

pub async fn uses_a_job_managers_token(target: Target) -> Got {
    let namespace = "security-job-manager";
    clusters(&target, namespace, &["demo", "other"]).await;
    let account = Account::of(&target, namespace, "demo-jobmanager").await;
    let core = format!("/api/v1/namespaces/{namespace}");
    let resource = format!("/apis/flinkha.dev/v1alpha1/namespaces/{namespace}/flinkhaclusters/demo");
    let lease = |name: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}");
    let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles");
    let attempts = [
        ("GET", format!("{core}/secrets/demo-peers"), Value::Null),
        ("GET", format!("{core}/pods"), Value::Null),
        ("POST", format!("{core}/pods"), pod()),
        ("POST", format!("{core}/serviceaccounts/other-jobmanager/token"), json!({})),
        ("PATCH", lease("other"), stamp()),
        ("DELETE", lease("demo"), Value::Null),
        ("PATCH", resource.clone(), json!({ "spec": { "image": "evil" } })),
        ("PATCH", format!("{resource}/status"), json!({ "status": {} })),
        ("PATCH", format!("{roles}/demo-jobmanager"), json!({ "rules": [] })),
        ("GET", "/api/v1/namespaces/flinkha-system/configmaps".to_owned(), Value::Null),
        ("GET", "/api/v1/configmaps".to_owned(), Value::Null),
    ];
    account.try_all(&attempts.each_ref().map(|(method, path, body)| (*method, path.as_str(), body.clone()))).await
}

/// In the same namespace.
pub async fn deletes_another_clusters_ha_data(target: Target) -> Got {
    let namespace = "security-neighbour";
    clusters(&target, namespace, &["demo", "other"]).await;
    let name = names::cluster_config_map("other");
    let stored =
        json!({ "metadata": { "name": name, "labels": { "app": "other", "configmap-type": "high-availability" } } });
    let config_maps = target.installation.api::<ConfigMap>(namespace);
    config_maps.create(&PostParams::default(), &serde_json::from_value(stored).unwrap()).await.unwrap();
    let account = Account::of(&target, namespace, "demo-jobmanager").await;
    let all = format!("/api/v1/namespaces/{namespace}/configmaps");
    if !target.version.former {
        account.until_refused("POST", &all, &json!({ "metadata": { "generateName": "probe-" } })).await;
    }
    let (cluster, ledger) = (format!("{all}/{name}"), format!("{all}/{}", names::ledger("other")));
    let configuration = format!("{all}/{}", names::flink_config("other"));
    account
        .try_all(&[
            ("PATCH", &ledger, stamp()),
            ("DELETE", &ledger, Value::Null),
            ("PATCH", &configuration, json!({ "data": { "config.yaml": "" } })),
            ("DELETE", &cluster, Value::Null),
        ])
        .await
}

/// Somebody with the role `edit` in a namespace. (The rights of `edit` are those that are aggregated to it; there is no
/// controller here that aggregates them.)
async fn tenant(target: &Target, namespace: &str) -> Account {
    target.namespace(namespace).await;
    let metadata = json!({ "name": "tenant", "namespace": namespace });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
    let binding = |role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": role.replace(':', "-"), "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": "tenant", "namespace": namespace }],
        })
    };
    for object in [account, binding("system:aggregate-to-edit"), binding("system:aggregate-to-view")] {
        create_all(&target.installation.admin, &object.to_string()).await;
    }
    Account::of(target, namespace, "tenant").await
}

pub async fn reaches_into_another_namespace(target: Target) -> Got {
    let (own, others) = ("security-tenant", "security-of-others");
    clusters(&target, others, &["demo"]).await;
    let tenant = tenant(&target, own).await;
    // It has the rights of a tenant.
    let own_object = json!({ "metadata": { "name": "own" } });
    assert_eq!(tenant.ask("POST", &format!("/api/v1/namespaces/{own}/configmaps"), &own_object).await, 200);
    let resource = json!({
        "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "metadata": { "name": "evil" },
        "spec": { "image": "evil", "highAvailability": { "storageDir": "file:///evil" } },
    });
    let attempts = [
        ("GET", format!("/api/v1/namespaces/{others}/secrets/demo-peers"), Value::Null),
        ("GET", format!("/api/v1/namespaces/{others}/configmaps"), Value::Null),
        ("PATCH", format!("/apis/coordination.k8s.io/v1/namespaces/{others}/leases/demo"), stamp()),
        ("POST", format!("/apis/flinkha.dev/v1alpha1/namespaces/{others}/flinkhaclusters"), resource.clone()),
        // `edit` says nothing of FlinkHaClusters, in the own namespace either.
        ("POST", format!("/apis/flinkha.dev/v1alpha1/namespaces/{own}/flinkhaclusters"), resource),
        ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/flinkha-system/leases/flinkha-operator".to_owned(), stamp()),
    ];
    tenant.try_all(&attempts.each_ref().map(|(method, path, body)| (*method, path.as_str(), body.clone()))).await
}

/// A resource whose objects would have the names of somebody else's.
pub async fn takes_over_objects_of_another_owner(target: Target) -> Got {
    let namespace = "security-owner";
    target.namespace(namespace).await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "demo-jobmanager", "namespace": namespace }, "rules": [],
    });
    create_all(&target.installation.admin, &role.to_string()).await;
    target.apply(namespace, "demo", json!({})).await;
    let refused = |resource: &Value| {
        let conditions = resource["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["reason"] == "NameTaken")
    };
    let waited = tokio::time::timeout(seconds(20), async {
        target.installation.until::<flinkha::api::FlinkHaCluster>("a refusal", (namespace, "demo"), refused).await
    });
    let told = waited.await.is_ok();
    let role = target.installation.api::<Role>(namespace).get("demo-jobmanager").await.unwrap();
    let rules = role.data["rules"].as_array().map_or(0, Vec::len);
    Got::of(rules > 0, if told { "NameTaken" } else { "nothing is told" })
}

/// Text that would be something else where it is written down: Flink's configuration, command lines, names.
pub async fn smuggles_text_through_fields(target: Target) -> Got {
    let namespace = "security-text";
    target.namespace(namespace).await;
    let smuggled = "x\nhigh-availability.storageDir: file:///evil\n'\"# $(POD_NAME) `id` ${PATH}";
    let spec = json!({
        "flinkConfiguration": { "user.text": smuggled, "user.key\nhigh-availability.type": "NONE" },
        "job": { "jarURI": "local:///a.jar", "args": [smuggled, "--storage-dir", "$(POD_IP)"], "entryClass": "--jars" },
    });
    let taken = target.try_apply(namespace, "demo", &spec).await;
    let names = ["../../evil", "evil/..", "evil;id", "evil.$(id)"];
    let mut accepted = Vec::new();
    for name in names {
        if target.try_apply(namespace, name, &json!({})).await.is_ok() {
            accepted.push(name);
        }
    }
    if !accepted.is_empty() {
        return Got::through(&format!("names {accepted:?}"));
    }
    if let Err(refused) = taken {
        return Got::nothing(&format!("refused: {refused}"));
    }
    target.installation.until::<Deployment>("the cluster", (namespace, "demo-jobmanager"), |_| true).await;
    let written = target.installation.api::<ConfigMap>(namespace).get(&names::flink_config("demo")).await.unwrap();
    let text = written.data["data"]["config.yaml"].as_str().unwrap_or_default().to_owned();
    let read: Value = serde_yaml::from_str(&text).unwrap();
    let words = target.words_of(namespace, "demo-jobmanager").await;
    let kept = read["user.text"] == smuggled && read["high-availability.storageDir"] != "file:///evil";
    let literal = words.iter().any(|word| word == &smuggled.replace("$(", "$$("));
    Got::of(!kept || !literal, "text stays text")
}
