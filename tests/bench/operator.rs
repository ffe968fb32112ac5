//! What many clusters cost the operator and the API server: to create them, at rest, and when the operator restarts.
//!
//! Usage: `make bench-operator`; CLUSTERS (1000) resources, on an etcd and a kube-apiserver of its own. There are no
//! controllers and no kubelets, so the clusters are suspended applications: all objects are there, and nothing is
//! waited for that never comes. Requests are counted in the API server's audit log; PROGRAM is the operator to measure
//! (by default as this test is built). STEADY_SECONDS (60) is how long requests at rest are counted. Writes
//! `target/bench/operator.json`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::audit::Summary;
use crate::support::operator::{CHART, Installation, NAMESPACE, PROGRAM, cluster};
use crate::support::report::{self, number};
use crate::support::{eventually, measured, say, seconds};
use flinkha::api::FlinkHaCluster;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

/// No request for so long: the operator has nothing left to do.
const QUIET: Duration = seconds(5);

pub async fn run() {
    let count: usize = number("CLUSTERS", 1000);
    let steady = seconds(number("STEADY_SECONDS", 60));
    let program = std::env::var("PROGRAM").ok().filter(|path| !path.is_empty());
    let program = program.unwrap_or_else(|| PROGRAM.to_owned());
    let mut installation = Installation::start_version(Path::new(&program), Path::new(CHART), &[]).await;
    let resources: Api<FlinkHaCluster> = Api::namespaced(installation.admin.clone(), NAMESPACE);

    let begin = Instant::now();
    let create = |index: usize| {
        let job = json!({ "jarURI": "local:///app.jar", "state": "suspended" });
        let mut resource = cluster(json!({ "jobManager": { "replicas": 2 }, "job": job }));
        resource["metadata"]["name"] = name(index).into();
        let (resources, resource) = (resources.clone(), serde_json::from_value(resource).expect("a resource"));
        async move { resources.create(&PostParams::default(), &resource).await.map(drop) }
    };
    let created: Vec<_> = stream::iter(0..count).map(create).buffer_unordered(16).collect().await;
    created.into_iter().for_each(|result| result.expect("failed to create a resource"));
    all_acted_on(&resources, count).await;
    let created_s = begin.elapsed().as_secs_f64();
    installation.quiet(QUIET, seconds(1800)).await;
    let requests_each = installation.operator_requests().len() as f64 / count as f64;
    say(format!("{count} clusters after {created_s:.1} s, with {requests_each:.1} requests each"));

    let before = installation.operator_requests().len();
    tokio::time::sleep(steady).await;
    let steady_per_min = (installation.operator_requests().len() - before) as f64 * 60.0 / steady.as_secs_f64();
    let (rss_mib, peak_mib) =
        (installation.operator.memory("VmRSS") / 1024, installation.operator.memory("VmHWM") / 1024);

    // One of them is changed while there is no operator.
    installation.operator.terminate();
    installation.operator.wait(seconds(30)).await.expect("an operator that ends when it is told to");
    installation.quiet(QUIET, seconds(1800)).await;
    let before = installation.operator_requests().len();
    let changed = name(count / 2);
    let patch = json!({ "spec": { "taskManager": { "replicas": 2 } } });
    let patched = resources.patch(&changed, &PatchParams::default(), &Patch::Merge(patch)).await;
    let generation = patched.expect("failed to change a resource").metadata.generation;
    let log = installation.operator.log().len();
    installation.operator.restart();
    let begin = Instant::now();
    let is_done = async || {
        let resource = resources.get(&changed).await.ok()?;
        (resource.status?.observed_generation == generation).then_some(())
    };
    measured("the changed resource to be reconciled", seconds(300), is_done).await;
    let restart_s = begin.elapsed().as_secs_f64();
    all_looked_at(&installation, count).await;
    let all_looked_at_s = begin.elapsed().as_secs_f64();
    installation.quiet(QUIET, seconds(1800)).await;
    let after = installation.operator_requests().split_off(before);
    let of_changed = |request: &&Summary| request.name.starts_with(&changed);
    let restart_requests = after.iter().filter(|request| !of_changed(request)).count();
    // The last request for the changed resource is that for its status.
    let status = after.iter().rfind(|request| request.name == changed).expect("a status of the changed resource");
    let log = installation.operator.log().split_off(log);
    let changed_first_s = between(&log, "elected", &status.received);
    let after_caches_s = between(&log, "begins to reconcile", &status.received);
    for request in after.iter().filter(|request| !of_changed(request)).take(20) {
        println!("after the restart: {} {} {}", request.verb, request.resource, request.name);
    }
    let report = json!({
        "clusters": count,
        "created_s": rounded(created_s),
        "requests_each": rounded(requests_each),
        "steady_requests_per_min": rounded(steady_per_min),
        "rss_mib": rss_mib,
        "peak_rss_mib": peak_mib,
        "restart_requests": restart_requests,
        "restart_requests_of_the_changed": after.len() - restart_requests,
        "restart_changed_first_s": rounded(changed_first_s),
        "restart_changed_first_after_caches_s": rounded(after_caches_s),
        "restart_changed_since_process_start_s": rounded(restart_s),
        "restart_all_looked_at_s": rounded(all_looked_at_s),
        "restart_rss_mib": installation.operator.memory("VmRSS") / 1024,
        "restart_peak_rss_mib": installation.operator.memory("VmHWM") / 1024,
    });
    println!("{report:#}");
    report::write("operator", &report);
}

fn name(index: usize) -> String {
    format!("c{index:05}")
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

async fn all_acted_on(resources: &Api<FlinkHaCluster>, count: usize) {
    eventually("all resources to be acted on", seconds(3600), async || {
        tokio::time::sleep(seconds(1)).await;
        let all = resources.list(&ListParams::default()).await.ok()?;
        let acted_on = all.iter().filter(|one| one.status.as_ref().is_some_and(|status| !status.conditions.is_empty()));
        (acted_on.count() == count).then_some(())
    })
    .await;
}

/// Waits until the operator's own count of reconciliations says that it has looked at all resources.
async fn all_looked_at(installation: &Installation, count: usize) {
    let url = format!("{}/metrics", installation.probe_url);
    eventually("all resources to be looked at", seconds(600), async || {
        let metrics = reqwest::get(&url).await.ok()?.text().await.ok()?;
        let line = metrics.lines().find(|line| line.starts_with("flinkha_reconciles_total{result=\"success\"}"))?;
        (line.rsplit(' ').next()?.parse::<usize>().ok()? >= count).then_some(())
    })
    .await;
}

/// Seconds from the line of the log with this text to the time.
fn between(log: &str, text: &str, time: &str) -> f64 {
    let line = log.lines().find(|line| line.contains(text) && !line.contains("waiting")).unwrap_or_default();
    let said: Timestamp = line.split_whitespace().next().unwrap_or_default().parse().expect("a time in the log");
    let time: Timestamp = time.parse().expect("a time in the audit log");
    time.duration_since(said).as_secs_f64()
}
