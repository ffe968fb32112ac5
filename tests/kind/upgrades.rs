//! Changes of a running application: it goes on with its state, by every way there is; what does not work is taken
//! back.

use std::time::Duration;

use flinkha::api::application::Phase;
use flinkha::api::names;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::kit::application::change;
use crate::kit::application::resource;
use crate::kit::cluster::Cluster;
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

const OUTPUT: &str = "/flink/output/upgrades";

/// For how long the job has no pods.
fn suspended() -> Duration {
    Duration::from_secs(
        std::env::var("SUSPENDED_SECONDS").map_or(60, |text| text.parse().expect("SUSPENDED_SECONDS is a number")),
    )
}

fn arguments(rate: &str) -> Value {
    json!(["--output", OUTPUT, "--rate", rate])
}

async fn start(namespace: &str) -> (Cluster, Value, String) {
    let namespace = Namespace::fresh(namespace);
    let resource = resource(&namespace, "KeyedSequence", &["--output", OUTPUT, "--rate", "100"]);
    let cluster = ours::apply(namespace, &resource).await;
    cluster.wait_until_ready().await;
    let job = cluster.wait_for_phase(Phase::Running).await.job_id;
    cluster.wait_for_checkpoints(&job, 2).await;
    (cluster, resource, job)
}

fn verify(cluster: &Cluster) {
    cluster.namespace.verify("output/upgrades", "any");
}

async fn pods(cluster: &Cluster, component: &str) -> Vec<String> {
    let mut names: Vec<String> = cluster.pods(component).await.iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

/// Since the upgrade the tasks were restarted by nothing: the upgrade itself was the one restart.
async fn assert_one_restart(cluster: &Cluster, job: &str) {
    cluster.wait_for_checkpoints(job, 2).await;
    assert_eq!(cluster.restarts(job).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_survives_every_kind_of_upgrade_and_a_minute_of_suspension() {
    let _share = machine::share().await;
    let (cluster, mut resource, job) = start("kind-upgrades").await;
    // JobManagers alone: standbys first, the leader last, one switchover; TaskManagers stay, and the job goes on.
    let (leader, task_managers) =
        (cluster.leader().await.expect("a leader").name_any(), pods(&cluster, names::TASK_MANAGER).await);
    let term = cluster.resource().await.status.and_then(|status| status.leader).expect("a leader").term;
    resource["spec"]["jobManager"]["resources"]["requests"]["cpu"] = "110m".into();
    change(&cluster, &resource);
    let replaced = async || {
        (!pods(&cluster, names::JOB_MANAGER).await.contains(&leader) && cluster.leader().await.is_some()).then_some(())
    };
    eventually("other JobManagers", seconds(180), replaced).await;
    cluster.wait_until_ready().await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let after = cluster.resource().await.status.and_then(|status| status.leader).expect("a leader").term;
    assert_eq!(after - term, 1, "one planned switchover");
    assert_eq!(pods(&cluster, names::TASK_MANAGER).await, task_managers);
    // TaskManagers alone.
    let job_managers = pods(&cluster, names::JOB_MANAGER).await;
    resource["spec"]["taskManager"]["resources"]["limits"]["memory"] = "1100Mi".into();
    change(&cluster, &resource);
    let replaced = async || (!pods(&cluster, names::TASK_MANAGER).await.contains(&task_managers[0])).then_some(());
    eventually("another TaskManager", seconds(120), replaced).await;
    cluster.wait_until_ready().await;
    cluster.wait_for_more_checkpoints(&job, 2).await;
    assert_eq!(pods(&cluster, names::JOB_MANAGER).await, job_managers);
    // A savepoint beside the job.
    resource["spec"]["job"]["savepointTriggerNonce"] = 1.into();
    change(&cluster, &resource);
    let savepoint = eventually("a savepoint", seconds(60), async || cluster.application().await.last_savepoint).await;
    assert!(savepoint.path.starts_with("file:/flink/savepoints/") && savepoint.at.is_some(), "{savepoint:?}");
    // Last state.
    resource["spec"]["job"]["args"] = arguments("120");
    change(&cluster, &resource);
    let (application, upgrade) = cluster.wait_for_upgrade("Succeeded").await;
    say(format!("last-state: {:?} ms", upgrade.milliseconds));
    assert_eq!(application.job_id, job, "the same run");
    assert_one_restart(&cluster, &job).await;
    verify(&cluster);
    // A minute without pods.
    resource["spec"]["job"]["state"] = "suspended".into();
    change(&cluster, &resource);
    cluster.wait_for_phase(Phase::Suspended).await;
    assert_eq!(pods(&cluster, names::JOB_MANAGER).await.len() + pods(&cluster, names::TASK_MANAGER).await.len(), 0);
    tokio::time::sleep(suspended()).await;
    resource["spec"]["job"]["state"] = "running".into();
    change(&cluster, &resource);
    cluster.wait_for_phase(Phase::Running).await;
    assert_one_restart(&cluster, &job).await;
    verify(&cluster);
    // A savepoint, and from there another run.
    resource["spec"]["job"]["upgradeMode"] = "savepoint".into();
    resource["spec"]["job"]["args"] = arguments("140");
    change(&cluster, &resource);
    let (application, upgrade) = cluster.wait_for_upgrade_of("savepoint").await;
    say(format!("savepoint: {:?} ms", upgrade.milliseconds));
    assert_ne!(application.job_id, job);
    assert_eq!(
        (upgrade.restored_from.as_ref(), application.restored_from.is_some()),
        (application.restored_from.as_ref(), true)
    );
    assert_one_restart(&cluster, &application.job_id).await;
    verify(&cluster);
    // Anew.
    resource["spec"]["job"]["upgradeMode"] = "stateless".into();
    resource["spec"]["job"]["args"] = json!(["--output", "/flink/output/anew", "--rate", "100"]);
    change(&cluster, &resource);
    let (next, upgrade) = cluster.wait_for_upgrade_of("stateless").await;
    say(format!("stateless: {:?} ms", upgrade.milliseconds));
    assert_ne!(next.job_id, application.job_id);
    assert_one_restart(&cluster, &next.job_id).await;
    cluster.namespace.verify("output/anew", "any");
    let left = async || cluster.remains().await.iter().all(|one| !one.contains(&application.job_id)).then_some(());
    eventually("nothing of the former run", seconds(60), left).await;
    // It would run on beside all other tests.
    cluster.namespace.delete();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_up_is_taken_back_and_nothing_is_lost() {
    let _share = machine::share().await;
    let (cluster, good, job) = start("kind-rollbacks").await;
    let mut run = job;
    let expected = [
        ("an image that does not exist", "UpgradeRolledBack", "flink:none"),
        ("a jar that does not exist", "UpgradeRolledBack", "file:///flink/none.jar"),
        ("a main class that throws", "UpgradeRolledBack", "unknown argument"),
        ("a savepoint directory that cannot be written", "UpgradeRefused", "Failed to create savepoint directory"),
        ("state that does not fit", "UpgradeRolledBack", "There is no operator for the state"),
    ];
    for (what, reason, message) in expected {
        let mut bad = good.clone();
        match what {
            "an image that does not exist" => bad["spec"]["image"] = "localhost:1/flink:none".into(),
            "a jar that does not exist" => bad["spec"]["job"]["jarURI"] = "file:///flink/none.jar".into(),
            "a main class that throws" => bad["spec"]["job"]["args"] = json!(["--nonsense", "x"]),
            "a savepoint directory that cannot be written" => {
                bad["spec"]["job"]["upgradeMode"] = "savepoint".into();
                bad["spec"]["job"]["args"] = arguments("130");
                bad["spec"]["flinkConfiguration"]["execution.checkpointing.savepoint-dir"] = "file:///proc/none".into();
            }
            _ => bad["spec"]["job"] = incompatible(&good["spec"]["job"]),
        }
        let before = cluster.application().await.upgrades.len();
        change(&cluster, &bad);
        let result = if reason == "UpgradeRefused" { "Refused" } else { "RolledBack" };
        let concluded = async || {
            let application = cluster.application().await;
            let last = application.upgrades.last().filter(|upgrade| upgrade.result == result)?.clone();
            (application.upgrades.len() > before && application.phase == Phase::Running).then_some((application, last))
        };
        let (application, upgrade) = eventually(&format!("{what}: {result}"), seconds(420), concluded).await;
        run = application.job_id;
        cluster.wait_for_checkpoints(&run, 2).await;
        let why = upgrade.why.unwrap_or_default();
        say(format!("{what}: {why}"));
        let (found, said) = cluster.degraded().await.expect("a condition that says so");
        assert_eq!(found, reason, "{what}: {said}");
        assert!(said.contains(message), "{what}: {said}");
        verify(&cluster);
        change(&cluster, &good);
        eventually("what failed is no longer asked for", seconds(60), async || {
            cluster.degraded().await.is_none().then_some(())
        })
        .await;
    }
    let rest = cluster.leading_rest().await;
    rest.stop_with_savepoint(&run, "file:///flink/savepoints").await.expect("a savepoint");
    cluster.wait_for_phase(Phase::Ended).await;
    cluster.assert_nothing_remains().await;
    verify(&cluster);
}

/// Another program, whose operators know nothing of this state.
fn incompatible(job: &Value) -> Value {
    let mut job = job.clone();
    job["entryClass"] = "dev.flinkha.jobs.FailsForGood".into();
    job["args"] = json!(["--after-millis", "3600000"]);
    job
}
