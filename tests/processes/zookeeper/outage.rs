//! Servers of the quorum that die, fall silent, and come back.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::jobs::watch;
use crate::support::rest::Checkpoints;
use crate::support::say;
use crate::support::seconds;

/// How long a server is away. Longer than the session's time-out, so that whatever expires has expired.
pub const AWAY: u64 = 25;

/// One server of three is lost, in turn each of them, killed and silent: nothing happens.
pub async fn members() -> Value {
    let mut cluster = Cluster::start(super::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let before = cluster.wait_for_checkpoints(&job, 2).await;
    let (lease, leader, rest) = (cluster.lease().await, cluster.leader().await, cluster.leader_rest().await);
    let mut longest = 0_f64;
    for silent in [false, true] {
        for index in 0..3 {
            let servers = &mut cluster.quorum.as_mut().expect("a quorum").servers;
            if silent {
                servers[index].stop()
            } else {
                servers[index].kill()
            }
            longest = longest.max(watch(&rest, &job, AWAY).await);
            let servers = &mut cluster.quorum.as_mut().expect("a quorum").servers;
            if silent {
                servers[index].cont()
            } else {
                servers[index].restart()
            }
            cluster.quorum.as_ref().expect("a quorum").wait_until_ready().await;
            longest = longest.max(watch(&rest, &job, 5).await);
            say(format!(
                "server {} {}, and back: same leader, job not restarted",
                index + 1,
                if silent { "silent" } else { "killed" }
            ));
        }
    }
    let after = cluster.leader_rest().await.checkpoints(&job).await.expect("checkpoints");
    assert_eq!((cluster.leader().await, cluster.lease().await.term), (leader, lease.term), "somebody else leads");
    assert_eq!((after.restores, after.restored), (before.restores, before.restored), "the job was restarted");
    println!(
        "members: each of 3 servers killed and silent for {AWAY} s: no change of leader, no restart; longest time without a checkpoint {longest:.1} s"
    );
    json!({ "part": "members", "servers": 3, "restarts": 0, "changes": 0, "failed_checkpoints": after.failed, "longest_without_checkpoint_s": longest })
}

/// Two of three servers are lost for so long: leadership ends, because nobody could take it over safely; then the job
/// resumes from its last checkpoint.
pub async fn quorum(away: u64) -> Value {
    let mut cluster = Cluster::start(super::ours(), 2, 1).await;
    let job = cluster.run_sequence(0, 100).await;
    let before = cluster.wait_for_checkpoints(&job, 4).await;
    let counter = cluster.checkpoint_counter(&job).await;
    let rests: Vec<_> = cluster.job_managers.iter().map(crate::support::cluster::JobManager::rest).collect();
    let servers = &mut cluster.quorum.as_mut().expect("a quorum").servers;
    servers[0].kill();
    servers[1].kill();
    let lost = Instant::now();
    let (mut stopped, mut restarted) = (None, 0);
    while lost.elapsed() < seconds(away) {
        let mut runs = false;
        for rest in &rests {
            runs |= rest.job(&job).await.is_ok_and(|job| job.runs());
        }
        if !runs && stopped.is_none() {
            stopped = Some(lost.elapsed().as_secs_f64());
        }
        restarted += cluster.restart_ended();
        tokio::time::sleep(seconds(1)).await;
    }
    let servers = &mut cluster.quorum.as_mut().expect("a quorum").servers;
    servers[0].restart();
    servers[1].restart();
    let back = Instant::now();
    cluster.quorum.as_ref().expect("a quorum").wait_until_ready().await;
    let quorum = back.elapsed().as_secs_f64();
    while {
        restarted += cluster.restart_ended();
        let leader = cluster.leader().await.map(|leader| cluster.job_managers[leader].rest());
        !matches!(&leader, Some(rest) if rest.job(&job).await.is_ok_and(|job| job.runs()))
    } {
        assert!(back.elapsed() < seconds(120), "the job does not run again");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let running = back.elapsed().as_secs_f64();
    // A standby may give up later than that.
    cluster.mend().await;
    let rest = cluster.leader_rest().await;
    let after: Checkpoints = eventually("new checkpoints", seconds(60), async || {
        rest.checkpoints(&job).await.ok().filter(|now| now.completed > before.completed)
    })
    .await;
    if let Some(restored) = after.restored {
        assert!(Some(restored) >= before.latest, "resumed from {restored}, but {:?} was complete", before.latest);
    }
    assert!(cluster.checkpoint_counter(&job).await >= counter, "the checkpoint counter went backwards");
    let told = stopped.map_or("kept running".to_owned(), |after| format!("was suspended after {after:.0} s"));
    println!(
        "quorum: lost for {away} s; the job {told}; back → quorum {quorum:.1} s, → all tasks RUNNING {running:.1} s, resumed from checkpoint {:?}; \
         {restarted} JVMs had given up and were started again",
        after.restored
    );
    json!({ "part": "quorum", "away_s": away, "suspended_after_s": stopped, "quorum_s": quorum, "running_s": running, "restored": after.restored, "restarted_jvms": restarted })
}
