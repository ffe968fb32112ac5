//! Servers of the quorum that live on and are cut off by the network: from the other servers only, so that clients
//! still reach them, and from everybody.

use std::time::Instant;

use serde_json::{Value, json};

use super::outage::AWAY;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::jobs::watch;
use crate::support::network::Switch;
use crate::support::say;
use crate::support::seconds;
use crate::support::zookeeper::publisher;

/// A follower and the quorum's leader, in each of both ways. Before the cut, the JobManagers are connected to the
/// server that is going to be cut off.
pub async fn partitions() -> Vec<Value> {
    let mut rows = Vec::new();
    for role in ["follower", "leader"] {
        for switches in [&[Switch::Peers][..], &[Switch::Peers, Switch::Clients]] {
            let mut cluster = Cluster::prepare(super::ours(), 1).await;
            cluster.quorum.as_mut().expect("a quorum").put_first(role).await;
            let cluster = cluster.up(2, 1).await;
            let job = cluster.run_sequence(0, 100).await;
            cluster.wait_for_checkpoints(&job, 2).await;
            rows.push(partition(&cluster, &job, role, switches).await);
        }
    }
    rows
}

async fn partition(cluster: &Cluster, job: &str, role: &str, switches: &[Switch]) -> Value {
    let quorum = cluster.quorum.as_ref().expect("a quorum");
    let (lease, leader, rest) = (cluster.lease().await, cluster.leader().await, cluster.leader_rest().await);
    let before = rest.checkpoints(job).await.expect("checkpoints");
    let client = eventually("a session", seconds(20), async || quorum.client().await).await;
    let session = publisher(&client).await.expect("the session of the leading JobManager");
    let server = quorum.server_of(session).await.expect("the server that the leading JobManager is connected to");
    assert_eq!(
        quorum.mode(server).await.as_deref(),
        Some(role),
        "the leading JobManager is not connected to the {role}"
    );
    let grants = grants(cluster);
    let from = if switches.contains(&Switch::Clients) { "everybody" } else { "peers" };

    let begin = Instant::now();
    switches.iter().for_each(|switch| quorum.unplug(server, *switch));
    let away = async {
        eventually("the session at another server", seconds(AWAY), async || {
            quorum.server_of(session).await.filter(|at| *at != server)
        })
        .await;
        begin.elapsed().as_secs_f64()
    };
    let alone = async {
        // Only clients that reach it can see it.
        if from == "peers" {
            let noticed = async || quorum.mode(server).await.is_none().then_some(());
            eventually("a server that knows that it is alone", seconds(AWAY), noticed).await;
        }
        (from == "peers").then(|| begin.elapsed().as_secs_f64())
    };
    let (longest, moved, alone) = tokio::join!(watch(&rest, job, AWAY), away, alone);
    let healed = Instant::now();
    switches.iter().for_each(|switch| quorum.plug(server, *switch));
    eventually("all three servers serve", seconds(60), async || quorum.all_serve().await.then_some(())).await;
    let healed = healed.elapsed().as_secs_f64();
    let longest = longest.max(watch(&rest, job, 5).await);

    let after = rest.checkpoints(job).await.expect("checkpoints");
    assert_eq!((cluster.leader().await, cluster.lease().await.term), (leader, lease.term), "somebody else leads");
    assert_eq!((after.restores, after.restored), (before.restores, before.restored), "the job was restarted");
    assert_eq!(publisher(&client_of(cluster).await).await, Some(session), "the leading JobManager has another session");
    assert_eq!(self::grants(cluster), grants, "Flink has granted leadership anew");
    assert_eq!(told(cluster, "Injecting a session expiration"), 0, "a client has given its session up");
    say(format!("{role} cut off from {from}: same leader, same session, job not restarted"));
    let noticed = alone.map(|after| format!("the server serves nobody after {after:.1} s; ")).unwrap_or_default();
    println!(
        "partition: the quorum's {role} cut off from {from} for {AWAY} s, the leading JobManager connected to it: no change of leader, no restart; its session \
         at another server after {moved:.1} s; {noticed}longest time without a checkpoint {longest:.1} s; healed → all three serve {healed:.1} s"
    );
    json!({ "part": format!("partition-{role}-{from}"), "moved_s": moved, "alone_s": alone,
        "longest_without_checkpoint_s": longest, "all_serve_s": healed, "failed_checkpoints": after.failed - before.failed, "changes": 0, "restarts": 0 })
}

async fn client_of(cluster: &Cluster) -> zookeeper_client::Client {
    eventually("a session", seconds(20), async || cluster.quorum.as_ref()?.client().await).await
}

/// How often Flink has granted leadership in any of the JobManagers, to any of its components.
fn grants(cluster: &Cluster) -> usize {
    let grants = told(cluster, "granted leadership");
    assert!(grants > 0, "Flink's logs do not tell of its leadership");
    grants
}

/// How often Flink's logs say so, of JobManagers and TaskManagers.
fn told(cluster: &Cluster, what: &str) -> usize {
    let directories =
        std::fs::read_dir(cluster.path()).expect("the directory of a test").flatten().map(|entry| entry.path());
    let logs = directories.filter_map(|directory| std::fs::read_to_string(directory.join("flink.log")).ok());
    logs.map(|log| log.matches(what).count()).sum()
}
