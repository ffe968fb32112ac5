//! Reads what the reports about clusters are made of: for one cluster four requests at the same time and one for its
//! operator, for many clusters two lists.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::access::PluginAccess;
use super::failure::{Failure, said};
use super::parsers;
use super::view::candidates::PlacedPod;
use super::view::cluster::ClusterSources;
use super::view::overview::{OverviewReport, overview};
use crate::api::FlinkHaCluster;
use crate::api::names::{self, CLUSTER_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use crate::cluster::operators;

/// Reads one cluster.
///
/// # Errors
/// When the resource cannot be read or does not exist. What else cannot be read is not known.
pub async fn read_cluster(access: &PluginAccess, name: &str) -> Result<ClusterSources, Failure> {
    find_cluster(access, name).await?.ok_or_else(|| absent(access, name))
}

/// Says that there is no such cluster.
pub fn absent(access: &PluginAccess, name: &str) -> Failure {
    let namespace = &access.namespace;
    Failure::Absent(format!(
        "FlinkHaCluster {name} does not exist in namespace {namespace}; kubectl flinkha status -A shows all"
    ))
}

/// The same; `None` if there is no such resource.
///
/// # Errors
/// When the resource cannot be read.
pub async fn find_cluster(access: &PluginAccess, name: &str) -> Result<Option<ClusterSources>, Failure> {
    let namespace = access.namespace.as_str();
    let (lease_name, ledger_name) = (names::lease(name), names::ledger(name));
    let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}={name}");
    let of_cluster = ListParams::default().labels(&labels);
    let (resource, lease, ledger, pods) = tokio::join!(
        find_resource(access, name),
        access.get::<Lease>(namespace, &lease_name),
        access.get::<ConfigMap>(namespace, &ledger_name),
        access.list::<Pod>(Some(namespace), &of_cluster),
    );
    let Some(resource) = resource? else { return Ok(None) };
    let operator = match operators::noted(&resource).and_then(|noted| noted.split_once('/')) {
        // Anybody may write the annotation.
        Some((namespace, lease)) if parsers::namespace(namespace).is_ok() => match parsers::resource_name(lease) {
            Ok(lease) => understood(access.get::<Lease>(namespace, &lease).await),
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    };
    Ok(Some(ClusterSources {
        resource,
        lease: understood(lease),
        ledger: understood(ledger),
        pods: pods.map(|pods| pods.iter().filter_map(PlacedPod::read).collect()).map_err(|error| said(&error)),
        operator,
    }))
}

/// Reads the resource; `None` if there is none.
///
/// # Errors
/// When it cannot be read, or is not understood.
pub async fn find_resource(access: &PluginAccess, name: &str) -> Result<Option<FlinkHaCluster>, Failure> {
    let found = access.get::<FlinkHaCluster>(&access.namespace, name).await.map_err(|error| failed(&error))?;
    found.map(|found| read_resource(found, name)).transpose()
}

fn read_resource(found: Value, name: &str) -> Result<FlinkHaCluster, Failure> {
    serde_json::from_value(found).map_err(|error| {
        Failure::Request(format!("FlinkHaCluster {name} is not understood by this version of the plugin: {error}"))
    })
}

/// Reads many clusters; of all namespaces without one.
///
/// # Errors
/// When the resources cannot be read.
pub async fn read_overview(access: &PluginAccess, namespace: Option<&str>) -> Result<OverviewReport, Failure> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
    let all = ListParams::default();
    let (resources, leases) =
        tokio::join!(access.list::<FlinkHaCluster>(namespace, &all), access.list::<Lease>(namespace, &ours));
    let resources = resources.map_err(|error| failed(&error))?;
    let leases = leases.map_err(|error| said(&error));
    Ok(overview(&resources, leases.as_deref().map_err(Clone::clone)))
}

/// Why FlinkHaClusters cannot be read.
fn failed(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => Failure::Absent(
            "the API server serves no FlinkHaClusters; install the CustomResourceDefinition, or name another context"
                .to_owned(),
        ),
        error => Failure::Request(format!("failed to read FlinkHaClusters: {}", said(error))),
    }
}

/// An object, or why it is not known.
pub fn understood<T: DeserializeOwned>(read: kube::Result<Option<Value>>) -> Result<Option<T>, String> {
    let read = read.map_err(|error| said(&error))?;
    read.map(serde_json::from_value).transpose().map_err(|error| format!("it is not understood: {error}"))
}
