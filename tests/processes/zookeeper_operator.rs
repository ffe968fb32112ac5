//! What the operator makes of provider ZooKeeper: refusals by name, objects without a Lease, a status that the ledger
//! tells, a deletion with a Job.

use crate::support::operator::Installation;
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{
    CHANGE_ANNOTATION, LEADER_ANNOTATION, QUORUM_ANNOTATION, ROLE_LABEL, SWITCHOVER_ANNOTATION, TERM_ANNOTATION,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const NAMESPACE: &str = "team";

fn cluster(spec: Value) -> Value {
    let high_availability = json!({ "provider": "ZooKeeper", "storageDir": "file:///flink/ha", "zookeeper": { "quorum": "zk-0.zk:2181,zk-1.zk,zk-2.zk:2181" } });
    let mut cluster = json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": NAMESPACE },
        "spec": { "image": "flink:2.3.0", "highAvailability": high_availability },
    });
    flinkha::cluster::merge::merge(&mut cluster["spec"], spec);
    cluster
}

fn of(high_availability: Value) -> Value {
    cluster(json!({ "highAvailability": high_availability }))
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_with_zookeeper_is_refused_by_name() {
    let installation = Installation::start(NAMESPACE).await;
    for (high_availability, expected) in [
        (json!({ "zookeeper": null }), "spec.highAvailability.zookeeper is needed with provider ZooKeeper"),
        (
            json!({ "provider": "Kubernetes" }),
            "spec.highAvailability.zookeeper has no meaning with provider Kubernetes",
        ),
        (
            json!({ "lease": { "duration": "20s" } }),
            "spec.highAvailability.lease has no meaning with provider ZooKeeper",
        ),
        (json!({ "jvmTimeout": "20s" }), "spec.highAvailability.jvmTimeout has no meaning with provider ZooKeeper"),
        (
            json!({ "zookeeper": { "quorum": "zk-0:2181, zk-1" } }),
            "quorum must be servers as host:port with commas between",
        ),
        (json!({ "zookeeper": { "quorum": "fd00::1" } }), "with addresses of IPv6 in brackets"),
        (json!({ "zookeeper": { "rootPath": "flink/" } }), "rootPath must be a path such as /flink"),
        (json!({ "zookeeper": { "rootPath": "/zookeeper/flink" } }), "/zookeeper is ZooKeeper's own"),
        (json!({ "zookeeper": { "acl": "Creator" } }), "acl Creator needs zookeeper.authentication"),
        (
            json!({ "zookeeper": { "authentication": { "name": "zk", "scheme": "GSSAPI" } } }),
            "supported values: \"Digest\", \"SASL\"",
        ),
        (json!({ "zookeeper": { "authentication": { "scheme": "SASL" } } }), "authentication.name: Required value"),
        (json!({ "zookeeper": { "sessionTimeout": "3s" } }), "sessionTimeout must be at least 4s"),
        (
            json!({ "zookeeper": { "connectionTimeout": "20s" } }),
            "connectionTimeout must be longer than zero and shorter than",
        ),
    ] {
        let refusal = installation.refusal(&of(high_availability));
        assert!(refusal.contains(expected), "expected {expected:?} in {refusal}");
    }
    let of_ipv6 = of(json!({ "zookeeper": { "quorum": "[fd00::1]:2181,[fd00::2],zk-2.zk" } }));
    let taken = installation.kubectl(&["apply", "--dry-run=server"], &of_ipv6);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let key = installation.refusal(&cluster(json!({ "flinkConfiguration": { "zookeeper.sasl.disable": "false" } })));
    assert!(key.contains("use spec.highAvailability.zookeeper instead"), "{key}");
    let mut example: Value =
        serde_yaml::from_str(include_str!("../../examples/zookeeper.yaml")).expect("the example in YAML");
    example["metadata"]["namespace"] = NAMESPACE.into();
    installation.apply(&example);
    installation.apply(&of(json!({})));
    let changed = installation.refusal(&of(json!({ "provider": "Kubernetes", "zookeeper": null })));
    assert!(changed.contains("spec.highAvailability.provider cannot be changed"), "{changed}");
    let moved = installation.refusal(&of(json!({ "zookeeper": { "rootPath": "/elsewhere" } })));
    assert!(moved.contains("spec.highAvailability.zookeeper.rootPath cannot be changed"), "{moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_tells_who_leads_and_a_job_looks_after_the_znodes_of_a_deleted_cluster() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&of(json!({})));
    let demo = (NAMESPACE, "demo");
    let at = |name: &'static str| (NAMESPACE, name);
    let deployment = installation.until::<Deployment>("the JobManagers", at("demo-jobmanager"), |_| true).await;
    assert!(deployment.to_string().contains("--zookeeper-quorum"));
    installation.until::<Deployment>("the TaskManagers", at("demo-taskmanager"), |_| true).await;
    assert!(installation.api::<Lease>(NAMESPACE).get_opt("demo").await.unwrap().is_none(), "there is no Lease");
    assert!(installation.api::<Secret>(NAMESPACE).get_opt("demo-peers").await.unwrap().is_none(), "there are no peers");

    let labels = json!({ "app.kubernetes.io/managed-by": "flinkha", "app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "jobmanager" });
    for name in ["demo-a", "demo-b"] {
        let pod = json!({ "metadata": { "name": name, "labels": labels }, "spec": { "serviceAccountName": "demo-jobmanager", "containers": [{ "name": "flink-main-container", "image": "flink" }] } });
        let pods: kube::Api<Pod> = kube::Api::namespaced(installation.admin.clone(), NAMESPACE);
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }
    let ledger = installation.api::<ConfigMap>(NAMESPACE);
    let annotate = async |annotations: Value| {
        let patch = json!({ "metadata": { "annotations": annotations }, "data": { "haData": "{\"state\":\"Collectable\",\"owner\":\"us\"}" } });
        ledger.patch("demo-ledger", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let change = json!({ "term": 2, "from": "demo-a", "to": "demo-b", "why": "JobManagerDied", "leaderlessMillis": 210, "at": "2026-01-01T00:00:00Z" });
    annotate(json!({
        LEADER_ANNOTATION: json!({ "pod": "demo-b", "since": "2026-01-01T00:00:00Z" }).to_string(),
        TERM_ANNOTATION: "2.uid.nonce.7-9",
        CHANGE_ANNOTATION: change.to_string(),
    }))
    .await;
    let told = installation
        .until::<FlinkHaCluster>("the leader in the status", demo, |object| {
            object["status"]["leader"]["pod"] == "demo-b"
        })
        .await;
    assert_eq!(told["status"]["leader"], json!({ "pod": "demo-b", "term": 2, "since": "2026-01-01T00:00:00Z" }));
    assert_eq!(told["status"]["lastFailover"]["leaderlessMilliseconds"], 210);
    assert_eq!(condition(&told, "LeaderElected")["status"], "True");
    installation
        .until::<Pod>("the leader's label", at("demo-b"), |pod| pod["metadata"]["labels"][ROLE_LABEL] == "leader")
        .await;

    annotate(json!({ QUORUM_ANNOTATION: "zk-0.zk:2181: connection refused" })).await;
    let degraded = |object: &Value| condition(object, "Degraded")["reason"] == "ZooKeeperUnreachable";
    let told = installation.until::<FlinkHaCluster>("the condition", demo, degraded).await;
    assert!(condition(&told, "Degraded")["message"].as_str().unwrap().contains("zk-0.zk:2181: connection refused"));
    annotate(json!({ QUORUM_ANNOTATION: null })).await;
    // As the leader's gateway publishes it; a leader without an address is a condition of its own.
    let published = Patch::Merge(json!({ "endpoints": [{ "addresses": ["10.0.0.2"] }] }));
    let slices = installation.api::<EndpointSlice>(NAMESPACE);
    slices.patch("demo-rest", &PatchParams::default(), &published).await.unwrap();
    installation
        .until::<FlinkHaCluster>("no condition", demo, |object| condition(object, "Degraded")["status"] == "False")
        .await;

    let asked = json!({ "metadata": { "annotations": { SWITCHOVER_ANNOTATION: "demo-a" } } });
    installation
        .api::<FlinkHaCluster>(NAMESPACE)
        .patch("demo", &PatchParams::default(), &Patch::Merge(asked))
        .await
        .unwrap();
    let refused = async || {
        let events = installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap();
        events.items.into_iter().find(|event| event.data["reason"] == "SwitchoverRefused")
    };
    let event = eventually("the refusal of a planned switchover", seconds(20), refused).await;
    assert!(
        event.data["note"].as_str().unwrap().contains("with provider ZooKeeper Flink itself elects the leader"),
        "{}",
        event.data["note"]
    );

    deletion(&installation).await;
}

/// There are no controllers here: what they would do is done by hand.
async fn deletion(installation: &Installation) {
    let running =
        json!({ "data": { "jobs": "[{\"id\":\"00000000000000000000000000000001\",\"state\":\"Running\"}]" } });
    let ledger = installation.api::<ConfigMap>(NAMESPACE);
    ledger.patch("demo-ledger", &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
    installation.api::<FlinkHaCluster>(NAMESPACE).delete("demo", &DeleteParams::default()).await.unwrap();
    for pod in ["demo-a", "demo-b"] {
        let now = DeleteParams::default().grace_period(0);
        installation.api::<Pod>(NAMESPACE).delete(pod, &now).await.unwrap();
    }
    let deployments = installation.api::<Deployment>(NAMESPACE);
    let going = async || deployments.get_opt("demo-jobmanager").await.unwrap()?.metadata.deletion_timestamp;
    eventually("the JobManagers' Deployment on its way out", seconds(20), going).await;
    let released = json!({ "metadata": { "finalizers": null } });
    deployments.patch("demo-jobmanager", &PatchParams::default(), &Patch::Merge(released)).await.unwrap();

    let job = installation
        .until::<Job>("the Job that looks after the znodes, also with Retain", (NAMESPACE, "demo-purge"), |_| true)
        .await;
    let words: Vec<&str> = job["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    assert!(words.contains(&"--retain") && words.contains(&"--zookeeper-quorum"), "{words:?}");
    let at = "2026-01-01T00:00:00Z";
    let done = |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": at });
    let status = json!({ "status": { "startTime": at, "completionTime": at, "succeeded": 1, "conditions": [done("SuccessCriteriaMet"), done("Complete")] } });
    installation
        .api::<Job>(NAMESPACE)
        .patch_status("demo-purge", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    eventually("the resource is gone", seconds(20), async || {
        resources.get_opt("demo").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(
        ledger.get_opt("demo-ledger").await.unwrap().is_some(),
        "the ledger stays with the data of a job that has not ended"
    );
}
