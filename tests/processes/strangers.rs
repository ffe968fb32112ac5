//! Whoever asks at the JVM's port without being the JVM is answered, and never counts: neither for the election nor as
//! a writer.

use std::process::{Command, Stdio};

use crate::support::cluster::{Cluster, LOCK_ANNOTATION, NAMESPACE, Provider, cluster_config_map, lock_holder};
use crate::support::failover::fail_over;
use crate::support::flink::java;
use crate::support::gateway::{jvm_address, jvm_url};
use crate::support::identity::token;
use crate::support::provider::{needs_a_lease, needs_a_quorum};
use crate::support::zookeeper::ROOT;
use crate::support::{eventually, say, seconds};
use flinkha::api::names;
use serde_json::{Value, json};
use zookeeper_client::Client;

const COLLECTION: &str = "/api/v1/namespaces/flink/configmaps";

/// A Java program that is not Flink. Its HTTP client asks for an upgrade to HTTP/2, as any client of Java does on a
/// plain connection.
const ASK: &str = r#"
import java.net.URI;
import java.net.http.*;

public class Ask {
    public static void main(String[] a) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 20; i++) {
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(a[0])).header("Authorization", "Bearer " + a[1]);
            HttpResponse<String> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body().contains(a[2]));
        }
        HttpRequest.Builder patch = HttpRequest.newBuilder(URI.create(a[0])).header("Authorization", "Bearer " + a[1])
            .header("Content-Type", "application/merge-patch+json").method("PATCH", HttpRequest.BodyPublishers.ofString(a[3]));
        System.out.println(client.send(patch.build(), HttpResponse.BodyHandlers.ofString()).statusCode());
    }
}
"#;

/// Status and body of an answer to `curl`, a process of its own for each request.
async fn curl(arguments: &[&str]) -> (u16, Value) {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("curl")
            .args(["--silent", "--max-time", "15", "--write-out", "\n%{http_code}"])
            .args(arguments)
            .output()
            .unwrap()
    });
    let printed = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let (body, code) = printed.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_asks_is_answered_and_never_counts() {
    if !needs_a_lease("requests for the lock: there are none") {
        return;
    }
    let cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let leader = cluster.leader().await.unwrap();
    let one = &cluster.job_managers[leader];
    let lock = async || cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);
    let (lease, holder, before) = (cluster.lease().await, lock().await, cluster.wait_for_checkpoints(&job, 2).await);

    let token = token(&cluster.client, NAMESPACE, "demo-jobmanager", Some((&one.pod, &one.uid))).await;
    let authorization = format!("authorization: Bearer {token}");
    let base = format!("{}{COLLECTION}", jvm_url(one.address));
    let cluster_url = format!("{base}/{}", cluster_config_map());
    let job_url =
        format!("{base}/{}", names::job_config_map(&names::kubernetes_cluster_id(crate::support::cluster::NAME), &job));
    let mut seen = Value::Null;
    for _ in 0..100 {
        let (code, body) = curl(&["--header", &authorization, &cluster_url]).await;
        assert_eq!((code, &body["metadata"]["name"]), (200, &json!(cluster_config_map())), "{body}");
        assert_eq!(cluster.lease().await.term, lease.term, "a stranger that reads changed the term");
        seen = body;
    }
    // Without credentials the API server answers, and not the gateway from memory.
    let (code, body) = curl(&[&cluster_url]).await;
    assert!([401, 403].contains(&code), "{code} {body}");

    let patch = json!({"metadata": {"resourceVersion": seen["metadata"]["resourceVersion"],
        "annotations": {LOCK_ANNOTATION: r#"{"holderIdentity":"a stranger"}"#}}});
    let (of_job, patch) = (curl(&["--header", &authorization, &job_url]).await.1, patch.to_string());
    let mut altered = of_job.clone();
    altered["data"]["late"] = json!("a stranger");
    let merge = "content-type: application/merge-patch+json";
    for (method, url, kind, body) in [
        ("PATCH", &cluster_url, merge, patch.as_str()),
        ("PUT", &job_url, "content-type: application/json", &altered.to_string()),
        ("DELETE", &job_url, "content-type: application/json", ""),
    ] {
        let (code, answer) =
            curl(&["--request", method, "--header", &authorization, "--header", kind, "--data", body, url]).await;
        assert_eq!(code, 403, "{method}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|text| text.contains("Flink")), "{answer}");
    }

    let upgrade = ["--header", "connection: Upgrade", "--header", "upgrade: websocket", "--header", &authorization];
    let exec = format!("{}/api/v1/namespaces/flink/pods/{}/exec?command=id", jvm_url(one.address), one.pod);
    let (code, answer) = curl(&[&upgrade[..], &[&exec]].concat()).await;
    assert_eq!(code, 501, "an upgrade that is no watch: {answer}");

    let source = cluster.path().join("Ask.java");
    std::fs::write(&source, ASK).unwrap();
    let mut program = Command::new(java());
    program.arg(&source).args([&cluster_url, &token, &cluster_config_map(), &patch]).stderr(Stdio::inherit());
    let printed = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed, "200 true\n".repeat(20) + "403\n");

    let after = cluster.wait_for_checkpoints(&job, before.completed + 4).await;
    assert_eq!((after.restores, after.failed), (before.restores, before.failed), "the job was restarted");
    let now = cluster.lease().await;
    say(format!("term {} before, {} after", lease.term.as_ref().unwrap().number, now.term.as_ref().unwrap().number));
    assert_eq!((now.holder, now.term), (lease.holder, lease.term), "the stranger changed the leader or its term");
    assert_eq!((cluster.leader().await, lock().await), (Some(leader), holder));
    let seen = serde_json::to_value(cluster.config_map(&names::job_config_map("demo", &job)).await.unwrap()).unwrap();
    assert!(seen["data"].get("late").is_none(), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_quorum_beside_the_jvm_keeps_its_session_when_the_jvm_ends() {
    if !needs_a_quorum("sessions with a quorum") {
        return;
    }
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let leader = cluster.leader().await.unwrap();
    let (term, before) = (cluster.lease().await.term, cluster.wait_for_checkpoints(&job, 2).await);
    // This very process, which is no JVM, by the way of the JVM.
    let way = jvm_address(cluster.job_managers[leader].address);
    let client = Client::connector().with_session_timeout(seconds(20)).connect(&way).await.unwrap();
    assert!(!client.list_children(ROOT).await.unwrap().is_empty());
    let after = cluster.wait_for_checkpoints(&job, before.completed + 4).await;
    assert_eq!(
        (cluster.lease().await.term, after.restores),
        (term, before.restores),
        "a stranger changed the leader, or its term"
    );

    let log = cluster.job_managers[leader].gateway_log();
    let of_ours = |line: &&str| {
        line.contains("has a ZooKeeper session") && line.contains(&format!("pid: {}", std::process::id()))
    };
    assert!(log.lines().find(of_ours).is_none(), "the stranger is taken for the JVM: {log}");
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    assert!(failover.granted < seconds(8), "{failover:?}");
    let lives = async || client.list_children(ROOT).await.ok();
    eventually("the stranger's session", seconds(10), lives).await;
}
