//! `gc`: asks the leading gateway to sweep now. What an orphan is, and whether it goes, is the gateway's decision
//! alone; the plugin removes nothing.

use super::access::PluginAccess;
use super::arguments::GcArguments;
use super::clusters::read_cluster;
use super::exec::{ask, leading_pod};
use super::failure::Failure;
use super::output::Output;
use super::view::cluster::ClusterReport;
use super::view::garbage::{GarbageReport, screen};
use super::view::text::plain;
use crate::ledger::asked::{GatewayAnswer, GatewayQuestion};

/// Asks for a sweep, and shows what came of it.
///
/// # Errors
/// When nobody leads or answers, and when the gateway refuses.
pub async fn gc(access: &PluginAccess, arguments: &GcArguments, output: Output) -> Result<(), Failure> {
    let name = arguments.name.as_str();
    let sources = read_cluster(access, name).await?;
    let report = ClusterReport::of(&sources, jiff::Timestamp::now());
    let pod = leading_pod(&report).map_err(|why| Failure::Refused(format!("no sweep: {why}")))?;
    let what = if arguments.yes { "to remove what nothing needs" } else { "what nothing needs" };
    eprintln!("{}", plain(&format!("{pod} is asked {what}; in a large directory this takes minutes")));
    let question = GatewayQuestion::Sweep { removes: arguments.yes };
    let swept = match ask(access, &pod, &question, arguments.timeout).await {
        Ok(GatewayAnswer::Swept(swept)) => swept,
        Ok(GatewayAnswer::Refused(why)) => return Err(Failure::Refused(format!("no sweep: {why}"))),
        Ok(_) => return Err(Failure::Request(format!("gateway {pod} answered another question"))),
        Err(why) => return Err(Failure::Request(why)),
    };
    let namespace = access.namespace.clone();
    let garbage = GarbageReport { namespace, name: name.to_owned(), pod, is_dry_run: !arguments.yes, swept };
    output.report(arguments.output.format, &garbage, |has_colours| screen(&garbage, has_colours))?;
    match &garbage.swept.withheld {
        Some(why) => Err(Failure::Refused(format!("nothing was removed: {why}"))),
        None => Ok(()),
    }
}
