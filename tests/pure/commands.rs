//! Holds the commands and the YAML that README and docs show to the tree: whoever copies one gets no error for a file,
//! a value of the chart, a field, an annotation or a condition that does not exist.

use std::fs;

use clap::Parser;
use clap::error::ErrorKind;
use flinkha::api::FlinkHaCluster;
use flinkha::cluster::validate::validate;
use flinkha::plugin::arguments::PluginArguments;
use kube::CustomResourceExt;
use serde::Deserialize;
use serde_json::Value;

use crate::architecture::assert_none;
use crate::documents::{TOP, documents, has_field, root, sources};

/// Words of a command, without a remark at its end.
fn words(command: &str) -> Vec<String> {
    let command = command.split(" #").next().unwrap_or_default().trim_end_matches('\\');
    command.split_whitespace().map(|word| word.trim_matches(['\'', '"', '`']).to_owned()).collect()
}

/// Every command that a document shows, with the document: lines of blocks, and texts in backticks that begin so.
fn commands() -> Vec<(String, String)> {
    let mut commands = Vec::new();
    for document in documents() {
        let is_command = |text: &&str| ["kubectl ", "helm ", "flinkha "].iter().any(|tool| text.starts_with(tool));
        let spans = document.spans().into_iter().filter(is_command).map(str::to_owned);
        let all = document.commands.iter().cloned().chain(spans);
        commands.extend(all.map(|command| (document.path.clone(), command)));
    }
    commands
}

fn definition() -> Value {
    let definition = serde_json::to_value(FlinkHaCluster::crd()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

#[test]
fn every_file_that_a_command_names_exists() {
    let mut missing = Vec::new();
    for (document, command) in commands() {
        for word in words(&command) {
            let word = word.trim_start_matches(['$', '(', '@', '<']).trim_end_matches([')', ':', ',', '.', ';', '`']);
            let is_path = TOP.iter().any(|top| word.starts_with(top)) && !word.contains(['<', '*', '…', '{']);
            if is_path && !root().join(word).exists() && !root().join("src").join(word).exists() {
                missing.push(format!("{document}: {word} in {command}"));
            }
        }
    }
    assert_none("a file does not exist", &missing);
}

/// Is this a value of the chart, or a part of one that the schema leaves to Kubernetes?
fn is_value(schema: &Value, name: &str) -> bool {
    let mut part = schema;
    for word in name.split('.') {
        match part["properties"].get(word) {
            Some(found) => part = found,
            None => return part["type"] == "object" && part["properties"].is_null() || part["$ref"].is_string(),
        }
    }
    true
}

#[test]
fn every_value_that_a_command_sets_is_one_of_the_chart() {
    let schema = fs::read_to_string(root().join("charts/flinkha/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let (mut missing, mut seen) = (Vec::new(), 0);
    for (document, command) in commands() {
        let words = words(&command);
        for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
            for (name, _) in pair[1].split(',').filter_map(|value| value.split_once('=')) {
                seen += 1;
                if !is_value(&schema, name) {
                    missing.push(format!("{document}: {name}"));
                }
            }
        }
    }
    assert_none("the chart has no such value", &missing);
    assert!(seen > 3 && !is_value(&schema, "image.name") && is_value(&schema, "podSecurityContext.runAsUser"));
}

#[test]
fn every_condition_annotation_and_path_that_a_command_names_is_there() {
    let (sources, definition) = (sources(), definition());
    let (mut missing, mut seen) = (Vec::new(), [0; 3]);
    for (document, command) in commands() {
        for word in words(&command) {
            if let Some((_, kind)) = word.split_once("condition=") {
                let kind = kind.split('=').next().unwrap_or_default();
                seen[0] += 1;
                if !sources.contains(&format!("\"{kind}\"")) {
                    missing.push(format!("{document}: condition {kind}"));
                }
            }
            if let Some(key) = word.strip_prefix("flinkha.dev/") {
                let key = key.split(['=', ',', ':', '`', ')']).next().unwrap_or_default().trim_end_matches('-');
                seen[1] += 1;
                if !sources.contains(&format!("\"flinkha.dev/{key}\"")) {
                    missing.push(format!("{document}: flinkha.dev/{key}"));
                }
            }
            for field in [".status.", ".spec."] {
                let Some((_, path)) = word.split_once(&format!("{{{field}")) else { continue };
                let path = path.split(['}', '[']).next().unwrap_or_default();
                seen[2] += 1;
                if !has_field(&definition, &format!("{}{path}", &field[1..])) {
                    missing.push(format!("{document}: {word}"));
                }
            }
        }
    }
    assert_none("there is no such condition, annotation or field", &missing);
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn every_command_of_the_plugin_is_understood() {
    let mut refused = Vec::new();
    let shown = commands().into_iter().filter(|(_, command)| command.starts_with("kubectl flinkha "));
    for (document, command) in shown {
        // NAME stands for a name, and what follows in a pipe is not the plugin's.
        let words = words(&command).into_iter().map(|word| if word == "NAME" { "name".to_owned() } else { word });
        let words: Vec<String> = words.skip(1).take_while(|word| word != "|").collect();
        match PluginArguments::try_parse_from(words) {
            Ok(_) => {}
            // A sentence about the command.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {}
            Err(error) => refused.push(format!("{document}: {command}: {error}")),
        }
    }
    assert_none("the plugin does not understand this", &refused);
}

/// Names the fields of a YAML value that the schema lacks.
fn unknown(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match (value, schema["properties"].as_object()) {
        (Value::Object(fields), Some(known)) => {
            for (name, field) in fields {
                match known.get(name) {
                    Some(schema) => unknown(schema, field, &format!("{path}.{name}"), found),
                    None => found.push(format!("{path}.{name}")),
                }
            }
        }
        (Value::Array(items), _) => items.iter().for_each(|item| unknown(&schema["items"], item, path, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_a_resource_that_the_documents_show_is_in_the_definition() {
    let definition = definition();
    let (mut missing, mut seen) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(root().join(&document.path)).unwrap();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks {
            for part in serde_yaml::Deserializer::from_str(block) {
                let value =
                    Value::deserialize(part).unwrap_or_else(|error| panic!("{}: {error}: {block}", document.path));
                let is_ours = value["kind"].is_null() || value["kind"] == "FlinkHaCluster";
                if is_ours && value["spec"].is_object() {
                    seen += 1;
                    let mut found = Vec::new();
                    unknown(&definition["properties"]["spec"], &value["spec"], "spec", &mut found);
                    missing.extend(found.into_iter().map(|field| format!("{}: {field}", document.path)));
                }
            }
        }
    }
    assert_none("the CustomResourceDefinition has no such field", &missing);
    assert!(seen > 3, "only {seen} resources are shown");
}

/// The API server's own rules are tried in `tests/processes/gitops.rs`.
#[test]
fn every_example_is_a_resource_that_the_operator_accepts() {
    let definition = definition();
    let mut seen = Vec::new();
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for part in serde_yaml::Deserializer::from_str(&text) {
            let mut value = Value::deserialize(part).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if value["kind"] != "FlinkHaCluster" {
                continue;
            }
            let mut found = Vec::new();
            unknown(&definition["properties"]["spec"], &value["spec"], "spec", &mut found);
            assert_none("the CustomResourceDefinition has no such field", &found);
            value["metadata"]["namespace"] = "demo".into();
            value["metadata"]["uid"] = "4b1d".into();
            value["metadata"]["generation"] = 1.into();
            let resource: FlinkHaCluster = serde_json::from_value(value).unwrap();
            validate(&resource).unwrap_or_else(|rejection| panic!("{}: {rejection:?}", path.display()));
            seen.push(path.clone());
        }
    }
    assert!(seen.len() > 5, "{seen:?}");
}
