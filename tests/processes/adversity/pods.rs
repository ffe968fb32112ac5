//! Pods that do not start, do not become ready, or crash.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};

use super::world::{JOB_MANAGER, STANDBY, Seen, TASK_MANAGER, World, container, pending, ready};

/// What Flink and the user's code leave in the termination message, before what Flink logs while it ends: the cause is
/// neither the first line nor the last.
fn last_log() -> String {
    let parts = ["BlobServer", "MetricRegistryImpl", "DispatcherResourceManagerComponent", "PekkoRpcService"];
    let stops = parts.iter().flat_map(|part| [(part, "Stopping"), (part, "Stopped")]);
    let line = |(part, what)| {
        format!("2026-01-01 00:00:00,000 INFO  org.apache.flink.runtime.{part} [] - {what} {part} at 0.0.0.0:6124\n")
    };
    TRACE.to_owned() + &stops.map(line).collect::<String>()
}

const TRACE: &str = "org.apache.flink.util.FlinkException: Could not start the cluster entrypoint.
\tat org.apache.flink.runtime.entrypoint.ClusterEntrypoint.runClusterEntrypoint(ClusterEntrypoint.java:1)
Caused by: com.example.Settings$Missing: the setting region is missing
\tat com.example.Settings.read(Settings.java:7)
\tat java.base/java.lang.Thread.run(Thread.java:840)
\t... 4 more
\t... 2 more
";

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

/// The objects of a new cluster are there, and no pods yet.
async fn made(world: &World) {
    world.apply(json!({})).await;
    world.until::<ConfigMap>("demo-ledger", |_| true).await;
    world.until::<Deployment>("demo-taskmanager", |_| true).await;
}

async fn pod_in(world: &World, pod: &str, status: Value) {
    made(world).await;
    world.pod(pod, status).await;
}

/// The pod becomes ready, so that nothing is said of it any more.
async fn mended(world: &World, pod: &str, seen: Seen) -> Seen {
    let reason = seen.outcome.rsplit('/').next().unwrap_or_default().to_owned();
    world.patch_status::<Pod>(pod, ready()).await;
    world.lifted(seen, &reason).await
}

async fn told(world: &World, pod: &str, reason: &str, words: &[&str]) -> Seen {
    let seen = world.told(reason, words).await;
    mended(world, pod, seen).await
}

pub async fn an_image_cannot_be_pulled(world: World) -> Seen {
    pod_in(&world, JOB_MANAGER, pending(waiting("ImagePullBackOff", "Back-off pulling image \"flink:2.3.0\""))).await;
    told(&world, JOB_MANAGER, "ImagePullFailed", &[JOB_MANAGER, "flink:2.3.0"]).await
}

fn crashed() -> Value {
    let mut container = container(waiting("CrashLoopBackOff", "back-off 20s restarting failed container"), false);
    container["restartCount"] = json!(3);
    let at = "2026-01-01T00:00:00Z";
    container["lastState"] = json!({ "terminated": {
        "exitCode": 1, "reason": "Error", "message": last_log(), "startedAt": at, "finishedAt": at, "containerID": "",
    } });
    json!({
        "phase": "Running",
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False" }],
        "containerStatuses": [container],
    })
}

pub async fn a_job_manager_crashes(world: World) -> Seen {
    pod_in(&world, JOB_MANAGER, crashed()).await;
    told(&world, JOB_MANAGER, "CrashLooping", &[JOB_MANAGER, "com.example.Settings$Missing", "region is missing"]).await
}

pub async fn a_task_manager_crashes(world: World) -> Seen {
    pod_in(&world, TASK_MANAGER, crashed()).await;
    told(&world, TASK_MANAGER, "CrashLooping", &[TASK_MANAGER, "com.example.Settings$Missing"]).await
}

pub async fn a_job_manager_has_too_little_memory(world: World) -> Seen {
    let mut status = crashed();
    let ended = &mut status["containerStatuses"][0]["lastState"]["terminated"];
    (ended["exitCode"], ended["reason"], ended["message"]) = (137.into(), "OOMKilled".into(), "".into());
    pod_in(&world, JOB_MANAGER, status).await;
    told(&world, JOB_MANAGER, "CrashLooping", &[JOB_MANAGER, "raise spec.jobManager.resources.limits.memory"]).await
}

fn unscheduled(reason: &str, message: &str) -> Value {
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": reason, "message": message });
    json!({ "phase": "Pending", "conditions": [condition] })
}

pub async fn no_node_has_room(world: World) -> Seen {
    pod_in(&world, TASK_MANAGER, unscheduled("Unschedulable", "0/3 nodes are available: 3 Insufficient memory")).await;
    told(&world, TASK_MANAGER, "Unschedulable", &[TASK_MANAGER, "3 Insufficient memory"]).await
}

pub async fn a_quota_refuses_pods(world: World) -> Seen {
    made(&world).await;
    let message = "pods \"demo-jobmanager-x\" is forbidden: exceeded quota: small";
    let condition = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
    world.patch_status::<Deployment>("demo-jobmanager", json!({ "conditions": [condition] })).await;
    let seen = world.told("PodsRefused", &["demo-jobmanager", "exceeded quota: small"]).await;
    world.patch_status::<Deployment>("demo-jobmanager", json!({ "conditions": null })).await;
    world.lifted(seen, "PodsRefused").await
}

pub async fn an_environment_is_missing(world: World) -> Seen {
    pod_in(&world, JOB_MANAGER, pending(waiting("CreateContainerConfigError", "secret \"keys\" not found"))).await;
    told(&world, JOB_MANAGER, "ContainerNotStarted", &[JOB_MANAGER, "secret \"keys\" not found"]).await
}

/// Told by nobody but an event.
async fn warned(world: World, pod: &str, status: Value, reason: &str, message: &str, word: &str) -> Seen {
    pod_in(&world, pod, status).await;
    world.warning(pod, reason, message).await;
    told(&world, pod, "PodNotStarted", &[pod, reason, word]).await
}

fn creating() -> Value {
    pending(waiting("ContainerCreating", ""))
}

pub async fn a_secret_volume_is_missing(world: World) -> Seen {
    let message = "MountVolume.SetUp failed for volume \"keys\" : secret \"keys\" not found";
    warned(world, JOB_MANAGER, creating(), "FailedMount", message, "secret \"keys\" not found").await
}

pub async fn a_volume_of_an_init_container_is_missing(world: World) -> Seen {
    let mut status = pending(waiting("PodInitializing", ""));
    let mut gateway = container(waiting("PodInitializing", ""), false);
    gateway["name"] = json!("gateway");
    status["initContainerStatuses"] = json!([gateway]);
    let message = "MountVolume.SetUp failed for volume \"ca\" : configmap \"ca\" not found";
    warned(world, TASK_MANAGER, status, "FailedMount", message, "configmap \"ca\" not found").await
}

pub async fn a_volume_is_attached_elsewhere(world: World) -> Seen {
    let message = "Multi-Attach error for volume \"pvc-1\" Volume is already used by pod(s) other";
    warned(world, JOB_MANAGER, creating(), "FailedAttachVolume", message, "Multi-Attach").await
}

pub async fn a_sandbox_cannot_be_made(world: World) -> Seen {
    let message = "Failed to create pod sandbox: no IP addresses available in range set";
    warned(world, TASK_MANAGER, creating(), "FailedCreatePodSandBox", message, "no IP addresses available").await
}

pub async fn no_scheduler_looks_at_a_pod(world: World) -> Seen {
    pod_in(&world, JOB_MANAGER, json!({ "phase": "Pending" })).await;
    told(&world, JOB_MANAGER, "PodNotStarted", &[JOB_MANAGER, "scheduler"]).await
}

pub async fn a_pod_is_gated(world: World) -> Seen {
    pod_in(&world, TASK_MANAGER, unscheduled("SchedulingGated", "Scheduling is blocked due to non-empty gates")).await;
    told(&world, TASK_MANAGER, "PodNotStarted", &[TASK_MANAGER, "SchedulingGated"]).await
}

pub async fn a_job_manager_does_not_become_ready(world: World) -> Seen {
    world.works().await;
    let mut status = ready();
    status["conditions"][1]["status"] = json!("False");
    status["containerStatuses"][0]["ready"] = json!(false);
    world.patch_status::<Pod>(STANDBY, status).await;
    told(&world, STANDBY, "PodNotReady", &[STANDBY, "kubectl logs"]).await
}

pub async fn task_managers_are_lost(world: World) -> Seen {
    world.works().await;
    world
        .until::<flinkha::api::FlinkHaCluster>("demo", |resource| {
            crate::support::operator::condition(resource, "Ready")["status"] == "True"
        })
        .await;
    world.end(TASK_MANAGER).await;
    world.told("TaskManagersNotReady", &["0/1 TaskManagers"]).await
}
