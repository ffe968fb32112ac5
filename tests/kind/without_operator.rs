//! Clusters do not need the operator to live.

use flinkha::api::names::{self, FLINK_CONTAINER, REST_PORT, TASK_MANAGER};
use kube::ResourceExt;

use crate::kit::cluster::Cluster;
use crate::kit::cluster::ip;
use crate::kit::failover::fail_over;
use crate::kit::failover::kill_leader;
use crate::kit::node::Shot;
use crate::kit::operator;
use crate::kit::session::Session;
use crate::support::eventually;
use crate::support::machine;
use crate::support::seconds;

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_new_task_managers_find_the_new_leader_while_there_is_no_operator() {
    machine::want_all();
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/no-operator"], 2).await;
    operator::scale(0);
    let failover = kill_leader(cluster, &job).await;

    let leader = cluster.pods_api().get(&failover.to).await.unwrap();
    let address = ip(&leader).unwrap();
    let found = async || ask_through_service(cluster, "/jobmanager/config").filter(|answer| answer.contains(address));
    eventually("an answer of the new leader through the Service", seconds(60), found).await;
    let listed = async || ask_through_service(cluster, "/jobs").filter(|answer| answer.contains(&job));
    eventually("the job through the Service", seconds(60), listed).await;

    let old = cluster.pods(TASK_MANAGER).await.remove(0).name_any();
    cluster.replace(&old).await;
    let registered = async || {
        let registered = cluster.rest(&failover.to).get("/taskmanagers").await.ok()?.to_string();
        let pods = cluster.pods(TASK_MANAGER).await;
        pods.iter().all(|pod| ip(pod).is_some_and(|ip| registered.contains(ip))).then_some(())
    };
    eventually("every TaskManager registered at the new leader", seconds(90), registered).await;
    operator::scale(1);
    cluster.replace(&failover.from).await;
    cluster.cancel(&job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_happens_although_the_operator_is_deleted_at_the_same_time() {
    machine::want_all();
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/deleted-operator"], 2).await;
    let leader = cluster.leader().await.unwrap();
    let shot = Shot::aim(&leader, FLINK_CONTAINER, "java", "KILL").await;
    let failover = fail_over(cluster, &job, &leader.name_any(), async || {
        operator::delete_pods();
        shot.send().await
    })
    .await;
    assert_eq!(cluster.holder().await, failover.to);
    let told = async || cluster.resource().await.status?.leader.filter(|leader| leader.pod == failover.to);
    eventually("the next operator tells who leads", seconds(60), told).await;
    cluster.replace(&failover.from).await;
    cluster.cancel(&job).await;
}

/// What the REST interface answers to a client in a pod of the cluster; `None` while nobody does.
fn ask_through_service(cluster: &Cluster, path: &str) -> Option<String> {
    let service = names::rest(&cluster.name);
    let ask = format!(
        r"exec 3<>/dev/tcp/{service}/{REST_PORT} && printf 'GET {path} HTTP/1.1\r\nHost: {service}\r\nConnection: close\r\n\r\n' >&3 && cat <&3"
    );
    let deployment = format!("deployment/{}", names::task_manager(&cluster.name));
    let answer = cluster.namespace.kubectl(&[
        "exec",
        &deployment,
        "--container",
        FLINK_CONTAINER,
        "--",
        "sh",
        "-c",
        r#"timeout 5 bash -c "$0" || true"#,
        &ask,
    ]);
    answer.contains("200 OK").then_some(answer)
}
