//! Builds the options of JobManagers' JVMs. A JobManager coordinates: most of its code runs a few times, at the moment
//! at which a recovery waits for it.
//!
//! They reach the JVM by `JAVA_TOOL_OPTIONS`, which HotSpot reads before everything else (`Arguments::parse`, tried
//! with JDK 17 and 25): options of Flink's configuration, of the image and of the pod template come later and so have
//! precedence. The image may set that variable itself, which the operator does not see, so a shell in the container
//! prepends them.
//!
//! None of them chooses a collector. Two that are chosen end the JVM ("multiple garbage collectors selected"), and the
//! operator does not see all places where one can be: the image's configuration, its environment, argument files. With
//! `-XX:+NeverActAsServerClassMachine` the JVM itself takes the serial collector, unless something chooses another one
//! (`GCConfig::select_gc_ergonomically`).

use serde_json::{Value, json};

use crate::api::jvm_options::JvmOptions;
use crate::cluster::{Cluster, quantity};

/// Shell script that goes before [`super::pod::START_FLINK`].
pub const PREPEND: &str = include_str!("jvm-options.sh");

/// Environment variable of Flink's container with the options.
pub const VARIABLE: &str = "FLINKHA_JVM_OPTIONS";

/// The largest JobManager, in bytes of memory, that gets them. The serial collector stops the JVM for a whole
/// collection, and a JVM that is silent for `spec.highAvailability.jvmTimeout` counts as hung.
const LARGEST: u64 = 4 << 30;

/// The serial collector, if no other one is chosen. Flink's own scripts pass the first option too, so that a JVM that
/// does not know the second one starts nevertheless (`config.sh`, Flink 1.20 to 2.3).
const SERIAL: &str = "-XX:+IgnoreUnrecognizedVMOptions -XX:+NeverActAsServerClassMachine";

/// The highest level of compilation. Without any, [`SERIAL`] would make the JVM emulate a client, with C1 alone and
/// little space for code (`CompilerConfig::set_client_emulation_mode_flags`).
const C1_ALONE: &str = "-XX:TieredStopAtLevel=1";
const C1_AND_C2: &str = "-XX:TieredStopAtLevel=4";

/// Adds the options to Flink's container in a pod of a JobManager.
pub fn add(flink: &mut Value, cluster: &Cluster) {
    let Some(options) = options(cluster) else { return };
    let start = flink["command"][2].as_str().unwrap_or_default();
    flink["command"][2] = format!("{PREPEND}{start}").into();
    if let Some(environment) = flink["env"].as_array_mut() {
        environment.push(json!({ "name": VARIABLE, "value": options }));
    }
}

/// Returns the options; `None` if the JobManagers get none.
fn options(cluster: &Cluster) -> Option<String> {
    let spec = &cluster.spec().job_manager;
    let memory = quantity::memory(&spec.resources).and_then(|memory| quantity::bytes(&memory));
    if spec.jvm_options == JvmOptions::None || memory.is_some_and(|memory| memory > LARGEST) {
        return None;
    }
    // An application's `main` runs in the JobManager, whatever it does.
    let compilers = if cluster.spec().job.is_some() { C1_AND_C2 } else { C1_ALONE };
    Some(format!("{SERIAL} {compilers}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::Scalar;
    use crate::cluster::build::{Environment, build, pod};
    use crate::cluster::tests as fixture;

    /// The options in a JobManager's pod, and whether its script prepends them.
    fn built(cluster: &Cluster) -> (Option<String>, bool) {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let objects = build(cluster, &environment);
        let flink = |deployment: &Value| deployment["spec"]["template"]["spec"]["containers"][0].clone();
        let of = |flink: &Value| {
            let mut variables = flink["env"].as_array().into_iter().flatten();
            let variable = variables.find(|variable| variable["name"] == VARIABLE);
            variable.and_then(|variable| variable["value"].as_str().map(str::to_owned))
        };
        let (job_manager, task_manager) = (flink(&objects.job_managers), flink(&objects.task_managers));
        assert_eq!((of(&task_manager), &task_manager["command"][2]), (None, &json!(pod::START_FLINK)));
        let script = job_manager["command"][2].as_str().unwrap_or_default();
        assert!(script.ends_with(pod::START_FLINK));
        (of(&job_manager), script.starts_with(PREPEND))
    }

    fn with_memory(memory: &str) -> Cluster {
        let memory = ("memory".to_owned(), Scalar::Text(memory.to_owned()));
        fixture::cluster_with(|spec| spec.job_manager.resources.limits = [memory].into())
    }

    #[test]
    fn a_job_manager_gets_them_unless_it_is_large_or_the_user_says_no() {
        let session =
            Some("-XX:+IgnoreUnrecognizedVMOptions -XX:+NeverActAsServerClassMachine -XX:TieredStopAtLevel=1");
        let of = |cluster: &Cluster| built(cluster).0;
        assert_eq!(built(&fixture::cluster()), (session.map(str::to_owned), true));
        assert_eq!(of(&fixture::on_zookeeper()).as_deref(), session);
        assert_eq!(of(&with_memory("4Gi")).as_deref(), session);
        assert_eq!(built(&with_memory("4097Mi")), (None, false));
        assert_eq!(
            built(&fixture::cluster_with(|spec| spec.job_manager.jvm_options = JvmOptions::None)),
            (None, false)
        );
        let without = fixture::cluster_with(|spec| spec.job_manager.resources = Default::default());
        assert_eq!(of(&without).as_deref(), session, "Flink's default is 1600m");
    }

    #[test]
    fn an_application_keeps_both_compilers() {
        let options = built(&fixture::application()).0.unwrap_or_default();
        assert!(options.contains("-XX:+NeverActAsServerClassMachine"), "{options}");
        assert!(options.ends_with("-XX:TieredStopAtLevel=4"), "without a level the JVM emulates a client: {options}");
    }

    #[test]
    fn a_cluster_with_secrets_of_its_configuration_gets_them_too() {
        let from = serde_json::from_value(json!([{ "secretRef": { "name": "s3" } }]));
        let cluster = fixture::cluster_with(|spec| spec.flink_configuration_from = from.unwrap_or_default());
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let objects = build(&cluster, &environment);
        let script = &objects.job_managers["spec"]["template"]["spec"]["containers"][0]["command"][2];
        let script = script.as_str().unwrap_or_default();
        assert!(script.starts_with(PREPEND) && script.contains("FLINKHA_SECRETS"), "{script}");
    }
}
