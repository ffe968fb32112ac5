//! A resource for tests.

use serde_json::json;

use super::{Cluster, validate};
use crate::api::FlinkHaCluster;

/// A sound resource that uses most fields.
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

/// The same, validated.
pub fn cluster() -> Cluster {
    validate::validate(&resource()).unwrap_or_else(|problems| panic!("the fixture is wrong: {problems:?}"))
}
