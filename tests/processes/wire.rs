//! Fencing on the wire: what an older term has sent, and what arrives only when a newer one leads, changes nothing that
//! lives.
//!
//! Two kube-apiservers share an etcd. Servers, gateways and etcd are stopped as processes, so that requests wait in
//! real sockets; judged by the audit logs of the servers and by what etcd holds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::audit::Request;
use crate::support::cluster::{Cluster, LOCK_ANNOTATION, NAME, NAMESPACE, Provider, cluster_config_map, lock_holder};
use crate::support::gateway::{Timings, jvm_url};
use crate::support::identity::token;
use crate::support::rest::Job;
use crate::support::terms::{JVM, held_twice, older_after_newer, requests};
use crate::support::{eventually, say, seconds};
use flinkha::api::names;
use flinkha::lease::record::Record;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube_runtime::{WatchStreamExt, watcher};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Short, so that a leader that stands still is replaced before its own requests are given up (8 s).
const TIMINGS: Timings =
    Timings { lease_duration: "4s", renew_deadline: "3s", retry_period: "500ms", ..Timings::DEFAULT };

const COLLECTION: &str = "/api/v1/namespaces/flink/configmaps";

/// Two JobManagers, each with an API server of its own, and a job.
async fn two_sides() -> (Cluster, String) {
    let cluster = Cluster::start_with(Provider::Kubernetes(TIMINGS), 2, 1, 2).await;
    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    cluster.wait_for_members().await;
    (cluster, job)
}

/// A leader whose API server is going to stand still, and what is needed to write in its name.
struct OldLeader {
    index: usize,
    server: usize,
    job_config_map: String,
    token: String,
    client: reqwest::Client,
    /// Straight to the API server, for forms of writes whose sending by the gateway cannot be timed; one connection
    /// each.
    direct: [kube::Client; 2],
}

impl OldLeader {
    async fn of(cluster: &mut Cluster, job: &str) -> Self {
        let index = cluster.leader().await.unwrap();
        let one = &cluster.job_managers[index];
        let server = one.server;
        let token = token(&cluster.client, NAMESPACE, "demo-jobmanager", Some((&one.pod, &one.uid))).await;
        let direct =
            [cluster.plane.servers[server].client(&token).await, cluster.plane.servers[server].client(&token).await];
        let job_config_map = names::job_config_map(&names::kubernetes_cluster_id(NAME), job);
        // The connections are there when the server stops.
        for client in &direct {
            Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get(&job_config_map).await.unwrap();
        }
        cluster.client = cluster.plane.admin(1 - server).await;
        let client = reqwest::Client::builder().no_proxy().timeout(seconds(60)).build().unwrap();
        Self { index, server, job_config_map, token, client, direct }
    }

    fn url(&self, cluster: &Cluster, path: &str) -> String {
        format!("{}{COLLECTION}{path}", jvm_url(cluster.job_managers[self.index].address))
    }

    /// Through its gateway; the status comes when it comes.
    fn send(&self, cluster: &Cluster, method: reqwest::Method, path: &str, body: &Value) -> JoinHandle<Option<u16>> {
        let request = self.client.request(method, self.url(cluster, path)).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").body(body.to_string());
        tokio::spawn(async move { request.send().await.ok().map(|answer| answer.status().as_u16()) })
    }
}

fn send_directly(
    client: &kube::Client,
    method: &str,
    name: &str,
    content_type: &str,
    body: &Value,
) -> JoinHandle<Option<u16>> {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{COLLECTION}/{name}"))
        .header("content-type", content_type);
    let (client, request) = (client.clone(), request.body(body.to_string().into_bytes()).unwrap());
    tokio::spawn(async move {
        match client.request::<Value>(request).await {
            Ok(_) => Some(200),
            Err(kube::Error::Api(status)) => Some(status.code),
            Err(_) => None,
        }
    })
}

async fn stored(cluster: &Cluster, name: &str) -> Value {
    serde_json::to_value(cluster.config_map(name).await.expect("an HA ConfigMap")).unwrap()
}

/// An object as it is stored, with something that nobody would overlook.
fn altered(stored: &Value, name: &str, padding: usize) -> Value {
    let mut object = stored.clone();
    (object["apiVersion"], object["kind"]) = (json!("v1"), json!("ConfigMap"));
    object["data"]["late"] = json!(format!("{name}{}", " ".repeat(padding)));
    object
}

/// Another JVM holds Flink's lock.
async fn granted(cluster: &Cluster, before: Option<&str>) {
    eventually("another leader", seconds(30), async || {
        let holder = cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);
        holder.filter(|holder| before != Some(holder.as_str()))
    })
    .await;
}

/// Afterwards the job goes on from its last checkpoint or a later one, and no term is behind another.
async fn goes_on(cluster: &mut Cluster, job: &str, latest: Option<u64>) {
    cluster.mend().await;
    let restored = eventually("the job again, with a new checkpoint", seconds(90), async || {
        let rest = cluster.job_managers[cluster.leader().await?].rest();
        let now = rest.checkpoints(job).await.ok().filter(|now| now.completed > 0)?;
        rest.job(job).await.ok().filter(Job::runs).map(|_| now.restored)
    })
    .await;
    assert!(
        restored.is_none_or(|restored| Some(restored) >= latest),
        "resumed from {restored:?}, but {latest:?} was complete"
    );
    let all = requests(&cluster.plane, NAMESPACE, "configmaps");
    let is_ha = |one: &&Request| {
        one.name == cluster_config_map() || names::job_of_config_map(NAME, &one.name).is_some_and(|id| id == job)
    };
    assert_eq!(
        older_after_newer(&all.iter().filter(is_ha).collect::<Vec<_>>()),
        0,
        "an older term wrote after a newer one"
    );
    assert_eq!(held_twice(&requests(&cluster.plane, NAMESPACE, "leases")), [0; 0], "a term had two holders");
    for name in [cluster_config_map(), names::job_config_map(&names::kubernetes_cluster_id(NAME), job)] {
        let object = stored(cluster, &name).await;
        assert!(object["data"].get("late").is_none(), "a late write is stored: {object}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_held_in_a_stopped_api_server_change_nothing_once_another_leads() {
    let (mut cluster, job) = two_sides().await;
    let latest = cluster.leader_rest().await.checkpoints(&job).await.unwrap().latest;
    let old = OldLeader::of(&mut cluster, &job).await;
    cluster.plane.servers[old.server].process.stop();
    // From here on Flink's own writes hang too, so what is read now is what the late writes compare with.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (one, all) = (stored(&cluster, &old.job_config_map).await, stored(&cluster, &cluster_config_map()).await);
    let holder = cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);

    let new_job = names::job_config_map(&names::kubernetes_cluster_id(NAME), "ffffffffffffffffffffffffffffffff");
    let labels = &one["metadata"]["labels"];
    let creation =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
    let exact = json!({"preconditions": {"uid": one["metadata"]["uid"], "resourceVersion": one["metadata"]["resourceVersion"]}});
    let lock = json!({"metadata": {"resourceVersion": all["metadata"]["resourceVersion"],
        "annotations": {LOCK_ANNOTATION: r#"{"holderIdentity":"late"}"#}}});
    let job_path = format!("/{}", old.job_config_map);
    let held = [
        old.send(&cluster, Method::PUT, &job_path, &altered(&one, "job", 0)),
        old.send(&cluster, Method::PUT, &format!("/{}", cluster_config_map()), &altered(&all, "cluster", 0)),
        old.send(&cluster, Method::POST, "", &creation(&old.job_config_map)),
        old.send(&cluster, Method::POST, "", &creation(&new_job)),
        old.send(&cluster, Method::DELETE, &job_path, &Value::Null),
        // As the gateway sends them when it has read the object before: with what it read.
        send_directly(&old.direct[0], "DELETE", &old.job_config_map, "application/json", &exact),
        send_directly(&old.direct[1], "PATCH", &cluster_config_map(), "application/merge-patch+json", &lock),
    ];
    let collection =
        old.client.delete(old.url(&cluster, "?labelSelector=app%3Ddemo")).bearer_auth(&old.token).send().await.unwrap();
    assert_eq!(collection.status().as_u16(), 403, "a DELETE of many at once does not pass");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(held.iter().all(|one| !one.is_finished()), "a stopped server answers nothing");
    // Its sockets stay open, so that the server has no reason to forget what it was asked.
    cluster.job_managers[old.index].gateway().stop();

    granted(&cluster, holder.as_deref()).await;
    cluster.plane.servers[old.server].process.cont();
    let audit = cluster.plane.servers[old.server].audit();
    let version = one["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let is_late = |one: &&Request| {
        one.user == JVM
            && (one.body["data"]["late"].is_string()
                || one.annotation(LOCK_ANNOTATION).is_some_and(|record| record.contains("late"))
                || one.body["preconditions"]["resourceVersion"] == version.as_str()
                || (one.verb == "create" && (one.name == new_job || one.code == 409)))
    };
    let late = eventually("all late writes in the audit log", seconds(30), async || {
        let all = audit.of(NAMESPACE, "configmaps");
        let late: Vec<(String, String, u16)> =
            all.iter().filter(is_late).map(|one| (one.verb.clone(), one.name.clone(), one.code)).collect();
        let has = |verb: &str, name: &str| late.iter().any(|(a, b, _)| a == verb && b == name);
        let cluster = cluster_config_map();
        let complete = has("update", &old.job_config_map)
            && has("update", &cluster)
            && has("delete", &old.job_config_map)
            && has("patch", &cluster)
            && has("create", &new_job);
        complete.then_some(late)
    })
    .await;
    for (verb, name, code) in late.iter().filter(|(_, name, _)| *name != new_job) {
        say(format!("late {verb} of {name}: {code}"));
        assert_eq!(*code, 409, "a late {verb} of {name}");
    }
    // A registered job has a ConfigMap before another leads; that of a job that nobody registered is empty and of an
    // old term.
    let created = stored(&cluster, &new_job).await;
    assert!(created["data"].is_null(), "{created}");
    goes_on(&mut cluster, &job, latest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_frozen_between_check_and_send_writes_nothing_once_another_leads() {
    let (mut cluster, job) = two_sides().await;
    let mut arrived = 0;
    for _ in 0..3 {
        let latest = cluster.leader_rest().await.checkpoints(&job).await.unwrap().latest;
        let old = OldLeader::of(&mut cluster, &job).await;
        // A server that stands still takes no more than fits into the window of the connection: the gateway has checked
        // the write and stands in the middle of sending it.
        cluster.plane.servers[old.server].process.stop();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let one = stored(&cluster, &old.job_config_map).await;
        let holder = cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);
        let path = format!("/{}", old.job_config_map);
        let held: Vec<_> =
            (0..4).map(|_| old.send(&cluster, Method::PUT, &path, &altered(&one, "half", 700_000))).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(held.iter().all(|one| !one.is_finished()), "not checked, but answered at once");
        cluster.job_managers[old.index].gateway().stop();
        cluster.plane.servers[old.server].process.cont();
        granted(&cluster, holder.as_deref()).await;
        let begun = cluster.plane.servers[old.server].audit().of(NAMESPACE, "configmaps").len();
        cluster.job_managers[old.index].gateway().cont();
        for answer in held {
            assert!(answer.await.unwrap().is_none_or(|code| code >= 400), "a write of the older term succeeded");
        }
        let after = cluster.plane.servers[old.server].audit().of(NAMESPACE, "configmaps").split_off(begun);
        arrived += after.iter().filter(|one| one.user == JVM && one.verb == "update" && !one.succeeded()).count();
        goes_on(&mut cluster, &job, latest).await;
        cluster.wait_for_members().await;
    }
    say(format!("{arrived} of 12 halted writes reached the API server later, and were refused there"));
    assert!(arrived > 0, "no write was under way when its gateway stood still");
}

/// Versions of the Lease, and when each was seen.
type Seen = Arc<Mutex<Vec<(Timestamp, Lease)>>>;

/// Every version of the Lease that is stored from now on.
fn record_leases(client: kube::Client) -> (JoinHandle<()>, Seen) {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let watching = tokio::spawn(async move {
        let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
        let mut versions = Box::pin(watcher(leases, watcher::Config::default()).default_backoff().applied_objects());
        while let Some(version) = versions.next().await {
            log.lock().unwrap().extend(version.ok().map(|lease| (Timestamp::now(), lease)));
        }
    });
    (watching, seen)
}

fn written(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

/// The leader's JVM dies, and etcd stands still as soon as the Lease is given back: who wants it has just asked for it.
/// Returns how many writes of the Lease were stored long after they had been given up.
async fn lease_writes_that_come_late(
    cluster: &mut Cluster,
    job: &str,
    meanwhile: impl AsyncFnOnce(&mut Cluster, usize),
) -> usize {
    let leader = cluster.leader().await.unwrap();
    let latest = cluster.wait_for_checkpoints(job, 1).await.latest;
    let (watching, seen) = record_leases(cluster.client.clone());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let etcd: Pid = cluster.plane.etcd.pid();
    let server: Pid = cluster.plane.servers[1 - cluster.job_managers[leader].server].process.pid();
    let given_back = Arc::clone(&seen);
    let freeze = tokio::task::spawn_blocking(move || {
        let begin = std::time::Instant::now();
        while given_back.lock().unwrap().last().is_none_or(|(_, lease)| !Record::of(lease).holder.is_empty()) {
            assert!(begin.elapsed() < seconds(10), "the Lease was not given back");
            std::thread::sleep(Duration::from_micros(200));
        }
        kill_process(etcd, Signal::STOP).unwrap();
        // The request has gone from the API server to etcd, and cannot be taken back when it is given up.
        std::thread::sleep(Duration::from_millis(100));
        kill_process(server, Signal::STOP).unwrap();
    });
    cluster.job_managers[leader].jvm.kill();
    freeze.await.unwrap();
    tokio::time::sleep(seconds(2)).await;
    meanwhile(cluster, leader).await;
    tokio::time::sleep(seconds(2)).await;
    let thawed = Timestamp::now();
    cluster.plane.etcd.cont();
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.plane.servers.iter_mut().for_each(|server| server.process.cont());
    cluster.job_managers[leader].jvm.restart();
    goes_on(cluster, job, latest).await;
    cluster.wait_for_members().await;
    watching.abort();
    let seen = seen.lock().unwrap();
    let late = |(at, lease): &&(Timestamp, Lease)| {
        *at >= thawed
            && written(lease).is_some_and(|written| thawed.duration_since(written) > SignedDuration::from_secs(2))
    };
    let late: Vec<Record> = seen.iter().filter(late).map(|(_, lease)| Record::of(lease)).collect();
    say(format!(
        "late: {:?}",
        late.iter().map(|one| (&one.holder, one.term.as_ref().map(|term| term.number))).collect::<Vec<_>>()
    ));
    late.iter().filter(|record| !record.holder.is_empty()).count()
}

/// The moment between two requests is hit often, not always.
const ATTEMPTS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_stored_after_its_write_was_given_up_gives_no_term_to_two() {
    let (mut cluster, job) = two_sides().await;
    for _ in 0..ATTEMPTS {
        if lease_writes_that_come_late(&mut cluster, &job, async |_, _| {}).await > 0 {
            return;
        }
    }
    panic!("no write of the Lease came late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_restarted_while_its_write_of_the_lease_is_under_way_leads_in_a_term_of_its_own() {
    let (mut cluster, job) = two_sides().await;
    for _ in 0..ATTEMPTS {
        let restart = async |cluster: &mut Cluster, leader: usize| {
            for one in
                cluster.job_managers.iter_mut().enumerate().filter(|(index, _)| *index != leader).map(|(_, one)| one)
            {
                one.gateway().restart();
            }
        };
        if lease_writes_that_come_late(&mut cluster, &job, restart).await > 0 {
            return;
        }
    }
    panic!("no write of the Lease came late");
}
