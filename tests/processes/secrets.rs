//! Credentials in Flink's configuration: where they are, and that they are nowhere else.

use crate::support::cluster::{Cluster, NAME, NAMESPACE as FLINK, PATIENCE, Provider};
use crate::support::control_plane::needs_admission_warnings;
use crate::support::everything::{holding, objects};
use crate::support::identity::create_all;
use crate::support::operator::{Installation, NAMESPACE, cluster, condition};
use crate::support::s3::{S3, SECRET_KEY};
use crate::support::{eventually, say, seconds};
use flinkha::api::{FlinkHaCluster, names};
use flinkha::ledger::jobs::HaData;
use flinkha::ledger::secrets::SecretsNote;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const CLEAR: &str = "a-credential-in-the-spec";
const KEPT: &str = "a-credential-in-a-secret";
const SIGNED: &str = "a-signature-in-a-uri";
const FORMER: &str = "a-credential-in-a-former-status";

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_the_spec_and_in_flinks_own_configuration_and_nowhere_else() {
    let installation = Installation::start(NAMESPACE).await;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "flink-s3", "namespace": NAMESPACE }, "stringData": { "s3.access-key": KEPT } });
    create_all(&installation.admin, &secret.to_string()).await;
    let apply = |object: &Value| {
        // Unlike the other way, it leaves no copy of the spec in an annotation.
        let output = installation.kubectl(&["apply", "--server-side"], object);
        assert!(output.status.success(), "kubectl apply failed: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let resource = cluster(json!({
        "flinkConfiguration": { "s3.secret-key": CLEAR },
        "flinkConfigurationFrom": [{ "secretRef": { "name": "flink-s3" } }],
        "job": { "jarURI": "local:///app.jar" },
    }));
    if needs_admission_warnings("kubectl warns of credentials in a resource") {
        let warned = eventually("a warning of kubectl", seconds(30), async || {
            let told = apply(&resource);
            told.contains("Warning").then_some(told)
        })
        .await;
        say(&warned);
        assert!(
            warned.contains("the key s3.secret-key looks like a credential") && !warned.contains(CLEAR),
            "{warned}"
        );
    } else {
        apply(&resource);
    }

    let is_redacted = |resource: &Value| {
        let deployed = resource["status"]["application"]["deployed"].as_str().unwrap_or_default();
        deployed.contains("\"s3.secret-key\":null")
    };
    installation.until::<FlinkHaCluster>("a status without it", (NAMESPACE, "demo"), is_redacted).await;

    // What an earlier version has written is rewritten.
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let mut stable = resource["spec"].clone();
    stable["flinkConfiguration"]["s3.secret-key"] = FORMER.into();
    let former = json!({ "status": { "application": { "stable": stable.to_string() } } });
    resources.patch_status("demo", &PatchParams::default(), &Patch::Merge(former)).await.unwrap();
    let touched = json!({ "metadata": { "annotations": { "flinkha.dev/touched": "now" } } });
    resources.patch("demo", &PatchParams::default(), &Patch::Merge(touched)).await.unwrap();
    let is_rewritten = |resource: &Value| {
        let stable = resource["status"]["application"]["stable"].as_str();
        stable.is_some_and(|stable| stable.contains("\"s3.secret-key\":null"))
    };
    installation.until::<FlinkHaCluster>("a former status without it", (NAMESPACE, "demo"), is_rewritten).await;

    let mut signed =
        cluster(json!({ "job": { "jarURI": format!("https://example.org/app.jar?X-Amz-Signature={SIGNED}") } }));
    signed["metadata"]["name"] = "signed".into();
    apply(&signed);
    let is_refused = |resource: &Value| condition(resource, "Degraded")["reason"] == "InvalidSpec";
    let refused = installation.until::<FlinkHaCluster>("a refusal", (NAMESPACE, "signed"), is_refused).await;
    let message = condition(&refused, "Degraded")["message"].as_str().unwrap_or_default();
    say(message);
    assert!(message.contains("spec.job.jarURI: the query parameter X-Amz-Signature"), "{message}");

    // A changed Secret, as the leader's gateway notes it.
    let note = SecretsNote { names: vec!["flink-s3".to_owned()], digest: "d".to_owned(), changes: 1, problem: None };
    let noted = json!({ "data": { "secrets": json!(note).to_string() } });
    let ledgers = installation.api::<ConfigMap>(NAMESPACE);
    ledgers.patch(&names::ledger("demo"), &PatchParams::default(), &Patch::Merge(noted)).await.unwrap();
    for name in ["demo-jobmanager", "demo-taskmanager"] {
        let replaced = |deployment: &Value| {
            deployment["spec"]["template"]["metadata"]["annotations"]["flinkha.dev/secret-changes"] == "1"
        };
        installation.until::<Deployment>("pods with the changed Secret", (NAMESPACE, name), replaced).await;
    }

    let all = objects(&installation.admin).await;
    say(format!("{} objects are searched", all.len()));
    assert_eq!(holding(&all, CLEAR), ["ConfigMap/demo-flink-config", "FlinkHaCluster/demo"]);
    assert_eq!(holding(&all, KEPT), ["Secret/flink-s3"]);
    assert_eq!(holding(&all, SIGNED), ["FlinkHaCluster/signed"]);
    assert_eq!(holding(&all, FORMER), Vec::<String>::new());
    for resource in all.iter().filter(|object| object["kind"] == "FlinkHaCluster") {
        let said = resource["status"].to_string() + &resource["metadata"].to_string();
        assert!(![CLEAR, SIGNED].iter().any(|value| said.contains(value)), "{said}");
    }
    let log = installation.operator.log();
    for value in [CLEAR, KEPT, SIGNED, FORMER] {
        assert!(!log.contains(value), "{value} is in the operator's log");
    }
}

async fn note(cluster: &Cluster) -> Option<SecretsNote> {
    let ledger = cluster.config_map(&names::ledger(NAME)).await?;
    serde_json::from_str(ledger.data?.get("secrets")?).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_for_s3_that_are_in_a_secret_only_reach_flink_and_its_gateway_and_nobody_else() {
    if std::env::var("FLINK_VERSION").is_ok_and(|version| version != "2.3.0") {
        return say("n/a with this version of Flink: its S3 file system is not published");
    }
    let mut cluster = Cluster::prepare(Provider::ours(), 1).await;
    let s3 = S3::start(cluster.path(), SECRET_KEY).await.with_keys_in_a_secret();
    let secret = s3.secret().expect("the mounted Secret");
    cluster.s3 = Some(s3);
    let mut cluster = cluster.up(2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let collectable = async || {
        let ledger = cluster.config_map(&names::ledger(NAME)).await?;
        let said: HaData = serde_json::from_str(ledger.data?.get("haData")?).ok()?;
        (said.state == "Collectable").then_some(())
    };
    eventually("a gateway that reaches the bucket", seconds(90), collectable).await;
    let first = eventually("a note of the Secret", seconds(60), async || note(&cluster).await).await;
    assert_eq!((first.names.as_slice(), first.changes, &first.problem), (&["flink-s3".to_owned()][..], 0, &None));

    std::fs::write(secret.join("s3.socket-timeout"), "10 s\n").unwrap();
    let changed = async |changes| note(&cluster).await.filter(|note| note.changes == changes);
    let second = eventually("a note of the change", seconds(60), async || changed(1).await).await;
    assert_ne!(first.digest, second.digest);
    std::fs::write(secret.join("rest.port"), SECRET_KEY).unwrap();
    let problem = async || note(&cluster).await.and_then(|note| note.problem);
    let problem = eventually("a refusal of the change", seconds(60), problem).await;
    say(&problem);
    assert!(problem.contains("the key rest.port of Secret flink-s3 is an address or port"), "{problem}");
    std::fs::remove_file(secret.join("rest.port")).unwrap();
    let mended = async || changed(1).await.filter(|note| note.problem.is_none() && note.digest == second.digest);
    eventually("a note that it is mended", seconds(60), mended).await;

    let leader = cluster.leader().await.expect("a leader");
    cluster.job_managers[leader].jvm.kill();
    eventually("another leader", PATIENCE, async || cluster.leader().await.filter(|now| *now != leader)).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let rest = cluster.leader_rest().await;
    let shown = rest.get("/jobmanager/config").await.expect("Flink's configuration").to_string();
    assert!(shown.contains("s3.secret-key") && !shown.contains(SECRET_KEY), "Flink hides it: {shown}");
    tokio::time::sleep(seconds(15)).await;
    assert_eq!(note(&cluster).await, Some(second), "a failover is no change");

    let all = objects(&cluster.client).await;
    say(format!("{} objects are searched", all.len()));
    assert!(all.iter().any(|object| object["metadata"]["namespace"] == FLINK));
    assert_eq!(holding(&all, SECRET_KEY), Vec::<String>::new());
    for job_manager in &cluster.job_managers {
        let logs = job_manager.gateway_log() + &job_manager.flink_log();
        assert!(!logs.contains(SECRET_KEY), "it is in a log of {}", job_manager.pod);
    }
}
