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
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::api::FlinkHaCluster;
use crate::cluster::pause::Pause;
use crate::cluster::status::{DEGRADED, READY};
use crate::telemetry::counts::CountsBy;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result_ {
    result: &'static str,
}

/// Clusters with series of their own: the oldest. The operator's memory is measured with 1,000.
pub const MOST_CLUSTERS: usize = 2000;
/// Conditions of one cluster that are shown; the operator writes fewer.
pub const MOST_CONDITIONS: usize = 20;

/// Counters of reconciliations and of requests.
#[derive(Clone)]
pub struct Metrics {
    reconciles: Family<Result_, Counter>,
    duration: Histogram,
    /// Requests to the API server, by the answer's status code.
    pub requests: CountsBy,
}

/// Shows the requests that are counted.
#[derive(Debug)]
struct KubeRequests(CountsBy);

impl Collector for KubeRequests {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let help = "Requests of the operator to the API server, by the answer's status code";
        self.0.encode(&mut encoder, "flinkha_kube_requests", help)
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            requests: CountsBy::of_codes(),
        };
        registry.register(
            "flinkha_build",
            "Version of the operator",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(KubeRequests(metrics.requests.clone())));
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

/// Encodes one series for each of these clusters.
fn each<'a, N>(
    encoder: &mut DescriptorEncoder,
    (name, help): (&str, &str),
    clusters: impl IntoIterator<Item = &'a Arc<FlinkHaCluster>>,
    series: impl Fn(&FlinkHaCluster) -> Vec<(Vec<(&'static str, String)>, N)>,
) -> std::fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for cluster in clusters {
        let of_cluster = [("namespace", cluster.namespace().unwrap_or_default()), ("name", cluster.name_any())];
        for (labels, value) in series(cluster) {
            let labels: Vec<_> = of_cluster.iter().cloned().chain(labels).collect();
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn info(cluster: &FlinkHaCluster) -> Vec<(&'static str, String)> {
    let spec = &cluster.spec;
    let gateway = cluster.status.as_ref().and_then(|status| status.gateway_image.clone());
    vec![
        ("provider", format!("{:?}", spec.high_availability.provider)),
        ("mode", if spec.job.is_some() { "application" } else { "session" }.to_owned()),
        ("flink_version", spec.flink_version.clone().unwrap_or_default()),
        ("image", spec.image.clone()),
        ("gateway_image", gateway.unwrap_or_default()),
    ]
}

impl Collector for Clusters {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut clusters) = cache.map(|cache| cache.state()) else { return Ok(()) };
        let mut family =
            encoder.encode_descriptor("flinkha_clusters", "FlinkHaClusters, by phase", None, MetricType::Gauge)?;
        for phase in ["deleting", "degraded", "ready", "not_ready"] {
            let count = clusters.iter().filter(|cluster| phase_of(cluster) == phase).count();
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&[("phase", phase)])?)?;
        }
        // The same ones at each scrape: the oldest.
        clusters.sort_by_cached_key(|cluster| {
            let created = cluster.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, cluster.namespace(), cluster.name_any())
        });
        clusters.truncate(MOST_CLUSTERS);
        let encoder = &mut encoder;
        let help = "FlinkHaClusters that are paused (flinkha.dev/reconcile); absent for others";
        let paused = clusters.iter().filter(|cluster| Pause::of(cluster).is_some());
        each(encoder, ("flinkha_cluster_paused", help), paused, |_| vec![(Vec::new(), 1_i64)])?;
        let help = "What a FlinkHaCluster runs; the version of Flink only if the resource declares it";
        each(encoder, ("flinkha_cluster_info", help), &clusters, |cluster| vec![(info(cluster), 1_i64)])?;
        let help = "1 for a condition that is true, 0 for another one";
        each(encoder, ("flinkha_cluster_condition", help), &clusters, |cluster| {
            let conditions = cluster.status.iter().flat_map(|status| &status.conditions).take(MOST_CONDITIONS);
            let series = conditions.map(|one| {
                (vec![("type", one.type_.clone()), ("reason", one.reason.clone())], i64::from(one.status == "True"))
            });
            series.collect()
        })?;
        let help = "Number of the leader's term; 0 while nobody leads";
        each(encoder, ("flinkha_leader_term", help), &clusters, |cluster| {
            let leader = cluster.status.as_ref().and_then(|status| status.leader.as_ref());
            vec![(Vec::new(), leader.map_or(0, |leader| leader.term))]
        })?;
        let help = "JobManagers' pods: all, and those that lead or can take over";
        each(encoder, ("flinkha_cluster_job_managers", help), &clusters, |cluster| {
            let members = cluster.status.as_ref().map(|status| status.job_manager.clone()).unwrap_or_default();
            let series = [("all", members.replicas), ("ready", members.ready_replicas)];
            series.map(|(state, count)| (vec![("state", state.to_owned())], i64::from(count))).into()
        })
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

#[cfg(test)]
mod tests {
    use kube_runtime::reflector::{self, store::Writer};
    use kube_runtime::watcher::Event;
    use prometheus_client::encoding::text::encode;
    use serde_json::{Value, json};

    use super::*;

    fn text(resources: &[Value]) -> String {
        let (cache, mut writer): (_, Writer<FlinkHaCluster>) = reflector::store();
        for resource in resources {
            let resource = serde_json::from_value(resource.clone()).expect("a resource");
            writer.apply_watcher_event(&Event::Apply(resource));
        }
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.reconciled("success", Duration::from_millis(3));
        metrics.requests.inc_code(Some(409));
        let clusters = Clusters::default();
        registry.register_collector(Box::new(clusters.clone()));
        let _shown = clusters.show(cache);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        text
    }

    fn resource(name: &str, status: Value) -> Value {
        json!({
            "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster",
            "metadata": { "name": name, "namespace": "flink" },
            "spec": { "image": "flink:2.3.0", "flinkVersion": "2.3", "highAvailability": { "storageDir": "file:///ha" } },
            "status": status,
        })
    }

    #[test]
    fn a_cluster_is_shown_with_its_name_its_leader_and_its_conditions() {
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": "Why", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
        let status = json!({
            "leader": { "pod": "demo-1", "term": 7 },
            "jobManager": { "replicas": 2, "readyReplicas": 1, "ready": "1/2" },
            "gatewayImage": "gateway:1",
            "conditions": [condition("Ready", "False"), condition("Degraded", "True")],
        });
        let text = text(&[resource("demo", status), resource("new", json!(null))]);
        for line in [
            "flinkha_cluster_info{namespace=\"flink\",name=\"demo\",provider=\"Kubernetes\",mode=\"session\",\
             flink_version=\"2.3\",image=\"flink:2.3.0\",gateway_image=\"gateway:1\"} 1",
            "flinkha_cluster_condition{namespace=\"flink\",name=\"demo\",type=\"Ready\",reason=\"Why\"} 0",
            "flinkha_cluster_condition{namespace=\"flink\",name=\"demo\",type=\"Degraded\",reason=\"Why\"} 1",
            "flinkha_leader_term{namespace=\"flink\",name=\"demo\"} 7",
            "flinkha_leader_term{namespace=\"flink\",name=\"new\"} 0",
            "flinkha_cluster_job_managers{namespace=\"flink\",name=\"demo\",state=\"all\"} 2",
            "flinkha_cluster_job_managers{namespace=\"flink\",name=\"demo\",state=\"ready\"} 1",
            "flinkha_clusters{phase=\"degraded\"} 1",
            "flinkha_reconciles_total{result=\"success\"} 1",
            "flinkha_kube_requests_total{code=\"409\"} 1",
            concat!("flinkha_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} of {text}");
        }
    }

    #[test]
    fn the_number_of_clusters_with_series_is_bounded_and_all_are_counted() {
        let all = MOST_CLUSTERS + 10;
        let resources: Vec<Value> = (0..all).map(|number| resource(&format!("c-{number}"), json!(null))).collect();
        let text = text(&resources);
        let series = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!([series("flinkha_cluster_info"), series("flinkha_leader_term")], [MOST_CLUSTERS; 2]);
        assert!(text.contains(&format!("flinkha_clusters{{phase=\"not_ready\"}} {all}\n")));
    }
}
