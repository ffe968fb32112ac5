//! Names stay what they are in running installations, and do not meet those of other releases.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::helm::{Rendered, helm, objects, release, render};

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
