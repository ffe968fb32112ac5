//! `inspect`: reads HA data in ConfigMaps and the ledger, and shows them decoded. It needs no FlinkHaCluster, so it
//! also works for Flink's own Kubernetes HA.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;

use super::access::PluginAccess;
use super::arguments::InspectArguments;
use super::clusters::{find_resource, read_cluster, understood};
use super::exec::{ask, leading_pod};
use super::failure::{Failure, said};
use super::output::Output;
use super::view::cluster::ClusterReport;
use super::view::stored::{StoredReport, StoredSources};
use super::view::stored_text::screen;
use crate::api::FlinkHaCluster;
use crate::api::names;
use crate::flink::ha_data;
use crate::ledger::asked::{FILES, GatewayAnswer, GatewayQuestion, StoredFiles};

/// Limit for one answer. A storage that does not answer is an error after 30 s by itself.
const GATEWAY: Duration = Duration::from_secs(60);

/// Shows what is stored.
///
/// # Errors
/// When nothing is found or can be read.
pub async fn inspect(access: &PluginAccess, arguments: &InspectArguments, output: Output) -> Result<(), Failure> {
    let resource = match find_resource(access, &arguments.name).await {
        Ok(resource) => resource,
        Err(Failure::Absent(_)) => None,
        Err(failure) => return Err(failure),
    };
    let mut report = stored(access, &arguments.name, resource.as_ref()).await?;
    if report.is_empty() && report.ha_data.is_none() && resource.is_none() {
        return Err(Failure::Absent(format!(
            "namespace {} has neither a FlinkHaCluster {name} nor HA ConfigMaps of a Flink with kubernetes.cluster-id \
             {name} (labels {})",
            access.namespace,
            ha_data::selector(&arguments.name),
            name = arguments.name
        )));
    }
    if resource.is_some() {
        let found = look_up(access, &report).await;
        report.add_files(found);
    }
    let now = Timestamp::now();
    output.report(arguments.output.format, &report, |has_colours| screen(&report, now, has_colours))
}

/// Asks the leading gateway for the files that the pointers name, for the result stores and the marks.
///
/// # Errors
/// A sentence that says why they are not known.
pub async fn look_up(access: &PluginAccess, report: &StoredReport) -> Result<StoredFiles, String> {
    let sources = read_cluster(access, &report.name).await.map_err(|failure| failure.to_string())?;
    let pod = leading_pod(&ClusterReport::of(&sources, Timestamp::now()))?;
    let mut all = StoredFiles::default();
    let files: Vec<String> = report.named_files().into_iter().collect();
    // Without a file there are still result stores and marks.
    let parts = if files.is_empty() { vec![Vec::new()] } else { files.chunks(FILES).map(<[String]>::to_vec).collect() };
    for files in parts {
        match ask(access, &pod, &GatewayQuestion::LookUp { files }, GATEWAY).await? {
            GatewayAnswer::Found(found) => all = StoredFiles { files: [all.files, found.files].concat(), ..found },
            GatewayAnswer::Refused(why) => return Err(why),
            _ => return Err(format!("gateway {pod} answered another question")),
        }
    }
    Ok(all)
}

/// Reads what is stored under this name, by two requests.
///
/// # Errors
/// When the HA ConfigMaps cannot be read.
pub async fn stored(
    access: &PluginAccess,
    name: &str,
    resource: Option<&FlinkHaCluster>,
) -> Result<StoredReport, Failure> {
    let cluster_id = names::kubernetes_cluster_id(name);
    let of_flink = ListParams::default().labels(&ha_data::selector(&cluster_id));
    let (namespace, ledger) = (access.namespace.as_str(), names::ledger(name));
    let (config_maps, ledger) = tokio::join!(
        access.list::<ConfigMap>(Some(namespace), &of_flink),
        access.get::<ConfigMap>(namespace, &ledger),
    );
    let config_maps = config_maps
        .map_err(|error| Failure::Request(format!("failed to read the HA ConfigMaps of {name}: {}", said(&error))))?;
    let zookeeper = resource.and_then(|resource| resource.spec.high_availability.zookeeper.as_ref());
    Ok(StoredReport::of(&StoredSources {
        namespace,
        name,
        config_maps: &config_maps,
        ledger: understood(ledger),
        quorum: zookeeper.map(|zookeeper| zookeeper.quorum.clone()),
    }))
}
