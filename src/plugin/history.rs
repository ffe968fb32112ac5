//! `history`: reads what is known to have happened to a cluster, and shows it.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;

use super::access::PluginAccess;
use super::arguments::HistoryArguments;
use super::clusters::read_cluster;
use super::failure::{Failure, said};
use super::output::Output;
use super::view::cluster::ClusterReport;
use super::view::history::{history as entries, screen};
use super::view::text::plain;

/// Shows what has happened.
///
/// # Errors
/// When the resource cannot be read, or the output not be written.
pub async fn history(access: &PluginAccess, arguments: &HistoryArguments, output: Output) -> Result<(), Failure> {
    let sources = read_cluster(access, &arguments.name).await?;
    let uid = sources.resource.metadata.uid.clone().unwrap_or_default();
    let parameters = ListParams::default().fields(&format!("regarding.uid={uid}"));
    let events = access.list::<Event>(Some(&access.namespace), &parameters).await.unwrap_or_else(|error| {
        eprintln!("events are not known: {}", plain(&said(&error)));
        Vec::new()
    });
    let report = ClusterReport::of(&sources, jiff::Timestamp::now());
    let status = sources.resource.status.unwrap_or_default();
    let entries = entries(&status, &report.failovers, &report.jobs, &events);
    output.report(arguments.output.format, &entries, |has_colours| screen(&entries, has_colours))
}
