//! A Prometheus on this machine that does what the chart tells the Prometheus operator: it finds pods by the chart's
//! PodMonitors, and evaluates its rules. It sees pods also in an outage of the API server, as one in the cluster does:
//! it reaches them through the container engine.
//!
//! Debian's program has no discovery of Kubernetes compiled in, so this module lists the pods and writes down what that
//! would find, with the same labels (`__meta_kubernetes_…`), and in place of a pod's address that of the way to it. All
//! relabelling is done by Prometheus.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::machine::{client, run};
use super::node;
use super::operator::NAMESPACE;
use super::relay::{PodPort, Relay};
use crate::support::eventually;
use crate::support::process::{Process, Program};
use crate::support::script;
use crate::support::seconds;

/// All times of the rules are divided by this, so that half an hour of waiting is a minute and a half. Thresholds stay.
const FACTOR: f64 = 20.0;
const INTERVAL: Duration = seconds(2);

pub struct Prometheus {
    _process: Process,
    discovery: JoinHandle<()>,
    _directory: TempDir,
    url: String,
    client: reqwest::Client,
}

impl Prometheus {
    /// Starts one that looks after a namespace, and after the operator.
    pub async fn start(namespace: &str) -> Self {
        let chart = chart();
        let object = |kind: &'static str| chart.iter().filter(move |object| object["kind"] == kind);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let namespaces = [namespace, NAMESPACE].map(str::to_owned);
        let discovery = tokio::spawn(discover(client().await, namespaces, path("targets.json")));
        let jobs: Vec<Value> =
            object("PodMonitor").flat_map(|monitor| scrapes(monitor, &path("targets.json"))).collect();
        assert_eq!(jobs.len(), 3, "the operator's port, and two names of the gateways'");
        let rules = shortened(&object("PrometheusRule").next().expect("the rules")["spec"]);
        let interval = format!("{}s", INTERVAL.as_secs());
        let configuration = json!({
            "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
            "rule_files": [path("rules.yaml")],
            "scrape_configs": jobs,
        });
        std::fs::write(path("rules.yaml"), rules.to_string()).expect("a file");
        std::fs::write(path("prometheus.yaml"), configuration.to_string()).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let arguments = [
            format!("--config.file={}", path("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", path("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ];
        let program = Program {
            path: Path::new(&script("rig/prometheus", &[])).join("prometheus"),
            arguments: arguments.map(Into::into).into(),
            environment: Vec::new(),
            log: path("log"),
        };
        let process = Process::start(program);
        let (url, client) = (format!("http://127.0.0.1:{port}"), reqwest::Client::new());
        let ready = async || {
            let answer = client.get(format!("{url}/-/ready")).send().await.ok()?;
            answer.status().is_success().then_some(())
        };
        tokio::time::timeout(seconds(30), eventually("Prometheus", seconds(60), ready))
            .await
            .unwrap_or_else(|_| panic!("Prometheus does not start: {}", process.log()));
        Self { _process: process, discovery, _directory: directory, url, client }
    }

    /// Evaluates a query now; returns the samples. A query that is refused is an error of the test.
    pub async fn query(&self, query: &str) -> Vec<Value> {
        let url = format!("{}/api/v1/query", self.url);
        let answer = self.client.get(url).query(&[("query", query)]).send().await.expect("an answer of Prometheus");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The value of a query with one sample.
    pub async fn value(&self, query: &str) -> Option<f64> {
        let samples = self.query(query).await;
        samples.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Names of the alerts about this cluster that have fired until now, sorted, each once.
    pub async fn fired(&self, namespace: &str, since: Duration) -> Vec<String> {
        let range = since.as_secs().max(1);
        let query = format!(
            "group by (alertname) (last_over_time(ALERTS{{alertstate=\"firing\", namespace=\"{namespace}\"}}[{range}s]))"
        );
        let samples = self.query(&query).await;
        let mut names: Vec<String> =
            samples.iter().map(|one| one["metric"]["alertname"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    }

    /// Names of the alerts about this cluster that fire.
    pub async fn firing(&self, namespace: &str) -> Vec<String> {
        let query = format!("group by (alertname) (ALERTS{{alertstate=\"firing\", namespace=\"{namespace}\"}})");
        let samples = self.query(&query).await;
        samples.iter().map(|one| one["metric"]["alertname"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.discovery.abort();
    }
}

/// Writes again and again which ports of pods there are, as Prometheus reads it from a file. While the API server does
/// not answer, they are those that were found last.
async fn discover(client: kube::Client, namespaces: [String; 2], path: PathBuf) {
    let mut found: [Vec<Pod>; 2] = Default::default();
    let mut relays: HashMap<PodPort, Relay> = HashMap::new();
    loop {
        for (namespace, found) in namespaces.iter().zip(&mut found) {
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            if let Ok(listed) = pods.list(&ListParams::default()).await {
                *found = listed.items;
            }
        }
        let mut targets = Vec::new();
        for (port, mut labels) in found.iter().flatten().flat_map(ports) {
            labels.insert("instance".to_owned(), format!("{}:{}", port.address, port.port).into());
            let relay = match relays.entry(port) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let relay = Relay::start(new.key().clone()).await;
                    new.insert(relay)
                }
            };
            targets.push(json!({ "targets": [relay.address], "labels": labels }));
        }
        // Prometheus never reads half of a file.
        let written = path.with_extension("new");
        std::fs::write(&written, json!(targets).to_string()).expect("a file");
        std::fs::rename(&written, &path).expect("the same directory");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What Prometheus' discovery says of each port of a pod that has an address (its role `pod`).
fn ports(pod: &Pod) -> Vec<(PodPort, Map<String, Value>)> {
    let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else { return Vec::new() };
    let spec = pod.spec.as_ref().expect("a pod's spec");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all = containers.flat_map(|one| one.ports.iter().flatten().map(move |port| (one, port)));
    let target = |(container, port): (&Container, &ContainerPort)| {
        let mut labels: Map<String, Value> = pod
            .labels()
            .iter()
            .map(|(name, value)| (format!("__meta_kubernetes_pod_label_{}", legal(name)), json!(value)))
            .collect();
        for (name, value) in [
            ("namespace", json!(pod.namespace())),
            ("pod_name", json!(pod.name_any())),
            ("pod_ip", json!(address)),
            ("pod_node_name", json!(node::of(pod))),
            ("pod_container_name", json!(container.name)),
            ("pod_container_port_name", json!(port.name.clone().unwrap_or_default())),
            ("pod_container_port_number", json!(port.container_port.to_string())),
        ] {
            labels.insert(format!("__meta_kubernetes_{name}"), value);
        }
        (PodPort { node: node::of(pod), address: address.clone(), port: port.container_port }, labels)
    };
    all.map(target).collect()
}

/// The name of a Kubernetes label as a part of a label of Prometheus.
fn legal(name: &str) -> String {
    name.replace(['.', '/', '-'], "_")
}

/// What the chart renders with everything for monitoring.
pub fn chart() -> Vec<Value> {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/flinkha");
    let values =
        "monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true";
    let text = run("helm", &["template", "flinkha", chart, "--namespace", NAMESPACE, "--set", values], "");
    let text = text.unwrap_or_else(|error| panic!("helm failed: {error}"));
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents.map(|one| <Value as serde::Deserialize>::deserialize(one).expect("YAML")).collect()
}

/// The scrape configurations that the Prometheus operator makes of a PodMonitor.
fn scrapes(monitor: &Value, targets: &Path) -> Vec<Value> {
    let spec = &monitor["spec"];
    let label = |name: &str| format!("__meta_kubernetes_pod_label_{}", legal(name));
    let endpoints = spec["podMetricsEndpoints"].as_array().expect("endpoints");
    let job = |endpoint: &Value| {
        let keep = |source: &str, value: &Value| json!({ "source_labels": [source], "regex": value, "action": "keep" });
        let copy = |source: &str, target: &str| json!({ "source_labels": [source], "target_label": target });
        let selected = spec["selector"]["matchLabels"].as_object().expect("a selector");
        let mut relabel: Vec<Value> = selected.iter().map(|(name, value)| keep(&label(name), value)).collect();
        relabel.push(keep("__meta_kubernetes_pod_container_port_name", &endpoint["port"]));
        for (source, target) in [("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")] {
            relabel.push(copy(&format!("__meta_kubernetes_{source}"), target));
        }
        for name in spec["podTargetLabels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            relabel.push(copy(&label(name), &legal(name)));
        }
        for own in endpoint["relabelings"].as_array().into_iter().flatten() {
            relabel.push(json!({ "source_labels": own["sourceLabels"], "target_label": own["targetLabel"] }));
        }
        let of_metrics = endpoint["metricRelabelings"].as_array().into_iter().flatten().map(|own| {
            let names = [("sourceLabels", "source_labels"), ("targetLabel", "target_label"), ("action", "action")];
            let names = names.into_iter().chain([("regex", "regex")]);
            let given = names.filter(|(name, _)| !own[name].is_null());
            given.map(|(name, named)| (named.to_owned(), own[name].clone())).collect::<Map<String, Value>>()
        });
        let of_metrics: Vec<Map<String, Value>> = of_metrics.collect();
        json!({
            "job_name": format!("{}/{}", monitor["metadata"]["name"].as_str().unwrap(), endpoint["port"].as_str().unwrap()),
            "honor_labels": endpoint["honorLabels"] == true,
            "file_sd_configs": [{ "files": [targets], "refresh_interval": "1s" }],
            "relabel_configs": relabel,
            "metric_relabel_configs": of_metrics,
        })
    };
    endpoints.iter().map(job).collect()
}

/// The rules with shorter times: those for which a cause must last, and the ranges of queries.
fn shortened(rules: &Value) -> Value {
    let seconds = |minutes: &str| format!("{}s", (minutes.parse::<f64>().expect("minutes") * 60.0 / FACTOR).round());
    let mut rules = rules.clone();
    for rule in rules["groups"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array_mut().into_iter().flatten())
    {
        if let Some(minutes) = rule["for"].as_str().map(|time| time.trim_end_matches('m').to_owned()) {
            rule["for"] = seconds(&minutes).into();
        }
        let query = rule["expr"].as_str().expect("a query").to_owned();
        let mut parts = query.split('[');
        let mut shorter = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (range, rest) = part.split_once("m]").expect("a range in minutes");
            shorter += &format!("[{}]{rest}", seconds(range));
        }
        rule["expr"] = shorter.into();
    }
    rules
}
