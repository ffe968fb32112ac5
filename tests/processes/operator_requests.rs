//! How many requests the operator makes of the API server for a cluster: one for each object that it creates, none
//! twice, none for what is gone. And what it has created it can change afterwards, down to fields that are not wanted
//! any more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::audit::Request;
use crate::support::operator::{Installation, NAMESPACE, OPERATOR, cluster, condition};
use crate::support::{eventually, say, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::FIELD_MANAGER;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Rest after which the operator has nothing to do.
const QUIET: Duration = seconds(3);

/// The operator's requests in the namespace of the clusters, but watches.
fn requests(installation: &Installation) -> Vec<Request> {
    let all = installation.plane.servers[0].audit().requests().into_iter();
    all.filter(|one| one.user == OPERATOR && one.namespace == NAMESPACE && one.verb != "watch").collect()
}

/// Verb, kind and name of a request.
fn described(request: &Request) -> String {
    let Request { verb, resource, subresource, name, .. } = request;
    format!("{verb} {resource}/{name} {subresource}").trim_end().to_owned()
}

fn writes(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.is_write()).collect()
}

/// A cluster that is there, and an operator without work.
async fn made(installation: &Installation, spec: Value) {
    installation.apply(&cluster(spec));
    let is_told = |resource: &Value| condition(resource, "LeaderElected")["reason"] == "NoLeader";
    installation.until::<FlinkHaCluster>("a status", (NAMESPACE, "demo"), is_told).await;
    installation.quiet(QUIET, seconds(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_costs_one_request_for_each_object_and_few_beside() {
    let installation = Installation::start(NAMESPACE).await;
    made(&installation, json!({})).await;
    let all = requests(&installation);
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|request| *counted.entry(request.verb.as_str()).or_default() += 1);
    say(format!("requests for one cluster: {} ({counted:?})", all.len()));
    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    for request in writes(&all).into_iter().filter(|request| request.resource != "events") {
        *written.entry(described(request)).or_default() += 1;
    }
    let twice: Vec<_> = written.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "made twice: {twice:?}");
    let objects = written.keys().filter(|what| what.starts_with("create ")).count();
    assert_eq!(objects, 17, "{written:#?}");
    let others: Vec<&String> = written.keys().filter(|what| !what.starts_with("create ")).collect();
    assert_eq!(others, ["patch flinkhaclusters/demo", "patch flinkhaclusters/demo status"]);
    let reads: Vec<String> = all.iter().filter(|request| !request.is_write()).map(described).collect();
    assert_eq!(reads, ["list configmaps/"], "whether another Flink has HA data under the name");
    assert!(writes(&all).iter().all(|request| request.succeeded()), "a write failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_template_of_the_user_that_says_something_new_is_tried_before() {
    let installation = Installation::start(NAMESPACE).await;
    let template = json!({ "metadata": { "labels": { "team": "a" } } });
    let spec = |replicas: i32| json!({ "taskManager": { "podTemplate": template, "replicas": replicas } });
    let of_task_managers = |all: &[Request]| {
        let all = all.iter().filter(|one| one.resource == "deployments" && one.name == "demo-taskmanager");
        all.filter(|one| one.is_write()).map(|one| one.verb.clone()).collect::<Vec<_>>()
    };
    made(&installation, spec(1)).await;
    let before = requests(&installation);
    assert_eq!(of_task_managers(&before), ["patch", "create"], "tried, and created");
    made(&installation, spec(2)).await;
    let deployment = |deployment: &Value| deployment["spec"]["replicas"] == 2;
    installation.until::<Deployment>("the scale", (NAMESPACE, "demo-taskmanager"), deployment).await;
    installation.quiet(QUIET, seconds(60)).await;
    let after = requests(&installation).split_off(before.len());
    assert_eq!(of_task_managers(&after), ["patch", "patch"], "its fields count as applied, and it is applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_created_loses_the_fields_that_are_not_wanted_any_more() {
    let installation = Installation::start(NAMESPACE).await;
    let template = |spec: Value| json!({ "jobManager": { "podTemplate": { "spec": spec } } });
    let mut first =
        template(json!({ "nodeSelector": { "disk": "ssd" }, "volumes": [{ "name": "v", "emptyDir": {} }] }));
    first["commonMetadata"] = json!({ "labels": { "team": "a" } });
    first["logConfiguration"] = json!({ "logback-console.xml": "<configuration/>" });
    made(&installation, first).await;
    let name = (NAMESPACE, "demo-jobmanager");
    let created = installation.until::<Deployment>("the JobManagers", name, |_| true).await;
    assert_eq!((&created["metadata"]["generation"], &created["metadata"]["labels"]["team"]), (&json!(1), &json!("a")));

    // The volume becomes one of another kind, which is not valid beside the former.
    let config_map = json!({ "name": "v", "configMap": { "name": "c" } });
    installation.apply(&cluster(template(json!({ "volumes": [config_map] }))));
    let changed = |deployment: &Value| deployment["metadata"]["generation"] != 1;
    let deployment = installation.until::<Deployment>("the change", name, changed).await;
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], Value::Null, "a field of the pods");
    assert!(pod["volumes"].to_string().contains(r#""configMap":{"defaultMode":420,"name":"c"}"#), "{pod:#}");
    installation.quiet(QUIET, seconds(60)).await;
    let deployment = installation.until::<Deployment>("the JobManagers", name, |_| true).await;
    assert_eq!(deployment["metadata"]["generation"], 2, "pods of nothing in between were made");
    let config = installation.until::<ConfigMap>("the file to go", (NAMESPACE, "demo-flink-config"), |found| {
        found["data"]["logback-console.xml"].is_null()
    });
    let config = config.await;
    let (rest, account) = ((NAMESPACE, "demo-rest"), (NAMESPACE, "demo-jobmanager"));
    let service = installation.until::<Service>("the Service", rest, |_| true).await;
    let account = installation.until::<ServiceAccount>("the ServiceAccount", account, |_| true).await;
    for object in [&deployment, &config, &service, &account] {
        let metadata = &object["metadata"];
        assert_eq!(metadata["labels"]["team"], Value::Null, "{metadata:#}");
        let entries = metadata["managedFields"].as_array().unwrap().iter();
        let ours = entries.filter(|entry| entry["manager"] == FIELD_MANAGER && entry["subresource"].is_null());
        assert_eq!(ours.map(|entry| &entry["operation"]).collect::<Vec<_>>(), ["Apply"], "{metadata:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_writes_nothing_that_is_gone() {
    let installation = Installation::start(NAMESPACE).await;
    let resources = installation.api::<FlinkHaCluster>(NAMESPACE);
    let create = async |name: &str| {
        let mut resource = cluster(json!({}));
        resource["metadata"]["name"] = name.into();
        let resource = serde_json::from_value(resource).unwrap();
        resources.create(&PostParams::default(), &resource).await.unwrap();
    };
    let names: Vec<String> = (0..20).map(|index| format!("c{index:02}")).collect();
    join_all(names.iter().map(|name| create(name))).await;
    for name in &names {
        let is_told = |resource: &Value| condition(resource, "LeaderElected")["reason"] == "NoLeader";
        installation.until::<FlinkHaCluster>("a status", (NAMESPACE, name), is_told).await;
    }
    installation.quiet(QUIET, seconds(60)).await;
    let made = requests(&installation);
    let looks = made.iter().filter(|one| one.resource == "configmaps" && one.verb == "list").count();
    assert!((1..=8).contains(&looks), "{looks} looks for the HA data of 20 clusters that were made at once");
    let before = made.len();
    let deployments = installation.api::<Deployment>(NAMESPACE);
    let delete = |name: &str| {
        let (installation, resources, deployments) = (&installation, &resources, &deployments);
        let (name, job_managers) = (name.to_owned(), format!("{name}-jobmanager"));
        async move {
            resources.delete(&name, &DeleteParams::default()).await.unwrap();
            let deleting = |deployment: &Value| deployment["metadata"]["deletionTimestamp"].is_string();
            let place = (NAMESPACE, job_managers.as_str());
            installation.until::<Deployment>("the JobManagers to be deleted", place, deleting).await;
            // The garbage collector, which is not here.
            let collected = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            deployments.patch(&job_managers, &PatchParams::default(), &collected).await.unwrap();
            let gone = async || resources.get_opt(&name).await.unwrap().is_none().then_some(());
            eventually("the resource to be gone", seconds(30), gone).await;
        }
    };
    join_all(names.iter().map(|name| delete(name))).await;
    installation.quiet(QUIET, seconds(60)).await;
    let all = requests(&installation).split_off(before);
    say(format!("requests for one deletion: {:.1}", all.len() as f64 / names.len() as f64));
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for request in &all {
        let what = format!("{} {} {} {}", request.verb, request.resource, request.subresource, request.code);
        *counted.entry(what).or_default() += 1;
    }
    say(format!("{counted:#?}"));
    // A deletion that takes longer shows in the status, and is looked at again.
    let told = all.iter().filter(|request| request.subresource == "status").count();
    assert!(all.len() <= 10 * names.len() + 2 * told, "{} requests", all.len());
    let proofs = all.iter().filter(|request| request.resource == "pods").count();
    assert_eq!(proofs, names.len(), "a resource that was let go was looked at again");
    let gone = all.iter().filter(|request| request.is_write() && !request.succeeded());
    let gone: Vec<String> = gone.map(|request| format!("{} {}", request.code, described(request))).collect();
    assert!(gone.is_empty(), "{gone:#?}");
}
