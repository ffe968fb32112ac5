//! When a cluster does not come up, the resource's conditions and events say why.

use serde_json::json;

use crate::kit::cluster::Cluster;
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::seconds;

/// One pod of each kind is enough to go wrong.
fn small() -> serde_json::Value {
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 1.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_named() {
    let _share = machine::share().await;
    let mut resource = small();
    // Nobody listens there, so the refusal is immediate and nothing leaves the machine.
    let image = "localhost:1/flink:missing";
    resource["spec"]["image"] = json!(image);
    let cluster = ours::apply(Namespace::fresh("kind-no-image"), &resource).await;
    expect(&cluster, "ImagePullFailed", &[image, "flink-main-container"]).await;
    cluster.namespace.delete();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_of_a_job_manager_that_crashes_again_and_again_are_told() {
    let _share = machine::share().await;
    let mut resource = small();
    resource["spec"]["flinkConfiguration"]["jobmanager.memory.jvm-metaspace.size"] = json!("2g");
    let cluster = ours::apply(Namespace::fresh("kind-crash-loop"), &resource).await;
    expect(
        &cluster,
        "CrashLooping",
        &["flink-main-container", "IllegalConfigurationException: Sum of configured JVM Metaspace"],
    )
    .await;
    cluster.namespace.delete();
}

/// The cause is in the condition Degraded and in an event.
async fn expect(cluster: &Cluster, reason: &str, words: &[&str]) {
    cluster.wait_for_degraded(reason, words).await;
    let selector = format!("involvedObject.kind=FlinkHaCluster,reason={reason}");
    let events = async || {
        let events = cluster.namespace.kubectl(&[
            "get",
            "events",
            "--field-selector",
            &selector,
            "--output",
            "jsonpath={.items[*].message}",
        ]);
        (!events.is_empty()).then_some(events)
    };
    let event = eventually(&format!("an event with reason {reason}"), seconds(20), events).await;
    for word in words {
        assert!(event.contains(word), "{word} is not in the event: {event}");
    }
}
