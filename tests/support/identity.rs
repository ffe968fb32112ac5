//! Objects from YAML, and the identities of pods: real ServiceAccount tokens, bound to the pod that uses them.

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::json;

/// Creates every object of a YAML stream, in order.
pub async fn create_all(client: &kube::Client, yaml: &str) {
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let object = DynamicObject::deserialize(document).expect("an object in YAML");
        let kind = GroupVersionKind::try_from(object.types.as_ref().expect("an object with a kind")).expect("a kind");
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let created = api.create(&PostParams::default(), &object).await;
        created.unwrap_or_else(|error| panic!("failed to create {} {:?}: {error}", kind.kind, object.metadata.name));
    }
}

/// Creates a pod that no kubelet will ever run: the process that stands for it is ours. Returns its UID.
pub async fn create_pod(client: &kube::Client, namespace: &str, name: &str) -> String {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "flink-main-container", "image": "flink"}], "serviceAccountName": "demo-jobmanager"},
    });
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let created = api.create(&PostParams::default(), &pod).await.expect("failed to create a pod");
    created.metadata.uid.expect("the API server gives a UID")
}

/// A token for the ServiceAccount, bound to the pod if one is given (name, UID), as a kubelet would ask for it.
pub async fn token(client: &kube::Client, namespace: &str, service_account: &str, pod: Option<(&str, &str)>) -> String {
    let bound = pod.map(|(name, uid)| BoundObjectReference {
        kind: Some("Pod".to_owned()),
        api_version: Some("v1".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
    });
    let spec = TokenRequestSpec { bound_object_ref: bound, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = api
        .create_token_request(service_account, &PostParams::default(), &request)
        .await
        .expect("failed to ask for a token");
    answer.status.expect("an answer with a token").token
}
