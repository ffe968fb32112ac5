//! Flags that tell where Flink keeps its HA data: the same for all that the operator starts beside a JobManager or
//! after it.

use std::path::PathBuf;

use anyhow::Context;

use super::zookeeper_arguments::Access;
use crate::flink::config;
use crate::flink::mounted_secrets::readable;
use crate::world::mounted_secrets;
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
    /// Directory with the mounted Secrets of spec.flinkConfigurationFrom.
    #[arg(long)]
    pub flink_configuration_from: Option<PathBuf>,
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

    /// Reads Flink's settings: those of the file, and below them those of the Secrets. Empty without either.
    ///
    /// # Errors
    /// When a file cannot be read, or is not a configuration of Flink.
    pub fn configuration(&self) -> anyhow::Result<FlinkConfiguration> {
        let mut configuration = match &self.flink_configuration_from {
            // Only what file systems need counts here; what Flink must not get is told elsewhere.
            Some(directory) => readable(&mounted_secrets::read(directory)?),
            None => FlinkConfiguration::new(),
        };
        if let Some(path) = &self.flink_configuration {
            let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
            let file = config::parse(&text);
            configuration.extend(file.with_context(|| format!("{} is not a configuration of Flink", path.display()))?);
        }
        Ok(configuration)
    }

    /// Opens the storage with these settings.
    ///
    /// # Errors
    /// See [`Storage::new`].
    pub fn storage(&self, configuration: &FlinkConfiguration) -> Result<Storage, NotCollectable> {
        Storage::new(&self.storage_dir, &self.ha_cluster_id, configuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_secrets_and_from_the_file_which_has_precedence() {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = directory.path().join("secrets/0.s3");
        std::fs::create_dir_all(&secret).expect("a directory");
        for (key, value) in [("s3.secret-key", "from the Secret\n"), ("s3.endpoint", "wrong"), ("rest.port", "1")] {
            std::fs::write(secret.join(key), value).expect("a file");
        }
        let file = directory.path().join("config.yaml");
        std::fs::write(&file, "s3.endpoint: \"right\"\n").expect("a file");
        let place = Place {
            storage_dir: "s3://bucket/ha".to_owned(),
            ha_cluster_id: "ns.demo".to_owned(),
            flink_configuration: Some(file),
            flink_configuration_from: Some(directory.path().join("secrets")),
        };
        let found = place.configuration().expect("a configuration");
        let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("s3.endpoint", "right"), ("s3.secret-key", "from the Secret")]);
    }
}
