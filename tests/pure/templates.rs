//! What running pods are made from does not change by an upgrade of the operator: digests of everything that is built
//! for specs that use no field of a later version. A changed digest replaces the pods of every cluster, which must be
//! meant and announced.

use flinkha::api::FlinkHaCluster;
use flinkha::cluster::application::version;
use flinkha::cluster::build::{Environment, build, digest};
use flinkha::cluster::validate::validate;
use flinkha::flink::job_id::JobId;
use flinkha::ledger::application::Run;
use serde_json::{Value, json};

fn resource(spec: &Value) -> FlinkHaCluster {
    let mut resource = json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": "flink", "uid": "4b1d", "generation": 1 },
        "spec": {
            "image": "flink:2.3.0",
            "flinkConfiguration": { "parallelism.default": 2, "jobmanager.memory.heap.size": "1g" },
            "logConfiguration": { "log4j-console.properties": "rootLogger.level = INFO\n" },
            "highAvailability": { "storageDir": "file:///flink/ha" },
            "jobManager": { "podTemplate": { "metadata": { "labels": { "team": "a" } } } },
            "taskManager": { "resources": { "limits": { "memory": "2Gi" } } },
        },
    });
    flinkha::cluster::merge::merge(&mut resource["spec"], spec.clone());
    serde_json::from_value(resource).unwrap()
}

/// Digests of the JobManagers' pod template, the TaskManagers', Flink's ConfigMap, the definition of the job, and the
/// spec as the status remembers it.
fn digests(spec: &Value) -> [String; 5] {
    digests_with(spec, "info")
}

/// The same with this log filter of the chart.
fn digests_with(spec: &Value, log: &str) -> [String; 5] {
    let resource = resource(spec);
    let cluster = validate(&resource).unwrap();
    let run = resource.spec.job.is_some().then(|| Run::new(JobId::from_number(1), "v1", 1));
    let cluster = cluster.deployed(resource.spec.clone(), run);
    let environment =
        Environment { gateway_image: "flinkha:1".to_owned(), gateway_log: log.to_owned(), ..Environment::default() };
    let objects = build(&cluster, &environment);
    let of_config_map = objects.applied.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    [
        digest(&objects.job_managers["spec"]["template"].to_string()),
        digest(&objects.task_managers["spec"]["template"].to_string()),
        digest(&of_config_map.to_string()),
        version(&resource.spec),
        digest(&json!(resource.spec).to_string()),
    ]
}

fn specs() -> [(&'static str, Value); 4] {
    let job = json!({ "jarURI": "https://example.org/app.jar", "args": ["--a"], "parallelism": 4 });
    let quorum = |more: Value| {
        let mut zookeeper = json!({ "quorum": "zk-0:2181" });
        flinkha::cluster::merge::merge(&mut zookeeper, more);
        json!({ "highAvailability": { "provider": "ZooKeeper", "zookeeper": zookeeper } })
    };
    [
        ("session", json!({})),
        ("application", json!({ "job": job })),
        ("ZooKeeper", quorum(json!({}))),
        ("ZooKeeper with TLS", quorum(json!({ "tls": { "name": "tls" }, "authentication": { "name": "user" } }))),
    ]
}

#[test]
fn what_pods_are_made_from_stays_as_it_is() {
    let expected = [
        ["30c0938ddf14e301", "938e96bedc4ff9cd", "47bf069b74c270a2", "bc6e6029b0ec808c", "8811d21df5062fa7"],
        ["aa529ab8e83502c3", "1cde13f3300ad7dd", "b8c49d0452183c11", "bf00c0be377d6df5", "57c69ade1a99ac80"],
        ["0aae03c5da18253f", "1d377fe27a383df8", "454c1c3282a56158", "bc6e6029b0ec808c", "f84e5c0ebd477f8b"],
        ["abe5599ca8c6f561", "f58fd1995bc25051", "f18550c5e78f58c6", "bc6e6029b0ec808c", "fbdfe8b40b865d0b"],
    ];
    let (names, found) = (specs().map(|(name, _)| name), specs().map(|(_, spec)| digests(&spec)));
    assert_eq!(found, expected.map(|digests| digests.map(str::to_owned)), "{names:?}");
}

#[test]
fn a_restart_nonce_replaces_all_pods_and_is_no_other_definition_of_the_job() {
    for (name, spec) in specs() {
        let with = |nonce: i64| {
            let mut spec = spec.clone();
            spec["restartNonce"] = nonce.into();
            digests(&spec)
        };
        let [absent, first, second] = [digests(&spec), with(1), with(2)];
        for (before, after) in [(&absent, &first), (&first, &second)] {
            assert!(before[0] != after[0] && before[1] != after[1], "{name}: pods stay");
            assert_eq!(before[2..4], after[2..4], "{name}: another configuration or definition");
        }
    }
}

#[test]
fn another_log_filter_changes_only_the_config_map() {
    for (name, spec) in specs() {
        let mut own = spec.clone();
        own["gateway"] = json!({ "log": "info,flinkha=debug" });
        let before = digests(&spec);
        for (what, after) in [("the chart", digests_with(&spec, "debug")), ("the resource", digests(&own))] {
            assert_eq!(before[..2], after[..2], "{name}: {what} restarts pods");
            assert_ne!(before[2], after[2], "{name}: {what} reaches nobody");
            assert_eq!(before[3], after[3], "{name}: {what} makes another definition of the job");
        }
        let said = digests_with(&own, "trace");
        assert_eq!(said[2], digests(&own)[2], "{name}: the resource's filter comes before the chart's");
    }
}

/// Argo CD prunes what carries its label and neither an owner nor this annotation. Its label is by default
/// `app.kubernetes.io/instance` with the name of its application, which may be that of a cluster.
#[test]
fn argo_cd_prunes_nothing_of_a_cluster() {
    for (name, spec) in specs() {
        let resource = resource(&spec);
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let run = resource.spec.job.is_some().then(|| Run::new(JobId::from_number(1), "v1", 1));
        let cluster = validate(&resource).unwrap().deployed(resource.spec.clone(), run);
        let objects = build(&cluster, &environment);
        let deployments = [objects.job_managers, objects.task_managers, objects.peers];
        let all = objects.applied.into_iter().chain(objects.created).chain(deployments);
        for object in all.filter(|object| !object.is_null()) {
            let metadata = &object["metadata"];
            let options = metadata["annotations"]["argocd.argoproj.io/sync-options"].as_str().unwrap_or_default();
            let is_owned = metadata["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
            assert!(is_owned || options.contains("Prune=false"), "{name}: {} {}", object["kind"], metadata["name"]);
        }
    }
}

/// What the cluster autoscaler takes for local storage: it keeps a node for every volume that is not named.
#[test]
fn the_documents_name_all_volumes_that_hold_up_the_cluster_autoscaler() {
    let document = include_str!("../../docs/upgrade.md");
    let line = document
        .lines()
        .find_map(|line| line.trim().strip_prefix("cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: "));
    let mut named: Vec<&str> = line.unwrap().split(',').collect();
    let mut found = std::collections::BTreeSet::new();
    for (_, spec) in specs() {
        let resource = resource(&spec);
        let run = resource.spec.job.is_some().then(|| Run::new(JobId::from_number(1), "v1", 1));
        let cluster = validate(&resource).unwrap().deployed(resource.spec.clone(), run);
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let objects = build(&cluster, &environment);
        for pods in [objects.job_managers, objects.task_managers] {
            let volumes = pods["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
            let local = volumes.iter().filter(|volume| volume["emptyDir"].is_object());
            let local = local.filter(|volume| volume["emptyDir"]["medium"] != "Memory");
            found.extend(local.map(|volume| volume["name"].as_str().unwrap().to_owned()));
        }
    }
    named.sort_unstable();
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), named);
}

#[test]
fn a_declared_version_is_passed_to_the_gateways_and_is_no_other_definition_of_the_job() {
    for (name, spec) in specs() {
        let mut declared = spec.clone();
        declared["flinkVersion"] = "2.3.0".into();
        let (before, after) = (digests(&spec), digests(&declared));
        assert_ne!(before[0], after[0], "{name}: the gateways do not know");
        assert_eq!(before[1..4], after[1..4], "{name}: TaskManagers, configuration or definition change");
    }
}
