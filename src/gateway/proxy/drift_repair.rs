//! Reverts manual changes of a leader's cluster ConfigMap at once: a removed stamp, an edited lock, a deletion.
//!
//! It watches one object and sends no request while nothing happens. Every repair is a compare-and-swap in the current
//! term.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use kube_runtime::{WatchStreamExt, watcher};
use serde_json::Value;

use super::jvm_lock::JvmLock;
use crate::flink::lock;
use crate::gateway::tenure::Tenures;
use crate::lease::stamp::version;
use crate::lease::stamp::{relation, stamp_patch};
use crate::lease::term::{Relation, Term};
use crate::world::backoff::EverySecond;
use crate::world::error_text::brief;

/// Repairs while this gateway's JVM leads.
pub struct DriftRepair {
    pub tenures: Arc<Tenures>,
    pub lock: Arc<JvmLock>,
    pub client: Client,
}

impl DriftRepair {
    /// Runs until the process ends.
    pub async fn run(self) {
        self.tenures.during_each(async |term| self.lead(term).await).await;
    }

    async fn lead(&self, term: &Term) {
        let name = self.lock.names.cluster_config_map();
        let stream = watcher(self.config_maps(), watcher::Config::default().fields(&format!("metadata.name={name}")));
        let stream = stream.backoff(EverySecond);
        pin_mut!(stream);
        let mut listed = false;
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = false,
                Ok(watcher::Event::InitApply(object)) => {
                    listed = true;
                    self.repair(&object, term).await;
                }
                Ok(watcher::Event::Apply(object)) => self.repair(&object, term).await,
                Ok(watcher::Event::InitDone) if listed => {}
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                    put_back_cluster(&self.lock, &self.config_maps(), term).await;
                }
                Err(error) => tracing::debug!(%error, "the watch of the cluster ConfigMap was interrupted"),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Repairs an object. A watch may be late: then the patch conflicts, and a later event shows the change.
    async fn repair(&self, object: &ConfigMap, term: &Term) {
        let Ok(object) = serde_json::to_value(object) else { return };
        let Some(patch) = self.repairing(&object, term) else { return };
        let name = self.lock.names.cluster_config_map();
        match self.config_maps().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => tracing::warn!(name, "stamp or lock had been edited by somebody else; put right"),
            Err(error) => tracing::debug!(name, error = brief(&error), "could not put right what somebody has edited"),
        }
    }

    fn repairing(&self, object: &Value, term: &Term) -> Option<Value> {
        let kept = self.lock.written_in(term)?;
        let edited = lock::of_object(object).and_then(lock::holder) != lock::holder(&kept);
        let lower = match relation(object, term).0 {
            Relation::Higher => return None,
            Relation::Lower => true,
            Relation::Same => false,
        };
        if !lower && !edited {
            return None;
        }
        let mut patch = stamp_patch(version(object)?, term);
        if edited {
            patch["metadata"]["annotations"][lock::LOCK_ANNOTATION] = kept.into();
        }
        Some(patch)
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.lock.names.namespace)
    }
}

/// Restores a deleted cluster ConfigMap. Flink's JVM ends when it sees the deletion; its gateway restores it before a
/// successor creates one without jobs.
pub async fn put_back_cluster(lock: &JvmLock, config_maps: &Api<ConfigMap>, term: &Term) {
    let name = lock.names.cluster_config_map();
    let Some(copy) = lock.snapshots.to_create(&name, term) else { return };
    if !matches!(config_maps.get_metadata_opt(&name).await, Ok(None)) {
        return;
    }
    let Ok(copy) = serde_json::from_value(copy) else { return };
    match config_maps.create(&PostParams::default(), &copy).await {
        Ok(_) => tracing::warn!(name, "the cluster ConfigMap had been deleted; it was put back"),
        Err(error) => tracing::error!(
            name,
            error = brief(&error),
            "the cluster ConfigMap has been deleted, and could not be put back"
        ),
    }
}
