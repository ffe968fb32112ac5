//! `docs/metrics.md` lists every metric that operator and gateways show: made from their own text, so that nothing is
//! missing. `make generate` writes it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flinkha::api::FlinkHaCluster;
use flinkha::flink::job_id::JobId;
use flinkha::gateway::metrics::GatewayMetrics;
use flinkha::gateway::signals::Signals;
use flinkha::ledger::jobs::{OrphanCounts, Size};
use flinkha::operator::activity::Activity;
use flinkha::operator::ignored::IgnoredObjects;
use flinkha::operator::metrics::{Clusters, Metrics};
use kube::Resource;
use kube_runtime::reflector;
use kube_runtime::watcher::Event;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::generated::hold;

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text
}

/// The operator's metrics with everything that can be shown.
fn of_operator() -> String {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    for result in ["success", "error", "outdated"] {
        metrics.reconciled(result, Duration::from_millis(1));
    }
    let ignored = IgnoredObjects::register(&mut registry);
    let (told, _tells) = futures::channel::mpsc::unbounded();
    let ignored = flinkha::operator::ignored::Ignored::new(ignored, told);
    let clusters = Clusters::default();
    registry.register_collector(Box::new(clusters.clone()));
    let (activity, _readiness) = Activity::new(&mut registry, true);
    activity.works("elected");
    let condition = json!({ "type": "Ready", "status": "True", "reason": "Ready", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let resource: FlinkHaCluster = serde_json::from_value(json!({
        "apiVersion": "flinkha.dev/v1alpha1",
        "kind": "FlinkHaCluster",
        "metadata": { "name": "demo", "namespace": "flink", "annotations": { "flinkha.dev/reconcile": "disabled" } },
        "spec": { "image": "flink:2.3.0", "flinkVersion": "2.3.0", "highAvailability": { "storageDir": "file:///ha" } },
        "status": { "conditions": [condition], "gatewayImage": "flinkha:1" },
    }))
    .unwrap();
    ignored.foreign("ConfigMap", resource.meta());
    let (cache, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Apply(resource));
    let _shown = clusters.show(cache);
    text(&registry)
}

/// The gateway's metrics with everything that can be shown, with a Lease or with a quorum.
fn of_gateway(quorum_session: Option<bool>) -> String {
    let signals = Arc::new(Signals::default());
    signals.note_sweep(OrphanCounts::default());
    signals.counters.note_storage(true);
    signals.counters.note_checkpoint(JobId::from_number(1), 1, Instant::now());
    let sizes = vec![Size { name: "demo-cluster-config-map".to_owned(), bytes: 1 }];
    text(&GatewayMetrics { leads: true, term: 1, ready: true, sizes, quorum_session, signals }.registry())
}

/// One row of the table for each metric of this text.
fn rows(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else { continue };
        let kind = lines[index + 1].rsplit(' ').next().unwrap();
        let sample = lines[index + 2];
        let name = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        assert!(sample.starts_with(&name), "{name} has no sample: {sample}");
        let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
        let labels = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label);
        let labels: Vec<String> = labels.filter(|label| *label != "le").map(|label| format!("`{label}`")).collect();
        // The library ends each description with a full stop, also one that has one.
        let help = help.trim_end_matches('.');
        rows.push(format!("| `{name}` | {kind} | {} | {help} |", labels.join(", ")));
    }
    rows
}

/// Names in the first column.
fn names(rows: &[String]) -> BTreeSet<String> {
    rows.iter().map(|row| row.split('`').nth(1).unwrap().to_owned()).collect()
}

/// Every name of a metric, and of the series of histograms.
pub fn known() -> BTreeSet<String> {
    let texts = [of_operator(), of_gateway(None), of_gateway(Some(true))];
    let mut known = BTreeSet::new();
    for row in texts.iter().flat_map(|text| rows(text)) {
        let name = row.split('`').nth(1).unwrap().to_owned();
        if row.contains("| histogram |") {
            known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        }
        known.insert(name);
    }
    known
}

#[test]
fn the_table_of_metrics_is_current() {
    let (lease, quorum) = (rows(&of_gateway(None)), rows(&of_gateway(Some(true))));
    let mut gateway = lease.clone();
    gateway.extend(quorum.iter().filter(|row| !lease.contains(row)).cloned());
    let table = |rows: Vec<String>| {
        let mut rows = rows;
        rows.sort();
        format!("| metric | type | labels | value |\n|---|---|---|---|\n{}\n", rows.join("\n"))
    };
    let (operator, gateway) = (table(rows(&of_operator())), table(gateway));
    hold("docs/metrics.md", &format!("## Operator\n{operator}\n## Gateways\n{gateway}"));
}

#[test]
fn every_metric_begins_with_the_name_of_the_product_and_ends_with_its_unit() {
    let operator = names(&rows(&of_operator()));
    let gateway = names(&rows(&of_gateway(None)));
    assert!(operator.len() > 10 && gateway.len() > 15, "{operator:?} {gateway:?}");
    assert!(operator.iter().all(|name| name.starts_with("flinkha_") && !name.starts_with("flinkha_gateway")));
    assert!(gateway.iter().all(|name| name.starts_with("flinkha_gateway_")));
    let of_time = |name: &&String| ["_age", "duration", "leaderless", "renew"].iter().any(|word| name.contains(word));
    assert!(operator.iter().chain(&gateway).filter(of_time).all(|name| name.contains("_seconds")));
}

fn file(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn rules() -> Vec<serde_json::Value> {
    let rules: serde_json::Value = serde_yaml::from_str(&file("charts/flinkha/files/alerts.yaml")).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

/// Every word of a query that begins with the name of the product.
fn unknown(query: &str) -> Vec<String> {
    let known = known();
    let words =
        query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("flinkha_"));
    words.filter(|word| !known.contains(*word)).map(str::to_owned).collect()
}

#[test]
fn alerts_ask_for_metrics_that_exist_and_each_has_its_paragraph() {
    let (rules, text) = (rules(), file("docs/operations.md"));
    assert!(rules.len() >= 11, "{} alerts", rules.len());
    for rule in &rules {
        let name = rule["alert"].as_str().unwrap();
        let unknown = unknown(rule["expr"].as_str().unwrap());
        assert!(unknown.is_empty(), "{name} asks for {unknown:?}");
        for part in ["summary", "description"] {
            assert!(rule["annotations"][part].as_str().is_some_and(|text| text.ends_with('.')), "{name} has no {part}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        let after = rule["for"].as_str().map(|after| format!(", {} min", after.trim_end_matches('m')));
        let after = after.unwrap_or_default();
        let paragraph = format!("\n- `{name}` ({severity}{after}): ");
        assert!(text.contains(&paragraph), "docs/operations.md has no paragraph that begins with{paragraph}");
    }
    let told = text.lines().filter_map(|line| line.strip_prefix("- `FlinkHa")?.split_once('`')).count();
    assert_eq!(told, rules.len(), "docs/operations.md explains alerts that do not exist");
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(&file("charts/flinkha/files/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 20, "{queries:?}");
    for query in queries {
        assert!(unknown(query).is_empty(), "{query}");
    }
}
