//! The scripts for Argo CD, on every state that the operator writes.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use flinkha::cluster::merge::merge;
use serde_json::{Value, json};

use crate::conditions::written_cases;
use crate::kstatus::Kstatus;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/gitops/argo-cd"))
}

/// What a script returns for a resource.
fn run(script: &str, resource: &Value) -> Value {
    let program = std::env::var("LUA").expect("LUA is the path of the interpreter: run make test-chart");
    let mut command = Command::new(&program);
    command.arg(folder().join(script)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut lua = command.spawn().unwrap();
    lua.stdin.take().unwrap().write_all(resource.to_string().as_bytes()).unwrap();
    let output = lua.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}: {} {resource:#}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn holds(resource: &Value, kind: &str) -> bool {
    let conditions = resource["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

#[test]
fn health_is_what_kstatus_says() {
    let mut seen = Vec::new();
    for (name, resource, kstatus) in written_cases() {
        let expected = match kstatus {
            // Argo CD decides about these by itself.
            Kstatus::Terminating => continue,
            _ if holds(&resource, "Paused") => "Suspended",
            Kstatus::Current => "Healthy",
            Kstatus::Failed => "Degraded",
            Kstatus::InProgress if holds(&resource, "Degraded") && !holds(&resource, "Reconciling") => "Degraded",
            Kstatus::InProgress => "Progressing",
        };
        let health = run("health.lua", &resource);
        assert_eq!(health["status"], expected, "{name}: {health} {:#}", resource["status"]["conditions"]);
        assert_ne!(health["message"].as_str(), None, "{name}");
        if expected != "Healthy" {
            assert_ne!(health["message"], "", "{name}: {expected} without a word why");
        }
        seen.push(expected);
    }
    for status in ["Suspended", "Healthy", "Degraded", "Progressing"] {
        assert!(seen.contains(&status), "no state is {status}");
    }
}

#[test]
fn health_of_what_nobody_has_looked_at_yet_is_no_success() {
    let spec = json!({ "highAvailability": { "storageDir": "s3://b/ha" } });
    let new = json!({ "metadata": { "generation": 1 }, "spec": spec });
    assert_eq!(run("health.lua", &new)["status"], "Progressing");
    let condition = json!([{ "type": "Ready", "status": "True", "message": "" }]);
    let mut changed = new.clone();
    merge(
        &mut changed,
        json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": 1, "conditions": condition } }),
    );
    assert_eq!(run("health.lua", &changed)["status"], "Progressing", "the status is that of the generation before");
}

fn resource(more: Value) -> Value {
    let mut resource = json!({
        "metadata": { "name": "demo", "generation": 1 },
        "spec": { "highAvailability": { "storageDir": "s3://b/ha" }, "jobManager": { "replicas": 3 } },
        "status": { "leader": { "pod": "a" } },
    });
    merge(&mut resource, more);
    resource
}

fn application(state: &str, phase: &str) -> Value {
    resource(json!({ "spec": { "job": { "state": state } }, "status": { "application": { "phase": phase } } }))
}

#[test]
fn actions_are_offered_when_they_are_of_use() {
    let quorum = resource(json!({ "spec": { "highAvailability": { "provider": "ZooKeeper" } } }));
    let alone = resource(json!({ "spec": { "jobManager": { "replicas": 1 } } }));
    let cases = [
        (resource(json!({})), vec!["restart", "switchover"]),
        (resource(json!({ "status": null })), vec!["restart"]),
        (quorum, vec!["restart"]),
        (alone, vec!["restart"]),
        (application("running", "Running"), vec!["restart", "savepoint", "suspend", "switchover"]),
        (application("running", "Starting"), vec!["restart", "suspend", "switchover"]),
        (application("suspended", "Suspended"), vec!["resume"]),
        (application("running", "Ended"), vec![]),
    ];
    for (resource, expected) in cases {
        let actions = run("actions/discovery.lua", &resource);
        let offered = actions.as_object().unwrap().iter().filter(|(_, action)| action["disabled"] == false);
        let mut offered: Vec<&str> = offered.map(|(name, _)| name.as_str()).collect();
        offered.sort_unstable();
        assert_eq!(offered, expected, "{resource}");
        for name in actions.as_object().unwrap().keys() {
            assert!(folder().join(format!("actions/{name}/action.lua")).exists(), "{name} has no script");
        }
    }
}

#[test]
fn an_action_changes_one_field() {
    let application = application("running", "Running");
    let cases = [
        ("switchover", json!({ "metadata": { "annotations": { "flinkha.dev/switchover": "any" } } })),
        ("suspend", json!({ "spec": { "job": { "state": "suspended" } } })),
        ("resume", json!({ "spec": { "job": { "state": "running" } } })),
        ("savepoint", json!({ "spec": { "job": { "savepointTriggerNonce": 1 } } })),
        ("restart", json!({ "spec": { "restartNonce": 1 } })),
    ];
    for (name, change) in cases {
        let mut expected = application.clone();
        merge(&mut expected, change);
        let changed = run(&format!("actions/{name}/action.lua"), &application);
        assert_eq!(changed, expected, "{name}");
    }
    let nonces = resource(json!({ "spec": { "restartNonce": 7, "job": { "savepointTriggerNonce": 3 } } }));
    assert_eq!(run("actions/restart/action.lua", &nonces)["spec"]["restartNonce"], 8);
    assert_eq!(run("actions/savepoint/action.lua", &nonces)["spec"]["job"]["savepointTriggerNonce"], 4);
    let annotated = resource(json!({ "metadata": { "annotations": { "a": "b" } } }));
    let annotations = &run("actions/switchover/action.lua", &annotated)["metadata"]["annotations"];
    assert_eq!(*annotations, json!({ "a": "b", "flinkha.dev/switchover": "any" }));
}

/// Argo CD reads the scripts from its own ConfigMap.
#[test]
fn the_config_map_holds_these_scripts() {
    let text = std::fs::read_to_string(folder().join("argocd-cm.yaml")).unwrap();
    let config_map: Value = serde_yaml::from_str(&text).unwrap();
    let script = |name: &str| std::fs::read_to_string(folder().join(name)).unwrap();
    assert_eq!(config_map["data"]["resource.customizations.health.flinkha.dev_FlinkHaCluster"], script("health.lua"));
    let actions = &config_map["data"]["resource.customizations.actions.flinkha.dev_FlinkHaCluster"];
    let actions: Value = serde_yaml::from_str(actions.as_str().unwrap()).unwrap();
    assert_eq!(actions["discovery.lua"], script("actions/discovery.lua"));
    let definitions = actions["definitions"].as_array().unwrap();
    assert_eq!(definitions.len(), std::fs::read_dir(folder().join("actions")).unwrap().count() - 1);
    for definition in definitions {
        let name = definition["name"].as_str().unwrap();
        assert_eq!(definition["action.lua"], script(&format!("actions/{name}/action.lua")), "{name}");
    }
}
