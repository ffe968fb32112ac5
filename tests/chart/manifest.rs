//! What `kubectl flinkha install` prints is the chart: the files that it is made of are current, and what it prints
//! with other choices are the objects that helm renders with the same.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use flinkha::plugin::arguments::{PluginArguments, PluginCommand};
use flinkha::plugin::install::{IMAGE, NAMESPACE, REPLICAS, WATCHED, manifest};
use serde_json::{Value, json};

use crate::helm::{Rendered, objects, release, release_text};

const NAME: &str = "flinkha";

#[test]
fn the_plugins_manifests_are_current() {
    for (file, watched) in [("all-namespaces", ""), ("one-namespace", WATCHED)] {
        let image = json!({ "repository": IMAGE.0, "tag": IMAGE.1 });
        let values = json!({ "image": image, "watchNamespace": watched, "replicas": REPLICAS });
        let rendered = release_text((NAME, NAMESPACE), &[], &values);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/plugin/install/{file}.yaml"));
        if std::env::var("GENERATE").is_ok_and(|value| value == "1") {
            fs::write(&path, rendered).unwrap();
        } else {
            let found = fs::read_to_string(&path).unwrap();
            assert!(found == rendered, "{} is not current; write it again with: make generate", path.display());
        }
    }
}

/// What the plugin prints with these flags, without the objects that are no templates of the chart.
fn printed(flags: &[&str]) -> Vec<Value> {
    let words = ["kubectl-flinkha", "install"].iter().chain(flags);
    let arguments = PluginArguments::try_parse_from(words).unwrap();
    let PluginCommand::Install(install) = &arguments.command else { panic!("{flags:?}") };
    let text = manifest(install, arguments.access.namespace.as_deref()).unwrap();
    let mut all = objects(&text);
    let others = ["Namespace", "CustomResourceDefinition"].map(json_string);
    assert_eq!(all.iter().take(2).map(|object| object["kind"].clone()).collect::<Vec<_>>(), others);
    all.drain(..2);
    all
}

fn json_string(text: &str) -> Value {
    json!(text)
}

#[test]
fn the_plugin_prints_the_objects_that_helm_renders() {
    for (flags, namespace, values) in [
        (&[] as &[&str], "flinkha-system", json!({})),
        (&["-n", "ops", "--replicas", "3"], "ops", json!({ "replicas": 3 })),
        (
            &["--image", "r:5000/flinkha:9", "--watch-namespace", "flink"],
            "flinkha-system",
            json!({ "image": { "repository": "r:5000/flinkha", "tag": "9" }, "watchNamespace": "flink" }),
        ),
    ] {
        let Rendered(helm) = release((NAME, namespace), &[], &values);
        let plugin = printed(flags);
        assert_eq!(plugin.len(), helm.len(), "{flags:?}");
        for (one, other) in plugin.iter().zip(&helm) {
            assert_eq!(one, other, "{flags:?}");
        }
    }
}
