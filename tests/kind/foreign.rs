//! A Flink with its own Kubernetes HA runs in the namespace under the name of a FlinkHaCluster: it goes on untouched,
//! and the condition says why nothing else is done.

use flinkha::api::names::TERM_ANNOTATION;
use flinkha::flink::ha_data;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::kit::cluster::Cluster;
use crate::kit::namespace::Namespace;
use crate::kit::native;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

const NAME: &str = "demo";

/// The other Flink's job has not been restarted, its checkpoints go on, and nothing of it carries a mark of ours.
async fn assert_untouched(native: &Cluster, job: &str, deployment: &str, completed: u64) -> u64 {
    let rest = native.leading_rest().await;
    assert!(rest.job(job).await.is_ok_and(|job| job.runs()), "the other Flink's job does not run");
    let now = rest.checkpoints(job).await.expect("checkpoints");
    assert!(now.completed > completed && now.restored.is_none(), "{now:?} after {completed}");
    let labelled = ListParams::default().labels(&ha_data::selector(NAME));
    let config_maps = native.config_maps().list(&labelled).await.expect("ConfigMaps").items;
    assert!(config_maps.len() >= 2 && config_maps.iter().all(|one| !one.annotations().contains_key(TERM_ANNOTATION)));
    let deployments: Api<Deployment> = Api::namespaced(native.client.clone(), &native.namespace.0);
    let found = deployments.get(deployment).await.expect("the other Flink's Deployment").metadata;
    assert_eq!((found.generation, found.deletion_timestamp), (Some(1), None));
    now.completed
}

async fn a_name_is_taken(namespace: &str, deployment: &str, reason: &str, object: &str) {
    let native = native::start_as(Namespace::fresh(namespace), NAME, deployment, native::DEFAULT, [1, 1], "").await;
    let arguments = ["--output", "/flink/output/foreign", "--checkpoint-interval-millis", "1000"];
    let job = native.run("KeyedSequence", &arguments, 2).await;
    let completed = assert_untouched(&native, &job, deployment, 0).await;

    let mut resource = ours::example();
    resource["metadata"]["name"] = NAME.into();
    resource["spec"]["haData"] = serde_json::json!({ "onDelete": "Delete" });
    let beside = ours::apply(Namespace(namespace.to_owned()), &resource).await;
    let (told, message) = eventually("the condition Degraded", seconds(90), async || beside.degraded().await).await;
    say(format!("Deployment {deployment}: {told}: {message}"));
    assert!(told == reason && message.contains(object) && message.contains("another name"), "{told}: {message}");
    // Longer than its lock lasts, and than the operator waits before it looks again.
    tokio::time::sleep(seconds(45)).await;
    let completed = assert_untouched(&native, &job, deployment, completed).await;

    native.namespace.kubectl(&["delete", "flinkhacluster", NAME, "--timeout", "240s"]);
    tokio::time::sleep(seconds(10)).await;
    assert_untouched(&native, &job, deployment, completed).await;
    native.namespace.delete();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_flinks_ha_data_under_the_clusters_name_is_refused() {
    let _share = machine::share().await;
    a_name_is_taken("kind-foreign-data", NAME, "ForeignHaData", "ConfigMap demo-cluster-config-map").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_flinks_deployment_under_a_name_of_ours_is_refused() {
    let _share = machine::share().await;
    a_name_is_taken("kind-foreign-name", "demo-jobmanager", "NameTaken", "Deployment demo-jobmanager").await;
}
