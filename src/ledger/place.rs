//! Where a cluster's HA data is, as the leading gateway was told and wrote it down.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::api::v1alpha1::HighAvailability;

/// Where a cluster's HA data is, as the leading gateway was told: its files, and its pointers if they are znodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Place {
    /// Flink's `high-availability.storageDir`.
    pub storage_dir: String,
    /// Servers of the ZooKeeper quorum; `None` with provider Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<String>,
    /// Flink's `high-availability.zookeeper.path.root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_path: Option<String>,
}

impl Place {
    /// Where a spec asks for it.
    pub fn of(high_availability: &HighAvailability) -> Self {
        let zookeeper = high_availability.zookeeper.as_ref();
        Self {
            storage_dir: high_availability.storage_dir.clone(),
            quorum: zookeeper.map(|zookeeper| zookeeper.quorum.clone()),
            root_path: zookeeper.map(|zookeeper| zookeeper.root_path.clone()),
        }
    }

    /// The field that differs from another place, with both values. Servers may come and go as long as one stays:
    /// another ensemble has none of them.
    pub fn differs(&self, wanted: &Self) -> Option<(&'static str, String, String)> {
        let field = |field, from: &str, to: &str| Some((field, from.to_owned(), to.to_owned()));
        let directory = |uri: &str| uri.trim_end_matches('/').to_owned();
        if directory(&self.storage_dir) != directory(&wanted.storage_dir) {
            return field("storageDir", &self.storage_dir, &wanted.storage_dir);
        }
        match (&self.quorum, &wanted.quorum) {
            (None, None) => None,
            (None, Some(_)) => field("provider", "Kubernetes", "ZooKeeper"),
            (Some(_), None) => field("provider", "ZooKeeper", "Kubernetes"),
            (Some(from), Some(to)) if servers(from).is_disjoint(&servers(to)) => field("zookeeper.quorum", from, to),
            (Some(_), Some(_)) if self.root_path != wanted.root_path => {
                let path = |place: &Self| place.root_path.clone().unwrap_or_default();
                field("zookeeper.rootPath", &path(self), &path(wanted))
            }
            (Some(_), Some(_)) => None,
        }
    }
}

pub(crate) fn servers(quorum: &str) -> BTreeSet<String> {
    let with_port =
        |server: &str| if server.contains(':') { server.to_owned() } else { format!("{server}:{ZOOKEEPER_PORT}") };
    quorum.split(',').map(with_port).collect()
}

/// Port of a server of a quorum that is named without one.
const ZOOKEEPER_PORT: &str = "2181";
