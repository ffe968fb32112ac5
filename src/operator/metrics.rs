//! Defines the operator's metrics.

use std::fmt::{Debug, Formatter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use kube_runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::FlinkHaCluster;
use crate::cluster::pause::Pause;
use crate::cluster::status::{DEGRADED, READY};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result_ {
    result: &'static str,
}

/// Counters of reconciliations.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<Result_, Counter>,
    duration: Histogram,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics =
            Self { reconciles: Family::default(), duration: Histogram::new(exponential_buckets(0.001, 4.0, 8)) };
        registry.register("flinkha_reconciles", "Reconciliations, by result", metrics.reconciles.clone());
        registry.register(
            "flinkha_reconcile_duration_seconds",
            "How long reconciliations take",
            metrics.duration.clone(),
        );
        metrics
    }

    /// `result`: `success`, `error`, or `outdated` for a decision that is made again on a newer version.
    pub fn reconciled(&self, result: &'static str, duration: Duration) {
        self.reconciles.get_or_create(&Result_ { result }).inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

/// Counts clusters by phase, and names those that are paused, at each scrape, while this operator watches them.
#[derive(Clone, Default)]
pub struct Clusters(Arc<Mutex<Option<Store<FlinkHaCluster>>>>);

impl Clusters {
    /// Counts the clusters of this cache until the answer is dropped.
    pub fn show(&self, cache: Store<FlinkHaCluster>) -> Shown {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cache);
        Shown(self.clone())
    }
}

/// Clusters are counted.
pub struct Shown(Clusters);

impl Drop for Shown {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Debug for Clusters {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Clusters")
    }
}

impl Collector for Clusters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(clusters) = cache.map(|cache| cache.state()) else { return Ok(()) };
        let mut family =
            encoder.encode_descriptor("flinkha_clusters", "FlinkHaClusters, by phase", None, MetricType::Gauge)?;
        for phase in ["deleting", "degraded", "ready", "not_ready"] {
            let count = clusters.iter().filter(|cluster| phase_of(cluster) == phase).count();
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("phase", phase)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "flinkha_cluster_paused",
            "FlinkHaClusters that are paused (flinkha.dev/reconcile); absent for others",
            None,
            MetricType::Gauge,
        )?;
        for cluster in clusters.iter().filter(|cluster| Pause::of(cluster).is_some()) {
            let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
            let labels = [("namespace", namespace.as_str()), ("name", name.as_str())];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn phase_of(cluster: &FlinkHaCluster) -> &'static str {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    let holds = |kind: &str| conditions.clone().any(|condition| condition.type_ == kind && condition.status == "True");
    if cluster.metadata.deletion_timestamp.is_some() {
        "deleting"
    } else if holds(DEGRADED) {
        "degraded"
    } else if holds(READY) {
        "ready"
    } else {
        "not_ready"
    }
}
