//! `status`: reads clusters and shows them, once or whenever something has changed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::access::PluginAccess;
use super::arguments::StatusArguments;
use super::clusters::{read_cluster, read_overview};
use super::failure::Failure;
use super::inspect::stored;
use super::output::{Format, Output};
use super::view::cluster::ClusterReport;
use super::view::{cluster_text, overview, stored_text};

/// Between two looks of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);

/// Moves the cursor to the first place of the terminal, and clears what stands after it (ECMA-48: CUP, ED).
const HOME: &str = "\u{1b}[H\u{1b}[J";

/// Shows one cluster, or all.
///
/// # Errors
/// When something cannot be read or written. While it watches, only what it cannot write ends it.
pub async fn status(access: &PluginAccess, arguments: &StatusArguments, output: Output) -> Result<(), Failure> {
    if !arguments.watch {
        return output.write(&shown(access, arguments, output).await?);
    }
    let mut before = String::new();
    loop {
        let text = match shown(access, arguments, output).await {
            Ok(text) => text,
            // An API server that is away is a reason to go on watching.
            Err(failure) => format!("{}\n", super::view::text::plain(&failure.to_string())),
        };
        if output.is_terminal && arguments.output.format.is_none() {
            output.write(&format!("{HOME}{text}"))?;
        } else if text != before {
            output.write(&text)?;
            before = text;
        }
        sleep(INTERVAL).await;
    }
}

async fn shown(access: &PluginAccess, arguments: &StatusArguments, output: Output) -> Result<String, Failure> {
    let format = arguments.output.format;
    match &arguments.name {
        Some(name) => {
            let sources = match read_cluster(access, name).await {
                Ok(sources) => sources,
                Err(failure @ Failure::Absent(_)) => return shown_native(access, name, format, output, failure).await,
                Err(failure) => return Err(failure),
            };
            let now = Timestamp::now();
            let report = ClusterReport::of(&sources, now);
            Ok(output.text(format, &report, |has_colours| cluster_text::screen(&report, now, has_colours)))
        }
        None => {
            let is_all = arguments.all_namespaces;
            let namespace = (!is_all).then_some(access.namespace.as_str());
            let report = read_overview(access, namespace).await?;
            let now = Timestamp::now();
            Ok(output.text(format, &report, |has_colours| overview::screen(&report, is_all, now, has_colours)))
        }
    }
}

/// Flink's own Kubernetes HA, of which there is no resource: what its ConfigMaps say. `absent`: that there is none.
async fn shown_native(
    access: &PluginAccess,
    name: &str,
    format: Option<Format>,
    output: Output,
    absent: Failure,
) -> Result<String, Failure> {
    let report = stored(access, name, None).await.map_err(|_| absent.clone())?;
    if report.is_empty() {
        return Err(absent);
    }
    let now = Timestamp::now();
    Ok(output.text(format, &report, |has_colours| {
        let text = stored_text::screen(&report, now, has_colours);
        format!("No FlinkHaCluster has this name: Flink's own Kubernetes HA.\n{text}")
    }))
}
