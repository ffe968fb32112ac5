//! The command line: flags as types.

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};

use crate::api::log_format::LogFormat;
use crate::gateway;
use crate::operator;
use crate::plugin;
use crate::telemetry::log_fields::LogFields;

/// JobManager high availability for Apache Flink on Kubernetes.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// One binary and one image; the subcommand selects the role.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Operator(operator::Arguments),
    /// Run the sidecar of a JobManager.
    Gateway(Box<gateway::arguments::Arguments>),
    /// Remove the HA files of a cluster that is being deleted.
    Purge(gateway::purge::Arguments),
    /// Fetch the application's jar before its JobManager starts.
    Fetch(gateway::application::fetch::Arguments),
    /// Make key stores for Flink from certificates before Flink starts.
    PrepareTls(gateway::tls_arguments::TlsSecrets),
    /// Notify the gateway of this pod that the pod terminates: its preStop hook.
    HandOver(gateway::hand_over::Arguments),
    /// Ask the gateway of this container what `kubectl flinkha` wants to know.
    Ask(gateway::answers::AskArguments),
    /// Forward connections to a ZooKeeper quorum with TLS or authentication: the sidecar of a TaskManager.
    PassThrough(gateway::quorum::PassThrough),
    /// Print the CustomResourceDefinition, or apply it.
    Crd(operator::definition::CrdArguments),
    /// Check that an operator works, for `helm test`.
    Check(operator::check::Check),
    /// Show and operate clusters, as `kubectl flinkha` does.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// The words of the plugin's own command line.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
        words: Vec<OsString>,
    },
}

impl Command {
    /// The format of its log, and what each line says of the process.
    pub fn log(&self) -> (LogFormat, LogFields) {
        match self {
            Self::Operator(arguments) => {
                let pod = Some(arguments.pod_name.clone());
                (arguments.log_format, LogFields { pod, ..LogFields::default() })
            }
            Self::Gateway(arguments) => {
                let text = |text: &str| Some(text.to_owned());
                let fields = LogFields {
                    cluster: text(&arguments.cluster),
                    namespace: text(&arguments.namespace),
                    pod: text(&arguments.pod_name),
                    ..LogFields::default()
                };
                (gateway::log_filter::format(arguments), fields)
            }
            // Words that are none of ours are text.
            _ => {
                let format = std::env::var("LOG_FORMAT").ok().and_then(|text| text.parse().ok());
                (format.unwrap_or_default(), LogFields::default())
            }
        }
    }
}

/// The words of a command line, the program's name first. A program that is called as kubectl calls its plugins is
/// asked for the command `kubectl`.
pub fn words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let name = words.first().and_then(|word| Path::new(word).file_name());
    let before: &[&str] = match name.and_then(|name| name.to_str()) {
        Some(plugin::PROGRAM) => &["kubectl"],
        Some(plugin::COMPLETION_PROGRAM) => &["kubectl", plugin::COMPLETION],
        _ => &[],
    };
    words.splice(words.len().min(1)..words.len().min(1), before.iter().map(OsString::from));
    words
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::build::purge::Signature;
    use crate::cluster::build::{Environment, build, purge};
    use crate::cluster::{Cluster, tests as fixture};
    use crate::flink::job_id::JobId;
    use crate::ledger::application::Run;

    /// The words of every container of ours: its arguments, and its preStop hook without the program.
    fn words_of(pod: &Value) -> Vec<Vec<String>> {
        let containers = ["initContainers", "containers"].into_iter().flat_map(|kind| pod[kind].as_array().cloned());
        let ours = containers.flatten().filter(|container| container["image"] == "flinkha:1");
        let words = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        let of_one = |container: Value| {
            let hook = words(&container["lifecycle"]["preStop"]["exec"]["command"]);
            [words(&container["args"]), hook.into_iter().skip(1).collect()]
        };
        ours.flat_map(of_one).filter(|words| !words.is_empty()).collect()
    }

    fn on_zookeeper_with_tls() -> Cluster {
        fixture::on_zookeeper_with(|spec| {
            if let Some(zookeeper) = &mut spec.high_availability.zookeeper {
                zookeeper.tls = serde_json::from_value(json!({ "name": "tls" })).ok();
                zookeeper.authentication = serde_json::from_value(json!({ "name": "user" })).ok();
            }
        })
    }

    fn with_tls() -> Cluster {
        fixture::cluster_with(|spec| {
            let rest = json!({ "name": "b", "clientAuthentication": true });
            spec.tls = serde_json::from_value(json!({ "internal": { "name": "a" }, "rest": rest })).ok();
        })
    }

    #[test]
    fn a_program_called_as_a_plugin_passes_all_its_words_on() {
        let parsed = |line: &[&str]| {
            let words = words(line.iter().map(OsString::from));
            match Arguments::try_parse_from(words).expect("it is understood").command {
                Command::Kubectl { words } => words,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(parsed(&["/usr/bin/kubectl-flinkha", "status", "-A"]), ["status", "-A"]);
        assert_eq!(parsed(&["flinkha", "kubectl", "--help"]), ["--help"]);
        assert_eq!(parsed(&["kubectl-flinkha", "-n", "a", "--", "x"]), ["-n", "a", "--", "x"]);
        assert!(parsed(&["kubectl-flinkha"]).is_empty());
        assert_eq!(parsed(&["kubectl_complete-flinkha", "status", ""]), ["__complete", "status", ""]);
        let line = ["/usr/bin/flinkha", "crd"].map(OsString::from);
        assert_eq!(words(line.clone().into_iter()), line, "any other program is what it was");
    }

    #[test]
    fn every_command_line_that_the_operator_writes_is_understood() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let application = fixture::application();
        let run = application.run().cloned().map(|run| Run { replaces: vec![JobId::from_number(1)], ..run });
        let zookeeper = fixture::on_zookeeper().deployed(fixture::on_zookeeper().spec().clone(), run.clone());
        let application = application.clone().deployed(application.spec().clone(), run);
        let mut seen = Vec::new();
        let of_both_families = fixture::cluster_with(|spec| {
            spec.rest = serde_json::from_value(json!({ "ipFamilyPolicy": "PreferDualStack" })).unwrap_or_default();
        });
        let of_kubernetes = [fixture::cluster(), with_tls(), application, of_both_families];
        let clusters = of_kubernetes.into_iter().chain([fixture::on_zookeeper(), on_zookeeper_with_tls(), zookeeper]);
        for cluster in clusters {
            let objects = build(&cluster, &environment);
            let signature = Signature { owner: "us".to_owned(), signers: vec!["a".to_owned()], ..Signature::default() };
            let job = purge::job(&cluster, &environment, &signature);
            for object in [&objects.job_managers, &objects.task_managers, &job] {
                for words in words_of(&object["spec"]["template"]["spec"]) {
                    // Kubernetes puts the values of variables in before.
                    let filled = words.iter().map(|word| match word.as_str() {
                        "$(POD_IP)" => "fd00::1",
                        "$(POD_IPS)" => "fd00::1,10.0.0.1",
                        word => word,
                    });
                    let parsed = Arguments::try_parse_from(std::iter::once("flinkha").chain(filled));
                    assert!(
                        parsed.is_ok(),
                        "{words:?}: {}",
                        parsed.err().map(|error| error.to_string()).unwrap_or_default()
                    );
                    seen.extend(words.first().cloned());
                }
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ["fetch", "gateway", "hand-over", "pass-through", "prepare-tls", "purge"]);
    }
}
