//! What is there of jobs: listed from the API server and the storage directory themselves, not by the product's own
//! inventory.

use std::path::{Path, PathBuf};

use flinkha::api::names;
use kube::api::ListParams;

use super::cluster::Cluster;
use super::cluster::NAME;
use super::cluster::cluster_config_map;
use super::zookeeper::of_jobs;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Keys of the cluster ConfigMap that belong to jobs (Flink 2: execution plans and applications; Flink 1: job
    /// graphs).
    pub keys: Vec<String>,
    pub config_maps: Vec<String>,
    /// Paths of znodes that belong to jobs.
    pub znodes: Vec<String>,
    /// All files but the marks by which clusters sign the directory.
    pub files: Vec<PathBuf>,
}

impl Left {
    pub async fn of(cluster: &Cluster) -> Self {
        let data = cluster.config_map(&cluster_config_map()).await.and_then(|one| one.data).unwrap_or_default();
        let of_components =
            ["restserver", "dispatcher", "resourcemanager"].map(|one| format!("org.apache.flink.k8s.leader.{one}"));
        let all = cluster.config_maps().list(&ListParams::default()).await.expect("failed to list ConfigMaps");
        let names = all.items.into_iter().filter_map(|one| one.metadata.name);
        Self {
            keys: data.into_keys().filter(|key| !of_components.contains(key)).collect(),
            config_maps: names
                .filter(|name| names::job_of_config_map(&names::kubernetes_cluster_id(NAME), name).is_some())
                .collect(),
            znodes: match &cluster.quorum {
                Some(quorum) => of_jobs(&quorum.client().await.expect("a session")).await,
                None => Vec::new(),
            },
            files: files(&cluster.storage()),
        }
    }

    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Keys, ConfigMaps and files that carry the id of a job.
    pub fn naming(&self, job: &str) -> usize {
        let count = |all: &[String]| all.iter().filter(|one| one.contains(job)).count();
        count(&self.keys)
            + count(&self.config_maps)
            + count(&self.znodes)
            + self.files.iter().filter(|file| file.to_string_lossy().contains(job)).count()
    }
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    all.filter(|path| !path.components().any(|part| part.as_os_str() == ".flinkha")).collect()
}
