//! The operator against a real kube-apiserver, with the rights that the chart gives it: what it makes, repairs, reports
//! and deletes.

use std::time::{Duration, Instant};

use crate::operator_history::{is_counted, tells_of_changes_while_it_was_away};
use crate::support::identity::token;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// A pod as the ReplicaSet of a Deployment would have made it.
async fn pod(installation: &Installation, name: &str, component: &str, status: Value) {
    let pods: Api<Pod> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let labels = json!({
        "app.kubernetes.io/managed-by": "flinkha",
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/component": component,
    });
    let containers = json!([{ "name": "flink-main-container", "image": "flink:2.3.0" }]);
    let pod = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "containers": containers, "serviceAccountName": format!("demo-{component}") },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await.unwrap();
}

fn ready() -> Value {
    json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_a_sentence_that_names_the_field_and_the_remedy() {
    let installation = Installation::start(NAMESPACE).await;
    for (spec, expected) in [
        (json!({ "jobManger": {} }), r#"unknown field "spec.jobManger""#),
        (
            json!({ "jobManager": { "replicas": 0 } }),
            "spec.jobManager.replicas in body should be greater than or equal to 1",
        ),
        (
            json!({ "taskManager": { "replicas": -1 } }),
            "spec.taskManager.replicas in body should be greater than or equal to 0",
        ),
        (
            json!({ "flinkConfiguration": { "high-availability.type": "none" } }),
            "spec.flinkConfiguration: Forbidden: the key high-availability.type is owned by high availability; use spec.highAvailability instead",
        ),
        (
            json!({ "flinkConfiguration": { "rest.port": 1 } }),
            "the key rest.port is an address or port that follows the pods",
        ),
        (
            json!({ "flinkConfiguration": { "jobmanager.memory.process.size": "1g" } }),
            "set limits.memory there instead",
        ),
        (json!({ "highAvailability": { "storageDir": null } }), "spec.highAvailability.storageDir: Required value"),
        (
            json!({ "highAvailability": { "storageDir": "/flink/ha" } }),
            "storageDir must be a URI with its scheme and a path, such as s3://",
        ),
        (
            json!({ "highAvailability": { "lease": { "renewDeadline": "15s" } } }),
            "renewDeadline must be shorter than lease.duration",
        ),
        (
            json!({ "highAvailability": { "lease": { "retryPeriod": "10s" } } }),
            "retryPeriod must be shorter than lease.renewDeadline",
        ),
        (
            json!({ "highAvailability": { "jvmTimeout": "5s" } }),
            "must be at least 6s, because a standby's JVM that waits for the leader's lock is silent",
        ),
        (
            json!({ "highAvailability": { "lease": { "retryPeriod": "20ms" } } }),
            "must be at least 500ms, because it is also the timeout of each request",
        ),
        (
            json!({ "highAvailability": { "lease": { "duration": "1441m" } } }),
            "lease.duration must be at most 1440m, a day, because no standby replaces a silent leader before",
        ),
        (
            json!({ "highAvailability": { "jvmTimeout": "999999999m" } }),
            "spec.highAvailability.jvmTimeout: … must be a duration such as 15s",
        ),
        (
            json!({ "job": { "jarURI": "local:///app.jar", "upgradeDeadline": "0s" } }),
            "spec.job.upgradeDeadline: … must be at least 10s, because no job comes up sooner",
        ),
        (
            json!({ "highAvailability": { "jvmTimeout": "10" } }),
            "spec.highAvailability.jvmTimeout: … must be a duration such as 15s",
        ),
        (json!({ "flinkVersion": "latest" }), "spec.flinkVersion must be a version of Flink such as 2.3.0"),
        (
            json!({ "taskManager": { "maxUnavailable": 0 } }),
            "spec.taskManager.maxUnavailable must be a number of at least 1",
        ),
        (json!({ "taskManager": { "maxUnavailable": "110%" } }), "or a percentage such as 25%"),
        (
            json!({ "jobManager": { "podTemplate": { "spec": { "hostNetwork": true } } } }),
            "hostNetwork is not possible",
        ),
        (json!({ "logConfiguration": { "config.yaml": "" } }), "Flink's own options belong in spec.flinkConfiguration"),
        (
            json!({ "job": { "jarURI": "http://example.org/app.jar" } }),
            "spec.job.jarURI must be local:///path/in/the/image.jar, an https:// address",
        ),
        (json!({ "job": { "jarURI": "local:///app.jar", "sha256": "abc" } }), "spec.job.sha256 must be 64 hex digits"),
        (
            json!({ "job": { "jarURI": "local:///app.jar", "upgradeMode": "none" } }),
            "spec.job.upgradeMode: Unsupported value: \"none\"",
        ),
        (json!({ "gateway": { "log": "debgu" } }), "spec.gateway.log must be off, error, warn, info, debug or trace"),
        (
            json!({ "commonMetadata": { "labels": { "app.kubernetes.io/instance": "mine" } } }),
            "spec.commonMetadata.labels: … a label with a key of flinkha.dev, or 'app.kubernetes.io/managed-by'",
        ),
        (
            json!({ "commonMetadata": { "labels": { "team": "a b" } } }),
            "the value of a label has at most 63 letters, digits",
        ),
        (
            json!({ "serviceAccount": { "annotations": { "role of flink": "a" } } }),
            "spec.serviceAccount.annotations: … the key of an annotation is a name such as team",
        ),
        (
            json!({ "networkPolicy": { "metricsFrom": ["team: a"] } }),
            "spec.networkPolicy.metricsFrom[0]: … must be the name of a namespace, such as monitoring",
        ),
        (
            json!({ "networkPolicy": { "restFrom": ["a", "a"] } }),
            "spec.networkPolicy.restFrom[1]: Duplicate value: \"a\"",
        ),
        (json!({ "ttlSecondsAfterFinished": 5 }), "spec.ttlSecondsAfterFinished is for clusters with spec.job"),
        (
            json!({ "flinkConfiguration": { "execution.shutdown-on-application-finish": "true" } }),
            "the operator decides when the pods of an application end",
        ),
    ] {
        let refusal = installation.refusal(&cluster(spec));
        // An API server of 1.37 shows the value that is invalid before it says why, one of 1.34 its type.
        let is_told = expected.split(" … ").all(|part| refusal.contains(part));
        assert!(is_told, "expected {expected:?} in {refusal}");
    }
    let mut named = cluster(json!({}));
    named["metadata"]["name"] = "has.a.dot".into();
    assert!(installation.refusal(&named).contains("metadata.name must have at most 45 characters"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_becomes_a_cluster_that_is_repaired_and_left_in_peace() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({ "jobManager": { "replicas": 3 } })));
    let resource = installation
        .until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), |resource| {
            condition(resource, "LeaderElected")["reason"] == "NoLeader"
        })
        .await;
    assert_eq!(resource["status"]["gatewayImage"], "flinkha:test");
    let other = cluster(json!({ "job": { "jarURI": "local:///app.jar" } }));
    assert!(installation.refusal(&other).contains("spec.job cannot be added to or removed from a cluster"));
    assert_eq!(resource["metadata"]["finalizers"], json!(["flinkha.dev/ha-data"]));
    for name in ["demo-jobmanager", "demo-taskmanager"] {
        installation.until::<Deployment>(name, (NAMESPACE, name), |_| true).await;
    }
    let lease = installation.until::<Lease>("the Lease", (NAMESPACE, "demo"), |_| true).await;
    assert_eq!(lease["spec"], json!({}));
    installation.until::<EndpointSlice>("the EndpointSlice", (NAMESPACE, "demo-rest"), |_| true).await;
    installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
    let secret = installation.until::<Secret>("the gateways' key", (NAMESPACE, "demo-peers"), |_| true).await;
    assert_eq!(secret["data"]["key"].as_str().map(str::len), Some(44), "32 bytes in base64");

    // What somebody deletes or changes comes back as it was.
    installation.api::<Service>(NAMESPACE).delete("demo-rest", &DeleteParams::default()).await.unwrap();
    installation.until::<Service>("the Service to come back", (NAMESPACE, "demo-rest"), |_| true).await;
    let scaled = json!({ "spec": { "replicas": 7 } });
    let deployments = installation.api::<Deployment>(NAMESPACE);
    deployments.patch("demo-jobmanager", &PatchParams::default(), &Patch::Merge(scaled)).await.unwrap();
    installation
        .until::<Deployment>("the scale to come back", (NAMESPACE, "demo-jobmanager"), |found| {
            found["spec"]["replicas"] == 3
        })
        .await;

    // What the leading gateway writes stays, and makes nothing be applied again.
    let written = json!({ "data": { "jobs": "[]" } });
    installation
        .api::<ConfigMap>(NAMESPACE)
        .patch("demo-ledger", &PatchParams::default(), &Patch::Merge(written))
        .await
        .unwrap();
    let requests = || {
        let audit = installation.plane.servers[0].audit().requests().into_iter();
        audit
            .filter(|request| request.user == OPERATOR && request.verb != "watch" && request.name != "flinkha-operator")
            .collect::<Vec<_>>()
    };
    // What was still to be done for it, and for the scale, comes to an end.
    let (mut last, mut rests) = (requests().len(), Instant::now());
    eventually("an operator without work", Duration::from_secs(60), async || {
        let now = requests().len();
        if now != std::mem::replace(&mut last, now) {
            rests = Instant::now();
        }
        (rests.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
    let before = requests().len();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let after = requests();
    assert_eq!(
        after.len(),
        before,
        "the operator made requests although nothing had changed: {:?}",
        after.get(before..)
    );
    assert_eq!(after.iter().filter(|request| request.code == 403).count(), 0, "the chart's rights do not suffice");

    let metrics = reqwest::get(format!("{}/metrics", installation.probe_url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"flinkha_clusters{phase="not_ready"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"flinkha_reconciles_total{result="success"}"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_who_leads_and_the_leader_costs_most_to_delete() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Lease>("the Lease", (NAMESPACE, "demo"), |_| true).await;
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    pod(&installation, "demo-jobmanager-a", "jobmanager", ready()).await;
    pod(&installation, "demo-jobmanager-b", "jobmanager", ready()).await;
    pod(&installation, "demo-taskmanager-a", "taskmanager", ready()).await;

    // As the gateway of each pod writes it, with the rights of its pod.
    let elect = async |term: u64, from: &str, to: &str| {
        let change = json!({ "term": term, "from": from, "to": to, "why": "JobManagerDied", "leaderlessMillis": 25, "at": "2026-01-02T03:04:05Z" });
        let annotations = json!({ "flinkha.dev/term": format!("{term}.uid.process.1-1"), "flinkha.dev/last-change": change.to_string() });
        let spec =
            json!({ "holderIdentity": to, "acquireTime": "2026-01-02T03:04:05.000000Z", "leaseDurationSeconds": 15 });
        let token = token(&installation.admin, NAMESPACE, "demo-jobmanager", None).await;
        let leases: Api<Lease> = Api::namespaced(installation.plane.servers[0].client(&token).await, NAMESPACE);
        let patch = json!({ "metadata": { "annotations": annotations }, "spec": spec });
        leases.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    elect(1, "", "demo-jobmanager-a").await;
    let resource = installation
        .until::<FlinkHaCluster>("to be ready", (NAMESPACE, "demo"), |resource| {
            condition(resource, "Ready")["status"] == "True"
        })
        .await;
    assert_eq!(resource["status"]["leader"]["pod"], "demo-jobmanager-a");
    assert_eq!(resource["status"]["lastFailover"], Value::Null);

    elect(2, "demo-jobmanager-a", "demo-jobmanager-b").await;
    let resource = installation
        .until::<FlinkHaCluster>("a failover", (NAMESPACE, "demo"), |resource| {
            resource["status"]["leader"]["term"] == 2
        })
        .await;
    let expected = json!({
        "from": "demo-jobmanager-a",
        "to": "demo-jobmanager-b",
        "why": "JobManagerDied",
        "leaderlessMilliseconds": 25,
        "at": "2026-01-02T03:04:05Z",
    });
    assert_eq!(resource["status"]["lastFailover"], expected);
    tells_of_changes_while_it_was_away(&installation).await;
    let cost = |pod: &Value| pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"].clone();
    let leader = installation.until::<Pod>("the new leader's label", (NAMESPACE, "demo-jobmanager-b"), |pod| {
        pod["metadata"]["labels"]["flinkha.dev/role"] == "leader"
    });
    assert_eq!(cost(&leader.await), "100");
    let standby = installation.until::<Pod>("the old leader's label", (NAMESPACE, "demo-jobmanager-a"), |pod| {
        pod["metadata"]["labels"]["flinkha.dev/role"] == "standby"
    });
    assert_eq!(cost(&standby.await), Value::Null);
    event(&installation, "Failover", "leadership moved from demo-jobmanager-a to demo-jobmanager-b after 25 ms").await;

    // A planned switchover: asked of the resource, passed on to the Lease, where the leader sees it.
    let ask = async |pod: &str| {
        let patch = json!({ "metadata": { "annotations": { "flinkha.dev/switchover": pod } } });
        let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
        resources.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    ask("demo-jobmanager-c").await;
    event(&installation, "SwitchoverRefused", "demo-jobmanager-c is no standby that is ready; name one, or write any")
        .await;
    ask("demo-jobmanager-c").await;
    is_counted(&installation, "SwitchoverRefused").await;
    ask("demo-jobmanager-a").await;
    event(&installation, "SwitchoverAsked", "the leader was asked to hand over to demo-jobmanager-a").await;
    let asked = |object: &Value| object["metadata"]["annotations"]["flinkha.dev/switchover"].clone();
    installation.until::<Lease>("the request", (NAMESPACE, "demo"), |lease| asked(lease) == "demo-jobmanager-a").await;
    installation.until::<FlinkHaCluster>("the answer", (NAMESPACE, "demo"), |resource| asked(resource).is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_shows_up_in_conditions_and_events_with_the_cause() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    let waiting = json!({ "reason": "ErrImagePull", "message": "manifest unknown" });
    let container = json!({ "name": "flink-main-container", "image": "flink:2.3.0", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": waiting } });
    pod(
        &installation,
        "demo-jobmanager-a",
        "jobmanager",
        json!({ "phase": "Pending", "containerStatuses": [container] }),
    )
    .await;
    let degraded = |reason: &'static str| move |resource: &Value| condition(resource, "Degraded")["reason"] == reason;
    let resource =
        installation.until::<FlinkHaCluster>("the cause", (NAMESPACE, "demo"), degraded("ImagePullFailed")).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    assert_eq!(
        message,
        "pod demo-jobmanager-a cannot pull image flink:2.3.0 of container flink-main-container: manifest unknown"
    );
    event(&installation, "ImagePullFailed", "manifest unknown").await;

    // A pod template with a field that does not exist is found by a dry run, and nothing is changed.
    installation.apply(&cluster(json!({ "jobManager": { "podTemplate": { "spec": { "nodeSelektor": {} } } } })));
    let resource =
        installation.until::<FlinkHaCluster>("the problem", (NAMESPACE, "demo"), degraded("InvalidPodTemplate")).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    // All causes at once: the pod that cannot pull its image is still there.
    for words in ["spec.jobManager.podTemplate.spec.nodeSelektor: field not declared in schema", "manifest unknown"] {
        assert!(message.contains(words), "{words} in {message}");
    }
    let stalled = condition(&resource, "Stalled");
    assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("InvalidPodTemplate")));
    installation.apply(&cluster(
        json!({ "jobManager": { "podTemplate": { "spec": { "containers": [{ "name": "flink-main-container", "image": "x" }] } } } }),
    ));
    let resource =
        installation.until::<FlinkHaCluster>("the problem", (NAMESPACE, "demo"), degraded("InvalidSpec")).await;
    let message = condition(&resource, "Degraded")["message"].as_str().unwrap();
    assert!(message.contains("use spec.image instead"), "{message}");
    assert_eq!(condition(&resource, "Degraded")["observedGeneration"], resource["metadata"]["generation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cluster_keeps_the_data_of_jobs_that_have_not_ended_unless_told_otherwise() {
    let installation = Installation::start(NAMESPACE).await;
    let job = "0123456789abcdef0123456789abcdef";
    let names = ["demo-cluster-config-map".to_owned(), format!("demo-{job}-config-map")];
    let config_maps: Api<ConfigMap> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let labels = json!({ "app": "demo", "type": "flink-native-kubernetes" });
    // As a native Flink of the same name labels its configuration: not ours, so that it stays in either case.
    let foreign = json!({ "metadata": { "name": "flink-config-demo", "labels": labels } });
    config_maps.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
    let annotations = json!({ "flinkha.dev/term": "1.uid.process.1-1" });
    for (name, key) in names.iter().zip([format!("executionPlan-{job}"), "checkpointID-1".to_owned()]) {
        let config_map = json!({ "metadata": { "name": name, "labels": labels, "annotations": annotations }, "data": { key: "pointer" } });
        config_maps.create(&PostParams::default(), &serde_json::from_value(config_map).unwrap()).await.unwrap();
    }
    let left = async || {
        let found = config_maps.list(&ListParams::default().labels("type=flink-native-kubernetes")).await.unwrap();
        found.items.len()
    };
    for (on_delete, expected) in [("Retain", 3), ("Delete", 1)] {
        installation.apply(&cluster(json!({ "haData": { "onDelete": on_delete } })));
        installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
        installation.until::<ConfigMap>("the ledger", (NAMESPACE, "demo-ledger"), |_| true).await;
        installation.api::<FlinkHaCluster>(NAMESPACE).delete("demo", &DeleteParams::default()).await.unwrap();
        let deleting = |deployment: &Value| deployment["metadata"]["deletionTimestamp"].is_string();
        installation
            .until::<Deployment>("the JobManagers to be deleted", (NAMESPACE, "demo-jobmanager"), deleting)
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(left().await, 3, "data was deleted while JobManagers may still have lived");

        // The garbage collector, which is not here, would do this when all pods are gone.
        let collected = json!({ "metadata": { "finalizers": null } });
        let deployments = installation.api::<Deployment>(NAMESPACE);
        deployments.patch("demo-jobmanager", &PatchParams::default(), &Patch::Merge(collected)).await.unwrap();
        let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
        eventually("the resource to be gone", seconds(20), async || {
            resources.get_opt("demo").await.unwrap().is_none().then_some(())
        })
        .await;
        assert_eq!(left().await, expected, "{on_delete}");
        assert_eq!(config_maps.get_opt("demo-ledger").await.unwrap().is_some(), on_delete == "Retain");
        for name in ["demo-taskmanager"] {
            deployments.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
    event(&installation, "Deleted", "ConfigMaps flink-config-demo carry no mark of this cluster and stay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_operator_takes_over_when_the_first_one_ends() {
    let mut installation = Installation::start(NAMESPACE).await;
    let holder = |name: &'static str| move |lease: &Value| lease["spec"]["holderIdentity"] == name;
    let place = (crate::support::operator::OPERATOR_NAMESPACE, "flinkha-operator");
    installation.until::<Lease>("the first to be elected", place, holder("operator-0")).await;
    installation.operator.terminate();
    let status = installation.operator.wait(seconds(30)).await.expect("the operator ends when it is told to");
    assert!(status.success());
    installation.until::<Lease>("the Lease to be free", place, holder("")).await;
    installation.operator.restart();
    installation.until::<Lease>("the next to be elected", place, holder("operator-0")).await;
}

/// Waits for an event of the resource.
async fn event(installation: &Installation, reason: &str, note: &str) {
    let events: Api<Event> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    eventually(&format!("an event {reason}"), seconds(10), async || {
        let found = events.list(&ListParams::default()).await.unwrap();
        let fits = |event: &Event| {
            event.reason.as_deref() == Some(reason) && event.note.as_deref().is_some_and(|text| text.contains(note))
        };
        found.items.iter().any(fits).then_some(())
    })
    .await;
}
