//! The election of operators on a real kube-apiserver: what one does that stood still, and that an upgrade of the chart
//! never has two of one release at work.

use crate::support::eventually;
use crate::support::identity::create_all;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR, OPERATOR_NAMESPACE, cluster, readyz, release};
use crate::support::seconds;
use flinkha::api::FlinkHaCluster;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Waits until an operator says this of itself.
async fn until_it_says(probe_url: &str, words: &str) {
    let what = format!("an operator that says {words:?}");
    eventually(&what, seconds(90), async || readyz(probe_url).await.contains(words).then_some(())).await;
}

async fn until_reconciled(installation: &Installation, generation: i64) {
    let reconciled = |resource: &Value| resource["status"]["observedGeneration"] == generation;
    installation.until::<FlinkHaCluster>("the generation", (NAMESPACE, "demo"), reconciled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_stood_still_writes_nothing_and_stands_for_election_again() {
    let mut installation = Installation::start(NAMESPACE).await;
    let first = installation.probe_url.clone();
    until_it_says(&first, "ok: elected: this pod holds Lease flinkha-operator").await;
    let account = (OPERATOR_NAMESPACE, "flinkha-operator");
    let (mut second, its_probes) = installation.start_another(account.0, account.1, "operator-1", &[]).await;
    until_it_says(&its_probes, "ok: standing by: pod operator-0 holds Lease flinkha-operator").await;
    let replicas = |replicas: u32| cluster(json!({ "taskManager": { "replicas": replicas } }));
    installation.apply(&replicas(1));
    until_reconciled(&installation, 1).await;

    // It stops when it has just seen a change.
    installation.apply(&replicas(2));
    installation.operator.stop();
    until_it_says(&its_probes, "ok: elected").await;
    installation.apply(&replicas(3));
    until_reconciled(&installation, 3).await;
    let woken = Timestamp::now();
    installation.operator.cont();
    until_it_says(&first, "ok: standing by: pod operator-1 holds Lease").await;
    tokio::time::sleep(seconds(3)).await;
    let metrics = reqwest::get(format!("{first}/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("flinkha_operator_leader 0"), "{metrics}");
    let late = installation.plane.servers[0].audit().requests().into_iter().filter(|request| {
        let is_late = request.received.parse::<Timestamp>().is_ok_and(|received| received > woken);
        request.user == OPERATOR && request.pod.is_none() && request.is_write() && is_late && request.succeeded()
    });
    let late: Vec<_> = late.map(|request| (request.verb, request.resource, request.name)).collect();
    assert!(late.is_empty(), "an operator that is no longer elected wrote: {late:?}");

    // The same process works again.
    second.kill();
    until_it_says(&first, "ok: elected").await;
    installation.apply(&replicas(4));
    until_reconciled(&installation, 4).await;
    assert!(installation.operator.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_waits_for_one_of_a_former_version_of_its_release_and_for_no_other() {
    let installation = Installation::start(NAMESPACE).await;
    let namespace = "prod-system";
    let admin = installation.admin.clone();
    let named = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
    create_all(&admin, &named).await;
    let chart = release("prod", namespace, &["--set", &format!("watchNamespace={namespace}")]);
    assert!(chart.contains("value: prod-operator"), "the Lease is not named after the release: {chart}");
    create_all(&admin, &chart).await;
    let leases: Api<Lease> = Api::namespaced(admin, namespace);
    let held = |holder: &str| {
        let now = format!("{:.6}", Timestamp::now());
        let spec = json!({ "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": now });
        json!({ "metadata": { "name": "flinkha-operator" }, "spec": spec })
    };
    let write = async |holder: &str| {
        leases.patch("flinkha-operator", &PatchParams::default(), &Patch::Merge(held(holder))).await.unwrap();
    };
    let former = "prod-operator-5f7-abcde";
    leases.create(&PostParams::default(), &serde_json::from_value(held(former)).unwrap()).await.unwrap();

    let flags = ["--lease-name", "prod-operator", "--watch-namespace", namespace];
    let pod = "prod-operator-6c8-fghij";
    let (mut operator, probes) = installation.start_another(namespace, "prod-operator", pod, &flags).await;
    until_it_says(&probes, &format!("waiting for pod {former} of a former version of this release")).await;
    for _ in 0..10 {
        write(former).await;
        tokio::time::sleep(seconds(2)).await;
        assert!(leases.get_opt("prod-operator").await.unwrap().is_none(), "two operators of one release");
    }
    // It ends without a word.
    until_it_says(&probes, "ok: elected: this pod holds Lease prod-operator").await;
    let left = leases.get("flinkha-operator").await.unwrap().spec.unwrap().holder_identity;
    assert_eq!(left.as_deref(), Some(former), "the Lease was changed");
    operator.kill();

    write("other-operator-5f7-abcde").await;
    let pod = "prod-operator-6c8-klmno";
    let (operator, probes) = installation.start_another(namespace, "prod-operator", pod, &flags).await;
    until_it_says(&probes, "ok: elected: this pod holds Lease prod-operator").await;
    assert!(!operator.log().contains("of a former version"), "the operator of another release was waited for");
}
