//! Objects that anybody may label as ours, and resources that cannot be read: they neither fill the operator's memory
//! nor keep it from its work. What belonged to a resource before that was there is seen when it comes. On a real
//! kube-apiserver.

use std::path::Path;

use flinkha::api::FlinkHaCluster;
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::operator::{CHART, Installation, NAMESPACE, PROGRAM, cluster};
use crate::support::report::number;
use crate::support::{eventually, say, seconds};

/// Of somebody who may create ConfigMaps and pods there, and nothing else.
const FOREIGN: &str = "foreign";
/// So many labels and keys fit into etcd's limit of 1.5 MiB for a request.
const TINY_LABELS: usize = 90_000;
const TINY_KEYS: usize = 45_000;
const LARGEST_VALUE: usize = 1024 * 1024 - 16;

/// The operator's limit in the chart, in MiB.
fn limit() -> u64 {
    let values = std::fs::read_to_string(Path::new(CHART).join("values.yaml")).unwrap();
    let values: Value = serde_yaml::from_str(&values).unwrap();
    let limit = values["resources"]["limits"]["memory"].as_str().unwrap();
    limit.strip_suffix("Mi").unwrap().parse().unwrap()
}

/// The labels by which the operator finds its objects.
fn labels() -> Value {
    json!({ "app.kubernetes.io/managed-by": "flinkha", "app.kubernetes.io/instance": "victim" })
}

const TINY_LABELS_OF_OURS: usize = 50_000;
const TINY_OWNERS: usize = 30_000;
/// So many are of the kinds that were measured first.
const FIRST: usize = 6;

/// A ConfigMap of the largest size: of very small parts, as labels, or as keys, which `managedFields` names once more;
/// or of a character that has six in the API server's JSON. Later ones also as labels that look like ours, and as
/// owners.
fn hostile(index: usize) -> Value {
    let mut metadata = json!({ "name": format!("victim-{index}"), "namespace": FOREIGN, "labels": labels() });
    let tiny = |count: usize| (0..count).map(|key| (format!("k{key:x}"), json!("")));
    let mut data = json!({});
    let way = if index < FIRST { index % 3 } else { index % 5 };
    match way {
        0 => {
            metadata["labels"].as_object_mut().unwrap().extend(tiny(TINY_LABELS));
            metadata["managedFields"] = json!([{}]);
        }
        1 => data = Value::Object(tiny(TINY_KEYS).collect()),
        2 => data["x"] = "<".repeat(LARGEST_VALUE).into(),
        3 => {
            let ours = (0..TINY_LABELS_OF_OURS).map(|key| (format!("flinkha.dev/k{key:x}"), json!("")));
            metadata["labels"].as_object_mut().unwrap().extend(ours);
            metadata["managedFields"] = json!([{}]);
        }
        _ => {
            let owner =
                |uid| json!({ "apiVersion": "a/b", "kind": "FlinkHaCluster", "name": "a", "uid": format!("{uid:x}") });
            metadata["ownerReferences"] = (0..TINY_OWNERS).map(owner).collect();
            metadata["managedFields"] = json!([{}]);
        }
    }
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data })
}

/// Creates an object; an API server that is busy with the others may need several attempts.
async fn create(installation: &Installation, path: &str, object: &Value) {
    eventually("an object to be created", seconds(120), async || {
        let request = http::Request::post(path).header("Content-Type", "application/json");
        let request = request.body(object.to_string().into_bytes()).unwrap();
        match installation.admin.request_text(request).await {
            Ok(_) => Some(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Some(()),
            Err(error) => {
                say(format!("{path}: {error}; once more"));
                None
            }
        }
    })
    .await;
}

/// A path of a kind in that namespace.
fn foreign(kind: &str) -> String {
    format!("/api/v1/namespaces/{FOREIGN}/{kind}")
}

async fn create_hostile(installation: &Installation, indexes: std::ops::Range<usize>) {
    stream::iter(indexes)
        .for_each_concurrent(
            2,
            |index| async move { create(installation, &foreign("configmaps"), &hostile(index)).await },
        )
        .await;
}

async fn create_pods(installation: &Installation, count: usize) {
    stream::iter(0..count)
        .for_each_concurrent(16, |index| async move {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": format!("victim-jobmanager-{index}"), "labels": labels() },
                "spec": { "containers": [{ "name": "flink-main-container", "image": "flink" }] },
            });
            create(installation, &foreign("pods"), &pod).await;
        })
        .await;
}

/// Says how much memory the operator needs and has needed at most since this was asked last, once it has carried out a
/// change of the resource `demo`, and so has seen what came before.
async fn reconciled(installation: &Installation, what: &str, replicas: i64) -> u64 {
    let patch = json!({ "spec": { "taskManager": { "replicas": replicas } } });
    let resources: Api<FlinkHaCluster> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    resources.patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let place = (NAMESPACE, "demo-taskmanager");
    installation
        .until::<Deployment>("the change", place, |deployment| deployment["spec"]["replicas"] == replicas)
        .await;
    // What is still under way.
    tokio::time::sleep(seconds(3)).await;
    let [now, most] = ["VmRSS", "VmHWM"].map(|field| installation.operator.memory(field) / 1024);
    say(format!("{what}: {now} MiB resident, {most} MiB at most"));
    let reset = format!("/proc/{}/clear_refs", installation.operator.pid().as_raw_nonzero());
    std::fs::write(reset, "5").expect("the peak is counted anew");
    most
}

async fn start() -> Installation {
    // The operator to measure, by default as this test is built.
    let program = std::env::var("PROGRAM").ok().filter(|path| !path.is_empty());
    let program = program.unwrap_or_else(|| PROGRAM.to_owned());
    // An API server that is busy with such objects may keep an operator from renewing its Lease, which is not what is
    // tested.
    let flags = ["--leader-election", "false"];
    let installation = Installation::start_version(Path::new(&program), Path::new(CHART), &flags).await;
    let namespaces: Api<Namespace> = Api::all(installation.admin.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": FOREIGN } })).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    // No controller makes it here.
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    create(&installation, &foreign("serviceaccounts"), &account).await;
    installation.apply(&cluster(json!({})));
    installation.until::<Deployment>("the Deployment", (NAMESPACE, "demo-taskmanager"), |_| true).await;
    installation
}

#[tokio::test(flavor = "multi_thread")]
async fn config_maps_of_others_with_our_label_do_not_fill_the_operator() {
    let mut installation = start().await;
    let before = reconciled(&installation, "without them", 2).await;
    create_hostile(&installation, 0..FIRST).await;
    let six = reconciled(&installation, "with 6 of them", 3).await;
    create_hostile(&installation, FIRST..60).await;
    let sixty = reconciled(&installation, "with 60 of them", 4).await;
    installation.operator.terminate();
    installation.operator.wait(seconds(30)).await.expect("an operator that ends when it is told to");
    installation.operator.restart();
    let restarted = reconciled(&installation, "started with 60 of them", 5).await;
    for (what, most) in [("6", six), ("60", sixty), ("a start with 60", restarted)] {
        // What 1,000 clusters need fits too.
        let most = most + 79;
        assert!(most < limit(), "{what}: {before} MiB before, {most} MiB with 1,000 clusters");
    }
    assert!(installation.api::<ConfigMap>(FOREIGN).get_opt("victim-59").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_pods_of_others_with_our_label_are_not_kept() {
    let mut installation = start().await;
    let before = reconciled(&installation, "without them", 2).await;
    let pods: usize = number("PODS", 2000);
    create_pods(&installation, pods).await;
    let many = reconciled(&installation, &format!("with {pods} pods"), 3).await;
    installation.operator.restart();
    let restarted = reconciled(&installation, &format!("started with {pods} pods"), 4).await;
    assert!(many < before + 20 && restarted < before + 40, "{before} MiB, then {many}, {restarted} after a restart");
    let last = format!("victim-jobmanager-{}", pods - 1);
    assert!(installation.api::<Pod>(FOREIGN).get_opt(&last).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_too_large_is_told_of_and_the_others_are_reconciled() {
    let mut installation = start().await;
    let mut large = cluster(json!({}));
    large["metadata"]["name"] = "large".into();
    // The API server takes all that a podTemplate says.
    let values = (0..60_000).map(|key| (format!("k{key:x}"), json!(0)));
    large["spec"]["taskManager"] = json!({ "podTemplate": { "spec": { "tiny": Value::Object(values.collect()) } } });
    create(&installation, &format!("/apis/flinkha.dev/v1alpha1/namespaces/{NAMESPACE}/flinkhaclusters"), &large).await;
    let told = async |what: &str| {
        let events: Api<Event> = Api::namespaced(installation.admin.clone(), NAMESPACE);
        let is_told = |event: &Event| {
            event.reason.as_deref() == Some("ResourceIgnored")
                && event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref()) == Some("large")
        };
        let found = eventually(what, seconds(30), async || {
            events.list(&ListParams::default()).await.unwrap().into_iter().find(is_told)
        });
        found.await.note.unwrap_or_default()
    };
    say(told("an event on the resource").await);
    reconciled(&installation, "with a resource of 60,000 values", 2).await;
    installation.operator.restart();
    reconciled(&installation, "started with it", 3).await;

    // Made smaller, it is a resource like others.
    let smaller = json!([{ "op": "remove", "path": "/spec/taskManager/podTemplate" }]);
    let smaller = Patch::Json::<()>(serde_json::from_value(smaller).unwrap());
    installation.api::<FlinkHaCluster>(NAMESPACE).patch("large", &PatchParams::default(), &smaller).await.unwrap();
    installation.until::<Deployment>("its Deployment", (NAMESPACE, "large-taskmanager"), |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_its_resource_is_seen_when_that_comes() {
    let mut installation = Installation::start(NAMESPACE).await;
    let labels = json!({ "app.kubernetes.io/managed-by": "flinkha", "app.kubernetes.io/instance": "demo" });
    let job = |name: &str| json!([{ "id": "0123456789abcdef0123456789abcdef", "name": name, "state": "Running" }]);
    let config_maps: Api<ConfigMap> = Api::namespaced(installation.admin.clone(), NAMESPACE);
    let ledger = json!({
        "metadata": { "name": "demo-ledger", "labels": labels },
        "data": { "jobs": job("before").to_string() },
    });
    config_maps.create(&PostParams::default(), &serde_json::from_value(ledger).unwrap()).await.unwrap();
    let first_log = |installation: &Installation| installation.operator.log().contains("the caches are filled");
    eventually("the caches to be filled", seconds(30), async || first_log(&installation).then_some(())).await;
    installation.apply(&cluster(json!({})));
    let shows = |name: &'static str| move |resource: &Value| resource["status"]["jobs"][0]["name"] == name;
    installation.until::<FlinkHaCluster>("the job of the ledger", (NAMESPACE, "demo"), shows("before")).await;
    // And so is every change of it.
    let changed = Patch::Merge(json!({ "data": { "jobs": job("after").to_string() } }));
    config_maps.patch("demo-ledger", &PatchParams::default(), &changed).await.unwrap();
    installation.until::<FlinkHaCluster>("its change", (NAMESPACE, "demo"), shows("after")).await;

    // Its resource goes, by force, and an operator starts that does not know it.
    installation.operator.kill();
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let released = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    resources.patch("demo", &PatchParams::default(), &released).await.unwrap();
    resources.delete("demo", &DeleteParams::default()).await.unwrap();
    let log = installation.operator.log().len();
    installation.operator.restart();
    let filled = async || installation.operator.log()[log..].contains("the caches are filled").then_some(());
    eventually("the caches to be filled", seconds(60), filled).await;
    installation.apply(&cluster(json!({})));
    installation.until::<FlinkHaCluster>("the job of the ledger", (NAMESPACE, "demo"), shows("after")).await;
    let resource = installation.api::<FlinkHaCluster>(NAMESPACE).get("demo").await.unwrap();
    let uid = resource.metadata.uid.unwrap();
    let owned = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"] == uid.as_str();
    installation.until::<Deployment>("to be applied anew", (NAMESPACE, "demo-taskmanager"), owned).await;
}
