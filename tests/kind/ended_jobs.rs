//! What a job that has ended leaves behind: nothing.

use std::time::Duration;

use flinkha::api::names;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::kit::cluster::Cluster;
use crate::kit::session::Session;
use crate::support::eventually;
use crate::support::seconds;

/// The collector looks every few seconds.
const COLLECTED: Duration = seconds(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_leaves_no_config_map_no_key_and_no_file() {
    let session = Session::start().await;
    let arguments = ["--output", "/flink/output/finished", "--lines", "2000", "--rate", "200"];
    let job = session.cluster.run("KeyedSequence", &arguments, 1).await;
    assert!(!remains(&session.cluster).await.is_empty(), "a running job has HA data");
    session.cluster.wait_for_end(&job, "FINISHED").await;
    assert_nothing_remains(&session.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_leaves_no_config_map_no_key_and_no_file() {
    let session = Session::start().await;
    let job = session.cluster.run("KeyedSequence", &["--output", "/flink/output/cancelled"], 2).await;
    session.cluster.cancel(&job).await;
    assert_nothing_remains(&session.cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_for_good_leaves_no_config_map_no_key_and_no_file() {
    let session = Session::start().await;
    let job = session.cluster.submit("FailsForGood", &["--after-millis", "3000"]).await;
    session.cluster.wait_for_end(&job, "FAILED").await;
    assert_nothing_remains(&session.cluster).await;
}

pub async fn assert_nothing_remains(cluster: &Cluster) {
    let mut last = Vec::new();
    let clean = async || {
        last = remains(cluster).await;
        last.is_empty().then_some(())
    };
    if tokio::time::timeout(COLLECTED, eventually("no HA data", COLLECTED * 2, clean)).await.is_err() {
        panic!("still there: {last:#?}");
    }
}

/// Everything that high availability keeps for jobs.
async fn remains(cluster: &Cluster) -> Vec<String> {
    let mut remains = Vec::new();
    let own = [
        cluster.cluster_config_map(),
        names::ledger(&cluster.name),
        names::flink_config(&cluster.name),
        "kube-root-ca.crt".to_owned(),
    ];
    for config_map in cluster.config_maps().list(&ListParams::default()).await.unwrap() {
        let name = config_map.name_any();
        let keys = config_map.data.unwrap_or_default().into_keys();
        remains.extend(
            keys.filter(|key| ["executionPlan-", "jobGraph-", "application-"].iter().any(|kind| key.starts_with(kind))),
        );
        if !own.contains(&name) {
            remains.push(name);
        }
    }
    let files = cluster.namespace.files("ha").into_iter();
    remains.extend(files.filter(|file| !file.contains("/.flinkha/")).map(|file| format!("/flink/ha/{file}")));
    remains
}
