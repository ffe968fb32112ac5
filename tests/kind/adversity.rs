//! What goes wrong where a kubelet and Kubernetes' own controllers matter: it is told on the resource, and nothing
//! waits for it longer than it must. `make test-adversity` has the other cases, without kubelets.

use flinkha::api::application::Phase;
use flinkha::api::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::kit::application::{change, resource};
use crate::kit::cluster::{self, Cluster};
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_and_a_quota_that_refuses_the_purge_are_told_and_waited_out() {
    let _share = machine::share().await;
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 1.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource["spec"]["haData"] = json!({ "onDelete": "Delete" });
    let pod = &mut resource["spec"]["taskManager"]["podTemplate"]["spec"];
    let mut add = |list: &str, one: Value| pod.pointer_mut(list).unwrap().as_array_mut().unwrap().push(one);
    add("/volumes", json!({ "name": "keys", "secret": { "secretName": "keys" } }));
    // A kubelet does not look at volumes that nobody mounts.
    add("/containers/0/volumeMounts", json!({ "name": "keys", "mountPath": "/keys" }));
    let cluster = ours::apply(Namespace::fresh("kind-adversity"), &resource).await;
    cluster.wait_for_degraded("PodNotStarted", &["FailedMount", "secret \"keys\" not found"]).await;
    change(&cluster, &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" } }));
    // The kubelet tries to mount it again after as much as two minutes.
    cluster.wait_until_ready().await;

    let quota = json!({ "hard": { "count/jobs.batch": "0" } });
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "no-jobs" }, "spec": quota,
    });
    change(&cluster, &quota);
    // The controller of quotas fills it in.
    eventually("the quota", seconds(30), async || {
        let hard = ["get", "resourcequota", "no-jobs", "--output", "jsonpath={.status.hard}"];
        cluster.namespace.kubectl(&hard).contains("jobs").then_some(())
    })
    .await;
    cluster.namespace.kubectl(&["delete", "flinkhacluster", &cluster.name, "--wait=false"]);
    cluster.wait_for_degraded("PurgeRefused", &["Job", "quota"]).await;
    cluster.namespace.kubectl(&["delete", "resourcequota", "no-jobs"]);
    cluster.namespace.kubectl(&["wait", "--for=delete", &format!("fhc/{}", cluster.name), "--timeout=120s"]);
    assert_eq!(cluster.namespace.files("ha"), Vec::<String>::new());
    cluster.namespace.delete();
}

/// The kubelet ends this pod, as it does with one that it evicts: the pod stays, in phase Failed.
async fn evict(cluster: &Cluster, pod: &Pod) {
    let name = pod.name_any();
    let patch = json!({ "spec": { "activeDeadlineSeconds": 1 } }).to_string();
    cluster.namespace.kubectl(&["patch", "pod", &name, "--patch", &patch]);
    let phase = ["get", "pod", &name, "--output", "jsonpath={.status.phase}"];
    let failed = async || (cluster.namespace.kubectl(&phase) == "Failed").then_some(());
    eventually(&format!("{name} in phase Failed"), seconds(60), failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_pods_hold_up_neither_an_upgrade_nor_a_suspension() {
    let _share = machine::share().await;
    let namespace = Namespace::fresh("kind-evicted");
    let arguments = |rate: &str| json!(["--output", "/flink/output/evicted", "--rate", rate]);
    let mut resource = resource(&namespace, "KeyedSequence", &[]);
    resource["spec"]["job"]["args"] = arguments("100");
    let cluster = ours::apply(namespace, &resource).await;
    cluster.wait_until_ready().await;
    let job = cluster.wait_for_phase(Phase::Running).await.job_id;
    cluster.wait_for_checkpoints(&job, 2).await;

    let task_managers = cluster.pods(names::TASK_MANAGER).await;
    evict(&cluster, task_managers.first().expect("a TaskManager")).await;
    resource["spec"]["job"]["args"] = arguments("120");
    change(&cluster, &resource);
    let (application, upgrade) = cluster.wait_for_upgrade("Succeeded").await;
    say(format!("{} beside a failed TaskManager: {:?} ms", upgrade.mode, upgrade.milliseconds));
    assert_eq!(application.job_id, job, "the same run");
    cluster.wait_for_checkpoints(&job, 2).await;

    let leader = cluster.leader().await.expect("a leader").name_any();
    let pods = cluster.pods(names::JOB_MANAGER).await;
    let standby = pods.iter().find(|pod| pod.name_any() != leader && cluster::is_ready(pod)).expect("a standby");
    evict(&cluster, standby).await;
    resource["spec"]["job"]["state"] = "suspended".into();
    change(&cluster, &resource);
    cluster.wait_for_phase(Phase::Suspended).await;
    resource["spec"]["job"]["state"] = "running".into();
    change(&cluster, &resource);
    let application = cluster.wait_for_phase(Phase::Running).await;
    assert_eq!(application.job_id, job, "the same run");
    cluster.wait_for_checkpoints(&job, 2).await;
    cluster.namespace.verify("output/evicted", "any");
    cluster.namespace.delete();
}
