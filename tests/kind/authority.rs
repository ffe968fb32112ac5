//! With whose rights things are done, by the API server's own audit log.

use std::collections::BTreeSet;

use flinkha::api::names;
use kube::ResourceExt;

use crate::kit::node;
use crate::kit::session::Session;
use crate::support::audit::Audit;

const CONTROL_PLANE_LOG: &str = "/var/log/kubernetes/audit.log";

#[tokio::test(flavor = "multi_thread")]
async fn flinks_requests_reach_the_api_server_under_the_pods_own_service_account() {
    let session = Session::start().await;
    let cluster = &session.cluster;
    let begin = node::run(&node::control_plane(), &["wc", "--bytes", CONTROL_PLANE_LOG]);
    let begin: u64 =
        begin.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("the length of the audit log");
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/authority"], 2).await;
    let leader = cluster.leader().await.unwrap().name_any();
    let job_config_map = names::job_config_map(&names::kubernetes_cluster_id(&cluster.name), &job);
    cluster.cancel(&job).await;

    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.log");
    // From here on, and whole lines: a machine that was switched off may have left a torn one, and the last may be half
    // written.
    let lines = format!(
        r#"tail --bytes=+{} {CONTROL_PLANE_LOG} | grep '^{{"kind":"Event".*}}$' | grep {}"#,
        begin + 1,
        cluster.namespace.0
    );
    let lines = node::run(&node::control_plane(), &["sh", "-c", &lines]);
    std::fs::write(&log, lines).unwrap();
    let requests = Audit::since(log, 0).of(&cluster.namespace.0, "configmaps");

    let service_account =
        format!("system:serviceaccount:{}:{}", cluster.namespace.0, names::job_manager(&cluster.name));
    let of_job: Vec<_> =
        requests.iter().filter(|request| request.name == job_config_map && request.is_write()).collect();
    let verbs: BTreeSet<&str> = of_job.iter().map(|request| request.verb.as_str()).collect();
    assert!(verbs.contains("update"), "Flink has written pointers: {verbs:?}");
    for request in of_job.iter().filter(|request| request.user_agent == "flink") {
        assert_eq!(request.user, service_account, "{request:?}");
        assert_eq!(request.pod.as_deref(), Some(leader.as_str()), "{request:?}");
        assert!(request.succeeded() || request.code == 409, "{request:?}");
    }
    let by_flink = of_job.iter().filter(|request| request.user_agent == "flink" && request.verb == "update").count();
    assert!(by_flink >= 2, "the JVM's own requests are told apart by its user agent: {of_job:#?}");
}
