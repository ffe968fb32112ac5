//! Bad input: a wrong quorum, no rights, no quorum at the start, a path that another cluster uses. Each is told of, and
//! nothing is lost.

use flinkha::api::names;
use flinkha::cluster::causes::causes;
use flinkha::cluster::observed::Observed;
use flinkha::ledger::jobs;
use serde_json::{Value, json};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Permission};

use crate::support::cluster::Cluster;
use crate::support::cluster::NAME;
use crate::support::eventually;
use crate::support::left::Left;
use crate::support::say;
use crate::support::seconds;
use crate::support::zookeeper::Quorum;
use crate::support::zookeeper::ROOT;

pub async fn bad_input() -> Value {
    let wrong = wrong_quorum().await;
    let (away, shared) = quorum_that_comes_late_and_is_shared().await;
    let rights = no_rights().await;
    println!("bad input: wrong quorum, quorum away at the start, shared path, no rights: each told of, nothing lost");
    json!({ "part": "input", "wrong_quorum": wrong, "quorum_away": away, "shared_path": shared, "no_rights": rights })
}

/// What the operator would say in the condition `Degraded`, from the ledger alone.
pub async fn degraded(cluster: &Cluster) -> Option<(String, String)> {
    let ledger = cluster.config_map(&names::ledger(NAME)).await?;
    let ledger = serde_json::from_value(json!(ledger)).expect("the ledger");
    let observed = Observed { ledger: Some(std::sync::Arc::new(ledger)), ..Observed::default() };
    causes(&observed).into_iter().next().map(|cause| (cause.reason.to_owned(), cause.message))
}

pub async fn told(cluster: &Cluster, reason: &str) -> String {
    let what = format!("the condition {reason}");
    let message =
        eventually(&what, seconds(90), async || degraded(cluster).await.filter(|found| found.0 == reason)).await.1;
    say(format!("{reason}: {message}"));
    message
}

async fn wrong_quorum() -> String {
    let mut cluster = Cluster::prepare(super::ours(), 1).await;
    let real = cluster.quorum.take();
    cluster.quorum = Some(Quorum::nobody());
    cluster.add_job_manager().await;
    let message = told(&cluster, "ZooKeeperUnreachable").await;
    assert!(message.contains("refused") && message.contains("look at quorum"), "{message}");
    let unready = cluster.job_managers[0].probe("/readyz").await.expect("a probe");
    assert_eq!((unready.0, unready.1.as_str()), (503, "no ZooKeeper server answers"));
    drop(real);
    message
}

/// The quorum is away when the cluster starts, and comes; then another cluster signs the same path.
async fn quorum_that_comes_late_and_is_shared() -> (String, String) {
    let mut cluster = Cluster::prepare(super::ours(), 1).await;
    let servers = &mut cluster.quorum.as_mut().expect("a quorum").servers;
    servers.iter_mut().for_each(crate::support::process::Process::kill);
    cluster.add_job_manager().await;
    cluster.add_task_manager().await;
    let away = told(&cluster, "ZooKeeperUnreachable").await;
    let servers = &mut cluster.quorum.as_mut().expect("a quorum").servers;
    servers.iter_mut().for_each(crate::support::process::Process::restart);
    cluster.quorum.as_ref().expect("a quorum").wait_until_ready().await;
    // Flink gives up without a quorum, and a kubelet starts it again.
    cluster.mend().await;
    eventually("no condition any more", seconds(60), async || degraded(&cluster).await.is_none().then_some(())).await;
    say("the quorum came, and all is well without anybody's help");

    let job = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&job, 2).await;
    let client = cluster.quorum.as_ref().expect("a quorum").client().await.expect("a session");
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.mkdir(&Quorum::paths().child("flinkha/somebody-else"), &options).await.expect("a mark");
    let shared = told(&cluster, "StorageShared").await;
    assert!(shared.contains("/flinkha/somebody-else (a znode)"), "{shared}");
    cluster.cancel(&job).await;
    cluster.wait_for_state(&job, "CANCELED", seconds(30)).await;
    tokio::time::sleep(seconds(4)).await;
    let left = Left::of(&cluster).await;
    assert!(
        left.files.iter().any(|file| file.to_string_lossy().contains("job-result-store")),
        "its result is not removed: {left:?}"
    );
    client.delete(&Quorum::paths().child("flinkha/somebody-else"), None).await.expect("the mark goes");
    eventually("nothing left", seconds(60), async || Left::of(&cluster).await.is_nothing().then_some(())).await;
    let jobs = cluster.config_map(&names::ledger(NAME)).await.and_then(|one| one.data?.remove(jobs::JOBS_KEY));
    assert!(jobs::read(jobs.as_deref()).expect("jobs").iter().any(|one| one.id == job && one.has_ended()));
    (away, shared)
}

/// The root belongs to somebody who lets nobody else in.
async fn no_rights() -> String {
    let mut cluster = Cluster::prepare(super::ours(), 1).await;
    let servers = cluster.quorum.as_ref().expect("a quorum").servers();
    let admin = Client::connector().with_auth("digest", b"admin:secret").connect(&servers).await.expect("a session");
    let only_us = [Acl::new(Permission::ALL, AuthId::authed())];
    admin.create(ROOT, b"theirs", &CreateMode::Persistent.with_acls(Acls::new(&only_us))).await.expect("a root");
    cluster.add_job_manager().await;
    let message = told(&cluster, "ZooKeeperUnreachable").await;
    assert!(message.contains("not authorized") && message.contains("authentication"), "{message}");
    let (data, stat) = admin.get_data(ROOT).await.expect("the root");
    assert_eq!((data.as_slice(), stat.num_children), (b"theirs".as_slice(), 0), "nothing of theirs was touched");
    message
}
