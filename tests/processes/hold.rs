//! What somebody asks of the operator for a cluster: to pause, and to restart all pods. The operator against a real
//! kube-apiserver, with the rights that the chart gives it; there are no kubelets and no controllers, so that pods and
//! Leases are what a test makes of them.

use crate::presence::{DEMO, delete, end, is_gone, lease, pod, says, scaled_to_zero, taken};
use crate::support::audit::Request;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::RECONCILE_ANNOTATION;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

async fn annotate(installation: &Installation, key: &str, value: Option<&str>) {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { key: value } } }));
    installation.api::<FlinkHaCluster>(NAMESPACE).patch("demo", &PatchParams::default(), &patch).await.unwrap();
}

fn reason(kind: &'static str, reason: &'static str) -> impl Fn(&Value) -> bool {
    move |object| condition(object, kind)["reason"] == reason
}

async fn events(installation: &Installation) -> Vec<String> {
    let events = installation.api::<Event>(NAMESPACE).list(&ListParams::default()).await.unwrap().items;
    events.iter().filter_map(|event| event.data["reason"].as_str().map(str::to_owned)).collect()
}

async fn event(installation: &Installation, reason: &str) {
    let what = format!("the event {reason}");
    let told = async || events(installation).await.iter().any(|found| found == reason).then_some(());
    eventually(&what, seconds(20), told).await;
}

/// Writes of the operator that change something: not its own Lease, the status, events, and the roles of pods.
fn changes(installation: &Installation) -> Vec<Request> {
    let requests = installation.plane.servers[0].audit().requests().into_iter();
    let reports = |request: &Request| {
        request.subresource == "status"
            || ["events", "pods"].contains(&request.resource.as_str())
            || request.name == "flinkha-operator"
    };
    requests.filter(|request| request.user == OPERATOR && request.is_write() && !reports(request)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_is_reported_and_nothing_of_it_is_changed_or_deleted_until_it_is_resumed() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    for name in ["demo-jobmanager-a", "demo-jobmanager-b"] {
        pod(&installation, name, "demo-jobmanager", Some("demo")).await;
    }
    lease(&installation, "demo-jobmanager-a", taken()).await;
    let leads = |pod: &'static str| move |object: &Value| object["status"]["leader"]["pod"] == pod;
    let resource = installation.until::<FlinkHaCluster>("the leader", DEMO, leads("demo-jobmanager-a")).await;
    let seen = resource["status"]["observedGeneration"].clone();

    annotate(&installation, RECONCILE_ANNOTATION, Some("disabled")).await;
    let paused = reason("Paused", "ReconcileDisabled");
    let resource = installation.until::<FlinkHaCluster>("the pause", DEMO, paused).await;
    let remedy = "kubectl annotate fhc demo --namespace flink flinkha.dev/reconcile-";
    assert!(condition(&resource, "Paused")["message"].as_str().unwrap().ends_with(remedy));
    event(&installation, "Paused").await;
    let before = changes(&installation).len();

    // Changes wait, and so do repairs; a failover is told.
    installation.apply(&cluster(json!({ "taskManager": { "replicas": 5 } })));
    installation.api::<Service>(NAMESPACE).delete("demo-rest", &DeleteParams::default()).await.unwrap();
    annotate(&installation, "flinkha.dev/switchover", Some("any")).await;
    let change = json!({ "term": 2, "from": "demo-jobmanager-a", "to": "demo-jobmanager-b", "why": "JobManagerDied", "leaderlessMillis": 9 });
    lease(&installation, "demo-jobmanager-b", change).await;
    let resource = installation.until::<FlinkHaCluster>("the failover", DEMO, leads("demo-jobmanager-b")).await;
    assert_eq!(resource["status"]["observedGeneration"], seen, "the change counts as seen");
    let waits = |object: &Value| {
        let message = condition(object, "Paused")["message"].as_str().unwrap_or_default();
        condition(object, "Reconciling")["reason"] == "Paused" && message.contains("the requested switchover waits")
    };
    installation.until::<FlinkHaCluster>("what waits", DEMO, waits).await;
    annotate(&installation, RECONCILE_ANNOTATION, Some("off")).await;
    let told = |object: &Value| says(object, "InvalidAnnotation", &["\"off\"", "must be disabled or enabled"]);
    installation.until::<FlinkHaCluster>("the value that is not known", DEMO, told).await;
    let metrics = reqwest::get(format!("{}/metrics", installation.probe_url)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"flinkha_cluster_paused{namespace="flink",name="demo"} 1"#), "{metrics}");
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(changes(&installation).get(before..).unwrap_or_default().len(), 0, "{:?}", changes(&installation));

    annotate(&installation, RECONCILE_ANNOTATION, None).await;
    let scaled = |object: &Value| object["spec"]["replicas"] == 5;
    installation.until::<Deployment>("the change", (NAMESPACE, "demo-taskmanager"), scaled).await;
    installation.until::<Service>("the repair", (NAMESPACE, "demo-rest"), |_| true).await;
    let resumed = |object: &Value| {
        condition(object, "Paused").is_null() && object["status"]["observedGeneration"].as_i64() > seen.as_i64()
    };
    installation.until::<FlinkHaCluster>("the end of the pause", DEMO, resumed).await;
    event(&installation, "Resumed").await;
    // No pod here is ready.
    event(&installation, "SwitchoverRefused").await;

    // A deletion waits, and says so.
    annotate(&installation, RECONCILE_ANNOTATION, Some("disabled")).await;
    installation.until::<FlinkHaCluster>("the second pause", DEMO, reason("Paused", "ReconcileDisabled")).await;
    let before = changes(&installation).len();
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    resources.delete("demo", &DeleteParams::default()).await.unwrap();
    let told = |object: &Value| says(object, "DeletionWaits", &[remedy]);
    let resource = installation.until::<FlinkHaCluster>("the deletion that waits", DEMO, told).await;
    assert_eq!(resource["status"]["leader"]["pod"], "demo-jobmanager-b", "it leads on");
    tokio::time::sleep(seconds(3)).await;
    assert_eq!(changes(&installation).get(before..).unwrap_or_default().len(), 0, "{:?}", changes(&installation));
    annotate(&installation, RECONCILE_ANNOTATION, Some("enabled")).await;
    delete(&installation).await;
    for name in ["demo-jobmanager-a", "demo-jobmanager-b"] {
        end(&installation, name).await;
    }
    is_gone(&installation, seconds(60)).await;
    assert!(installation.api::<Pod>(NAMESPACE).list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_nonce_replaces_all_pods_of_the_same_run_and_a_suspended_job_takes_note_of_it() {
    let installation = Installation::start(NAMESPACE).await;
    let asked = |nonce: Option<i64>, state: &str| {
        let mut asked = cluster(json!({ "job": { "jarURI": "local:///app.jar", "state": state } }));
        if let Some(nonce) = nonce {
            asked["spec"]["restartNonce"] = nonce.into();
        }
        asked
    };
    let phase = |phase: &'static str| move |object: &Value| object["status"]["application"]["phase"] == phase;
    let nonce = |object: &Value| {
        object["spec"]["template"]["metadata"]["annotations"]["flinkha.dev/restart-nonce"].as_str().map(str::to_owned)
    };
    let names = ["demo-jobmanager", "demo-taskmanager"];
    let identity = |object: &Value| {
        let application = &object["status"]["application"];
        ["version", "jobId", "runs", "starts", "upgrades"].map(|field| application[field].clone())
    };
    installation.apply(&asked(None, "running"));
    let before = installation.until::<FlinkHaCluster>("the application", DEMO, phase("Starting")).await;
    for name in names {
        let deployment = installation.until::<Deployment>(name, (NAMESPACE, name), |_| true).await;
        assert_eq!(nonce(&deployment), None, "a field that nobody has set changes the pods");
    }

    installation.apply(&asked(Some(1), "running"));
    for name in names {
        let restarted = |object: &Value| nonce(object).as_deref() == Some("1");
        let deployment = installation.until::<Deployment>(name, (NAMESPACE, name), restarted).await;
        assert!(deployment["spec"]["replicas"].as_i64() > Some(0), "the pods of the run are removed");
    }
    let seen = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let after = installation.until::<FlinkHaCluster>("the restart to be seen", DEMO, seen).await;
    assert_eq!(identity(&before), identity(&after), "a restart is no other definition of the job");

    installation.apply(&asked(Some(1), "suspended"));
    scaled_to_zero(&installation).await;
    installation.until::<FlinkHaCluster>("the suspension", DEMO, phase("Suspended")).await;
    installation.apply(&asked(Some(2), "suspended"));
    let noted = |object: &Value| seen(object) && condition(object, "Reconciling")["reason"] == "RolledOut";
    let resource = installation.until::<FlinkHaCluster>("the note", DEMO, noted).await;
    assert!((phase("Suspended"))(&resource));
    installation.apply(&asked(Some(2), "running"));
    for name in names {
        let started = |object: &Value| nonce(object).as_deref() == Some("2") && object["spec"]["replicas"] != 0;
        installation.until::<Deployment>(name, (NAMESPACE, name), started).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn task_managers_are_scaled_through_the_resource_and_a_restart_of_a_deployment_is_not_taken_back() {
    let installation = Installation::start(NAMESPACE).await;
    installation.apply(&cluster(json!({ "taskManager": { "replicas": 2 } })));
    let name = "demo-taskmanager";
    installation
        .until::<Deployment>("two TaskManagers", (NAMESPACE, name), |found| found["spec"]["replicas"] == 2)
        .await;
    let shown = |resource: &Value| resource["status"]["taskManager"]["ready"] == "0/2";
    installation.until::<FlinkHaCluster>("the status", DEMO, shown).await;
    // As a HorizontalPodAutoscaler does, which selects the pods by what the status says.
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let scale = resources.get_scale("demo").await.unwrap();
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(2));
    let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
    assert!(selector.contains("app.kubernetes.io/component=taskmanager"), "{selector}");
    let scaled = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    resources.patch_scale("demo", &PatchParams::default(), &scaled).await.unwrap();
    installation.until::<Deployment>("none", (NAMESPACE, name), |found| found["spec"]["replicas"] == 0).await;
    let shown = |resource: &Value| resource["status"]["taskManager"]["ready"] == "0/0";
    installation.until::<FlinkHaCluster>("the status of none", DEMO, shown).await;
    // As a person does.
    let output = installation.kubectl(&["scale", "--replicas", "3"], &cluster(json!({})));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    installation.until::<Deployment>("three", (NAMESPACE, name), |found| found["spec"]["replicas"] == 3).await;

    for name in ["demo-jobmanager", name] {
        let metadata = json!({ "name": name, "namespace": NAMESPACE });
        let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata });
        let output = installation.kubectl(&["rollout", "restart"], &deployment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    installation.quiet(seconds(3), seconds(60)).await;
    for name in ["demo-jobmanager", name] {
        let deployment = installation.until::<Deployment>(name, (NAMESPACE, name), |_| true).await;
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        assert!(annotations["kubectl.kubernetes.io/restartedAt"].is_string(), "{name}: the operator has taken it back");
    }
    // The Deployment's controller replaces the pods one by one, and the leader's, which costs most to delete, last.
    let job_managers = installation.until::<Deployment>("it", (NAMESPACE, "demo-jobmanager"), |_| true).await;
    let one_by_one = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    assert_eq!(job_managers["spec"]["strategy"], one_by_one);
}
