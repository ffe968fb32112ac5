//! `install`: prints the objects of an installation. They are those of the chart: `make generate` renders it, with
//! stand-ins for what people choose, into the two files beside this one.

use super::failure::Failure;
use super::parsers;
use crate::api::crd;

/// Flags of `install`. The flag --namespace of all commands is the operator's namespace here.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InstallArguments {
    /// Image of the operator and of the gateways; default: that of the chart.
    #[arg(long, value_parser = parsers::image)]
    pub image: Option<String>,
    /// Manage the FlinkHaClusters of this namespace only, with rights only there.
    #[arg(long, value_name = "NAMESPACE", value_parser = parsers::namespace)]
    pub watch_namespace: Option<String>,
    /// Operator pods; one is active.
    #[arg(long, default_value_t = 1)]
    pub replicas: u16,
}

/// Stand-ins in the files, each of which the chart accepts as a value and nothing else contains.
pub const NAMESPACE: &str = "stand-in-of-namespace";
pub const WATCHED: &str = "stand-in-of-watched";
/// Repository and tag of the image.
pub const IMAGE: (&str, &str) = ("stand-in/of-image", "stand-in-of-tag");
pub const REPLICAS: u32 = 987_654;

/// The chart's objects for an operator of all namespaces, and for one of one namespace.
pub const ALL_NAMESPACES: &str = include_str!("all-namespaces.yaml");
pub const ONE_NAMESPACE: &str = include_str!("one-namespace.yaml");

/// Namespace of the operator without the flag --namespace.
const DEFAULT_NAMESPACE: &str = "flinkha-system";
/// Image of the chart, without the tag, which is the version that the chart's objects carry.
const DEFAULT_IMAGE: &str = "flinkha/flinkha";
const VERSION_LABEL: &str = "app.kubernetes.io/version: ";

/// The objects as YAML: the namespace, the CustomResourceDefinition, and the chart's.
///
/// # Errors
/// When the definition cannot be written.
pub fn manifest(arguments: &InstallArguments, namespace: Option<&str>) -> Result<String, Failure> {
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    let template = if arguments.watch_namespace.is_some() { ONE_NAMESPACE } else { ALL_NAMESPACES };
    let version = template.lines().find_map(|line| line.trim().strip_prefix(VERSION_LABEL)).unwrap_or_default();
    let default = || format!("{DEFAULT_IMAGE}:{}", version.trim_matches('"'));
    let image = arguments.image.clone().unwrap_or_else(default);
    let objects = template
        .replace(&format!("{}:{}", IMAGE.0, IMAGE.1), &image)
        .replace(WATCHED, arguments.watch_namespace.as_deref().unwrap_or_default())
        .replace(NAMESPACE, namespace)
        .replace(&REPLICAS.to_string(), &arguments.replicas.to_string());
    let definition =
        crd::yaml().map_err(|error| Failure::Request(format!("failed to write the definition: {error}")))?;
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n");
    let parts = [namespace.as_str(), definition.trim_start_matches("---\n"), objects.as_str()];
    Ok(parts.map(|part| format!("---\n{}\n", part.trim_start_matches("---\n").trim_end())).concat())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::Value;

    use super::*;

    fn objects(arguments: &InstallArguments) -> (String, Vec<Value>) {
        let text = manifest(arguments, Some("ops")).expect("a manifest");
        let objects = serde_yaml::Deserializer::from_str(&text).map(|one| Value::deserialize(one).expect("an object"));
        (text.clone(), objects.collect())
    }

    #[test]
    fn what_people_choose_is_in_the_objects_and_no_stand_in_is_left() {
        for watched in [None, Some("flink".to_owned())] {
            let image = Some("r:5000/a:1".to_owned());
            let (text, objects) = objects(&InstallArguments { image, watch_namespace: watched.clone(), replicas: 2 });
            assert!(!text.contains("stand-in") && !text.contains(&REPLICAS.to_string()), "{text}");
            let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
            assert_eq!(kinds[..2], ["Namespace", "CustomResourceDefinition"]);
            let deployment = objects.iter().find(|object| object["kind"] == "Deployment").expect("a Deployment");
            assert_eq!(
                (&deployment["metadata"]["namespace"], &deployment["spec"]["replicas"]),
                (&"ops".into(), &2.into())
            );
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["image"], "r:5000/a:1");
            let has_cluster_role = kinds.contains(&"ClusterRole");
            assert_eq!(has_cluster_role, watched.is_none(), "{kinds:?}");
            assert!(kinds.contains(&"ValidatingAdmissionPolicy"));
        }
    }
}
