//! Leaders that die, leaders that are deleted, and gateways that die.

use std::collections::BTreeMap;
use std::time::Instant;

use flinkha::api::names::{FLINK_CONTAINER, GATEWAY_CONTAINER};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::kit::cluster::Cluster;
use crate::kit::cluster::is_ready;
use crate::kit::cluster::restarts;
use crate::kit::failover::fail_over;
use crate::kit::failover::kill_leader;
use crate::kit::machine::kubectl;
use crate::kit::node::Shot;
use crate::kit::session::Session;
use crate::support::cluster::dispatcher;
use crate::support::eventually;
use crate::support::say;
use crate::support::seconds;

fn kills() -> usize {
    std::env::var("KILLS").map_or(3, |text| text.parse().expect("KILLS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_every_kill_of_the_leader_another_leads_and_the_job_goes_on_exactly_once() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/kills", "--rate", "200"], 2).await;
    for kill in 1..=kills() {
        let failover = kill_leader(cluster, &job).await;
        assert_ne!(failover.to, failover.from, "kill {kill}: the killed pod leads");
        assert_eq!(cluster.holder().await, failover.to, "kill {kill}: the Lease names another leader than Flink");
        let jobs = cluster.leading_rest().await.jobs().await.unwrap();
        let running: Vec<&str> = jobs.iter().filter(|one| one.runs()).map(|one| one.id.as_str()).collect();
        assert_eq!(running, [job.as_str()], "kill {kill}: a job was lost or doubled");
        let seen = async || cluster.resource().await.status?.last_failover.filter(|seen| seen.to == failover.to);
        let seen = eventually("the failover in the status", seconds(60), seen).await;
        assert_eq!(seen.from, failover.from);
        cluster.replace(&failover.from).await;
    }
    let rest = cluster.leading_rest().await;
    rest.stop_with_savepoint(&job, "file:///flink/savepoints").await.unwrap();
    cluster.wait_for_end(&job, "FINISHED").await;
    cluster.namespace.verify("output/kills", "any");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_deleted_hands_over_before_it_ends() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/deleted"], 2).await;
    let leader = cluster.leader().await.unwrap().name_any();
    let delete = async || {
        let begin = Instant::now();
        cluster.pods_api().delete(&leader, &DeleteParams::default()).await.unwrap();
        begin
    };
    let failover = fail_over(cluster, &job, &leader, delete).await;
    let change = cluster.last_change().await;
    say(format!("last change: {change}"));
    assert_eq!(
        (&change["why"], &change["from"], &change["to"]),
        (&json!("PodTerminating"), &json!(failover.from), &json!(failover.to))
    );
    // Usually a quarter of a second; two busy cores may need longer, and a Lease that was not handed over needs 4 s at
    // least.
    assert!(change["leaderlessMillis"].as_u64().unwrap() < 4000, "{change}");
    cluster.wait_until_ready().await;
    cluster.cancel(&job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_is_asked_for_on_the_resource() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/switchover"], 2).await;
    // Without a standby that is ready the answer would be no.
    cluster.wait_until_ready().await;
    let leader = cluster.leader().await.unwrap().name_any();
    let ask = async || {
        let begin = Instant::now();
        kubectl(&["--namespace", &cluster.namespace.0, "annotate", "fhc", &cluster.name, "flinkha.dev/switchover=any"]);
        begin
    };
    let failover = fail_over(cluster, &job, &leader, ask).await;
    let change = cluster.last_change().await;
    say(format!("last change: {change}"));
    assert_eq!(
        (&change["why"], &change["from"], &change["to"]),
        (&json!("Switchover"), &json!(failover.from), &json!(failover.to))
    );
    // The old leader's JVM goes on working meanwhile, it cancels the job: on two cores that takes its time.
    assert!(change["leaderlessMillis"].as_u64().unwrap() < 4000, "{change}");
    cluster.wait_until_ready().await;
    cluster.cancel(&job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_is_no_failover_and_the_job_is_not_restarted() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/gateway"], 2).await;
    let leader = cluster.leader().await.unwrap();
    let pod = leader.name_any();
    let rest = cluster.rest(&pod);
    let before = state(cluster, &job).await;
    let restarts = restarts(&leader, GATEWAY_CONTAINER);

    Shot::aim(&leader, GATEWAY_CONTAINER, "flinkha", "KILL").await.send().await;
    let restarted = async || {
        let pod = cluster.pods_api().get(&pod).await.ok()?;
        (self::restarts(&pod, GATEWAY_CONTAINER) > restarts && is_ready(&pod)).then_some(())
    };
    eventually("the gateway again, and Ready", seconds(90), restarted).await;
    let completed = rest.checkpoints(&job).await.unwrap().completed;
    let more = async || rest.checkpoints(&job).await.ok().filter(|now| now.completed > completed + 2);
    eventually("three more checkpoints", seconds(60), more).await;
    assert_eq!(state(cluster, &job).await, before);
    cluster.cancel(&job).await;
}

/// What must not change when only a gateway dies.
#[derive(Debug, PartialEq)]
struct State {
    holder: String,
    /// Flink's own session of leadership.
    session: Option<String>,
    restarts_of_flink: i32,
    /// Attempt and start of every subtask.
    attempts: BTreeMap<String, (Value, Value)>,
}

async fn state(cluster: &Cluster, job: &str) -> State {
    let leader = cluster.leader().await.unwrap();
    let rest = cluster.rest(&leader.name_any());
    let mut attempts = BTreeMap::new();
    for vertex in rest.get(&format!("/jobs/{job}")).await.unwrap()["vertices"].as_array().unwrap() {
        let id = vertex["id"].as_str().unwrap();
        for subtask in rest.get(&format!("/jobs/{job}/vertices/{id}")).await.unwrap()["subtasks"].as_array().unwrap() {
            attempts.insert(
                format!("{id} {}", subtask["subtask"]),
                (subtask["attempt"].clone(), subtask["start-time"].clone()),
            );
        }
    }
    let config_map = cluster.config_map(&cluster.cluster_config_map()).await.unwrap();
    State {
        holder: cluster.holder().await,
        session: dispatcher(&config_map),
        restarts_of_flink: restarts(&leader, FLINK_CONTAINER),
        attempts,
    }
}
