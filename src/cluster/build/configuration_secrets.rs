//! Builds what pods need for the Secrets of `spec.flinkConfigurationFrom`: their mounts, and how Flink and its gateway
//! find them. Their values are in no object but the Secrets themselves.

use serde_json::{Value, json};

use super::pod;
use crate::api::names::{self, FLINK_CONTAINER};
use crate::api::owned;
use crate::cluster::Cluster;

/// Shell script that goes before [`pod::START_FLINK`]: it adds the keys of the Secrets to the configuration that Flink
/// is started with.
pub const ADD_SECRETS: &str = include_str!("add-secrets.sh");

/// Annotation on pods and Deployments: how often the contents of the Secrets have changed since the cluster was made.
/// Absent before the first change.
pub const CHANGES_ANNOTATION: &str = "flinkha.dev/secret-changes";

/// Directories of the Secrets, in Flink's container and in ours.
const FLINK_DIRECTORY: &str = "/flinkha/secrets";
pub const GATEWAY_DIRECTORY: &str = "/etc/flinkha/secrets";

/// Whether any Secret is named.
pub fn is_used(cluster: &Cluster) -> bool {
    !cluster.spec().flink_configuration_from.is_empty()
}

/// Returns the names of the Secrets, in the order of the spec.
pub fn names(cluster: &Cluster) -> impl Iterator<Item = &str> {
    cluster.spec().flink_configuration_from.iter().map(|source| source.secret_ref.name.as_str())
}

/// Returns the mounts of all Secrets. The directory of each begins with its place in the order.
pub fn mounts(cluster: &Cluster, directory: &str) -> Vec<Value> {
    let mount = |(index, secret): (usize, &str)| json!({ "name": volume(index), "mountPath": format!("{directory}/{index}.{secret}"), "readOnly": true });
    names(cluster).enumerate().map(mount).collect()
}

/// Returns the flags by which a program of ours finds the Secrets.
pub fn options(cluster: &Cluster) -> Vec<String> {
    if !is_used(cluster) {
        return Vec::new();
    }
    vec!["--flink-configuration-from".to_owned(), GATEWAY_DIRECTORY.to_owned()]
}

/// Adds the Secrets to a pod of Flink.
pub fn add(template: &mut Value, cluster: &Cluster) {
    if !is_used(cluster) {
        return;
    }
    if cluster.secret_changes() > 0 {
        template["metadata"]["annotations"][CHANGES_ANNOTATION] = cluster.secret_changes().to_string().into();
    }
    let volumes = names(cluster)
        .enumerate()
        .map(|(index, secret)| json!({ "name": volume(index), "secret": { "secretName": secret } }));
    for volume in template["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        // The configuration that Flink reads holds the values too: nothing of it gets onto a disk.
        if volume["name"] == pod::CONF_VOLUME {
            volume["emptyDir"] = json!({ "medium": "Memory" });
        }
    }
    if let Some(all) = template["spec"]["volumes"].as_array_mut() {
        all.extend(volumes);
    }
    let Some(flink) = pod::container_mut(template, FLINK_CONTAINER) else { return };
    flink["command"][2] = format!("{ADD_SECRETS}{}", pod::START_FLINK).into();
    if let Some(mounted) = flink["volumeMounts"].as_array_mut() {
        mounted.extend(mounts(cluster, FLINK_DIRECTORY));
    }
    if let Some(environment) = flink["env"].as_array_mut() {
        environment.push(json!({ "name": "FLINKHA_SECRETS", "value": FLINK_DIRECTORY }));
        environment.push(json!({ "name": "FLINKHA_OWNED_KEYS", "value": owned_keys() }));
    }
}

/// Notes on a Deployment how often the Secrets have changed.
pub fn annotate(deployment: &mut Value, cluster: &Cluster) {
    if is_used(cluster) && cluster.secret_changes() > 0 {
        deployment["metadata"]["annotations"][CHANGES_ANNOTATION] = cluster.secret_changes().to_string().into();
    }
}

fn volume(index: usize) -> String {
    format!("{}{index}", names::CONFIGURATION_SECRET_VOLUME)
}

/// Keys that users may not set, as patterns of a shell.
pub fn owned_keys() -> String {
    let patterns = owned::FLINK_CONFIGURATION.iter().flat_map(|group| {
        let keys = group.keys.iter().map(|key| (*key).to_owned());
        let prefixes = group.prefixes.iter().map(|prefix| format!("{prefix}*"));
        keys.chain(prefixes).chain(group.suffixes.iter().map(|suffix| format!("*{suffix}"))).collect::<Vec<_>>()
    });
    patterns.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::build::application;
    use crate::cluster::build::purge::{self, Signature};
    use crate::cluster::build::{Environment, build};
    use crate::cluster::tests as fixture;

    fn cluster(secrets: &[&str]) -> Cluster {
        fixture::cluster_with(|spec| {
            spec.job_manager.pod_template = Value::Null;
            let from: Vec<Value> = secrets.iter().map(|name| json!({ "secretRef": { "name": name } })).collect();
            spec.flink_configuration_from =
                serde_json::from_value(from.into()).unwrap_or_else(|error| panic!("the fixture is wrong: {error}"));
        })
    }

    fn environment() -> Environment {
        Environment { gateway_image: "flinkha:1".to_owned(), gateway_log: "info".to_owned(), ..Environment::default() }
    }

    fn mounted<'a>(container: &'a Value, beginning: &str) -> Vec<&'a str> {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        mounts.filter_map(|mount| mount["mountPath"].as_str()).filter(|path| path.starts_with(beginning)).collect()
    }

    #[test]
    fn flink_its_gateway_and_all_that_read_the_storage_mount_the_secrets_in_their_order() {
        let cluster = cluster(&["s3", "other.one"]);
        let objects = build(&cluster, &environment());
        for deployment in [&objects.job_managers, &objects.task_managers] {
            let pod = &deployment["spec"]["template"]["spec"];
            let flink = &pod["containers"][0];
            assert_eq!(mounted(flink, "/flinkha/secrets"), ["/flinkha/secrets/0.s3", "/flinkha/secrets/1.other.one"]);
            assert!(flink["command"][2].as_str().is_some_and(|script| script.contains("FLINKHA_SECRETS")));
            assert!(
                pod["volumes"].to_string().contains(r#""secret":{"secretName":"other.one"}"#),
                "{}",
                pod["volumes"]
            );
            assert!(pod["volumes"].to_string().contains(r#""emptyDir":{"medium":"Memory"},"name":"flinkha-conf""#));
        }
        let job = purge::job(&cluster, &environment(), &Signature::default());
        let gateway = &objects.job_managers["spec"]["template"]["spec"]["initContainers"][0];
        for ours in [gateway, &job["spec"]["template"]["spec"]["containers"][0]] {
            assert_eq!(
                mounted(ours, GATEWAY_DIRECTORY),
                ["/etc/flinkha/secrets/0.s3", "/etc/flinkha/secrets/1.other.one"]
            );
            assert!(ours["args"].to_string().contains(r#""--flink-configuration-from","/etc/flinkha/secrets""#));
        }
    }

    #[test]
    fn without_secrets_nothing_is_built_in_another_way() {
        let (without, with) = (build(&cluster(&[]), &environment()), build(&cluster(&["s3"]), &environment()));
        let text = without.job_managers.to_string() + &without.task_managers.to_string();
        assert!(!text.contains("secrets") && !text.contains("Memory"), "{text}");
        let config = |objects: &crate::cluster::build::Objects| objects.applied.last().map(ToString::to_string);
        assert_eq!(config(&without), config(&with), "nothing of them is in a ConfigMap");
        let changed = cluster(&[]).with_secret_changes(3);
        assert_eq!(build(&changed, &environment()).job_managers, without.job_managers);
    }

    #[test]
    fn a_change_of_a_secret_replaces_pods_and_is_noted_on_the_deployment() {
        let (before, after) = (cluster(&["s3"]), cluster(&["s3"]).with_secret_changes(1));
        let (before, after) = (build(&before, &environment()), build(&after, &environment()));
        for (before, after) in
            [(&before.job_managers, &after.job_managers), (&before.task_managers, &after.task_managers)]
        {
            assert_ne!(before["spec"]["template"], after["spec"]["template"]);
            let annotation = |metadata: &Value| metadata["annotations"][CHANGES_ANNOTATION].clone();
            assert_eq!(annotation(&before["metadata"]), Value::Null);
            assert_eq!(annotation(&after["metadata"]), "1");
            assert_eq!(annotation(&after["spec"]["template"]["metadata"]), "1");
        }
    }

    #[test]
    fn on_zookeeper_gateways_have_a_key_too_and_an_application_fetches_its_jar_with_the_secrets() {
        let secrets = cluster(&["s3"]).spec().flink_configuration_from.clone();
        let quorum = fixture::on_zookeeper_with(|spec| spec.flink_configuration_from.clone_from(&secrets));
        let objects = build(&quorum, &environment());
        assert_eq!(objects.peers["metadata"]["name"], "demo-peers");
        let pod = &objects.job_managers["spec"]["template"]["spec"];
        assert!(pod["initContainers"][0]["args"].to_string().contains(r#""--peer-key","/etc/flinkha/peers/key""#));
        assert_eq!(mounted(&pod["initContainers"][0], "/etc/flinkha/peers"), ["/etc/flinkha/peers"]);
        let application = fixture::application();
        let mut spec = application.spec().clone();
        spec.flink_configuration_from = secrets;
        let run = application.run().cloned();
        let objects = build(&application.deployed(spec, run), &environment());
        let fetch = &objects.job_managers["spec"]["template"]["spec"]["initContainers"][1];
        assert_eq!(fetch["name"], application::FETCH_CONTAINER);
        assert_eq!(mounted(fetch, GATEWAY_DIRECTORY), ["/etc/flinkha/secrets/0.s3"]);
        assert!(fetch["args"].to_string().contains("--flink-configuration-from"));
    }
}
