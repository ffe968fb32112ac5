//! The plugin's command line, as types.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::access::AccessArguments;
use super::install::InstallArguments;
use super::output::Format;
use super::parsers::{duration, get_only, resource_name, rest_path};

/// Show and operate the Flink clusters of FlinkHaCluster.
///
/// Exit codes: 0 done, 1 a request failed or nothing was found, 2 the command line is not understood, 3 the cluster or
/// its operator refuses, 4 not done in time, 5 doctor has found problems.
#[derive(Debug, Parser)]
#[command(name = "kubectl-flinkha", bin_name = "kubectl flinkha", version)]
pub struct PluginArguments {
    #[command(flatten)]
    pub access: AccessArguments,
    #[command(subcommand)]
    pub command: PluginCommand,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show who leads, who could take over, the jobs, and what is wrong; without a name, one line for each cluster.
    Status(StatusArguments),
    /// Show what has happened to a cluster: changes of leader, upgrades, ends of jobs, events.
    History(HistoryArguments),
    /// Show HA data decoded: plans, checkpoints, ended jobs; also that of Flink's own Kubernetes HA.
    Inspect(InspectArguments),
    /// Find what stops a cluster or will, with the remedy of each.
    Doctor(ReadArguments),
    /// Ask the leader which files nothing needs; with --yes, to remove them.
    Gc(GcArguments),
    /// Write all that is known of a cluster into a ZIP archive, without credentials.
    Report(ReportArguments),
    /// Read Flink's REST API at the leader.
    Rest(RestArguments),
    /// Print the objects of an installation, so that Helm is not needed.
    Install(InstallArguments),
    /// Show the logs of the JobManagers and of their gateways, in the order of time.
    Logs(LogsArguments),
    /// Move the leadership to another JobManager, and wait for it.
    Switchover(SwitchoverArguments),
    /// Restart all pods of a cluster, the leader last.
    Restart(ClusterArgument),
    /// Suspend an application: its pods end, its state is kept.
    Suspend(ClusterArgument),
    /// Resume a suspended application.
    Resume(ClusterArgument),
    /// Take a savepoint of an application, and print where it is.
    Savepoint(SavepointArguments),
    /// Pause the operator's work on a cluster; JobManagers still fail over.
    Pause(ClusterArgument),
    /// End a pause.
    Unpause(ClusterArgument),
}

/// The cluster that a command is about.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgument {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
}

/// Flags of `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Flags of `gc`.
#[derive(Clone, Debug, clap::Args)]
pub struct GcArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    /// Ask the leader to remove what it finds; without this, it only says what that is.
    #[arg(long, visible_alias = "confirm")]
    pub yes: bool,
    /// How long to wait for the end of the sweep.
    #[arg(long, value_parser = duration, default_value = "15m")]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Flags of `report`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    /// The archive to write; it must not exist.
    #[arg(short = 'o', long, value_name = "FILE.zip")]
    pub output: PathBuf,
    /// Write values of environment variables, of keys that look like credentials, and credentials in URIs too.
    #[arg(long)]
    pub no_redact: bool,
    /// Lines from the end of each log.
    #[arg(long, default_value_t = 5000)]
    pub tail: u32,
}

/// Flags of `rest`.
#[derive(Clone, Debug, clap::Args)]
pub struct RestArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    /// Path of Flink's REST API, such as /jobs/overview.
    #[arg(value_parser = rest_path)]
    pub path: String,
    /// Only GET.
    #[arg(short = 'X', long, default_value = "GET", value_parser = get_only)]
    pub request: String,
}

/// Flags of `history`.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Flags of `inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArguments {
    /// Name of the FlinkHaCluster, or Flink's kubernetes.cluster-id.
    #[arg(value_parser = resource_name)]
    pub name: String,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Flags of `logs`.
#[derive(Clone, Debug, clap::Args)]
pub struct LogsArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    /// Only of the leading JobManager, whichever it is.
    #[arg(long)]
    pub leader: bool,
    /// Only of the gateways.
    #[arg(long, conflicts_with = "flink")]
    pub gateway: bool,
    /// Only of Flink.
    #[arg(long)]
    pub flink: bool,
    /// Show new lines as they come, until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Lines from the end of each log; -1 for all.
    #[arg(long, default_value_t = 200, allow_negative_numbers = true)]
    pub tail: i64,
    /// Only lines of this time before now, such as 10m.
    #[arg(long, value_parser = duration)]
    pub since: Option<Duration>,
}

/// Flags of `switchover`.
#[derive(Clone, Debug, clap::Args)]
pub struct SwitchoverArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    /// Pod that shall lead; default: any standby that is ready.
    #[arg(long, value_name = "POD", value_parser = resource_name)]
    pub to: Option<String>,
    /// How long to wait for the new leader.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// Flags of `savepoint`.
#[derive(Clone, Debug, clap::Args)]
pub struct SavepointArguments {
    /// Name of the FlinkHaCluster.
    #[arg(value_parser = resource_name)]
    pub name: String,
    /// How long to wait for the savepoint.
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub timeout: Duration,
}

/// Flags of `status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArguments {
    /// Name of the FlinkHaCluster; without it, all of the namespace.
    #[arg(value_parser = resource_name)]
    pub name: Option<String>,
    /// The clusters of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// Show it again whenever it has changed, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// The format of what is printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArguments {
    /// Print JSON or YAML instead of text.
    #[arg(short = 'o', long = "output", value_enum)]
    pub format: Option<Format>,
}

/// The first sentence of what clap says about a command line that it does not understand.
pub fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let sentence = words.join(" ");
    format!("{}; see kubectl flinkha --help", sentence.trim_start_matches("error: ").trim_end_matches(['.', ':']))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn refused(words: &[&str]) -> String {
        let words = std::iter::once("kubectl-flinkha").chain(words.iter().copied());
        sentence(&PluginArguments::try_parse_from(words).expect_err("it is refused"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        PluginArguments::command().debug_assert();
    }

    #[test]
    fn bad_input_is_answered_by_one_sentence_with_the_remedy() {
        for (words, expected) in [
            (&["status", "a/b"][..], "invalid value 'a/b' for '[NAME]': a name has at most 253 characters"),
            (&["status", "-n", "a.b"], "invalid value 'a.b' for '--namespace <NAMESPACE>': a namespace has at most 63"),
            (&["status", "-o", "xml"], "invalid value 'xml' for '--output <FORMAT>' [possible values: json, yaml]"),
            (&["status", "a", "-A"], "the argument '[NAME]' cannot be used with '--all-namespaces'"),
            (&["status", "--colour"], "unexpected argument '--colour' found"),
            (&["stauts"], "unrecognized subcommand 'stauts'"),
            (&["doctor"], "the following required arguments were not provided: <NAME>"),
            (&["doctor", "A"], "invalid value 'A' for '<NAME>': a name has at most 253 characters"),
            (&["gc", "a", "--timeout", "x"], "invalid value 'x' for '--timeout <TIMEOUT>': a time is written like 90s"),
            (&["report", "a"], "the following required arguments were not provided: --output <FILE.zip>"),
            (&["rest", "a", "jobs"], "invalid value 'jobs' for '<PATH>': a path begins with /"),
            (
                &["rest", "a", "/jobs/1/yarn-cancel"],
                "invalid value '/jobs/1/yarn-cancel' for '<PATH>': this GET ends a job",
            ),
            (
                &["rest", "a", "/jobs", "-X", "PATCH"],
                "invalid value 'PATCH' for '--request <REQUEST>': only GET is sent",
            ),
            (&["install", "--image", "a b"], "invalid value 'a b' for '--image <IMAGE>': an image is written like"),
            (&["install", "--replicas", "x"], "invalid value 'x' for '--replicas <REPLICAS>': invalid digit"),
        ] {
            let said = refused(words);
            assert!(said.starts_with(expected), "{words:?}: {said}");
            assert!(!said.contains('\n') && said.ends_with("; see kubectl flinkha --help"), "{said}");
        }
    }
}
