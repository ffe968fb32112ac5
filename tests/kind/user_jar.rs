//! User code outlives the JobManager that it was uploaded to.

use flinkha::api::names::{FLINK_CONTAINER, JOB_MANAGER, TASK_MANAGER};
use kube::ResourceExt;

use crate::kit::failover::kill_leader;
use crate::kit::session::Session;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_jar_runs_on_although_the_local_files_were_emptied_and_a_task_manager_replaced() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/user-jar"], 2).await;
    for pod in cluster.pods(JOB_MANAGER).await {
        // Uploaded jars, blobs, temporary files: all that Flink keeps outside of its storage directory.
        let empty = "find /tmp -ignore_readdir_race -mindepth 1 -type f -print -delete";
        let emptied = cluster.namespace.kubectl(&[
            "exec",
            &pod.name_any(),
            "--container",
            FLINK_CONTAINER,
            "--",
            "bash",
            "-c",
            empty,
        ]);
        let leads = cluster.leader().await.unwrap().name_any() == pod.name_any();
        assert!(!leads || emptied.contains(".jar"), "the leader had no jar to lose: {emptied}");
    }
    let task_manager = cluster.pods(TASK_MANAGER).await.remove(0).name_any();
    cluster.namespace.kubectl(&["delete", "pod", &task_manager, "--now", "--wait=false"]);
    let failover = kill_leader(cluster, &job).await;
    cluster.replace(&failover.from).await;
    assert!(cluster.pods(TASK_MANAGER).await.iter().all(|pod| pod.name_any() != task_manager));
    let checkpoints = cluster.leading_rest().await.checkpoints(&job).await.unwrap();
    assert!(checkpoints.completed > 0, "{checkpoints:?}");
    cluster.cancel(&job).await;
}
