//! Checks an installation, for `helm test`: an operator is elected and renews its Lease, and the API server serves
//! FlinkHaClusters.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, Config, ResourceExt};
use tokio::time::{Instant, sleep};

use crate::api::FlinkHaCluster;
use crate::world::api_server;
use crate::world::error_text::brief;

const INTERVAL: Duration = Duration::from_secs(1);

/// Flags of `flinkha check`; the chart writes them.
#[derive(Clone, Debug, clap::Args)]
pub struct Check {
    /// Name of the Lease by which the operator's pods elect the one that works.
    #[arg(long)]
    pub lease_name: String,
    /// Namespace of the operator.
    #[arg(long)]
    pub namespace: String,
    /// Namespaces that the operator watches, with commas between them; all when empty.
    #[arg(long, value_delimiter = ',', default_value = "")]
    pub watch_namespace: Vec<String>,
    /// How long to wait for an operator that renews its Lease.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub timeout: Duration,
}

/// Waits until an operator is seen at work.
///
/// # Errors
/// When none is until the timeout, or the API server rejects a request.
pub async fn run(arguments: Check) -> anyhow::Result<()> {
    let config = Config::infer().await.context("failed to find the API server")?;
    let client = api_server::client_without_retries(config).context("failed to read the access to the API server")?;
    for namespace in &arguments.watch_namespace {
        let clusters: Api<FlinkHaCluster> = match namespace.as_str() {
            "" => Api::all(client.clone()),
            namespace => Api::namespaced(client.clone(), namespace),
        };
        let found = clusters.list(&ListParams::default().limit(1)).await;
        found.map_err(|error| anyhow::anyhow!("failed to list FlinkHaClusters: {}", brief(&error)))?;
    }
    let holder = renewed(&client, &arguments).await?;
    tracing::info!(holder, "an operator is elected and renews its Lease");
    Ok(())
}

/// Returns the holder of the Lease once it has written it between two reads.
async fn renewed(client: &Client, arguments: &Check) -> anyhow::Result<String> {
    let name = arguments.lease_name.as_str();
    let leases: Api<Lease> = Api::namespaced(client.clone(), &arguments.namespace);
    let end = Instant::now() + arguments.timeout;
    let mut first = None;
    while Instant::now() < end {
        let lease = leases.get_opt(name).await;
        let lease = lease.map_err(|error| anyhow::anyhow!("failed to read Lease {name}: {}", brief(&error)))?;
        let holder = lease.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
        let seen = lease.and_then(|lease| lease.resource_version()).zip(holder.filter(|holder| !holder.is_empty()));
        match (&first, seen) {
            (Some((before, by)), Some((now, holder))) if *by == holder && *before != now => return Ok(holder),
            (Some((_, by)), Some((_, holder))) if *by == holder => {}
            (_, seen) => first = seen,
        }
        sleep(INTERVAL).await;
    }
    match first {
        Some((_, holder)) => bail!("{holder} holds Lease {name} and has not renewed it for {:?}", arguments.timeout),
        None => bail!("no operator holds Lease {name}: see the log of the operator's pods"),
    }
}
