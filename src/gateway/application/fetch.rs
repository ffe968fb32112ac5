//! Implements `flinkha fetch`: copies the application's jar to the JobManager's path before the JobManager starts.

use std::path::PathBuf;

use crate::gateway::storage_arguments::Place;

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
    #[command(flatten)]
    pub place: Place,
}

/// Fetches the jar.
///
/// # Errors
/// When the jar cannot be fetched, or when it is not the one that was specified.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let configuration = arguments.place.configuration()?;
    let storage = arguments.place.storage(&configuration)?;
    storage.fetch(&arguments.uri, &arguments.key, arguments.sha256.as_deref(), &arguments.to, &configuration).await?;
    tracing::info!(uri = arguments.uri, "the jar is there");
    Ok(())
}
