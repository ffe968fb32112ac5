//! Names stay what they are in running installations, and do not meet those of other releases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::helm::{Rendered, helm, objects, release, render, upgrade};

/// The chart of the former version, from this repository's history.
fn former(values: &Value) -> Rendered {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rig/former");
    let output = Command::new(script).arg("chart").output().unwrap();
    let chart = String::from_utf8(output.stdout).unwrap();
    let arguments = ["template", "flinkha", chart.trim(), "--namespace", "flinkha-system"];
    Rendered(objects(&helm(&arguments, values).unwrap()))
}

#[test]
fn an_upgrade_from_the_former_chart_makes_nothing_anew() {
    for values in [json!({}), json!({ "watchNamespace": "a" })] {
        let (before, after) = (former(&values), render(&values));
        let names = |rendered: &Rendered| rendered.names().into_iter().collect::<BTreeSet<_>>();
        let gone: Vec<_> = names(&before).difference(&names(&after)).cloned().collect();
        assert!(gone.is_empty(), "{values}: {gone:?}");
        let of = |rendered: &Rendered, at: &str| rendered.one("Deployment", "operator").pointer(at).cloned();
        // What Kubernetes does not change in place.
        for at in ["/spec/selector", "/metadata/name"] {
            assert_eq!(of(&before, at), of(&after, at), "{values}: {at}");
        }
        let container = |rendered: &Rendered| of(rendered, "/spec/template/spec").unwrap();
        for part in ["serviceAccountName", "securityContext"] {
            assert_eq!(container(&before)[part], container(&after)[part], "{values}: {part}");
        }
        for part in ["name", "image", "args", "ports", "livenessProbe", "readinessProbe", "securityContext"] {
            let parts = [&before, &after].map(|rendered| container(rendered)["containers"][0][part].clone());
            assert_eq!(parts[0], parts[1], "{values}: {part}");
        }
    }
}

/// Whatever values a release had before, an upgrade to other ones, and the way back, changes nothing of an object that
/// Kubernetes does not let anybody change. Names of other objects differ, which Helm makes and removes.
#[test]
fn no_change_of_values_and_no_roll_back_meets_an_immutable_field() {
    let values = [
        json!({}),
        json!({ "fullnameOverride": "op" }),
        // The name that the release has anyway.
        json!({ "fullnameOverride": "flinkha-operator", "serviceAccount": { "name": "mine" } }),
        json!({ "nameOverride": "op" }),
        json!({ "serviceAccount": { "create": false } }),
        json!({ "rbac": { "create": false } }),
        json!({ "rbac": { "aggregateClusterRoles": true }, "commonLabels": { "a": "b" }, "podLabels": { "p": "q" } }),
        json!({ "watchNamespaces": ["a", "b"], "labelSelector": "team=a" }),
        // That of the release itself.
        json!({ "watchNamespaces": ["flinkha-system"] }),
        json!({ "replicas": 2, "podDisruptionBudget": { "enabled": true }, "networkPolicy": { "enabled": true } }),
    ];
    let before =
        [json!({}), json!({ "watchNamespace": "a" })].map(|values| ("the former chart", former(&values), values));
    let this = values.map(|values| ("this chart", upgrade(&values), values));
    let all: Vec<_> = before.into_iter().chain(this).collect();
    for (chart, rendered, values) in &all {
        let deployment = rendered.0.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        for (key, value) in deployment["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(labels[key], *value, "{chart} with {values}: the Deployment does not select its own pods");
        }
        for (other_chart, other, other_values) in &all {
            let fixed = immutable(other);
            for (object, fields) in immutable(rendered) {
                let same = fixed.get(&object).is_none_or(|other| *other == fields);
                assert!(same, "{object:?}: from {other_chart} with {other_values} to {chart} with {values}");
            }
        }
    }
}

/// What an update of each object must not change, by its kind, namespace and name. Objects of hooks are made anew.
fn immutable(rendered: &Rendered) -> BTreeMap<(String, String, String), Value> {
    let objects = rendered.names().into_iter().zip(&rendered.0);
    let objects = objects.filter(|(_, object)| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
    let fields = |kind: &str, object: &Value| match kind {
        "Deployment" => object["spec"]["selector"].clone(),
        "RoleBinding" | "ClusterRoleBinding" => object["roleRef"].clone(),
        _ => Value::Null,
    };
    objects.map(|(name, object)| (name.clone(), fields(&name.0, object))).collect()
}

#[test]
fn two_releases_share_no_object() {
    let of = |release_: (&str, &str), values: &Value| -> BTreeSet<_> {
        release(release_, &["--is-upgrade"], values).names().into_iter().collect()
    };
    let (one, other) = (of(("a", "flink"), &json!({})), of(("b", "flink"), &json!({})));
    assert!(one.is_disjoint(&other), "{:?}", one.intersection(&other));
    // Of the same name: the second one needs another name, as the chart's README says.
    let elsewhere = of(("a", "other"), &json!({}));
    assert!(!one.is_disjoint(&elsewhere));
    let renamed = of(("a", "other"), &json!({ "fullnameOverride": "other-operator" }));
    assert!(one.is_disjoint(&renamed), "{:?}", one.intersection(&renamed));
}

#[test]
fn a_long_name_of_a_release_fits() {
    let name = "a".repeat(53);
    let rendered = release((&name, "flink"), &["--is-upgrade"], &json!({}));
    let deployment = rendered.one("Deployment", "operator");
    assert_eq!(deployment["metadata"]["name"], format!("{name}-operator"));
    // Kubernetes writes the name of a Job into a label of its pods.
    for object in &rendered.0 {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(object["kind"] != "Job" || name.len() <= 63, "{name}");
    }
}
