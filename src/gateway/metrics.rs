//! Defines the gateway's metrics, which are computed at each scrape.

use std::fmt::{Debug, Formatter};
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::signals::Signals;
use crate::ledger::jobs::{OrphanCounts, Size};

/// ConfigMaps with a series of their own: the largest.
pub const MOST_CONFIG_MAPS: usize = 100;

/// Values of the metrics.
#[derive(Clone)]
pub struct GatewayMetrics {
    pub leads: bool,
    pub term: u64,
    /// This pod's JobManager could take over.
    pub ready: bool,
    /// HA ConfigMaps that were written in this term.
    pub sizes: Vec<Size>,
    /// `None` without a quorum.
    pub quorum_session: Option<bool>,
    /// Result of this gateway's last sweep, and what its tasks have counted.
    pub signals: Arc<Signals>,
}

impl Debug for GatewayMetrics {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GatewayMetrics")
    }
}

impl GatewayMetrics {
    pub fn registry(self) -> Registry {
        let mut registry = Registry::with_prefix("flinkha_gateway");
        registry.register_collector(Box::new(self));
        registry
    }

    /// What only a leader knows.
    fn encode_leading(&self, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
        let counters = &self.signals.counters;
        if let Some(answers) = counters.storage() {
            let help = "1 when the storage directory answered the last look of this leader, every 10 s; 0 when not.";
            gauge(encoder, "storage_up", help, u64::from(answers))?;
        }
        let help = "Seconds since this leader saw the last checkpoint of a job being stored, or took the job over.";
        let ages = counters.checkpoint_ages(Instant::now());
        let ages = ages.into_iter().map(|(job, age)| ([("job", job.to_string())], age.as_secs_f64()));
        family(encoder, "checkpoint_age_seconds", help, ages)?;
        if self.quorum_session.is_none() {
            let help = "Gateways of standbys by whose promises this leader goes on while it cannot write the Lease: held, or \
                missing.";
            let promises = counters.promises();
            family(encoder, "promises", help, promises.map(|(state, count)| ([("state", state)], count)))?;
            let all: u64 = self.sizes.iter().map(|size| size.bytes as u64).sum();
            gauge(encoder, "ha_data_bytes", "Keys and values of all ConfigMaps with HA data.", all)?;
        }
        let mut sizes = self.sizes.clone();
        sizes.sort_by_key(|size| std::cmp::Reverse(size.bytes));
        sizes.truncate(MOST_CONFIG_MAPS);
        let help = "Keys and values of a ConfigMap with HA data; 1048576 is the limit.";
        let sizes = sizes.into_iter().map(|size| ([("configmap", size.name)], size.bytes as u64));
        family(encoder, "ha_config_map_bytes", help, sizes)
    }

    fn encode_counters(&self, encoder: &mut DescriptorEncoder) -> std::fmt::Result {
        let counters = &self.signals.counters;
        counters.leader_changes.encode(
            encoder,
            "leader_changes",
            "Changes of leader that made the JobManager of this pod the leader.",
        )?;
        let help = "Seconds without a leader before the JobManager of this pod led.";
        histogram(encoder, "leaderless_seconds", help, &counters.leaderless)?;
        if self.quorum_session.is_none() {
            let help = "Seconds until a write of the Lease was answered or given up.";
            histogram(encoder, "lease_renew_seconds", help, &counters.lease_renewals)?;
            let help = "When this gateway began its last write of the Lease that was stored; 0 if it has written none.";
            gauge::<f64>(encoder, "lease_last_renewed_timestamp_seconds", help, counters.lease_renewed.get())?;
        }
        counters.fenced_writes.encode(
            encoder,
            "fenced_writes",
            "Writes of HA data by the JVM that were refused with 409: it does not lead, or the object was written since it \
             was read, as a newer term does.",
        )?;
        let help = "Requests of the JVM that were sent to the API server, by the answer's status code.";
        counters.upstream_requests.encode(encoder, "upstream_requests", help)?;
        let help = "Looks for the HA data of ended jobs, by result.";
        counters.collections.encode(encoder, "gc", help)?;
        let help = "Flink JVMs of this pod that ended: by themselves (Exited), or ended by this gateway.";
        counters.jvm_restarts.encode(encoder, "jvm_restarts", help)
    }
}

fn gauge<N>(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: N) -> std::fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn histogram(encoder: &mut DescriptorEncoder, name: &str, help: &str, histogram: &Histogram) -> std::fmt::Result {
    histogram.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
}

fn family<V, N>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'static str, V); 1], N)>,
) -> std::fmt::Result
where
    V: EncodeLabelValue,
    ConstGauge<N>: EncodeMetric,
{
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for GatewayMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let encoder = &mut encoder;
        gauge(encoder, "leader", "1 when the JobManager of this pod leads.", u64::from(self.leads))?;
        gauge(encoder, "term", "Term of the Lease as last seen.", self.term)?;
        let help = "1 when the JobManager of this pod could take over.";
        gauge(encoder, "ready", help, u64::from(self.ready))?;
        if let Some(connected) = self.quorum_session {
            let help = "1 while this gateway has a session with the ZooKeeper quorum.";
            gauge(encoder, "quorum_session", help, u64::from(connected))?;
        }
        if let Some(OrphanCounts { files, bytes, removed, protected, .. }) = self.signals.swept() {
            let files_help = "Files in the storage directory that nothing needs, at the last sweep.";
            let protected_help = "Files that nothing names, but which a pointer that cannot be read might name.";
            gauge(encoder, "orphan_files", files_help, files)?;
            gauge(encoder, "orphan_bytes", "Their size.", bytes)?;
            gauge(encoder, "orphans_removed", "Files removed by the last sweep.", removed)?;
            gauge(encoder, "protected_files", protected_help, protected)?;
        }
        if self.leads {
            self.encode_leading(encoder)?;
        }
        self.encode_counters(encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use jiff::Timestamp;
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::flink::job_id::JobId;
    use crate::lease::record::Change;
    use crate::lease::term::Incarnation;

    /// The text of former versions, on which dashboards and alerts rely.
    const FORMER: &str = r#"# HELP flinkha_gateway_leader 1 when the JobManager of this pod leads.
# TYPE flinkha_gateway_leader gauge
flinkha_gateway_leader 1
# HELP flinkha_gateway_term Term of the Lease as last seen.
# TYPE flinkha_gateway_term gauge
flinkha_gateway_term 7
# HELP flinkha_gateway_ready 1 when the JobManager of this pod could take over.
# TYPE flinkha_gateway_ready gauge
flinkha_gateway_ready 0
# HELP flinkha_gateway_ha_config_map_bytes Keys and values of a ConfigMap with HA data; 1048576 is the limit.
# TYPE flinkha_gateway_ha_config_map_bytes gauge
flinkha_gateway_ha_config_map_bytes{configmap="demo-cluster-config-map"} 512
"#;

    const SWEPT: &str = r#"# HELP flinkha_gateway_orphan_files Files in the storage directory that nothing needs, at the last sweep.
# TYPE flinkha_gateway_orphan_files gauge
flinkha_gateway_orphan_files 1
# HELP flinkha_gateway_orphan_bytes Their size.
# TYPE flinkha_gateway_orphan_bytes gauge
flinkha_gateway_orphan_bytes 2
# HELP flinkha_gateway_orphans_removed Files removed by the last sweep.
# TYPE flinkha_gateway_orphans_removed gauge
flinkha_gateway_orphans_removed 3
# HELP flinkha_gateway_protected_files Files that nothing names, but which a pointer that cannot be read might name.
# TYPE flinkha_gateway_protected_files gauge
flinkha_gateway_protected_files 4
"#;

    fn metrics() -> GatewayMetrics {
        let sizes = vec![Size { name: "demo-cluster-config-map".to_owned(), bytes: 512 }];
        GatewayMetrics { leads: true, term: 7, ready: false, sizes, quorum_session: None, signals: Arc::default() }
    }

    fn text(metrics: GatewayMetrics) -> String {
        let mut text = String::new();
        encode(&mut text, &metrics.registry()).expect("text");
        text
    }

    #[test]
    fn names_labels_types_and_help_are_those_of_former_versions() {
        let (without, with) = (metrics(), metrics());
        with.signals.note_sweep(OrphanCounts { files: 1, bytes: 2, removed: 3, protected: 4, foreign: 5 });
        for (metrics, former) in [(without, FORMER.to_owned()), (with, format!("{FORMER}{SWEPT}"))] {
            let now = text(metrics);
            let now: BTreeSet<&str> = now.lines().collect();
            let missing: Vec<&str> = former.lines().filter(|line| !now.contains(line)).collect();
            assert!(missing.is_empty(), "{missing:#?}");
        }
    }

    #[test]
    fn what_is_counted_is_shown_and_a_standby_says_nothing_of_what_only_a_leader_knows() {
        let leading = metrics();
        let counters = &leading.signals.counters;
        let why = "LeaderSilent".to_owned();
        counters.leads(&Change { why, leaderless_millis: 300, ..Change::default() });
        counters.lease_written(Duration::from_millis(6), Timestamp::from_second(5).ok());
        counters.fenced_writes.inc("update");
        counters.upstream_requests.inc_code(Some(200));
        counters.collections.inc("error");
        counters.jvm_ended(Incarnation { pid: 1, started: 2 }, "it no longer asks for the lock");
        counters.note_promises((2, 1));
        counters.note_storage(false);
        counters.note_checkpoint(JobId::from_number(1), 7, Instant::now());
        let standby = GatewayMetrics { leads: false, ..leading.clone() };
        let of_quorum = GatewayMetrics { quorum_session: Some(true), ..leading.clone() };
        let (leading, standby, of_quorum) = (text(leading), text(standby), text(of_quorum));
        for line in [
            "leader_changes_total{reason=\"LeaderSilent\"} 1",
            "leader_changes_total{reason=\"Switchover\"} 0",
            "leaderless_seconds_sum 0.3",
            "leaderless_seconds_bucket{le=\"0.4\"} 1",
            "lease_renew_seconds_count 1",
            "lease_last_renewed_timestamp_seconds 5.0",
            "fenced_writes_total{verb=\"update\"} 1",
            "upstream_requests_total{code=\"200\"} 1",
            "gc_total{result=\"error\"} 1",
            "jvm_restarts_total{reason=\"Silent\"} 1",
        ] {
            let line = format!("flinkha_gateway_{line}\n");
            assert!(leading.contains(&line) && standby.contains(&line), "{line} of {leading}");
        }
        for line in [
            "promises{state=\"held\"} 2",
            "promises{state=\"missing\"} 1",
            "storage_up 0",
            "ha_data_bytes 512",
            "checkpoint_age_seconds{job=\"00000000000000000000000000000001\"}",
            "ha_config_map_bytes{configmap=\"demo-cluster-config-map\"} 512",
        ] {
            let line = format!("flinkha_gateway_{line}");
            assert!(leading.contains(&line) && !standby.contains(&line), "{line} of {leading}");
        }
        assert!(of_quorum.contains("flinkha_gateway_quorum_session 1\n") && !leading.contains("quorum_session"));
        assert!(
            !["lease_renew", "ha_data_bytes", "promises"].iter().any(|name| of_quorum.contains(name)),
            "{of_quorum}"
        );
    }

    #[test]
    fn only_the_largest_config_maps_have_a_series() {
        let sizes = (0..3 * MOST_CONFIG_MAPS).map(|bytes| Size { name: format!("job-{bytes}"), bytes });
        let text = text(GatewayMetrics { sizes: sizes.collect(), ..metrics() });
        let series = text.lines().filter(|line| line.starts_with("flinkha_gateway_ha_config_map_bytes{"));
        assert_eq!(series.count(), MOST_CONFIG_MAPS);
        assert!(text.contains("{configmap=\"job-299\"} 299\n") && !text.contains("job-199"));
        assert!(text.contains("flinkha_gateway_ha_data_bytes 44850\n"), "the sum is of all");
    }

    #[test]
    fn what_a_metric_is_stands_before_it() {
        let text = text(metrics());
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("flinkha_gateway_term ")).expect("the term");
        assert!(lines[at - 2].starts_with("# HELP flinkha_gateway_term ") && lines[at - 1].starts_with("# TYPE "));
    }
}
