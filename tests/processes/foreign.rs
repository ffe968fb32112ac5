//! A Flink that is not ours, with its own high availability under the name of a FlinkHaCluster: nothing of it is
//! touched, and the refusal can be read.

use crate::support::cluster::{Cluster, NAME, NAMESPACE, PATIENCE, Provider};
use crate::support::gateway::Timings;
use crate::support::zookeeper::Quorum;
use crate::support::{eventually, say, seconds};
use flinkha::api::names::{self, TERM_ANNOTATION};
use flinkha::flink::ha_data;
use flinkha::ledger::refusal::{FOREIGN_HA_DATA, Refusal};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

/// Long enough for several tries of both gateways to lead.
const WHILE: std::time::Duration = seconds(25);

async fn refusal(cluster: &Cluster) -> Option<Refusal> {
    Refusal::of(&cluster.config_map(&names::ledger(NAME)).await?.metadata)
}

/// HA ConfigMaps with a stamp of ours.
async fn stamped(cluster: &Cluster) -> Vec<String> {
    let labelled = ListParams::default().labels(&ha_data::selector(&names::kubernetes_cluster_id(NAME)));
    let config_maps = cluster.config_maps().list(&labelled).await.expect("the ConfigMaps").items;
    config_maps
        .iter()
        .filter(|one| one.annotations().contains_key(TERM_ANNOTATION))
        .map(ResourceExt::name_any)
        .collect()
}

/// The other Flink's job goes on without a restart, and its checkpoints go on.
async fn assert_goes_on(cluster: &Cluster, job: &str, completed: u64) -> u64 {
    let rest = cluster.job_managers[0].rest();
    let now = rest.checkpoints(job).await.expect("checkpoints of the other Flink's job");
    assert!(rest.job(job).await.is_ok_and(|job| job.runs()), "the other Flink's job does not run");
    assert!(now.completed > completed && now.restored.is_none(), "{now:?} after {completed}");
    now.completed
}

#[tokio::test(flavor = "multi_thread")]
async fn ha_data_of_another_flink_is_refused_and_that_flink_goes_on() {
    let mut cluster = Cluster::start(Provider::native(), 1, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let before = cluster.wait_for_checkpoints(&job, 2).await.completed;

    cluster.provider = Provider::Kubernetes(Timings::DEFAULT);
    for _ in 0..2 {
        cluster.add_job_manager().await;
    }
    let told = async || {
        assert_eq!(stamped(&cluster).await, Vec::<String>::new(), "the other Flink's HA data is stamped");
        refusal(&cluster).await
    };
    let told = eventually("the refusal in the ledger", PATIENCE, told).await;
    say(&told.message);
    assert_eq!(told.reason, FOREIGN_HA_DATA);
    for part in [
        "demo-cluster-config-map was not written by this cluster",
        "held by",
        "another name",
        "kubernetes.cluster-id is demo",
    ] {
        assert!(told.message.contains(part), "{part:?} in {:?}", told.message);
    }
    tokio::time::sleep(WHILE).await;

    assert_goes_on(&cluster, &job, before).await;
    assert_eq!(stamped(&cluster).await, Vec::<String>::new());
    let gateways = format!("system:serviceaccount:{NAMESPACE}:demo-gateway");
    let writes = cluster.plane.servers[0].audit().of(NAMESPACE, "configmaps").into_iter();
    let writes: Vec<_> =
        writes.filter(|one| one.user == gateways && one.is_write() && one.name != names::ledger(NAME)).collect();
    assert!(writes.is_empty(), "{writes:?}");
    let term = cluster.lease().await.term.map_or(0, |term| term.number);
    assert!(term <= 3, "terms climb while nobody may lead: {term}");

    // The way out.
    cluster.job_managers[0].jvm.kill();
    let id = names::kubernetes_cluster_id(NAME);
    for name in [names::job_config_map(&id, &job), names::cluster_config_map(&id)] {
        cluster.config_maps().delete(&name, &DeleteParams::default()).await.expect("a ConfigMap that is deleted");
    }
    eventually("a JobManager of ours leads", PATIENCE, async || cluster.leader().await.filter(|leader| *leader > 0))
        .await;
    eventually("no refusal any more", seconds(30), async || refusal(&cluster).await.is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn znodes_of_another_flink_are_refused_and_no_job_manager_of_ours_stands_for_election() {
    let mut cluster = Cluster::start(Provider::NativeZooKeeper, 1, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let before = cluster.wait_for_checkpoints(&job, 2).await.completed;
    let client = cluster.quorum.as_ref().expect("a quorum").client().await.expect("a session");
    let candidates = async || {
        flinkha::world::quorum::znodes::candidates(&client, &Quorum::paths()).await.expect("the candidates").len()
    };

    cluster.provider = Provider::ZooKeeper(Timings::DEFAULT);
    cluster.add_job_manager().await;
    let told = async || {
        assert_eq!(candidates().await, 1, "a JobManager of ours stands for election beside the other Flink");
        refusal(&cluster).await
    };
    let told = eventually("the refusal in the ledger", PATIENCE, told).await;
    say(&told.message);
    assert_eq!(told.reason, FOREIGN_HA_DATA);
    assert!(told.message.contains("holds its latch") && told.message.contains("another rootPath"), "{}", told.message);
    tokio::time::sleep(WHILE).await;

    assert_goes_on(&cluster, &job, before).await;
    assert_eq!(candidates().await, 1, "a JobManager of ours stands for election beside the other Flink");
}
