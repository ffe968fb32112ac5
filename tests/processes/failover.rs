//! A leading JobManager is lost, in every way: another one leads, and the job goes on from its last checkpoint.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider, cluster_config_map, lock_holder};
use crate::support::failover::{Failover, fail_over};
use crate::support::flood::flood;
use crate::support::host::address;
use crate::support::provider::{needs_a_lease, on_zookeeper};
use crate::support::{eventually, gateway, machine, say, seconds};
use flinkha::api::names;
use flinkha::api::status::RestoredJobStatus;
use flinkha::cluster::failovers::failovers;
use flinkha::cluster::observed::ObservedConfigMap;
use flinkha::flink::job_id::JobId;
use flinkha::ledger::checkpoints::CHECKPOINTS_KEY;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

async fn cluster_with_endless_job() -> (Cluster, String) {
    let cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    (cluster, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_the_job_resumes_from_its_last_checkpoint() {
    machine::want_all();
    let (mut cluster, job) = cluster_with_endless_job().await;
    let before = cluster.lease().await;
    let old = cluster.leader().await.unwrap();
    let (address, stop) = (cluster.job_managers[old].address, Arc::new(AtomicBool::new(false)));
    let turns = (!on_zookeeper()).then(|| tokio::spawn(turns_to_start(address, Arc::clone(&stop))));
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    let leader = &cluster.job_managers[failover.leader];
    let after = cluster.lease().await;
    assert_eq!(after.holder, leader.pod);
    assert!(after.term.unwrap().number > before.term.unwrap().number);
    let change = after.change.expect("the Lease tells of the last change");
    assert_eq!((change.from, change.to, change.why.as_str()), (before.holder, leader.pod.clone(), "JobManagerDied"));
    assert!(
        Duration::from_millis(change.leaderless_millis) <= failover.granted + Duration::from_millis(500),
        "told {} ms",
        change.leaderless_millis
    );
    assert!(failover.granted < seconds(4), "{failover:?}");
    tells_of(&cluster, &failover, &job).await;

    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let published = async || {
        let slice = slices.get(&names::rest(NAME)).await.unwrap();
        let addresses: Vec<String> = slice.endpoints.into_iter().flat_map(|endpoint| endpoint.addresses).collect();
        (addresses == [gateway::published(leader.address)]).then_some(())
    };
    eventually("the leader's address in the EndpointSlice", seconds(5), published).await;

    if let Some(turns) = turns {
        tokio::time::sleep(seconds(6)).await;
        stop.store(true, Ordering::Relaxed);
        let codes: Vec<u16> = turns.await.unwrap().into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, [200, 503, 200], "may the former leader's JobManager start again?");
    }
}

/// What the gateway of a JobManager says to one that starts again in its pod, each answer once, and for how long.
async fn turns_to_start(address: Ipv4Addr, stop: Arc<AtomicBool>) -> Vec<(u16, Duration)> {
    let url = format!("{}/startz", gateway::probe_url(address));
    let mut turns: Vec<(u16, Duration)> = Vec::new();
    let mut since = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let code = reqwest::get(&url).await.expect("a gateway that answers").status().as_u16();
        match turns.last_mut() {
            Some((last, lasted)) if *last == code => *lasted = since.elapsed(),
            _ => {
                turns.push((code, Duration::ZERO));
                since = Instant::now();
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say(format!("starts again: {turns:?}"));
    turns
}

/// The operator lists the change of leader with all that is known of it, and the job's last checkpoint; both by a few
/// writes of the ledger, although the job completes several checkpoints a second.
async fn tells_of(cluster: &Cluster, failover: &Failover, job: &str) {
    let ledgers: Api<ObservedConfigMap> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let ledger = async || ledgers.get(&names::ledger(NAME)).await.ok().map(|ledger| ledger.data);
    let record = cluster.lease().await;
    let listed = async || {
        let all = failovers(&record, Some(&ledger().await?.failovers), &[]);
        all.into_iter().next().filter(|last| !last.restored.is_empty())
    };
    let last = eventually("the change of leader in the ledger", seconds(30), listed).await;
    let change = record.change.as_ref().expect("a change");
    assert_eq!((&last.from, &last.to, last.reason.as_str()), (&change.from, &change.to, "JobManagerDied"));
    assert_eq!((last.planned, last.term), (false, i64::try_from(change.term).unwrap()));
    assert!(last.at.is_some(), "{last:?}");
    let (leaderless, running) = (last.leaderless_millis.unwrap(), last.running_millis.expect("all jobs run"));
    say(format!("recorded: leaderless for {leaderless} ms, all jobs ran after {running} ms"));
    let seen = i64::try_from(failover.running.as_millis()).unwrap();
    assert!(leaderless < running && running < seen + 1000, "seen from outside: {seen} ms");
    let checkpoint = Some(i64::try_from(failover.restored).unwrap());
    assert_eq!(last.restored, [RestoredJobStatus { job: job.to_owned(), checkpoint }]);

    let id = JobId::of(job).expect("an id");
    let noted = async || ledger().await?.checkpoints.0.get(&id).filter(|noted| noted.id > failover.restored).cloned();
    let noted = eventually("the last checkpoint in the ledger", seconds(30), noted).await;
    assert!(noted.completed.parse::<Timestamp>().is_ok(), "{noted:?}");
    let all = cluster.plane.servers[0].audit().of(NAMESPACE, "configmaps");
    let of_ledger = all.iter().filter(|one| one.is_write() && one.succeeded() && one.name == names::ledger(NAME));
    let writes = of_ledger.filter(|one| one.body["data"].get(CHECKPOINTS_KEY).is_some()).count();
    assert!((1..=2).contains(&writes), "{writes} writes of checkpoints by two leaders within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_leader_hands_over_before_it_ends() {
    machine::want_all();
    let (mut cluster, job) = cluster_with_endless_job().await;
    // As the kubelet does it: the preStop hook first, the signal when that has been answered.
    let failover = fail_over(&mut cluster, &job, async |leader| {
        let hook = leader.hand_over();
        assert!(hook.status.success(), "{hook:?}");
        leader.jvm.terminate();
    })
    .await;
    assert!(failover.running < seconds(25), "{failover:?}");
    let change = cluster.lease().await.change.expect("the Lease tells of the last change");
    say(format!("{}: leaderless for {} ms", change.why, change.leaderless_millis));
    // Usually a quarter of a second; a Lease that was not handed over needs 4 s at least.
    assert!(change.leaderless_millis < 3500, "{change:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_goes_to_the_pod_that_was_named() {
    if !needs_a_lease("a planned switchover: Flink cannot be told whom to elect") {
        return;
    }
    let mut cluster = Cluster::start(Provider::ours(), 3, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    eventually("both standbys listed", seconds(20), async || {
        (cluster.lease().await.peers.members.len() == 2).then_some(())
    })
    .await;
    let old = cluster.leader().await.unwrap();
    let wanted = (old + 1) % 3;
    let (name, leases) =
        (cluster.job_managers[wanted].pod.clone(), Api::<Lease>::namespaced(cluster.client.clone(), NAMESPACE));
    let failover = fail_over(&mut cluster, &job, async |_| {
        let asked = json!({ "metadata": { "annotations": { names::SWITCHOVER_ANNOTATION: name } } });
        leases.patch(NAME, &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
    })
    .await;
    assert_eq!(failover.leader, wanted);
    let lease = cluster.lease().await;
    assert_eq!(lease.switchover, None, "the request is answered");
    let change = lease.change.expect("the Lease tells of the last change");
    say(format!("{}: leaderless for {} ms", change.why, change.leaderless_millis));
    assert_eq!((change.why.as_str(), change.to), ("Switchover", name));
    assert!(change.leaderless_millis < 3500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_and_writes_nothing_when_it_wakes_up() {
    let (mut cluster, job) = cluster_with_endless_job().await;
    let old = cluster.leader().await.unwrap();
    let old_pod = cluster.job_managers[old].pod.clone();
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.stop()).await;
    // The session's time-out is 20 s, and servers look at the clock every 2 s.
    let limit = if on_zookeeper() { seconds(35) } else { seconds(20) };
    assert!(failover.granted < limit, "the JVM's time-out is 10 s, {failover:?}");
    let restores = cluster.wait_for_checkpoints(&job, 1).await.restores;
    let audit = cluster.plane.servers[0].audit();
    let asleep = audit.of(NAMESPACE, "configmaps").len();

    cluster.job_managers[old].jvm.cont();
    let gone = cluster.job_managers[old].jvm.wait(seconds(10)).await;
    let now = cluster.wait_for_checkpoints(&job, 1).await;
    cluster.wait_for_checkpoints(&job, now.completed + 4).await;
    let requests = audit.of(NAMESPACE, "configmaps");
    let late = requests[asleep..]
        .iter()
        .filter(|one| one.pod.as_deref() == Some(&old_pod) && one.is_write() && one.succeeded());
    let late: Vec<String> = late.map(|one| format!("{} {} {}", one.verb, one.name, one.body)).collect();
    assert!(late.is_empty(), "the old leader wrote: {late:#?}");
    say(format!(
        "after SIGCONT the old leader {}",
        gone.map_or("stepped down by itself".to_owned(), |status| format!("ended: {status}"))
    ));
    assert_eq!(cluster.leader().await, Some(failover.leader));
    // What a waking JobManager says to TaskManagers is not fenced by Flink's RPC: so it must not wake up.
    assert!(now.restores == restores, "the job was restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_is_no_failover() {
    machine::want_all();
    let (mut cluster, job) = cluster_with_endless_job().await;
    let leader = cluster.leader().await.unwrap();
    let lock = async |cluster: &Cluster| cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder);
    let (lease, holder) = (cluster.lease().await, lock(&cluster).await);
    let before = cluster.wait_for_checkpoints(&job, 2).await;
    for index in [leader, 1 - leader] {
        cluster.job_managers[index].gateway().restart();
        cluster.wait_until_ready().await;
    }
    let after = cluster.wait_for_checkpoints(&job, before.completed + 4).await;
    assert_eq!(cluster.leader().await, Some(leader));
    assert_eq!(lock(&cluster).await, holder, "the JVM was told");
    assert_eq!((after.restores, after.restored), (before.restores, before.restored), "the job was restarted");
    let now = cluster.lease().await;
    assert_eq!(now.holder, lease.holder);
    assert!(now.term.unwrap().number > lease.term.unwrap().number, "a new gateway process takes a new term");
    say("both gateways killed: same leader, job not restarted; now its JVM");
    let failover = fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
    // Its JVM stored its lock once more for the new gateway: nobody takes that for another Flink, and watches it. (A
    // quorum's session may have to expire.)
    if !cluster.provider.is_zookeeper() {
        assert!(failover.granted < seconds(5), "granted only after {:?}", failover.granted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_end_the_cluster_ends_itself_and_nothing_else() {
    let (mut cluster, job) = cluster_with_endless_job().await;
    let old = cluster.leader().await.unwrap();
    let failover = fail_over(&mut cluster, &job, async |leader| leader.rest().end_cluster().await.unwrap()).await;
    let ended = &mut cluster.job_managers[old];
    let status = ended.jvm.wait(seconds(30)).await;
    assert!(status.is_some(), "its process ends: {}", ended.flink_log());
    let leads = cluster.job_managers[failover.leader].pod.clone();
    // What Flink removes at the end of a cluster would be the job's.
    cluster.replace_job_manager(old).await;
    let now = cluster.leader().await.unwrap();
    assert_eq!(cluster.job_managers[now].pod, leads);
    fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_exactly_once_across_three_killed_leaders() {
    let mut cluster = Cluster::start(Provider::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 50).await;
    for _ in 0..3 {
        let old = cluster.leader().await.unwrap();
        fail_over(&mut cluster, &job, async |leader| leader.jvm.kill()).await;
        cluster.replace_job_manager(old).await;
    }
    let savepoints = format!("file://{}/savepoints", cluster.path().display());
    cluster.leader_rest().await.stop_with_savepoint(&job, &savepoints).await.expect("a savepoint");
    cluster.wait_for_state(&job, "FINISHED", seconds(60)).await;
    cluster.verify("any");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reaches_the_port_of_a_gateway_costs_nobody_the_leadership() {
    let (mut cluster, job) = cluster_with_endless_job().await;
    let (leader, lease) = (cluster.leader().await.unwrap(), cluster.lease().await);
    let before = cluster.wait_for_checkpoints(&job, 2).await;
    for one in &cluster.job_managers {
        assert_eq!(one.probe("/pre-stop").await.unwrap().0, 404);
    }
    let port = (cluster.job_managers[leader].address, names::PROBE_PORT).into();
    let flooded = flood(address(), port, seconds(10)).await;
    say(format!("{flooded:?}"));
    let after = cluster.wait_for_checkpoints(&job, before.completed + 4).await;
    let now = cluster.lease().await;
    assert_eq!((cluster.leader().await, now.holder, now.term), (Some(leader), lease.holder, lease.term));
    assert_eq!(after.restores, before.restores, "the job was restarted");
    assert!(cluster.job_managers[leader].gateway().is_running());
}
