//! An application's whole life in a real cluster: it begins when its resource is applied, survives its leaders, and
//! leaves nothing when it ends.

use flinkha::api::application::Phase;

use crate::kit::application::resource;
use crate::kit::cluster::Cluster;
use crate::kit::failover::kill_leader;
use crate::kit::machine::run;
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

fn kills() -> usize {
    std::env::var("KILLS").map_or(3, |text| text.parse().expect("KILLS is a number"))
}

/// As a user waits for it.
pub fn wait_for_condition(cluster: &Cluster, condition: &str) {
    let (namespace, name) = (&cluster.namespace.0, format!("fhc/{}", cluster.name));
    let condition = format!("--for=condition={condition}");
    let waited = run("kubectl", &["--namespace", namespace, "wait", &condition, "--timeout=240s", &name], "");
    say(waited.unwrap_or_else(|error| panic!("{error}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_survives_its_leaders_and_completes_and_nothing_of_it_is_left() {
    let _share = machine::share().await;
    let namespace = Namespace::fresh("kind-application");
    // It must not end before the last kill.
    let lines = (2000 + 4000 * kills()).to_string();
    let arguments = ["--output", "/flink/output/whole", "--lines", &lines, "--rate", "100"];
    let mut resource = resource(&namespace, "KeyedSequence", &arguments);
    resource["spec"]["jobManager"]["replicas"] = 3.into();
    let cluster = ours::apply(namespace, &resource).await;
    cluster.wait_until_ready().await;
    let job = cluster.wait_for_phase(Phase::Running).await.job_id;
    for kill in 1..=kills() {
        let failover = kill_leader(&cluster, &job).await;
        if kill < kills() {
            cluster.replace(&failover.from).await;
        }
    }
    wait_for_condition(&cluster, "Complete");
    cluster.assert_nothing_remains().await;
    assert_eq!(cluster.condition("Complete").await.1, "Finished");
    cluster.namespace.verify("output/whole", &lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_application_completes_and_a_failed_one_tells_its_exception() {
    let _share = machine::share().await;
    let namespace = Namespace::fresh("kind-ended-application");
    let resource = resource(&namespace, "KeyedSequence", &["--output", "/flink/output/cancelled"]);
    let cluster = ours::apply(namespace, &resource).await;
    cluster.wait_until_ready().await;
    let job = cluster.wait_for_phase(Phase::Running).await.job_id;
    cluster.wait_for_checkpoints(&job, 2).await;
    cluster.leading_rest().await.cancel(&job).await.expect("failed to cancel the job");
    wait_for_condition(&cluster, "Complete");
    cluster.assert_nothing_remains().await;
    assert_eq!(cluster.condition("Complete").await.1, "Canceled");

    let namespace = Namespace::fresh("kind-ended-application");
    let mut resource = self::resource(&namespace, "FailsForGood", &["--after-millis", "5000"]);
    resource["spec"]["ttlSecondsAfterFinished"] = 30.into();
    let cluster = ours::apply(namespace, &resource).await;
    wait_for_condition(&cluster, "Failed");
    cluster.assert_nothing_remains().await;
    let (_, _, message) = cluster.condition("Failed").await;
    say(&message);
    assert!(message.contains("IllegalStateException: failed for good"), "{message}");
    eventually("the resource is deleted when its time is over", seconds(120), async || {
        run("kubectl", &["--namespace", &cluster.namespace.0, "get", "fhc", &cluster.name], "").err()
    })
    .await;
}
