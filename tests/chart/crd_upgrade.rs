//! The definition is applied before an upgrade, and no release ever holds it.

use serde_json::{Value, json};

use crate::helm::{render, upgrade};

fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
}

#[test]
fn no_release_holds_the_definition() {
    for rendered in [render(&json!({})), upgrade(&json!({}))] {
        assert!(!rendered.0.iter().any(|object| object["kind"] == "CustomResourceDefinition"));
    }
}

#[test]
fn an_upgrade_applies_it_first_and_keeps_no_right() {
    let rendered = upgrade(&json!({}));
    let hooks: Vec<&Value> = rendered.0.iter().filter(|object| is_hook(object)).collect();
    let kinds: Vec<&str> = hooks.iter().filter_map(|hook| hook["kind"].as_str()).collect();
    assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"]);
    for hook in &hooks {
        let annotations = &hook["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded", "{hook}");
        let weight: i64 = annotations["helm.sh/hook-weight"].as_str().unwrap().parse().unwrap();
        assert_eq!(weight < 0, hook["kind"] != "Job", "the Job comes last: {hook}");
    }
    let job = rendered.one("Job", "crds");
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["crd", "--apply"]));
    let operator = &rendered.one("Deployment", "operator")["spec"]["template"]["spec"];
    assert_eq!(container["image"], operator["containers"][0]["image"]);
    assert_eq!(job["spec"]["template"]["spec"]["securityContext"], operator["securityContext"]);
    let rules = &rendered.one("ClusterRole", "crds")["rules"];
    let rule = json!({
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "resourceNames": ["flinkhaclusters.flinkha.dev"],
        "verbs": ["get", "patch"],
    });
    assert_eq!(*rules, json!([rule]));
    let subjects = &rendered.one("ClusterRoleBinding", "crds")["subjects"];
    assert_eq!(subjects[0]["name"], job["spec"]["template"]["spec"]["serviceAccountName"]);
    // Pods of the Job are none of the operator's.
    let selector = &rendered.one("Deployment", "operator")["spec"]["selector"]["matchLabels"];
    let labels = &job["spec"]["template"]["metadata"]["labels"];
    assert!(selector.as_object().unwrap().iter().any(|(key, value)| labels[key] != *value), "{labels}");
}

#[test]
fn nothing_else_is_rendered_with_an_upgrade_and_nothing_of_it_without() {
    let objects = |all: &[Value]| all.iter().filter(|object| !is_hook(object)).cloned().collect::<Vec<_>>();
    let (first, then) = (render(&json!({})), upgrade(&json!({})));
    assert_eq!(first.0, objects(&then.0));
    for values in [json!({ "crds": { "upgrade": false } }), json!({ "watchNamespaces": ["a"] })] {
        assert!(!upgrade(&values).0.iter().any(is_hook), "{values}");
    }
}
