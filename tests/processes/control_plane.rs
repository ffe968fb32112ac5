//! The means of the fault tests, tested: API servers that share an etcd, stop and go on, and tell in their audit logs
//! what they did.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::cluster::NAMESPACE;
use crate::support::control_plane::ControlPlane;
use crate::support::eventually;
use crate::support::identity::{create_all, create_pod, token};
use crate::support::seconds;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

fn config_map(writer: &str, resource_version: Option<String>) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some("pointers".to_owned()), resource_version, ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("writer".to_owned(), writer.to_owned())])),
        ..ConfigMap::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_held_in_a_stopped_api_server_meets_what_was_written_through_the_other() {
    let mut plane = ControlPlane::start().await;
    let second = plane.add_server().await;
    let admin = plane.admin(0).await;
    create_all(&admin, include_str!("../support/objects.yaml")).await;
    let pod = "demo-jobmanager-1";
    let uid = create_pod(&admin, NAMESPACE, pod).await;
    let token = token(&admin, NAMESPACE, "demo-jobmanager", Some((pod, &uid))).await;

    let config_maps: Api<ConfigMap> = Api::namespaced(admin, NAMESPACE);
    let created = config_maps.create(&PostParams::default(), &config_map("nobody", None)).await.unwrap();
    let through_second: Api<ConfigMap> = Api::namespaced(plane.servers[second].client(&token).await, NAMESPACE);
    through_second.get("pointers").await.expect("both servers show the same etcd");

    plane.servers[second].process.stop();
    let late = config_map("late", created.metadata.resource_version.clone());
    let held = tokio::spawn(async move { through_second.replace("pointers", &PostParams::default(), &late).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!held.is_finished(), "a stopped server answers nothing");
    let prompt = config_map("prompt", created.metadata.resource_version);
    config_maps.replace("pointers", &PostParams::default(), &prompt).await.unwrap();
    plane.servers[second].process.cont();

    let refused = held.await.unwrap().expect_err("the late write carries an old resourceVersion");
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 409), "{refused}");
    let stored = config_maps.get("pointers").await.unwrap().data.unwrap();
    assert_eq!(stored["writer"], "prompt");
    let audit = plane.servers[second].audit();
    let puts = async || audit.of(NAMESPACE, "configmaps").into_iter().find(|request| request.verb == "update");
    let put = eventually("the late write in the audit log", seconds(5), puts).await;
    assert_eq!(put.code, 409);
    assert_eq!(put.user, "system:serviceaccount:flink:demo-jobmanager");
    assert_eq!(put.pod.as_deref(), Some(pod));
    assert_eq!(put.body["data"]["writer"], "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_survives_a_killed_api_server_and_a_killed_etcd() {
    let mut plane = ControlPlane::start().await;
    let admin = plane.admin(0).await;
    create_all(&admin, include_str!("../support/objects.yaml")).await;
    let config_maps: Api<ConfigMap> = Api::namespaced(admin, NAMESPACE);
    config_maps.create(&PostParams::default(), &config_map("before", None)).await.unwrap();
    plane.servers[0].process.kill();
    plane.etcd.restart();
    config_maps.get("pointers").await.expect_err("nobody listens there");
    plane.servers[0].process.restart();
    plane.servers[0].wait_until_ready().await;
    let stored = config_maps.get("pointers").await.unwrap().data.unwrap();
    assert_eq!(stored["writer"], "before");
}
