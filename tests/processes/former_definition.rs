//! Helm does not upgrade the CustomResourceDefinition: an operator works with the one of an earlier version too,
//! without what that does not declare. On a real kube-apiserver.

use flinkha::api::FlinkHaCluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::presence::{DEMO, lease, pod, taken};
use crate::support::operator::{Installation, NAMESPACE, cluster};

#[tokio::test(flavor = "multi_thread")]
async fn with_a_definition_that_lacks_fields_of_the_status_the_rest_of_it_is_written() {
    let installation = Installation::start(NAMESPACE).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(installation.admin.clone());
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    let without = json!([{ "op": "remove", "path": format!("{status}/applied") }]);
    let without = Patch::Json::<()>(serde_json::from_value(without).unwrap());
    definitions.patch("flinkhaclusters.flinkha.dev", &PatchParams::default(), &without).await.unwrap();
    // The API server takes it up in the background.
    tokio::time::sleep(crate::support::seconds(3)).await;
    installation.apply(&cluster(json!({})));
    installation
        .until::<k8s_openapi::api::apps::v1::Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true)
        .await;
    pod(&installation, "demo-jobmanager-a", "demo-jobmanager", Some("demo")).await;
    lease(&installation, "demo-jobmanager-a", taken()).await;
    let leads = |object: &Value| object["status"]["leader"]["pod"] == "demo-jobmanager-a";
    let resource = installation.until::<FlinkHaCluster>("the leader", DEMO, leads).await;
    assert!(resource["status"]["applied"].is_null(), "it is not declared");
}
