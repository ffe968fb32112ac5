//! Defines the location of a cluster's HA data, as the leading gateway notes it from its own flags.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::api::v1alpha1::HighAvailability;
use crate::flink::zookeeper_servers;

/// The location of a cluster's HA data: its files, and its pointers if they are znodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HaDataPlace {
    /// Flink's `high-availability.storageDir`.
    pub storage_dir: String,
    /// Servers of the ZooKeeper quorum; `None` with provider Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<String>,
    /// Flink's `high-availability.zookeeper.path.root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_path: Option<String>,
}

impl HaDataPlace {
    /// Returns the location that a spec asks for.
    pub fn of(high_availability: &HighAvailability) -> Self {
        let zookeeper = high_availability.zookeeper.as_ref();
        Self {
            storage_dir: high_availability.storage_dir.clone(),
            quorum: zookeeper.map(|zookeeper| zookeeper.quorum.clone()),
            root_path: zookeeper.map(|zookeeper| zookeeper.root_path.clone()),
        }
    }

    /// Returns the field in which `wanted` differs, with both values. Servers of a quorum may be exchanged as long as
    /// one stays: another ensemble shares none.
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
            (Some(from), Some(to)) if from != to && servers(from).is_disjoint(&servers(to)) => {
                field("zookeeper.quorum", from, to)
            }
            (Some(_), Some(_)) if self.root_path != wanted.root_path => {
                let path = |place: &Self| place.root_path.clone().unwrap_or_default();
                field("zookeeper.rootPath", &path(self), &path(wanted))
            }
            (Some(_), Some(_)) => None,
        }
    }
}

fn servers(quorum: &str) -> BTreeSet<String> {
    zookeeper_servers::servers(quorum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_does_not_differ_from_itself_whatever_somebody_wrote_there() {
        for quorum in [None, Some(""), Some(","), Some("a:2181")] {
            let place = HaDataPlace { quorum: quorum.map(str::to_owned), ..HaDataPlace::default() };
            assert_eq!(place.differs(&place), None);
        }
        let empty = HaDataPlace { quorum: Some(String::new()), ..HaDataPlace::default() };
        let known = HaDataPlace { quorum: Some("a:2181".to_owned()), ..HaDataPlace::default() };
        assert_eq!(empty.differs(&known).map(|(field, ..)| field), Some("zookeeper.quorum"));
    }
}
