//! What many clusters cost the operator and the API server: to create them, to elect their leaders, at rest, to look at
//! all of them with the plugin, when the operator restarts, and to delete them.
//!
//! Usage: `make bench-operator`; N (1000) session clusters of three JobManagers in ten namespaces, on an etcd and a
//! kube-apiserver of its own, which cost what they cost on the same cores. There are no kubelets and no controllers, so
//! no pods. Gateways are played: all the time each Lease is renewed every 10 s. So is the garbage collector.
//! Requests are counted in the API server's audit log: all of the operator's but watches. PROGRAM is the program to
//! measure, as operator and as plugin (by default as this test is built). STEADY_SECONDS (60) is how long requests at
//! rest are counted; PROFILE_SECONDS (0) the length of a profile of the API server while clusters are created, beside
//! one of the deletions. Writes `target/bench/operator.json`.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::api_server_cost;
use crate::operator_load::{Gateways, collect_garbage};
use crate::plugin_cost;
use crate::support::audit::{Follow, Summary};
use crate::support::identity::create_all;
use crate::support::operator::{Installation, OPERATOR, PROGRAM, cluster};
use crate::support::process::processor_seconds_of;
use crate::support::report::{self, number};
use crate::support::{eventually, measured, say, seconds};
use flinkha::api::FlinkHaCluster;
use flinkha::api::names::{CLUSTER_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::oneshot;

/// No request for so long: the operator has nothing left to do.
const QUIET: Duration = seconds(5);
/// Longer than an elected JobManager's pod may be missing before a cluster is called degraded.
const DEADLINE_OF_PODS: Duration = seconds(35);
const NAMESPACES: usize = 10;
/// Deletions end after a few seconds.
const PROFILE_OF_DELETION: Duration = seconds(6);
/// Clusters that are deleted at once.
const DELETED: usize = 200;
/// Requests of a user at a time.
const PARALLEL: usize = 16;

/// The operator's requests, as they come.
struct Requests {
    log: Follow,
    all: Vec<Summary>,
}

impl Requests {
    fn more(&mut self) -> &[Summary] {
        let more = self.log.more().into_iter();
        self.all.extend(more.filter(|one| one.user == OPERATOR && one.verb != "watch"));
        &self.all
    }

    /// Waits until there is nothing but the operator's own election for a while. Returns the number of other requests
    /// since `begin`.
    async fn quiet(&mut self, begin: usize) -> usize {
        let (mut last, mut since) = (usize::MAX, Instant::now());
        eventually("an operator without work", seconds(1800), async || {
            tokio::time::sleep(QUIET / 10).await;
            let now = of_clusters(&self.more()[begin..]).count();
            if now != std::mem::replace(&mut last, now) {
                since = Instant::now();
            }
            (since.elapsed() > QUIET).then_some(())
        })
        .await;
        last
    }
}

fn of_clusters(all: &[Summary]) -> impl Iterator<Item = &Summary> {
    all.iter().filter(|one| !(one.resource == "leases" && one.name == "flinkha-operator"))
}

pub async fn run() {
    let count: usize = number("CLUSTERS", 1000);
    let steady = seconds(number("STEADY_SECONDS", 60));
    let profiled: u64 = number("PROFILE_SECONDS", 0);
    let program = std::env::var("PROGRAM").ok().filter(|path| !path.is_empty());
    let program = program.unwrap_or_else(|| PROGRAM.to_owned());
    let mut installation = Installation::start_for_load(Path::new(&program)).await;
    let admin = installation.admin.clone();
    for index in 0..NAMESPACES {
        create_all(
            &admin,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place(index).0}}).to_string(),
        )
        .await;
    }
    let mut requests = Requests { log: installation.plane.servers[0].audit().follow(), all: Vec::new() };
    requests.quiet(0).await;
    let gateways = Gateways::new(admin.clone(), place);
    let renewing = tokio::spawn(gateways.clone().renew());

    // Creation.
    let begin = (requests.all.len(), processor_seconds(&installation), api_server_cost::requests(&admin).await);
    let started = Instant::now();
    let profile = (profiled > 0).then(|| {
        let admin = admin.clone();
        tokio::spawn(async move {
            tokio::time::sleep(seconds(3)).await;
            api_server_cost::profile(admin, seconds(profiled), "creation").await;
        })
    });
    let creating = tokio::spawn(create(admin.clone(), count));
    let (mut looked_at, mut created) = (begin.0, HashSet::new());
    measured("all clusters to have a status", seconds(3600), async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let all = requests.more();
        for one in all[std::mem::replace(&mut looked_at, all.len())..].iter().filter(|one| is_status(one)) {
            if created.insert(one.name.clone()) {
                gateways.add(index(&one.name));
            }
        }
        (created.len() == count).then_some(())
    })
    .await;
    let created_s = started.elapsed().as_secs_f64();
    creating.await.expect("clusters");
    let used = processor_seconds(&installation);
    let requests_each = requests.quiet(begin.0).await as f64 / count as f64;
    let cpu_s = installation.operator.processor_seconds() - begin.1[0];
    let of_others = [1, 2, 3].map(|process| rounded(used[process] - begin.1[process]));
    say(format!("{count} clusters after {created_s:.1} s, with {requests_each:.2} requests each"));
    println!(
        "processor time until then: operator {cpu_s:.1} s, API server {} s, etcd {} s, this bench {} s",
        of_others[0], of_others[1], of_others[2]
    );
    api_server_cost::print_difference(&begin.2, &api_server_cost::requests(&admin).await);
    print_by_kind(&requests.all[begin.0..], count);
    if let Some(profile) = profile {
        profile.await.expect("a profile");
    }
    let objects_each = objects(&admin).await as f64 / count as f64;

    // The first leaders.
    let begin = requests.all.len();
    stream::iter(0..count).for_each_concurrent(PARALLEL, |index| gateways.elect(index)).await;
    let elected_requests_each = requests.quiet(begin).await as f64 / count as f64;
    say(format!("{elected_requests_each:.2} requests each for their first leaders"));

    // There are no pods: that is said once of each cluster, when their deadline passes.
    tokio::time::sleep(DEADLINE_OF_PODS).await;
    requests.quiet(begin).await;

    // At rest.
    let begin = (requests.more().len(), installation.operator.processor_seconds(), gateways.renewals());
    tokio::time::sleep(steady).await;
    let per_minute = 60.0 / steady.as_secs_f64();
    let steady_per_min = (requests.more().len() - begin.0) as f64 * per_minute;
    let steady_cpu_s = (installation.operator.processor_seconds() - begin.1) * per_minute;
    let renewals_per_min = (gateways.renewals() - begin.2) as f64 * per_minute;
    for request in of_clusters(&requests.all[begin.0..]).take(20) {
        println!("at rest: {} {} {} {}", request.verb, request.resource, request.subresource, request.name);
    }
    let memory = |field: &str, installation: &Installation| installation.operator.memory(field) / 1024;
    let (rss_mib, peak_mib) = (memory("VmRSS", &installation), memory("VmHWM", &installation));
    say(format!("{steady_per_min:.0} requests a minute at rest, {renewals_per_min:.0} renewals"));

    let plugin = plugin_cost::measure(&installation, Path::new(&program), count).await;

    let restart = restart(&mut installation, &mut requests, count).await;
    let (restart_rss_mib, restart_peak_mib) = (memory("VmRSS", &installation), memory("VmHWM", &installation));
    let profiled = (profiled > 0).then_some(PROFILE_OF_DELETION);
    let (deleted_s, deleted_requests_each) = delete(&installation, &mut requests, &gateways, (count, profiled)).await;
    let failures = gateways.failures.load(std::sync::atomic::Ordering::Relaxed);
    renewing.abort();
    let mut report = json!({
        "clusters": count,
        "created_s": rounded(created_s),
        "requests_each": rounded(requests_each),
        "objects_each": rounded(objects_each),
        "rss_mib": rss_mib,
        "cpu_s": rounded(cpu_s),
        "steady_requests_per_min": rounded(steady_per_min),
        "deleted_200_s": rounded(deleted_s),
        "peak_rss_mib": peak_mib,
        "created_api_server_cpu_s": of_others[0],
        "created_etcd_cpu_s": of_others[1],
        "elected_requests_each": rounded(elected_requests_each),
        "steady_cpu_s_per_min": rounded(steady_cpu_s),
        "renewals_per_min": rounded(renewals_per_min),
        "renewals_failed": failures,
        "restart_rss_mib": restart_rss_mib,
        "restart_peak_rss_mib": restart_peak_mib,
        "deleted": count.min(DELETED),
        "deleted_requests_each": rounded(deleted_requests_each),
    });
    for part in [plugin, restart] {
        report
            .as_object_mut()
            .into_iter()
            .for_each(|report| report.extend(part.as_object().cloned().unwrap_or_default()));
    }
    println!("{report:#}");
    report::write("operator", &report);
}

/// Creates all resources as a user does.
async fn create(admin: kube::Client, count: usize) {
    let create = |index: usize| {
        let (namespace, name) = place(index);
        let mut resource = cluster(json!({ "jobManager": { "replicas": 3 } }));
        (resource["metadata"]["name"], resource["metadata"]["namespace"]) = (name.into(), namespace.as_str().into());
        let resources: Api<FlinkHaCluster> = Api::namespaced(admin.clone(), &namespace);
        let resource = serde_json::from_value(resource).expect("a resource");
        async move { resources.create(&PostParams::default(), &resource).await.map(drop) }
    };
    let created: Vec<_> = stream::iter(0..count).map(create).buffer_unordered(PARALLEL).collect().await;
    created.into_iter().for_each(|result| result.expect("failed to create a resource"));
}

/// The number of objects that belong to clusters.
async fn objects(admin: &kube::Client) -> usize {
    let discovery = Discovery::new(admin.clone()).run().await.expect("the API server's kinds");
    let labelled = ListParams::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY},{CLUSTER_LABEL}"));
    let mut count = 0;
    for (kind, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        if capabilities.scope == Scope::Namespaced && capabilities.supports_operation(verbs::LIST) {
            let all: Api<DynamicObject> = Api::all_with(admin.clone(), &kind);
            let found = all.list_metadata(&labelled).await.expect("a list").items.len();
            if found > 0 {
                say(format!("{found} objects of kind {}", kind.kind));
            }
            count += found;
        }
    }
    count
}

/// One of them is changed while there is no operator.
async fn restart(installation: &mut Installation, requests: &mut Requests, count: usize) -> serde_json::Value {
    installation.operator.terminate();
    installation.operator.wait(seconds(30)).await.expect("an operator that ends when it is told to");
    requests.quiet(0).await;
    let begin = requests.all.len();
    let (namespace, changed) = place(count / 2);
    let resources: Api<FlinkHaCluster> = Api::namespaced(installation.admin.clone(), &namespace);
    let patch = json!({ "spec": { "taskManager": { "replicas": 2 } } });
    let patched = resources.patch(&changed, &PatchParams::default(), &Patch::Merge(patch)).await;
    let generation = patched.expect("failed to change a resource").metadata.generation;
    let log = installation.operator.log().len();
    installation.operator.restart();
    let started = Instant::now();
    let is_done = async || {
        let resource = resources.get(&changed).await.ok()?;
        (resource.status?.observed_generation == generation).then_some(())
    };
    measured("the changed resource to be reconciled", seconds(300), is_done).await;
    let changed_s = started.elapsed().as_secs_f64();
    all_looked_at(installation, count).await;
    let all_looked_at_s = started.elapsed().as_secs_f64();
    requests.quiet(begin).await;
    let after: Vec<&Summary> = of_clusters(&requests.all[begin..]).filter(|one| one.verb != "list").collect();
    let of_changed = after.iter().filter(|one| one.name.starts_with(&changed)).count();
    for request in after.iter().filter(|one| !one.name.starts_with(&changed)).take(20) {
        println!("after the restart: {} {} {} {}", request.verb, request.resource, request.subresource, request.name);
    }
    let status = after.iter().rfind(|one| one.name == changed && one.subresource == "status");
    let status = status.expect("a status of the changed resource");
    let log = installation.operator.log().split_off(log);
    json!({
        "restart_requests": after.len(),
        "restart_requests_of_the_changed": of_changed,
        "restart_changed_first_s": rounded(between(&log, "elected", &status.received)),
        "restart_changed_first_after_caches_s": rounded(between(&log, "begins to reconcile", &status.received)),
        "restart_changed_since_process_start_s": rounded(changed_s),
        "restart_all_looked_at_s": rounded(all_looked_at_s),
    })
}

/// Deletes many clusters at once. Returns the seconds until they are gone, and the requests for each.
async fn delete(
    installation: &Installation,
    requests: &mut Requests,
    gateways: &Gateways,
    (count, profiled): (usize, Option<Duration>),
) -> (f64, f64) {
    let (ready, is_ready) = oneshot::channel();
    let collecting = tokio::spawn(collect_garbage(gateways.clone(), index, ready));
    is_ready.await.expect("a garbage collector");
    requests.quiet(0).await;
    let (begin, count) = (requests.all.len(), count.min(DELETED));
    let before = api_server_cost::requests(&installation.admin).await;
    let profile = profiled.map(|length| {
        let admin = installation.admin.clone();
        tokio::spawn(async move { api_server_cost::profile(admin, length, "deletion").await })
    });
    let (started, used) = (Instant::now(), processor_seconds(installation));
    let resources = |index: usize| {
        let (namespace, name) = place(index);
        (Api::<FlinkHaCluster>::namespaced(installation.admin.clone(), &namespace), name)
    };
    let delete = async |index: usize| {
        let (resources, name) = resources(index);
        resources.delete(&name, &DeleteParams::default()).await.expect("failed to delete a resource");
    };
    stream::iter(0..count).for_each_concurrent(PARALLEL, delete).await;
    measured("all of them to be let go", seconds(600), async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let let_go = requests.more()[begin..].iter().filter(|one| is_release(one)).count();
        (let_go >= count).then_some(())
    })
    .await;
    let deleted_s = started.elapsed().as_secs_f64();
    let now = processor_seconds(installation);
    let all = Api::<FlinkHaCluster>::all(installation.admin.clone()).list_metadata(&ListParams::default()).await;
    let left = all.expect("a list").items.into_iter().filter(|one| index(&one.name_any()) < count).count();
    assert_eq!(left, 0, "resources that were let go are there");
    let [operator, api_server, etcd, bench] = std::array::from_fn(|process| rounded(now[process] - used[process]));
    println!(
        "processor time until then: operator {operator} s, API server {api_server} s, etcd {etcd} s, this bench {bench} s"
    );
    let each = requests.quiet(begin).await as f64 / count as f64;
    say(format!("{count} of them deleted after {deleted_s:.1} s, with {each:.2} requests each"));
    api_server_cost::print_difference(&before, &api_server_cost::requests(&installation.admin).await);
    print_by_kind(&requests.all[begin..], count);
    if let Some(profile) = profile {
        profile.await.expect("a profile");
    }
    collecting.abort();
    (deleted_s, each)
}

/// Namespace and name of a cluster.
fn place(index: usize) -> (String, String) {
    (format!("flink-{}", index % NAMESPACES), format!("c{index:05}"))
}

fn index(name: &str) -> usize {
    name.trim_start_matches('c').parse().expect("a name of ours")
}

fn is_status(request: &Summary) -> bool {
    request.resource == "flinkhaclusters" && request.subresource == "status" && request.code == 200
}

/// The finalizer is removed.
fn is_release(request: &Summary) -> bool {
    let Summary { resource, subresource, verb, code, .. } = request;
    resource == "flinkhaclusters" && verb == "patch" && subresource.is_empty() && *code == 200
}

/// Prints the operator's requests for each cluster.
fn print_by_kind(all: &[Summary], count: usize) {
    let mut kinds: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for one in of_clusters(all) {
        let what = format!("{} {} {} {}", one.verb, one.resource, one.subresource, one.code);
        *kinds.entry(what).or_default() += 1;
    }
    for (what, number) in kinds {
        println!("{:>8.2} {what}", number as f64 / count as f64);
    }
}

/// Seconds of processor time of the operator, the API server, etcd and this bench.
fn processor_seconds(installation: &Installation) -> [f64; 4] {
    let plane = &installation.plane;
    let [operator, api_server, etcd] =
        [&installation.operator, &plane.servers[0].process, &plane.etcd].map(|process| process.processor_seconds());
    [operator, api_server, etcd, processor_seconds_of("self")]
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
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
