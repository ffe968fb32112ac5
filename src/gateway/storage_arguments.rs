//! Flags that tell where Flink keeps its HA data: the same for all that the operator starts beside a JobManager or
//! after it.

use std::path::PathBuf;

use anyhow::Context;

use super::zookeeper_arguments::Access;
use crate::flink::config;
use crate::world::storage::Storage;
use crate::world::storage::reach::{FlinkConfiguration, NotCollectable};

/// The operator writes them into the pod.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Flink's high-availability.storageDir.
    #[arg(long)]
    pub storage_dir: String,
    /// Flink's high-availability.cluster-id.
    #[arg(long)]
    pub ha_cluster_id: String,
    /// File with Flink's configuration; only the settings of its file systems are used.
    #[arg(long)]
    pub flink_configuration: Option<PathBuf>,
}

impl Place {
    /// Location of the HA data, as the ledger records it.
    pub fn noted(&self, zookeeper: &Access) -> crate::ledger::place::HaDataPlace {
        let root_path = zookeeper.quorum.is_some().then(|| zookeeper.root.clone());
        crate::ledger::place::HaDataPlace {
            storage_dir: self.storage_dir.clone(),
            quorum: zookeeper.quorum.clone(),
            root_path,
        }
    }

    /// Returns the path of a file beside Flink's configuration, if that is known. The file need not exist.
    pub fn beside_configuration(&self, name: &str) -> Option<PathBuf> {
        Some(self.flink_configuration.as_ref()?.with_file_name(name))
    }

    /// Reads Flink's settings; empty without a file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a configuration of Flink.
    pub fn configuration(&self) -> anyhow::Result<FlinkConfiguration> {
        let Some(path) = &self.flink_configuration else { return Ok(FlinkConfiguration::new()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        config::parse(&text).with_context(|| format!("{} is not a configuration of Flink", path.display()))
    }

    /// Opens the storage with these settings.
    ///
    /// # Errors
    /// See [`Storage::new`].
    pub fn storage(&self, configuration: &FlinkConfiguration) -> Result<Storage, NotCollectable> {
        Storage::new(&self.storage_dir, &self.ha_cluster_id, configuration)
    }
}
