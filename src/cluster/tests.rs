//! Provides resources for tests.

use serde_json::json;

use super::{Cluster, validate};
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec};
use crate::flink::job_id::JobId;
use crate::ledger::application::Run;

/// A valid resource that uses most fields.
pub fn resource() -> FlinkHaCluster {
    let json = json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": "flink", "uid": "4b1d", "generation": 1 },
        "spec": {
            "image": "flink:2.3.0",
            "imagePullSecrets": [{ "name": "registry" }],
            "flinkConfiguration": { "parallelism.default": 2, "state.backend.type": "rocksdb" },
            "logConfiguration": { "log4j-console.properties": "rootLogger.level = INFO\n" },
            "highAvailability": { "storageDir": "file:///flink/ha" },
            "jobManager": {
                "replicas": 3,
                "resources": { "requests": { "cpu": "500m" }, "limits": { "memory": "2Gi" } },
                "podTemplate": {
                    "metadata": { "labels": { "team": "a" } },
                    "spec": {
                        "priorityClassName": "high",
                        "volumes": [{ "name": "ha", "persistentVolumeClaim": { "claimName": "ha" } }],
                        "containers": [{
                            "name": "flink-main-container",
                            "volumeMounts": [{ "name": "ha", "mountPath": "/flink/ha" }],
                            "env": [{ "name": "NO_PROXY", "value": "example.org" }],
                        }],
                    },
                },
            },
            "taskManager": { "replicas": 2 },
        },
    });
    serde_json::from_value(json).unwrap_or_else(|error| panic!("the fixture is wrong: {error}"))
}

/// The resource as a cluster.
pub fn cluster() -> Cluster {
    cluster_with(|_| ())
}

/// The resource as a cluster, with another spec.
pub fn cluster_with(change: impl FnOnce(&mut FlinkHaClusterSpec)) -> Cluster {
    let mut resource = resource();
    change(&mut resource.spec);
    validate::validate(&resource).unwrap_or_else(|rejection| panic!("the fixture is wrong: {rejection:?}"))
}

/// A resource of an application.
pub fn application_resource() -> FlinkHaCluster {
    let mut resource = resource();
    let job = json!({ "jarURI": "https://example.org/app.jar", "entryClass": "org.example.App", "args": ["--input", "a b"], "parallelism": 4 });
    resource.spec.job =
        Some(serde_json::from_value(job).unwrap_or_else(|error| panic!("the fixture is wrong: {error}")));
    resource
}

/// The resource of an application as a cluster with a run.
pub fn application() -> Cluster {
    let run = Run { restored_from: Some("file:///s".to_owned()), ..Run::new(JobId::from_number(0), "v1", 1) };
    let cluster = cluster_with(|spec| *spec = application_resource().spec);
    let spec = cluster.spec().clone();
    cluster.deployed(spec, Some(run))
}

/// A cluster with ZooKeeper.
pub fn on_zookeeper() -> Cluster {
    on_zookeeper_with(|_| ())
}

/// A cluster with ZooKeeper and another spec.
pub fn on_zookeeper_with(change: impl FnOnce(&mut FlinkHaClusterSpec)) -> Cluster {
    let json = json!({ "provider": "ZooKeeper", "storageDir": "file:///flink/ha", "zookeeper": { "quorum": "zk-0:2181,zk-1:2181,zk-2:2181" } });
    cluster_with(|spec| {
        spec.high_availability =
            serde_json::from_value(json).unwrap_or_else(|error| panic!("the fixture is wrong: {error}"));
        change(spec);
    })
}
