//! A `FlinkHaCluster` as anybody may have written it: it is refused, or all objects are built, all of them its own.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::FlinkHaCluster;
use crate::api::names::{CLUSTER_LABEL, GATEWAY_CONTAINER, HAND_OVER_VOLUME, PEERS_VOLUME};
use crate::cluster::build::{Environment, build};
use crate::cluster::observed::Observed;
use crate::cluster::plan::plan;
use crate::cluster::validate::{problems, validate};
use crate::cluster::{Cluster, urgency};
use crate::flink::config;
use crate::flink::job_id::JobId;
use crate::input::record;
use crate::ledger::application::Run;

pub fn environment() -> Environment {
    Environment { gateway_image: "flinkha:1".to_owned(), gateway_log: "info".to_owned(), ..Environment::default() }
}

pub fn run(bytes: &[u8]) {
    // Numbers with a fraction do not survive being read to the last bit.
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if has_fraction(&json) {
        return;
    }
    let Some(resource) = record::<FlinkHaCluster>(bytes) else { return };
    let found = problems(&resource);
    assert!(found.iter().all(|problem| !problem.field.is_empty() && !problem.problem.is_empty()));
    let _ = urgency::urgency(&resource);
    let before = resource.status.clone().unwrap_or_default();
    let _ = plan(&resource, &before, &Observed::default(), &environment(), Timestamp::UNIX_EPOCH);
    let valid = validate(&resource);
    assert_eq!(valid.is_ok(), found.is_empty());
    let Ok(cluster) = valid else { return };
    let run = Run { restored_from: Some("file:///s".to_owned()), ..Run::new(JobId::from_number(7), "v1", 1) };
    let spec = cluster.spec().clone();
    let deployed = cluster.clone().deployed(spec, resource.spec.job.is_some().then_some(run));
    objects(&deployed);
}

fn objects(cluster: &Cluster) {
    let objects = build(cluster, &environment());
    let deployments = [&objects.job_managers, &objects.task_managers];
    let all = objects.applied.iter().chain(&objects.created).chain([&objects.peers]).chain(deployments);
    for object in all.filter(|object| !object.is_null()) {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().expect("an object has a name");
        assert!(name == cluster.name() || name.starts_with(&format!("{}-", cluster.name())), "{name}");
        assert_eq!(metadata["namespace"], cluster.namespace());
        assert_eq!(metadata["labels"][CLUSTER_LABEL], cluster.name());
        // What is to outlive the resource, such as the ledger, has no owner.
        let owner = &metadata["ownerReferences"][0]["uid"];
        assert!(owner.is_null() || owner == cluster.uid());
        configuration(object);
    }
    for deployment in deployments {
        pods(deployment);
    }
}

fn has_fraction(json: &Value) -> bool {
    match json {
        Value::Number(number) => number.is_f64(),
        Value::Array(all) => all.iter().any(has_fraction),
        Value::Object(all) => all.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Flink's configuration is read as it is written.
fn configuration(object: &Value) {
    let Some(written) = object["data"][config::FILE].as_str() else { return };
    let read = config::parse(written).expect("our configuration is read");
    assert_eq!(config::render(&read), written);
}

/// The Deployment selects its pods, and the gateway alone has its key and its socket.
fn pods(deployment: &Value) {
    let (selector, template) = (&deployment["spec"]["selector"]["matchLabels"], &deployment["spec"]["template"]);
    if template["metadata"]["labels"].is_object() {
        for (key, value) in selector.as_object().expect("a selector") {
            assert_eq!(template["metadata"]["labels"][key], *value, "the label {key}");
        }
    }
    let spec = &template["spec"];
    for container in [&spec["containers"], &spec["initContainers"]].into_iter().filter_map(Value::as_array).flatten() {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let is_secret = mounts
            .filter_map(|mount| mount["name"].as_str())
            .any(|name| name == PEERS_VOLUME || name == HAND_OVER_VOLUME);
        assert!(!is_secret || container["name"] == GATEWAY_CONTAINER, "{} has the gateway's key", container["name"]);
    }
}
