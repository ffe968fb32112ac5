//! Provider ZooKeeper in Kubernetes: a quorum of pods, leaders and servers that die, a resource that is deleted, and an
//! application that ends.

use std::time::Instant;

use flinkha::api::application::Phase;
use flinkha::api::names::{FLINK_CONTAINER, JOB_MANAGER};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::applications::wait_for_condition;
use crate::kit::application;
use crate::kit::cluster::Cluster;
use crate::kit::machine::flink_image;
use crate::kit::machine::kubectl_with;
use crate::kit::namespace::Namespace;
use crate::kit::node::Shot;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::rest::Job;
use crate::support::rest::Rest;
use crate::support::say;
use crate::support::seconds;

const NAMESPACE: &str = "kind-zookeeper";
/// Enough for some minutes at a hundred a second.
const LINES: &str = "30000";

fn resource(on_delete: &str) -> Value {
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource["spec"]["haData"] = json!({ "onDelete": on_delete });
    on_quorum(resource)
}

pub fn on_quorum(mut resource: Value) -> Value {
    resource["spec"]["highAvailability"]["provider"] = "ZooKeeper".into();
    let quorum = (0..3).map(|index| format!("zookeeper-{index}.zookeeper:2181")).collect::<Vec<_>>().join(",");
    resource["spec"]["highAvailability"]["zookeeper"] = json!({ "quorum": quorum });
    resource
}

/// A fresh namespace with three ZooKeeper servers.
pub fn with_quorum(name: &str) -> Namespace {
    let namespace = Namespace::fresh(name);
    let quorum = include_str!("kit/zookeeper.yaml").replace("FLINK_IMAGE", &flink_image());
    kubectl_with(&["--namespace", name, "apply", "--filename", "-"], &quorum);
    namespace.kubectl(&["rollout", "status", "statefulset/zookeeper", "--timeout", "240s"]);
    namespace
}

/// Kills the leader's JVM and waits until all tasks run under another one. Returns both pods.
async fn kill_leader(cluster: &Cluster, job: &str) -> (String, String) {
    let from = cluster.leader().await.expect("a leader");
    let shot = Shot::aim(&from, FLINK_CONTAINER, "java", "KILL").await;
    let begin: Instant = shot.send().await;
    let from = from.name_any();
    let another = async || cluster.leader().await.filter(|now| now.name_any() != from);
    let to = eventually("another leader", seconds(60), another).await.name_any();
    let published = begin.elapsed();
    let rest = cluster.rest(&to);
    eventually("all tasks RUNNING", seconds(60), async || runs(&rest, job).await).await;
    let (published, running) = (published.as_secs_f64(), begin.elapsed().as_secs_f64());
    say(format!("{from} → {to}: address published {published:.3} s, all tasks RUNNING {running:.3} s"));
    (from, to)
}

/// Paths of all znodes below `/flink`, by the client in Flink's distribution.
fn znodes(namespace: &Namespace) -> Vec<String> {
    let client = "java -cp '/opt/flink/lib/*' org.apache.flink.shaded.zookeeper3.org.apache.zookeeper.ZooKeeperMain -server localhost ls -R /flink";
    let listed = namespace.kubectl(&["exec", "zookeeper-1", "--", "sh", "-c", client]);
    listed.lines().filter(|line| line.starts_with("/flink")).map(str::to_owned).collect()
}

async fn apply(on_delete: &str) -> Cluster {
    let cluster = ours::apply(Namespace(NAMESPACE.to_owned()), &resource(on_delete)).await;
    cluster.wait_until_ready().await;
    cluster
}

async fn runs(rest: &Rest, job: &str) -> Option<Job> {
    rest.job(job).await.ok().filter(Job::runs)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_quorum_of_pods_leaders_are_replaced_and_a_deleted_resource_leaves_nothing() {
    let _share = machine::share().await;
    let namespace = with_quorum(NAMESPACE);
    let cluster = apply("Retain").await;
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    assert!(leases.get_opt(&cluster.name).await.expect("Leases").is_none(), "there is no Lease");
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/zookeeper"], 2).await;

    let (from, to) = kill_leader(&cluster, &job).await;
    let told = async || cluster.resource().await.status?.last_failover.filter(|told| told.to == to);
    let told = eventually("the failover in the status", seconds(60), told).await;
    assert_eq!((told.from.as_str(), told.why.as_str()), (from.as_str(), "JobManagerDied"));
    cluster.replace(&from).await;

    let pods = cluster.pods_api();
    pods.delete("zookeeper-0", &DeleteParams::default().grace_period(0)).await.expect("a deleted server");
    namespace.kubectl(&["rollout", "status", "statefulset/zookeeper", "--timeout", "240s"]);
    assert_eq!(
        cluster.leader().await.map(|pod| pod.name_any()).as_deref(),
        Some(to.as_str()),
        "one server of three is no change of leader"
    );
    let rest = cluster.rest(&to);
    let before = rest.checkpoints(&job).await.expect("checkpoints").latest.expect("a checkpoint");

    namespace.kubectl(&["delete", "flinkhacluster", &cluster.name, "--timeout", "180s"]);
    assert!(cluster.pods(JOB_MANAGER).await.is_empty());
    let cluster = apply("Delete").await;
    let rest = cluster.leading_rest().await;
    eventually("the job resumed", seconds(60), async || runs(&rest, &job).await).await;
    let restored =
        rest.checkpoints(&job).await.expect("checkpoints").restored.expect("it was resumed from a checkpoint");
    assert!(restored >= before, "resumed from checkpoint {restored}, but {before} was complete");
    cluster.cancel(&job).await;
    let collected =
        async || cluster.resource().await.status?.jobs.into_iter().find(|one| one.id == job && one.collected.is_some());
    eventually("nothing of the job is left", seconds(60), collected).await;

    namespace.kubectl(&["delete", "flinkhacluster", &cluster.name, "--timeout", "180s"]);
    let files: Vec<String> = namespace.files("ha");
    assert!(files.is_empty(), "{files:?}");
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let deleted = events.list(&ListParams::default().fields("reason=Deleted")).await.expect("events");
    let notes: Vec<String> = deleted.items.into_iter().filter_map(|event| event.note).collect();
    assert!(notes.iter().any(|note| note.contains("znodes")), "{notes:?}");
    say(notes.join("; "));
    namespace.delete();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_on_a_quorum_survives_its_leader_goes_on_as_other_versions_and_leaves_nothing() {
    let _share = machine::share().await;
    let namespace = with_quorum("kind-zookeeper-application");
    // The number of lines is part of the job's state.
    let version = |rate, mode: &str| {
        let arguments = ["--output", "/flink/output/whole", "--lines", LINES, "--rate", rate];
        let mut resource = on_quorum(application::resource(&namespace, "KeyedSequence", &arguments));
        resource["spec"]["job"]["upgradeMode"] = mode.into();
        resource
    };
    let (first, second, third) =
        (version("100", "last-state"), version("90", "last-state"), version("400", "savepoint"));
    let cluster = ours::apply(Namespace(namespace.0.clone()), &first).await;
    cluster.wait_until_ready().await;
    let job = cluster.wait_for_phase(Phase::Running).await.job_id;
    cluster.wait_for_checkpoints(&job, 2).await;
    let (from, _) = kill_leader(&cluster, &job).await;
    cluster.replace(&from).await;
    // Another version of the same run, from its last checkpoint.
    cluster.wait_for_checkpoints(&job, 2).await;
    application::change(&cluster, &second);
    let (application, upgrade) = cluster.wait_for_upgrade_of("last-state").await;
    assert_eq!((&application.job_id, application.upgrades.len()), (&job, 1), "{upgrade:?}");
    assert!(znodes(&namespace).iter().any(|path| path.contains("/latch/")), "{:?}", znodes(&namespace));
    // Another run, from a savepoint.
    cluster.wait_for_checkpoints(&job, 2).await;
    application::change(&cluster, &third);
    let (application, upgrade) = cluster.wait_for_upgrade_of("savepoint").await;
    assert!(application.job_id != job && upgrade.milliseconds.is_some(), "{application:?}");
    wait_for_condition(&cluster, "Complete");
    cluster.assert_nothing_remains().await;
    let own = || znodes(&namespace).into_iter().filter(|path| path.contains(&cluster.name)).collect::<Vec<_>>();
    eventually("no znode of the cluster", seconds(30), async || own().is_empty().then_some(())).await;
    namespace.verify("output/whole", LINES);
    namespace.delete();
}
