//! Whether another Flink has HA data under a cluster's name: asked before the first JobManager is made, because
//! TaskManagers would offer their slots to any leader there. The gateways look again, by name, before each of their
//! terms.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;

use super::error::Error;
use super::ha_config_maps::{HaConfigMap, labelled};
use super::observe::Caches;
use super::pages::for_each;
use crate::api::names;
use crate::cluster::rejection::Rejection;
use crate::flink::ha_data;
use crate::ha_data::foreign::{self, HaConfigMaps};

/// An answer is believed for so long. What appears later is the gateways' to find.
const BELIEVED: Duration = Duration::from_secs(10);
/// Clusters that one request asks for. Their names, of up to 45 characters, stand in its path, of which proxies take
/// some KiB.
const ASKED_TOGETHER: usize = 64;

/// Asks the API server.
pub struct ForeignHaData {
    client: Client,
    /// UIDs of resources under whose names there was no HA data, and when this was asked. Who asks holds it, so that
    /// the others wait for an answer that may be theirs.
    absent: Mutex<HashMap<String, Instant>>,
}

impl ForeignHaData {
    pub fn new(client: Client) -> Self {
        Self { client, absent: Mutex::default() }
    }

    /// Checks that no HA data under the cluster's name is foreign: written, but by no JobManager of this cluster.
    /// `own`: UID of the resource.
    ///
    /// # Errors
    /// When there is such. Also when a request fails; a retry is safe.
    pub async fn check(&self, cluster: &str, own: &str, namespace: &str, caches: &Caches) -> Result<(), Error> {
        let failed = |source| Error::Request {
            action: "read the HA data of",
            object: format!("FlinkHaCluster {cluster}"),
            source,
        };
        if self.is_absent((own, cluster), namespace, caches).await.map_err(failed)? {
            return Ok(());
        }
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let cluster_id = names::kubernetes_cluster_id(cluster);
        let name = names::cluster_config_map(&cluster_id);
        let labelled = labelled(&self.client, namespace, &cluster_id, |_| false);
        let found = async { tokio::try_join!(config_maps.get_opt(&name), labelled) };
        let (stored, labelled) = found.await.map_err(failed)?;
        let jobs = labelled.iter().map(|one| (one.name_any(), json!(one)));
        let jobs: BTreeMap<_, _> =
            jobs.filter(|(name, _)| names::job_of_config_map(&cluster_id, name).is_some()).collect();
        let stored = stored.map(|stored| json!(stored));
        let ha_data = HaConfigMaps { cluster_id: &cluster_id, cluster: stored.as_ref(), jobs: &jobs };
        let Some(refusal) = ha_data.refusal().filter(|_| !ha_data.is_ours()) else { return Ok(()) };
        let ledger = config_maps.get_opt(&names::ledger(cluster)).await.map_err(failed)?;
        let known = ledger.is_some_and(|ledger| foreign::has_history(&json!(ledger)));
        if known { Ok(()) } else { Err(Rejection::unwatched(refusal).into()) }
    }

    /// Whether there is no ConfigMap with the labels that every Flink gives its HA data, and that it writes again with
    /// each renewal of its lock. One request asks for all clusters of the namespace of which no JobManager was made.
    async fn is_absent(&self, own: (&str, &str), namespace: &str, caches: &Caches) -> kube::Result<bool> {
        let mut absent = self.absent.lock().await;
        let asked = Instant::now();
        absent.retain(|_, asked| asked.elapsed() < BELIEVED);
        if absent.contains_key(own.0) {
            return Ok(true);
        }
        let is_new = |uid: &str| uid != own.0 && !absent.contains_key(uid);
        let others = caches.unmade(namespace).into_iter().filter(|(uid, _)| is_new(uid));
        let own = (own.0.to_owned(), own.1.to_owned());
        let all: Vec<(String, String)> = std::iter::once(own.clone()).chain(others.take(ASKED_TOGETHER - 1)).collect();
        let ids: Vec<String> = all.iter().map(|(_, name)| names::kubernetes_cluster_id(name)).collect();
        let selected = ListParams::default().labels(&ha_data::selector_of_any(&ids));
        let mut found = Vec::new();
        let config_maps = Api::namespaced(self.client.clone(), namespace);
        for_each(&config_maps, selected, |one: HaConfigMap| found.extend(one.metadata.name)).await?;
        let has_some = |name: &str| {
            let cluster_id = names::kubernetes_cluster_id(name);
            let cluster = names::cluster_config_map(&cluster_id);
            found.iter().any(|one| *one == cluster || names::job_of_config_map(&cluster_id, one).is_some())
        };
        let without = all.into_iter().filter(|(_, name)| !has_some(name));
        absent.extend(without.map(|(uid, _)| (uid, asked)));
        Ok(absent.contains_key(&own.0))
    }
}
