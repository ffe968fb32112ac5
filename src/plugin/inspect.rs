//! `inspect`: reads HA data in ConfigMaps and the ledger, and shows them decoded. It needs no FlinkHaCluster, so it
//! also works for Flink's own Kubernetes HA.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;

use super::access::PluginAccess;
use super::arguments::InspectArguments;
use super::clusters::{find_resource, understood};
use super::failure::{Failure, said};
use super::output::Output;
use super::view::stored::{StoredReport, StoredSources};
use super::view::stored_text::screen;
use crate::api::FlinkHaCluster;
use crate::api::names;
use crate::flink::ha_data;

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
    let report = stored(access, &arguments.name, resource.as_ref()).await?;
    if report.is_empty() && report.ha_data.is_none() && resource.is_none() {
        return Err(Failure::Absent(format!(
            "namespace {} has neither a FlinkHaCluster {name} nor HA ConfigMaps of a Flink with kubernetes.cluster-id \
             {name} (labels {})",
            access.namespace,
            ha_data::selector(&arguments.name),
            name = arguments.name
        )));
    }
    let now = Timestamp::now();
    output.report(arguments.output.format, &report, |has_colours| screen(&report, now, has_colours))
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
