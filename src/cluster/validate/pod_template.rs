//! Decides whether a template of pods takes away or claims what the operator needs in them.

use serde_json::Value;

use super::Problems;
use crate::api::names::{
    CLUSTER_LABEL, COMPONENT_LABEL, FLINK_CONTAINER, GATEWAY_CONTAINER, HAND_OVER_VOLUME, MANAGED_BY_LABEL,
    PEERS_VOLUME, ZOOKEEPER_USER_VOLUME,
};
use crate::api::owned::{self, RESERVED_PREFIX};

/// Variable whose lines the entrypoint of Flink's image appends to Flink's configuration.
const PROPERTIES: &str = "FLINK_PROPERTIES";
/// Where the operator mounts its volumes into Flink's container.
const RESERVED_DIRECTORY: &str = "/flinkha";

impl Problems {
    pub(super) fn pod_template(&mut self, field: &str, template: &Value) {
        let is_map = |value: &Value| value.is_null() || value.is_object();
        for (field, value) in [(field.to_owned(), template), (format!("{field}.spec"), &template["spec"])] {
            if !is_map(value) {
                return self.add(field, "must be a map of fields, as in a Deployment".to_owned());
            }
        }
        for kind in ["labels", "annotations"] {
            for key in template["metadata"][kind].as_object().into_iter().flatten().map(|(key, _)| key) {
                if key.starts_with(RESERVED_PREFIX)
                    || [MANAGED_BY_LABEL, CLUSTER_LABEL, COMPONENT_LABEL].contains(&key.as_str())
                {
                    self.add(
                        format!("{field}.metadata.{kind}"),
                        format!("{key} is owned by the operator, which finds its pods by it; remove it"),
                    );
                }
            }
        }
        for (path, of) in [("metadata", &["labels", "annotations"][..]), ("spec", &["containers", "volumes"])] {
            self.removals(&format!("{field}.{path}"), &template[path], of);
        }
        self.removals(field, template, &["metadata", "spec"]);
        let spec = &template["spec"];
        for owned in owned::POD_SPEC.iter().filter(|owned| spec.get(owned.field).is_some()) {
            self.add(format!("{field}.spec.{}", owned.field), owned.reason.to_owned());
        }
        for volume in named(&spec["volumes"]).filter(|volume| volume.0.starts_with(RESERVED_PREFIX)) {
            self.add(
                format!("{field}.spec.volumes"),
                format!("names that start with {RESERVED_PREFIX} are the operator's; rename {}", volume.0),
            );
        }
        for _ in named(&spec["initContainers"]).filter(|container| container.0 == GATEWAY_CONTAINER) {
            self.add(
                format!("{field}.spec.initContainers"),
                "the container gateway is the operator's; use spec.gateway for its resources".to_owned(),
            );
        }
        for list in ["containers", "initContainers"] {
            for (container, mount) in named(&spec[list])
                .flat_map(|(name, container)| named(&container["volumeMounts"]).map(move |mount| (name, mount.0)))
            {
                if let Some(why) = why_for_the_gateway_alone(mount) {
                    self.add(
                        format!("{field}.spec.{list}[{container}].volumeMounts"),
                        format!("the volume {mount} is for the gateway alone, because {why}; remove the mount"),
                    );
                }
            }
        }
        for (_, container) in named(&spec["containers"]).filter(|container| container.0 == FLINK_CONTAINER) {
            self.flink_container(&format!("{field}.spec.containers[{FLINK_CONTAINER}]"), container);
        }
    }

    fn flink_container(&mut self, field: &str, container: &Value) {
        for owned in owned::FLINK_CONTAINER.iter().filter(|owned| container.get(owned.field).is_some()) {
            self.add(format!("{field}.{}", owned.field), owned.reason.to_owned());
        }
        self.removals(field, container, &["env", "volumeMounts"]);
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let paths = mounts.filter_map(|mount| mount["mountPath"].as_str());
        for path in
            paths.filter(|path| *path == RESERVED_DIRECTORY || path.starts_with(&format!("{RESERVED_DIRECTORY}/")))
        {
            self.add(
                format!("{field}.volumeMounts"),
                format!("{path} is in the operator's directory {RESERVED_DIRECTORY}; mount the volume elsewhere"),
            );
        }
        let properties = named(&container["env"]).find(|variable| variable.0 == PROPERTIES);
        let properties = properties.and_then(|(_, variable)| variable["value"].as_str()).unwrap_or_default();
        for key in keys_of(properties) {
            for group in owned::FLINK_CONFIGURATION.iter().filter(|group| group.contains(&key)) {
                self.add(format!("{field}.env[{PROPERTIES}]"), format!("the key {key} {}", group.reason));
            }
        }
        for (name, _) in named(&container["env"]).filter(|variable| owned::FLINK_ENVIRONMENT.contains(&variable.0)) {
            self.add(format!("{field}.env"), format!("{name} is owned by the operator; remove it"));
        }
        for user in ["runAsUser", "runAsGroup"].iter().filter(|user| !container["securityContext"][**user].is_null()) {
            let reason =
                "must be the gateway's, which watches Flink's process; set it in the pod's securityContext instead";
            self.add(format!("{field}.securityContext.{user}"), reason.to_owned());
        }
    }

    /// A `null` in a template removes what the operator has there.
    fn removals(&mut self, field: &str, parent: &Value, needed: &[&str]) {
        for name in needed.iter().filter(|name| parent.get(**name).is_some_and(Value::is_null)) {
            self.add(
                format!("{field}.{name}"),
                "null would remove what the operator needs there; leave it out".to_owned(),
            );
        }
    }
}

/// Keys of a configuration in YAML: flat, or nested by indentation.
fn keys_of(text: &str) -> Vec<String> {
    let (mut keys, mut parents): (Vec<String>, Vec<(usize, String)>) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '-'])) {
        let Some((key, _)) = line.split_once(':') else { continue };
        let indent = key.len() - key.trim_start().len();
        parents.retain(|(outer, _)| *outer < indent);
        parents.push((indent, key.trim().trim_matches(['\'', '"']).to_owned()));
        keys.push(parents.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join("."));
    }
    keys
}

/// Why no other container may mount a volume; `None` if it may.
fn why_for_the_gateway_alone(volume: &str) -> Option<&'static str> {
    match volume {
        PEERS_VOLUME | HAND_OVER_VOLUME => Some("whoever mounts it can take part in the election"),
        ZOOKEEPER_USER_VOLUME => Some("it holds the password for the quorum"),
        _ => None,
    }
}

/// Returns the elements of a list with their names.
fn named(list: &Value) -> impl Iterator<Item = (&str, &Value)> {
    list.as_array().into_iter().flatten().filter_map(|element| Some((element["name"].as_str()?, element)))
}
