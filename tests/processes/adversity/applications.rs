//! Applications: pods that stay, savepoints, upgrades and ends.

use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::world::{JOB_MANAGER, STANDBY, Seen, TASK_MANAGER, World, ready};
use crate::support::by_hand::given_back;

fn version(argument: &str, change: Value) -> Value {
    let mut spec = json!({ "job": { "jarURI": "local:///app.jar", "args": [argument], "upgradeDeadline": "10s" } });
    flinkha::cluster::merge::merge(&mut spec, json!({ "job": change }));
    spec
}

fn phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |resource| resource["status"]["application"]["phase"] == phase
}

async fn starts(world: &World) {
    world.apply(version("1", json!({}))).await;
    world.until::<FlinkHaCluster>("demo", phase("Starting")).await;
    world.pods_run().await;
}

/// Writes the progress of the application as its leading gateway does.
async fn progress(world: &World, change: Value) {
    let application = world.resource().await["status"]["application"].clone();
    let mut progress = json!({
        "job": application["jobId"],
        "version": application["version"],
        "start": application["starts"],
        "state": "RUNNING",
    });
    flinkha::cluster::merge::merge(&mut progress, change);
    world.ledger("application", &progress).await;
}

fn up() -> Value {
    json!({ "up": format!("{:.0}", jiff::Timestamp::now()) })
}

/// All tasks of the first version run.
async fn runs(world: &World) {
    starts(world).await;
    progress(world, up()).await;
    world.until::<FlinkHaCluster>("demo", phase("Running")).await;
}

/// The pods end, and the leader gives the Lease back.
async fn pods_end(world: &World) {
    for pod in [JOB_MANAGER, STANDBY, TASK_MANAGER] {
        world.end(pod).await;
    }
    world.lease("", given_back(JOB_MANAGER), 600).await;
}

/// A pod in phase `Failed` stays until somebody deletes it.
async fn failed(world: &World, pod: &str) {
    let status = json!({ "phase": "Failed", "reason": "Evicted", "message": "the node was low on memory" });
    world.patch_status::<Pod>(pod, status).await;
}

pub async fn a_task_manager_has_failed_and_the_arguments_change(world: World) -> Seen {
    runs(&world).await;
    failed(&world, TASK_MANAGER).await;
    world.apply(version("2", json!({}))).await;
    world.scaled_to_zero().await;
    for pod in [JOB_MANAGER, STANDBY] {
        world.end(pod).await;
    }
    world.lease("", given_back(JOB_MANAGER), 600).await;
    world.reaches("the next version starts", phase("Starting")).await
}

pub async fn a_job_manager_was_evicted_and_the_job_is_suspended(world: World) -> Seen {
    runs(&world).await;
    failed(&world, STANDBY).await;
    world.apply(version("1", json!({ "state": "suspended" }))).await;
    world.scaled_to_zero().await;
    for pod in [JOB_MANAGER, TASK_MANAGER] {
        world.end(pod).await;
    }
    world.lease("", given_back(JOB_MANAGER), 600).await;
    world.reaches("suspended", phase("Suspended")).await
}

pub async fn a_pod_stays_on_a_lost_node(world: World) -> Seen {
    const LOST: &str = "demo-taskmanager-lost";
    runs(&world).await;
    // Nobody confirms its end.
    world.pod_with(LOST, json!({ "metadata": { "finalizers": ["example.com/kubelet"] } }), ready()).await;
    world.api::<Pod>().delete(LOST, &DeleteParams::default().grace_period(1)).await.unwrap();
    world.apply(version("2", json!({}))).await;
    world.scaled_to_zero().await;
    pods_end(&world).await;
    let seen = world.told("PodsRemain", &[LOST]).await;
    world.patch::<Pod>(LOST, json!({ "metadata": { "finalizers": null } })).await;
    world.lifted(seen, "PodsRemain").await
}

fn with_savepoint(argument: &str) -> Value {
    version(argument, json!({ "upgradeMode": "savepoint" }))
}

pub async fn a_savepoint_is_not_answered(world: World) -> Seen {
    runs(&world).await;
    world.apply(savepoint_directory(with_savepoint("2"))).await;
    world.until::<FlinkHaCluster>("demo", phase("Savepointing")).await;
    world.told("SavepointWaits", &["is being stopped with the savepoint", "no JobManager has taken"]).await
}

fn savepoint_directory(mut spec: Value) -> Value {
    spec["flinkConfiguration"] = json!({ "execution.checkpointing.savepoint-dir": "file:///flink/savepoints" });
    spec
}

pub async fn a_savepoint_fails(world: World) -> Seen {
    runs(&world).await;
    world.apply(savepoint_directory(with_savepoint("2"))).await;
    let resource = world.until::<FlinkHaCluster>("demo", phase("Savepointing")).await;
    let id = &resource["status"]["application"]["savepointRequest"];
    let at = format!("{:.0}", jiff::Timestamp::now());
    let answer = json!({ "id": id, "error": "the directory is full", "at": at, "attempt": 1, "by": "uid.1-1" });
    let mut change = up();
    change["savepoint"] = answer;
    progress(&world, change).await;
    world.told("UpgradeRefused", &["the directory is full"]).await
}

pub async fn the_main_method_throws(world: World) -> Seen {
    starts(&world).await;
    let error = "com.example.Settings$Missing: the setting region is missing";
    progress(&world, json!({ "state": "FAILED", "error": error })).await;
    world.told("ApplicationFailed", &[error]).await
}

pub async fn the_running_definition_is_unreadable(world: World) -> Seen {
    runs(&world).await;
    world.patch_status::<FlinkHaCluster>("demo", json!({ "application": { "deployed": "{ torn" } })).await;
    // It matters when another one is asked for.
    world.apply(version("2", json!({}))).await;
    world.told("DefinitionUnreadable", &["status.application.deployed"]).await
}

pub async fn an_upgrade_does_not_come_up(world: World) -> Seen {
    runs(&world).await;
    world.apply(version("2", json!({}))).await;
    world.scaled_to_zero().await;
    pods_end(&world).await;
    world.until::<FlinkHaCluster>("demo", phase("Starting")).await;
    world.until::<FlinkHaCluster>("demo", phase("RollingBack")).await;
    world.scaled_to_zero().await;
    world.told("UpgradeRolledBack", &["did not come up"]).await
}

pub async fn a_job_fails_for_good(world: World) -> Seen {
    runs(&world).await;
    let job = world.resource().await["status"]["application"]["jobId"].clone();
    let at = format!("{:.0}", jiff::Timestamp::now());
    let cause = "com.example.Poison: record 7 cannot be read";
    let ended = json!({
        "id": job, "name": "words", "state": "Failed", "started": at, "ended": at, "collected": at, "cause": cause,
    });
    world.ledger("jobs", &json!([ended])).await;
    world.scaled_to_zero().await;
    pods_end(&world).await;
    world.told("JobFailed", &[cause]).await
}
