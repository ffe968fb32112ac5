//! Helm does not upgrade the CustomResourceDefinition: the chart's Job does, and an operator works with the one of an
//! earlier version too, without what that does not declare. On a real kube-apiserver.

use std::process::Command;

use flinkha::api::FlinkHaCluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::presence::{DEMO, lease, pod, taken};
use crate::support::host::Directory;
use crate::support::identity::{create_all, token};
use crate::support::operator::{Installation, NAMESPACE, OPERATOR_NAMESPACE, PROGRAM, cluster, release};

const DEFINITION: &str = "flinkhaclusters.flinkha.dev";
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

#[tokio::test(flavor = "multi_thread")]
async fn with_a_definition_that_lacks_fields_of_the_status_the_rest_of_it_is_written() {
    let installation = Installation::start(NAMESPACE).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(installation.admin.clone());
    edit(&definitions, json!([{ "op": "remove", "path": format!("{SCHEMA}/status/properties/applied") }])).await;
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

async fn edit(definitions: &Api<CustomResourceDefinition>, patch: Value) {
    let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
    definitions.patch(DEFINITION, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_before_an_upgrade_adds_what_is_missing_and_removes_nothing() {
    let installation = Installation::start(NAMESPACE).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(installation.admin.clone());
    let rendered = release("flinkha", OPERATOR_NAMESPACE, &["--is-upgrade"]);
    let hooks: Vec<&str> = rendered.split("\n---\n").filter(|one| one.contains("helm.sh/hook: pre-upgrade")).collect();
    assert_eq!(hooks.len(), 4, "{rendered}");
    create_all(&installation.admin, &hooks.join("\n---\n")).await;
    // The program with the rights of the Job and no others.
    let token = token(&installation.admin, OPERATOR_NAMESPACE, "flinkha-operator-crds", None).await;
    let kubeconfig = serde_yaml::to_string(&installation.plane.servers[0].kubeconfig(&token)).unwrap();
    let directory = Directory::new("crds");
    let kubeconfig = directory.write("kubeconfig", kubeconfig);
    let apply = || {
        let output = Command::new(PROGRAM).args(["crd", "--apply"]).env("KUBECONFIG", &kubeconfig).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        log
    };
    let installed = async || json!(definitions.get(DEFINITION).await.unwrap());

    let removed = ["spec/properties/restartNonce", "status/properties/applied"].map(|at| format!("{SCHEMA}/{at}"));
    edit(&definitions, json!(removed.each_ref().map(|at| json!({ "op": "remove", "path": at })))).await;
    let before = installed().await;
    assert!(removed.iter().all(|at| before.pointer(at).is_none()), "{before:#}");
    let log = apply();
    assert!(log.contains("is now that of this version"), "{log}");
    let after = installed().await;
    assert!(removed.iter().all(|at| after.pointer(at).is_some()), "{after:#}");

    let log = apply();
    assert!(log.contains("is that of this version already"), "{log}");
    assert_eq!(installed().await["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);

    // A later version's field stays, and so does all else of that version.
    let later = json!({ "type": "string", "description": "Of a later version." });
    let patch = json!([
        { "op": "add", "path": format!("{SCHEMA}/spec/properties/later"), "value": later },
        { "op": "replace", "path": format!("{SCHEMA}/spec/properties/image/description"), "value": "Later." },
    ]);
    edit(&definitions, patch).await;
    let before = installed().await;
    let log = apply();
    assert!(log.contains("v1alpha1: spec.later"), "{log}");
    assert_eq!(installed().await, before);
}
