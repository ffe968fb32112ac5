//! Flink's own TLS in Kubernetes: leaders that die, certificates that are renewed, an upgrade with a savepoint, and a
//! certificate that nobody accepts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flinkha::api::application::Phase;
use flinkha::api::names;
use kube::ResourceExt;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::kit::application;
use crate::kit::cluster::Cluster;
use crate::kit::failover::kill_leader;
use crate::kit::machine::kubectl_with;
use crate::kit::namespace::Namespace;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

const SECRETS: [&str; 2] = ["internal-tls", "rest-tls"];

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut parameters = CertificateParams::new(Vec::<String>::new()).expect("no name");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Writes a Secret as cert-manager does; returns the certificate.
fn issue(
    namespace: &Namespace,
    authority: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = CertificateParams::new(["session-rest".to_owned()]).expect("a name");
    change(&mut parameters);
    let certificate = parameters.signed_by(&key, authority).expect("a certificate").pem();
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": { "name": name },
        "stringData": { "tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": authority.pem() },
    });
    kubectl_with(&["--namespace", &namespace.0, "apply", "--filename", "-"], &secret.to_string());
    certificate
}

fn encrypt(resource: &mut Value) {
    resource["spec"]["tls"] = json!({ "internal": { "name": SECRETS[0] }, "rest": { "name": SECRETS[1] } });
}

fn session() -> Value {
    let mut resource = ours::example();
    resource["spec"]["jobManager"]["replicas"] = 2.into();
    resource["spec"]["taskManager"]["replicas"] = 1.into();
    resource
}

fn kills() -> usize {
    std::env::var("KILLS").map_or(3, |text| text.parse().expect("KILLS is a number"))
}

/// Kills leaders; returns how long it took each time until all tasks ran again.
async fn kill_leaders(cluster: &Cluster, job: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..kills() {
        let failover = kill_leader(cluster, job).await;
        times.push(failover.running);
        cluster.replace(&failover.from).await;
    }
    times.sort();
    times
}

/// The certificate that Flink's REST endpoint presents, in PEM without line breaks.
fn presented(cluster: &Cluster, pod: &str) -> String {
    let ask = [
        "exec",
        pod,
        "-c",
        names::FLINK_CONTAINER,
        "--",
        "keytool",
        "-printcert",
        "-rfc",
        "-sslserver",
        "127.0.0.1:8081",
    ];
    one_line(&cluster.namespace.kubectl(&ask))
}

/// The certificate for internal traffic that a pod was started with.
fn internal(cluster: &Cluster, pod: &str) -> String {
    let file = format!("{}/internal/tls.crt", names::TLS_STORES);
    cluster.namespace.kubectl(&["exec", pod, "-c", names::FLINK_CONTAINER, "--", "cat", &file])
}

/// Names of all pods of Flink.
async fn pods(cluster: &Cluster) -> BTreeSet<String> {
    let (job_managers, task_managers) =
        (cluster.pods(names::JOB_MANAGER).await, cluster.pods(names::TASK_MANAGER).await);
    job_managers.iter().chain(&task_managers).map(ResourceExt::name_any).collect()
}

async fn term(cluster: &Cluster) -> i64 {
    cluster.resource().await.status.and_then(|status| status.leader).expect("a leader").term
}

fn one_line(pem: &str) -> String {
    pem.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_replaced_as_fast_with_tls_and_certificates_are_renewed_while_a_job_runs() {
    let _share = machine::share().await;
    let plain = ours::apply(Namespace::fresh("kind-plain"), &session()).await;
    plain.wait_until_ready().await;
    let arguments = ["--output", "/flink/output/tls", "--rate", "100"];
    let job = plain.run("KeyedSequence", &arguments, 2).await;
    let without = kill_leaders(&plain, &job).await;
    plain.namespace.delete();

    let (namespace, authority) = (Namespace::fresh("kind-tls"), authority());
    for name in SECRETS {
        issue(&namespace, &authority, name, |_| ());
    }
    let mut resource = session();
    encrypt(&mut resource);
    let cluster = ours::apply(namespace, &resource).await;
    cluster.wait_until_ready().await;
    let job = cluster.run("KeyedSequence", &arguments, 2).await;
    let with = kill_leaders(&cluster, &job).await;
    say(format!("killed → all tasks RUNNING: without TLS {without:?}, with TLS {with:?}"));

    // Nobody does anything but the one who renews the certificates.
    let (begin, term_before) = (Instant::now(), term(&cluster).await);
    let before = pods(&cluster).await;
    let renewed = SECRETS.map(|name| issue(&cluster.namespace, &authority, name, |_| ()));
    let replaced = async || pods(&cluster).await.is_disjoint(&before).then_some(());
    // A kubelet brings the Secrets within two minutes, and they settle for three.
    eventually("other pods", seconds(600), replaced).await;
    cluster.wait_until_ready().await;
    say(format!("all pods are replaced {:.0} s after the renewal", begin.elapsed().as_secs_f32()));
    assert!(begin.elapsed() > seconds(180), "some mount may not have had them yet");
    let told = cluster.namespace.kubectl(&["get", "events.events.k8s.io", "--output", "jsonpath={.items[*].note}"]);
    assert!(told.contains("a Secret of spec.tls has changed: the operator replaces"), "{told}");
    let leader = cluster.leader().await.expect("a leader").name_any();
    let presented = presented(&cluster, &leader);
    assert!(presented.contains(&one_line(&renewed[1])), "{presented}");
    for pod in pods(&cluster).await {
        assert_eq!(one_line(&internal(&cluster, &pod)), one_line(&renewed[0]), "{pod}");
    }
    cluster.wait_for_more_checkpoints(&job, 2).await;
    // What the pods have is not counted again.
    tokio::time::sleep(seconds(30)).await;
    assert_eq!(term(&cluster).await, term_before + 1, "one planned switchover");
    assert_eq!(cluster.degraded().await, None);
    let rest = cluster.leading_rest().await;
    rest.stop_with_savepoint(&job, "file:///flink/savepoints").await.expect("a savepoint");
    cluster.wait_for_end(&job, "FINISHED").await;
    cluster.namespace.verify("output/tls", "any");
    cluster.namespace.delete();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_upgraded_by_a_savepoint_with_tls_and_a_bad_certificate_is_told() {
    let _share = machine::share().await;
    let (namespace, authority) = (Namespace::fresh("kind-tls-application"), authority());
    issue(&namespace, &authority, SECRETS[0], |parameters| parameters.not_after = date_time_ymd(2020, 1, 2));
    issue(&namespace, &authority, SECRETS[1], |_| ());
    let arguments = |rate: &str| json!(["--output", "/flink/output/tls", "--rate", rate]);
    let mut resource = application::resource(&namespace, "KeyedSequence", &[]);
    resource["spec"]["job"]["args"] = arguments("100");
    resource["spec"]["job"]["upgradeMode"] = "savepoint".into();
    encrypt(&mut resource);
    let cluster = ours::apply(namespace, &resource).await;
    let told = async || cluster.degraded().await.filter(|(_, message)| message.contains("spec.tls.internal"));
    let (reason, message) = eventually("what is wrong", seconds(180), told).await;
    say(format!("{reason}: {message}"));
    assert!(message.contains("the certificate expired at 2020-01-02T00:00:00Z"), "{message}");

    issue(&cluster.namespace, &authority, SECRETS[0], |_| ());
    // The kubelet would try again by itself, ever later.
    cluster.namespace.kubectl(&["delete", "pods", "--all", "--now"]);
    let job = cluster.wait_for_phase(Phase::Running).await.job_id;
    cluster.wait_for_checkpoints(&job, 2).await;
    resource["spec"]["job"]["args"] = arguments("140");
    application::change(&cluster, &resource);
    let (application, upgrade) = cluster.wait_for_upgrade_of("savepoint").await;
    say(format!("savepoint: {:?} ms", upgrade.milliseconds));
    assert_ne!(application.job_id, job);
    cluster.wait_for_checkpoints(&application.job_id, 2).await;
    assert_eq!(cluster.degraded().await, None);
    cluster.namespace.verify("output/tls", "any");
    cluster.namespace.delete();
}
