//! What an operator writes that is no longer the elected one, or whose resource is no longer the same, on a real
//! kube-apiserver.

use std::sync::Arc;

use crate::support::operator::{Installation, NAMESPACE, cluster};
use flinkha::api::FlinkHaCluster;
use flinkha::cluster::application::Desired;
use flinkha::cluster::observed::Observed;
use flinkha::cluster::status::Applied;
use flinkha::operator::error::Error;
use flinkha::operator::report::Report;
use flinkha::operator::resources::ClusterResources;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

/// The part of an operator that writes the status. Its cache stays as it was at first.
fn operator(installation: &Installation, pod: &str) -> Report {
    let (cache, _) = kube_runtime::reflector::store();
    let resources = Arc::new(ClusterResources::new(installation.admin.clone(), cache));
    Report::new(installation.admin.clone(), resources, pod.to_owned())
}

async fn report(operator: &Report, resource: &FlinkHaCluster, gateway_image: &str) -> Result<(), Error> {
    let desired = Desired::kept(resource, &operator.before(resource));
    let applied = Applied { gateway_image: gateway_image.to_owned(), objects: None, turn: None };
    operator.report(resource, &desired, &Observed::default(), &Ok(applied), None).await.map(drop)
}

async fn read(installation: &Installation) -> (FlinkHaCluster, Value) {
    let api: Api<FlinkHaCluster> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let resource = api.get("demo").await.unwrap();
    let status = json!(resource.status);
    (resource, status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_written_only_over_the_version_that_the_decision_rests_on() {
    let mut installation = Installation::start(NAMESPACE).await;
    installation.operator.kill();
    installation.apply(&cluster(json!({})));
    let api = installation.api::<FlinkHaCluster>(NAMESPACE);
    // As the former version wrote it, and beside it a field of somebody else.
    let kinds =
        |status: Value| json!({ "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "status": status });
    let former = PatchParams::apply("flinkha-operator").force();
    let status = json!({ "gatewayImage": "flinkha:0", "conditions": [], "leader": { "pod": "a", "term": 1 } });
    api.patch_status("demo", &former, &Patch::Apply(kinds(status))).await.unwrap();
    let mine = json!({ "type": "Mine", "status": "True", "reason": "Mine", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let other = PatchParams::apply("somebody-else");
    api.patch_status("demo", &other, &Patch::Apply(kinds(json!({ "conditions": [mine] })))).await.unwrap();

    let (stale, _) = read(&installation).await;
    let (deposed, successor) = (operator(&installation, "a"), operator(&installation, "b"));
    report(&successor, &stale, "flinkha:2").await.expect("it has read the latest version");
    let refused = report(&deposed, &stale, "flinkha:1").await.expect_err("somebody else has written since");
    assert!(matches!(refused, Error::Outdated { .. }), "{refused}");
    assert_eq!(read(&installation).await.1["gatewayImage"], "flinkha:2");

    // Its own writes follow each other although the cache still shows the version before.
    report(&successor, &stale, "flinkha:3").await.expect("its own write was the last");
    let (latest, status) = read(&installation).await;
    assert_eq!(status["gatewayImage"], "flinkha:3");
    assert_eq!(status["leader"], Value::Null, "what the former version wrote belongs to this one");
    let kept = status["conditions"].as_array().unwrap().iter().any(|condition| condition["type"] == "Mine");
    assert!(kept, "a condition of somebody else is gone: {status}");
    let managers = latest.metadata.managed_fields.iter().flatten();
    let managers = managers.filter(|entry| entry.subresource.as_deref() == Some("status"));
    let mut managers: Vec<_> = managers.map(|entry| (entry.manager.clone(), entry.operation.clone())).collect();
    managers.sort();
    let applies = |manager: &str| (Some(manager.to_owned()), Some("Apply".to_owned()));
    assert_eq!(managers, [applies("flinkha-operator"), applies("somebody-else")]);

    // Somebody changes the resource between the operator's read and its write.
    let label = json!({ "metadata": { "labels": { "changed": "yes" } } });
    api.patch("demo", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    report(&successor, &stale, "flinkha:4").await.expect_err("the resource has changed");
    let (latest, _) = read(&installation).await;
    report(&successor, &latest, "flinkha:4").await.expect("decided again");

    // Another resource of the same name.
    api.delete("demo", &DeleteParams::default()).await.unwrap();
    installation.apply(&cluster(json!({})));
    report(&successor, &latest, "flinkha:5").await.expect_err("that one is gone");
    let (anew, status) = read(&installation).await;
    assert_ne!(anew.metadata.uid, latest.metadata.uid);
    assert_eq!(status, Value::Null, "the status of a deleted resource was written to another one");
}
