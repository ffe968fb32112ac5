//! Pods and nodes that vanish or stand still under the leader.

use flinkha::api::names::{CLUSTER_LABEL, TASK_MANAGER};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::kit::cluster::Cluster;
use crate::kit::failover::fail_over;
use crate::kit::machine::kubectl;
use crate::kit::node;
use crate::kit::session::Session;
use crate::support::machine;
use crate::support::say;

/// Drains a node as an upgrade of nodes does; returns how often the leader has changed, and why the last time.
async fn drain(cluster: &Cluster, job: &str, on: &str) -> (u64, String) {
    let term = async || cluster.last_change().await["term"].as_u64().unwrap_or_default();
    let before = term().await;
    let selector = format!("{CLUSTER_LABEL}={}", cluster.name);
    let options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout", "240s", "--pod-selector", &selector];
    kubectl(&[["drain", on].as_slice(), &options].concat());
    kubectl(&["uncordon", on]);
    cluster.wait_until_ready().await;
    cluster.wait_for_more_checkpoints(job, 2).await;
    let change = cluster.last_change().await;
    say(format!("last change: {change}"));
    (term().await - before, change["why"].as_str().unwrap_or_default().to_owned())
}

/// Moves a TaskManager away from this node, if all are there since another node was lost: the job could run nowhere
/// while it stands still.
async fn leave_no_node_with_all_task_managers(cluster: &Cluster, job: &str, on: &str) {
    let pods = cluster.pods(TASK_MANAGER).await;
    if pods.iter().any(|pod| node::of(pod) != on) {
        return;
    }
    kubectl(&["cordon", on]);
    cluster.namespace.kubectl(&["delete", "pod", &pods[0].name_any(), "--now"]);
    cluster.wait_until_ready().await;
    kubectl(&["uncordon", on]);
    cluster.wait_for_more_checkpoints(job, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_pod_or_node_vanishes_or_stands_still_is_replaced_and_the_job_goes_on_exactly_once() {
    machine::want_all();
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/nodes", "--rate", "200"], 2).await;

    let leader = cluster.leader().await.unwrap().name_any();
    say("pod force-deleted");
    let force_delete = async || {
        let begin = std::time::Instant::now();
        cluster.pods_api().delete(&leader, &DeleteParams::default().grace_period(0)).await.unwrap();
        begin
    };
    fail_over(cluster, &job, &leader, force_delete).await;
    cluster.wait_until_ready().await;

    let leader = cluster.leader().await.unwrap();
    let on = node::of(&leader);
    say("node lost");
    fail_over(cluster, &job, &leader.name_any(), async || node::lose(&on)).await;
    node::start(&on);
    cluster.wait_until_ready().await;

    let leader = cluster.leader().await.unwrap();
    let on = node::of(&leader);
    leave_no_node_with_all_task_managers(cluster, &job, &on).await;
    say("node stands still");
    let failover = fail_over(cluster, &job, &leader.name_any(), async || node::pause(&on)).await;
    node::unpause(&on);
    cluster.wait_until_ready().await;
    assert_eq!(cluster.leader().await.unwrap().name_any(), failover.to, "the one that woke up took nothing back");

    say("both workers drained in turn");
    for _ in 0..2 {
        let on = node::of(&cluster.leader().await.unwrap());
        let (changes, why) = drain(cluster, &job, &on).await;
        // Where a standby is on the same node it may be the next leader.
        assert!((1..=2).contains(&changes) && why == "PodTerminating", "{changes} changes of leader, the last: {why}");
    }

    let rest = cluster.leading_rest().await;
    rest.stop_with_savepoint(&job, "file:///flink/savepoints").await.unwrap();
    cluster.wait_for_end(&job, "FINISHED").await;
    cluster.namespace.verify("output/nodes", "any");
}
