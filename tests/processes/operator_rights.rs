//! The rights of the operator and of the pods that it makes, by a real kube-apiserver.

use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_one_namespace_stays_in_it() {
    let installation = Installation::start_with(NAMESPACE, NAMESPACE).await;
    let mut elsewhere = cluster(json!({}));
    elsewhere["metadata"]["namespace"] = "default".into();
    installation.apply(&elsewhere);
    installation.apply(&cluster(json!({})));
    let reported = |resource: &Value| resource["status"]["observedGeneration"] == 1;
    installation.until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), reported).await;
    let resource = installation.api::<FlinkHaCluster>("default").get("demo").await.unwrap();
    assert_eq!(resource.metadata.finalizers, None, "the other namespace is left alone");
    let audit = installation.plane.servers[0].audit().requests().into_iter();
    let outside: Vec<_> = audit
        .filter(|request| request.user == OPERATOR && request.namespace != NAMESPACE && request.code == 403)
        .collect();
    assert!(outside.is_empty(), "the operator asked for what it may not: {outside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_may_do_no_more_than_their_work() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    for (service_account, verb, resource, name, allowed) in [
        ("demo-jobmanager", "update", "configmaps", "demo-cluster-config-map", true),
        ("demo-jobmanager", "update", "leases", "demo", true),
        ("demo-jobmanager", "update", "leases", "other", false),
        ("demo-jobmanager", "update", "endpointslices", "demo-rest", true),
        ("demo-jobmanager", "update", "endpointslices", "demo-rest-ipv6", true),
        ("demo-jobmanager", "update", "endpointslices", "demo-rest-ipv4", false),
        ("demo-jobmanager", "delete", "endpointslices", "demo-rest", false),
        ("demo-jobmanager", "get", "pods", "demo-jobmanager-a", false),
        ("demo-jobmanager", "get", "secrets", "any", false),
        ("demo-taskmanager", "watch", "configmaps", "demo-cluster-config-map", true),
        ("demo-taskmanager", "update", "configmaps", "demo-cluster-config-map", false),
        ("demo-taskmanager", "get", "configmaps", "demo-flink-config", false),
        ("demo-taskmanager", "get", "leases", "demo", false),
    ] {
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "endpointslices" => "discovery.k8s.io",
            _ => "",
        };
        let review = json!({
            "metadata": {},
            "spec": {
                "user": format!("system:serviceaccount:{NAMESPACE}:{service_account}"),
                "resourceAttributes": { "namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource, "name": name },
            },
        });
        let reviews: Api<SubjectAccessReview> = Api::all(installation.admin.clone());
        let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await.unwrap();
        assert_eq!(answer.status.unwrap().allowed, allowed, "{service_account} {verb} {resource} {name}");
    }
}
