//! Builds what only the pods of an application have: Flink's entrypoint for applications, and the jar.

use serde_json::{Value, json};

use super::{configuration_secrets, digest, pod};
use crate::api::names::FLINK_CONTAINER;
use crate::cluster::Cluster;
use crate::flink::config;

/// First argument of Flink's entrypoint (`standalone-job.sh`).
pub const COMMAND: &str = "standalone-job";
/// Name of the init container that fetches the jar.
pub const FETCH_CONTAINER: &str = "fetch-jar";

const JAR_VOLUME: &str = "flinkha-jar";
/// Mount path in both containers. It is not below the gateway's program, which is a file `/flinkha` in its image.
const JAR_DIRECTORY: &str = "/etc/flinkha/jar";
const JAR: &str = "/etc/flinkha/jar/application.jar";

/// Returns the arguments of the entrypoint (`StandaloneApplicationClusterConfigurationParserFactory`, 1.20 to 2.3).
pub fn arguments(cluster: &Cluster) -> Vec<String> {
    let (Some(job), Some(run)) = (&cluster.spec().job, cluster.run()) else { return Vec::new() };
    // From 2.3 on an application has its own id. It equals the job's, so one record shows the end of both.
    let mut arguments =
        vec!["-D".to_owned(), format!("cluster.id={}", run.job_id), "--job-id".to_owned(), run.job_id.to_string()];
    let jar = job.jar_uri.strip_prefix("local:").map_or_else(|| format!("file://{JAR}"), |path| format!("file:{path}"));
    arguments.extend(["--jars".to_owned(), jar]);
    arguments.extend(job.entry_class.iter().flat_map(|class| ["--job-classname".to_owned(), class.clone()]));
    if let Some(path) = &run.restored_from {
        arguments.extend(["--fromSavepoint".to_owned(), path.clone()]);
    }
    if job.allow_non_restored_state {
        arguments.push("--allowNonRestoredState".to_owned());
    }
    // All further arguments are the application's, even if they look like options of Flink.
    arguments.push("--".to_owned());
    // Kubernetes would replace $(NAME) with a variable; $$ escapes the dollar.
    arguments.extend(job.args.iter().map(|argument| argument.replace("$(", "$$(")));
    arguments
}

/// Returns the container that fetches the jar, with everything by which the gateway reaches the storage; `None` for a
/// jar in the image.
pub fn fetch_container(cluster: &Cluster, gateway: &Value) -> Option<Value> {
    let job =
        cluster.spec().job.as_ref().filter(|job| cluster.run().is_some() && !job.jar_uri.starts_with("local:"))?;
    let options = [
        ("--uri", job.jar_uri.clone()),
        ("--key", format!("{}.jar", digest(&json!([job.jar_uri, job.sha256]).to_string()))),
        ("--to", JAR.to_owned()),
        ("--storage-dir", cluster.spec().high_availability.storage_dir.clone()),
        ("--ha-cluster-id", cluster.high_availability_cluster_id()),
        ("--flink-configuration", format!("{}/{}", pod::GATEWAY_CONFIGURATION_DIRECTORY, config::FILE)),
    ];
    let options = options.into_iter().chain(job.sha256.clone().map(|sha256| ("--sha256", sha256)));
    let options = options.flat_map(|(name, value)| [name.to_owned(), value]);
    let arguments = std::iter::once("fetch".to_owned()).chain(options).chain(configuration_secrets::options(cluster));
    let mut container = json!({ "name": FETCH_CONTAINER, "args": arguments.collect::<Vec<_>>(), "terminationMessagePolicy": "FallbackToLogsOnError" });
    for field in ["image", "env", "envFrom", "volumeMounts", "securityContext", "resources"] {
        if !gateway[field].is_null() {
            container[field] = gateway[field].clone();
        }
    }
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.push(json!({ "name": JAR_VOLUME, "mountPath": JAR_DIRECTORY }));
    }
    Some(container)
}

/// Adds the volume of the jar, and its mount in Flink's container.
pub fn mount_jar(template: &mut Value) {
    if let Some(volumes) = template["spec"]["volumes"].as_array_mut() {
        volumes.push(json!({ "name": JAR_VOLUME, "emptyDir": {} }));
    }
    let flink = pod::container_mut(template, FLINK_CONTAINER);
    if let Some(mounts) = flink.and_then(|flink| flink["volumeMounts"].as_array_mut()) {
        mounts.push(json!({ "name": JAR_VOLUME, "mountPath": JAR_DIRECTORY, "readOnly": true }));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::api::names::{HAND_OVER_VOLUME, PEERS_VOLUME};
    use crate::cluster::build::{Environment, build};
    use crate::cluster::tests as fixture;

    #[test]
    fn the_application_is_in_the_arguments_and_its_jar_is_fetched_before_flink_starts() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let pod = build(&fixture::application(), &environment).job_managers["spec"]["template"]["spec"].clone();
        let arguments: Vec<&str> =
            pod["containers"][0]["args"].as_array().into_iter().flatten().filter_map(|one| one.as_str()).collect();
        assert_eq!(arguments[0], "standalone-job");
        let own = arguments.iter().position(|argument| *argument == "--job-id").unwrap_or_default();
        assert_eq!(
            arguments[own + 2..],
            [
                "--jars",
                "file:///etc/flinkha/jar/application.jar",
                "--job-classname",
                "org.example.App",
                "--fromSavepoint",
                "file:///s",
                "--",
                "--input",
                "a b"
            ]
        );
        let fetch = &pod["initContainers"][1];
        assert_eq!((fetch["name"].as_str(), fetch["image"].as_str()), (Some("fetch-jar"), Some("flinkha:1")));
        assert_eq!(pod["initContainers"][0]["name"], "gateway", "the native sidecar comes first");
        let mounts = |container: &Value| container["volumeMounts"].to_string();
        for own in [HAND_OVER_VOLUME, PEERS_VOLUME] {
            assert!(!mounts(fetch).contains(own), "{own} is the gateway's: {fetch:#}");
            assert!(mounts(&pod["initContainers"][0]).contains(own), "{own}");
        }
    }
}
