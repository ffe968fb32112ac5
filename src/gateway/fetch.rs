//! `flinkha fetch`: puts the application's jar where its JobManager finds it, before the JobManager starts.

use std::path::PathBuf;

use super::flink_configuration;
use crate::world::storage::Storage;

/// Flags of `flinkha fetch`; the operator writes them into the pod.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// spec.job.jarURI.
    #[arg(long)]
    pub uri: String,
    /// Name of the copy that is kept.
    #[arg(long)]
    pub key: String,
    /// spec.job.sha256.
    #[arg(long)]
    pub sha256: Option<String>,
    /// The local file.
    #[arg(long)]
    pub to: PathBuf,
    /// Flink's high-availability.storageDir.
    #[arg(long)]
    pub storage_dir: String,
    /// Flink's high-availability.cluster-id.
    #[arg(long)]
    pub ha_cluster_id: String,
    /// File with Flink's configuration, of which the settings of its file systems matter here.
    #[arg(long)]
    pub flink_configuration: Option<PathBuf>,
}

/// Fetches.
///
/// # Errors
/// When the jar cannot be had, or is not the one that was meant.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let configuration = flink_configuration(arguments.flink_configuration.as_deref())?;
    let storage = Storage::new(&arguments.storage_dir, &arguments.ha_cluster_id, &configuration)?;
    storage.fetch(&arguments.uri, &arguments.key, arguments.sha256.as_deref(), &arguments.to, &configuration).await?;
    tracing::info!(uri = arguments.uri, "the jar is there");
    Ok(())
}
