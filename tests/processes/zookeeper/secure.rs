//! A quorum by TLS, and znodes that are for their creator only: Flink knows neither certificates nor password. By
//! ZooKeeper's scheme `digest`, and by SASL, of servers that let nobody else in.

use std::io::ErrorKind;

use flinkha::api::v1alpha1::OnDelete;
use flinkha::api::zookeeper::Scheme;
use flinkha::flink::zookeeper_frames::{HEADER, Session, attach, session_of_response};
use flinkha::gateway::quorum::{connect, tunnel_on_loopback};
use flinkha::world::quorum::auth::QuorumIdentity;
use flinkha::world::quorum::{self, Ended};
use serde_json::{Value, json};
use zookeeper_client::{Client, Error};

use super::deletion::owner;
use super::deletion::run;
use super::deletion::stop_all;
use super::deletion::told as said;
use super::input::degraded;
use super::input::told;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::failover::fail_over;
use crate::support::left::Left;
use crate::support::left::files;
use crate::support::say;
use crate::support::seconds;
use crate::support::zookeeper::PASSWORD;
use crate::support::zookeeper::Quorum;
use crate::support::zookeeper::Security;
use crate::support::zookeeper::USER;
use crate::support::zookeeper::tree;

pub async fn digest() -> Value {
    let mut cluster = prepare(Security::Digest).await;
    let (job, row) = live(&mut cluster, "Digest").await;
    let stranger = Client::connect(&plain(&cluster)).await.expect("a session");
    assert_eq!(stranger.list_children(&plans()).await, Err(Error::NoAuth), "a stranger reads Flink's znodes");
    let why = trouble(&known(&cluster, Scheme::Sasl)).await;
    assert!(why.contains("the server has no SASL") && why.contains("use scheme Digest"), "{why}");
    end(&mut cluster, &job).await;
    row
}

pub async fn sasl() -> Value {
    let mut cluster = prepare(Security::Sasl).await;
    let refused = refused(&mut cluster).await;
    let (job, mut row) = live(&mut cluster, "SASL").await;
    let stranger = Client::connect(&plain(&cluster)).await;
    assert_eq!(stranger.err(), Some(Error::AuthFailed), "servers that demand SASL let a stranger in");
    let why = trouble(&known(&cluster, Scheme::Digest)).await;
    assert!(why.contains("by another scheme than is done here") && why.contains("authentication.scheme"), "{why}");
    only_who_is_known_ends_a_session(&cluster).await;

    cluster.quorum.as_mut().expect("a quorum").password = "a wrong password";
    let purged = run(&cluster, "us", OnDelete::Delete);
    assert!(
        !purged.status.success() && said(&purged).contains("the servers reject user \"flink\" with scheme SASL"),
        "{}",
        said(&purged)
    );
    cluster.quorum.as_mut().expect("a quorum").password = PASSWORD;
    assert!(Left::of(&cluster).await.naming(&job) > 0, "somebody who is not let in has removed a job");
    end(&mut cluster, &job).await;
    row["refused"] = refused.into();
    row
}

async fn prepare(security: Security) -> Cluster {
    let mut cluster = Cluster::prepare(super::ours(), 1).await;
    cluster.quorum = Some(Quorum::start_with(security).await);
    cluster
}

/// The quorum as a sidecar has it that is told of this scheme.
fn known(cluster: &Cluster, scheme: Scheme) -> quorum::Quorum {
    quorum::Quorum::new(&plain(cluster)).with_identity(identity(scheme))
}

fn identity(scheme: Scheme) -> QuorumIdentity {
    QuorumIdentity { scheme, username: USER.to_owned(), password: PASSWORD.to_owned() }
}

async fn trouble(quorum: &quorum::Quorum) -> String {
    let way = tunnel_on_loopback(quorum).await.expect("a way to the quorum");
    let why = connect(way, quorum).await.expect_err("a refusal").to_string();
    say(format!("another scheme: {why}"));
    why
}

/// A refusal to close a session is none of the ways in which it has ended.
async fn only_who_is_known_ends_a_session(cluster: &Cluster) {
    let known = known(cluster, Scheme::Sasl);
    let new = attach(&Session { id: 0, password: vec![0; 16], timeout_millis: 10_000 });
    let (mut connection, response) = known.open(&new[HEADER..]).await.expect("a connection");
    let session = session_of_response(&response).expect("a session");
    let again = identity(Scheme::Sasl).tell(&mut *connection).await;
    assert_eq!(
        again.err().map(|error| error.kind()),
        Some(ErrorKind::PermissionDenied),
        "SASL is spoken twice on one connection"
    );
    let by_nobody = quorum::Quorum::new(&plain(cluster)).end(&session).await;
    assert_eq!(by_nobody.err().map(|error| error.kind()), Some(ErrorKind::PermissionDenied));
    assert_eq!(known.end(&session).await.expect("an answer"), Ended::Now);
    assert_eq!(known.end(&session).await.expect("an answer"), Ended::Before);
}

fn plain(cluster: &Cluster) -> String {
    cluster.quorum.as_ref().expect("a quorum").at(2181)
}

fn plans() -> String {
    Quorum::paths().child("execution-plans")
}

/// A wrong password is told of, and the right one is all that is needed then.
async fn refused(cluster: &mut Cluster) -> String {
    cluster.quorum.as_mut().expect("a quorum").password = "a wrong password";
    cluster.add_job_manager().await;
    let message = told(cluster, "ZooKeeperUnreachable").await;
    for part in
        ["the servers reject user \"flink\" with scheme SASL (DIGEST-MD5)", "check username and password in the Secret"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("a wrong password"), "the password is in a condition");
    let unready = cluster.job_managers[0].probe("/readyz").await.expect("a probe");
    assert_eq!(unready.0, 503, "{}", unready.1);
    cluster.job_managers.clear();
    cluster.quorum.as_mut().expect("a quorum").password = PASSWORD;
    message
}

/// Failover, and who may read what; returns the job, which runs on.
async fn live(cluster: &mut Cluster, scheme: &str) -> (String, Value) {
    for _ in 0..2 {
        cluster.add_job_manager().await;
    }
    cluster.add_task_manager().await;
    cluster.wait_until_ready().await;
    eventually("no condition", seconds(60), async || degraded(cluster).await.is_none().then_some(())).await;
    let job = cluster.run_sequence(0, 100).await;
    let failover = fail_over(cluster, &job, async |leader| leader.jvm.kill()).await;
    assert!(failover.granted < seconds(10), "the dead leader's session was not ended, it expired: {failover:?}");

    let client = cluster.quorum.as_ref().expect("a quorum").client().await.expect("a session");
    assert_eq!(client.list_children(&plans()).await.expect("our own znodes"), [job.as_str()]);
    let (acls, _) = client.get_acl(&format!("{}/{job}", plans())).await.expect("the plan's ACL");
    let creators: Vec<String> = acls.iter().map(|acl| format!("{}:{}", acl.scheme(), acl.id())).collect();
    assert!(
        creators.len() == 1 && creators[0].starts_with(&format!("{}:{USER}", scheme.to_lowercase())),
        "{creators:?}"
    );
    for one in &cluster.job_managers {
        assert!(!one.flink_log().contains(PASSWORD), "the password is in Flink's log");
    }
    let running = failover.running;
    println!(
        "secure: TLS, {scheme} and acl Creator: kill → all tasks RUNNING {:.2} s, a stranger reads nothing",
        running.as_secs_f64()
    );
    let row = json!({ "part": format!("secure-{scheme}"), "running_ms": running.as_millis() as u64, "created_by": creators[0], "left": 0 });
    (job, row)
}

/// Nothing is left of an ended job, and nothing at all of a deleted cluster.
async fn end(cluster: &mut Cluster, job: &str) {
    cluster.cancel(job).await;
    eventually("nothing left", seconds(60), async || Left::of(cluster).await.is_nothing().then_some(())).await;
    let owner = eventually("the owner of the directory", seconds(90), async || owner(cluster).await).await;
    stop_all(cluster).await;
    let deleted = run(cluster, &owner, OnDelete::Delete);
    assert!(deleted.status.success(), "{}", said(&deleted));
    let client = cluster.quorum.as_ref().expect("a quorum").client().await.expect("a session");
    let (znodes, files) = (tree(&client, &Quorum::paths().cluster).await, files(&cluster.storage()));
    assert!(znodes.is_empty() && files.is_empty(), "left: {znodes:?} {files:?}");
    say("by TLS and with znodes for their creator only: failover, garbage collection and deletion as without");
}
