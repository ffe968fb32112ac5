//! Defines the gateway's metrics, which are computed at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::ledger::jobs::{OrphanCounts, Size};

/// Values of the metrics.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    pub leads: bool,
    pub term: u64,
    /// This pod's JobManager could take over.
    pub ready: bool,
    /// HA ConfigMaps that were written in this term.
    pub sizes: Vec<Size>,
    /// Result of this gateway's last sweep.
    pub swept: Option<OrphanCounts>,
}

impl GatewayMetrics {
    pub fn registry(self) -> Registry {
        let mut registry = Registry::with_prefix("flinkha_gateway");
        registry.register_collector(Box::new(self));
        registry
    }
}

impl Collector for GatewayMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> std::fmt::Result {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)
        };
        gauge("leader", "1 when the JobManager of this pod leads.", u64::from(self.leads))?;
        gauge("term", "Term of the Lease as last seen.", self.term)?;
        gauge("ready", "1 when the JobManager of this pod could take over.", u64::from(self.ready))?;
        if let Some(OrphanCounts { files, bytes, removed, protected, .. }) = &self.swept {
            let files_help = "Files in the storage directory that nothing needs, at the last sweep.";
            let protected_help = "Files that nothing names, but which a pointer that cannot be read might name.";
            gauge("orphan_files", files_help, *files)?;
            gauge("orphan_bytes", "Their size.", *bytes)?;
            gauge("orphans_removed", "Files removed by the last sweep.", *removed)?;
            gauge("protected_files", protected_help, *protected)?;
        }
        let help = "Keys and values of a ConfigMap with HA data; 1048576 is the limit.";
        let mut sizes = encoder.encode_descriptor("ha_config_map_bytes", help, None, MetricType::Gauge)?;
        for size in &self.sizes {
            let labels = [("configmap", size.name.as_str())];
            let gauge = ConstGauge::new(u64::try_from(size.bytes).unwrap_or(u64::MAX));
            gauge.encode(sizes.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;

    use super::*;

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

    fn text(swept: Option<OrphanCounts>) -> String {
        let sizes = vec![Size { name: "demo-cluster-config-map".to_owned(), bytes: 512 }];
        let mut text = String::new();
        encode(&mut text, &GatewayMetrics { leads: true, term: 7, ready: false, sizes, swept }.registry())
            .expect("text");
        text
    }

    #[test]
    fn names_labels_types_and_help_are_those_of_former_versions() {
        let swept = OrphanCounts { files: 1, bytes: 2, removed: 3, protected: 4, foreign: 5 };
        for (swept, former) in [(None, FORMER.to_owned()), (Some(swept), format!("{FORMER}{SWEPT}"))] {
            let (now, former) = (text(swept), format!("{former}# EOF\n"));
            assert_eq!(now.lines().collect::<BTreeSet<_>>(), former.lines().collect::<BTreeSet<_>>());
            assert_eq!(now.lines().count(), former.lines().count());
        }
    }

    #[test]
    fn what_a_metric_is_stands_before_it() {
        let text = text(None);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("flinkha_gateway_term ")).expect("the term");
        assert!(lines[at - 2].starts_with("# HELP flinkha_gateway_term ") && lines[at - 1].starts_with("# TYPE "));
    }
}
