//! JobManagers of another version of Flink beside stored jobs, with real JVMs of both: none leads that would lose them,
//! the resource says why, and the cluster goes on when the former version comes back.

use crate::support::application::spec;
use crate::support::cluster::{Cluster, NAME, PATIENCE, Provider, cluster_config_map};
use crate::support::flink;
use crate::support::rest::Job;
use crate::support::{eventually, say, seconds};
use flinkha::api::names;
use flinkha::flink::version::{FlinkVersion, StoredForm};
use flinkha::ha_data::versions::StoredJobs;
use flinkha::ledger::jobs::{HA_DATA_KEY, HaData};
use flinkha::ledger::refusal::{FLINK_VERSION_MISMATCH, JOBS_OF_ANOTHER_FLINK, LAST_STATE_REFUSED, Refusal};

const FORMER: &str = "1.20.5";
const NEXT: &str = "2.3.0";
const SEQUENCE: [&str; 6] = ["--output", "OUTPUT", "--rate", "100", "--checkpoint-interval-millis", "500"];

/// Long enough for several tries to lead.
const WHILE: std::time::Duration = seconds(25);

/// The version that led last, by the ledger.
async fn led_by(cluster: &Cluster) -> Option<FlinkVersion> {
    let data = cluster.config_map(&names::ledger(NAME)).await?.data?;
    serde_json::from_str::<HaData>(data.get(HA_DATA_KEY)?).expect("HA data").led_by()
}

async fn refusal_of(cluster: &Cluster, reason: &str, parts: &[&str]) -> Refusal {
    let refusal = eventually("the refusal in the ledger", PATIENCE, async || cluster.refusal().await).await;
    say(format!("{}: {}", refusal.reason, refusal.message));
    assert_eq!(refusal.reason, reason);
    for part in parts {
        assert!(refusal.message.contains(part), "{part:?} in {:?}", refusal.message);
    }
    refusal
}

async fn assert_lifted(cluster: &Cluster) {
    eventually("no refusal any more", seconds(30), async || cluster.refusal().await.is_none().then_some(())).await;
}

/// The job goes on from this checkpoint or a later one, and nothing is refused any more.
async fn assert_goes_on(cluster: &Cluster, job: &str, latest: u64) {
    let checkpoints = cluster.wait_for_checkpoints(job, 1).await;
    assert!(checkpoints.restored >= Some(latest), "{checkpoints:?}, {latest}");
    assert_lifted(cluster).await;
    cluster.verify("any");
}

/// What is stored in ConfigMaps, as a JobManager of each version would see it.
async fn stored(cluster: &Cluster) -> StoredJobs {
    let stored = cluster.config_map(&cluster_config_map()).await.expect("the cluster ConfigMap");
    StoredJobs::in_config_map(&serde_json::to_value(stored).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_flink_1_are_not_lost_to_flink_2_and_go_on_when_flink_1_comes_back() {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    cluster.change_version(FORMER);
    let mut cluster = cluster.up(1, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let noted = async || led_by(&cluster).await.filter(|version| version.as_str() == FORMER);
    eventually("the version in the ledger", seconds(30), noted).await;

    cluster.change_version(NEXT);
    cluster.add_job_manager().await;
    let parts = ["Flink 2.3.0", "Flink 1.20.5 has stored", &job, "set spec.image back", "flink stop"];
    let refusal = refusal_of(&cluster, JOBS_OF_ANOTHER_FLINK, &parts).await;
    let standby = &cluster.job_managers[1];
    assert_eq!(refusal.pod.as_deref(), Some(standby.uid.as_str()));
    // So a roll-out waits, and the leader of the former version goes on.
    let unready = async || standby.probe("/readyz").await.ok().filter(|(code, _)| *code == 503);
    say(format!("{:?}", eventually("the standby is not ready", PATIENCE, unready).await));
    let rest = cluster.job_managers[0].rest();
    let before = rest.checkpoints(&job).await.expect("checkpoints");
    assert!(rest.job(&job).await.is_ok_and(|job| job.runs()) && before.restored.is_none(), "the job does not go on");
    let latest = cluster.wait_for_checkpoints(&job, before.completed + 2).await.latest.expect("a checkpoint");

    let term = cluster.lease().await.term.map_or(0, |term| term.number);
    drop(cluster.job_managers.remove(0));
    let begin = std::time::Instant::now();
    while begin.elapsed() < WHILE {
        assert_eq!(cluster.leader().await, None, "a JobManager leads that does not see the job");
        tokio::time::sleep(seconds(1)).await;
    }
    let climbed = cluster.lease().await.term.map_or(0, |term| term.number) - term;
    assert!(climbed <= 2, "terms climb while nobody may lead: by {climbed}");
    if cluster.quorum.is_none() {
        let stored = stored(&cluster).await;
        assert!(stored.job_graphs.contains(&job) && stored.execution_plans.is_empty(), "{stored:?}");
    }
    refusal_of(&cluster, JOBS_OF_ANOTHER_FLINK, &parts).await;

    drop(cluster.job_managers.remove(0));
    cluster.change_version(FORMER);
    cluster.add_job_manager().await;
    cluster.wait_until_ready().await;
    let rest = cluster.leader_rest().await;
    eventually("all tasks RUNNING", PATIENCE, async || rest.job(&job).await.ok().filter(Job::runs)).await;
    assert_goes_on(&cluster, &job, latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_goes_on_from_its_last_state_only_in_the_version_that_is_known_to() {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    cluster.change_version(FORMER);
    let mut cluster = cluster.up_as_application(1, 1, "KeyedSequence", &SEQUENCE).await;
    let job = cluster.job();
    let latest = cluster.wait_for_checkpoints(&job, 2).await.latest.expect("a checkpoint");
    let former = cluster.application.as_ref().expect("an application").spec.clone();
    let noted = async || led_by(&cluster).await.filter(|version| version.as_str() == FORMER);
    eventually("the version in the ledger", seconds(30), noted).await;

    cluster.change_version(NEXT);
    let next = spec(&cluster, "KeyedSequence", &SEQUENCE);
    cluster.redeploy(1, |application| application.spec = next).await;
    refusal_of(&cluster, LAST_STATE_REFUSED, &["Flink 1.20.5", "Flink 2.3.0", "upgradeMode: savepoint"]).await;
    tokio::time::sleep(WHILE).await;
    assert_eq!(cluster.leader().await, None, "a JobManager leads over the last state of another version");
    assert_eq!(led_by(&cluster).await.map(|version| version.stored_form()), Some(StoredForm::JobGraph));

    cluster.change_version(FORMER);
    cluster.redeploy(1, |application| application.spec = former).await;
    cluster.wait_until_ready().await;
    cluster.wait_until_up().await;
    assert_goes_on(&cluster, &job, latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_manager_that_is_not_of_the_declared_version_does_not_lead() {
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    cluster.declared_version = Some("1.19");
    cluster.add_job_manager().await;
    let version = format!("the image runs Flink {}", flink::version());
    refusal_of(&cluster, FLINK_VERSION_MISMATCH, &["spec.flinkVersion: it says 1.19", &version]).await;
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(cluster.leader().await, None);

    drop(cluster.job_managers.remove(0));
    let line: Vec<&str> = cluster.version.splitn(3, '.').take(2).collect();
    cluster.declared_version = Some(line.join(".").leak());
    let cluster = cluster.up(1, 0).await;
    assert_lifted(&cluster).await;
    let noted = async || led_by(&cluster).await.filter(|version| version.as_str() == cluster.version);
    eventually("the version in the ledger", seconds(30), noted).await;
}
