//! What came of a fault: counted from what the API servers stored, and from what Flink says of its job.

use std::time::{Duration, Instant};

use flinkha::api::names;
use serde_json::{Value, json};

use super::fault::Fault;
use crate::support::audit::Request;
use crate::support::cluster::Cluster;
use crate::support::cluster::LOCK_ANNOTATION;
use crate::support::cluster::NAME;
use crate::support::cluster::NAMESPACE;
use crate::support::cluster::cluster_config_map;
use crate::support::cluster::lock_holder;
use crate::support::eventually;
use crate::support::measured;
use crate::support::report;
use crate::support::report::percentile;
use crate::support::rest::Checkpoints;
use crate::support::rest::Job;
use crate::support::say;
use crate::support::seconds;
use crate::support::terms::JVM;
use crate::support::terms::held_twice;
use crate::support::terms::older_after_newer;
use crate::support::terms::requests;

/// How things stood before a fault.
pub struct Before {
    pub leader: usize,
    pub latest: u64,
    counter: u64,
    restores: u64,
    holder: Option<String>,
    /// Requests that each API server had answered.
    answered: Vec<usize>,
}

impl Before {
    pub async fn of(cluster: &Cluster, job: &str) -> Self {
        let leader = cluster.leader().await.expect("a leader");
        let rest = cluster.job_managers[leader].rest();
        let checkpoints = eventually("a checkpoint", seconds(60), async || {
            rest.checkpoints(job).await.ok().filter(|now| now.completed > 0)
        })
        .await;
        Self {
            leader,
            latest: checkpoints.latest.expect("the checkpoint that was waited for"),
            counter: cluster.checkpoint_counter(job).await,
            restores: checkpoints.restores,
            holder: cluster.config_map(&cluster_config_map()).await.as_ref().and_then(lock_holder),
            answered: cluster
                .plane
                .servers
                .iter()
                .map(|server| server.audit().of(NAMESPACE, "configmaps").len())
                .collect(),
        }
    }
}

/// The harm that one fault did.
#[derive(Debug, Default)]
pub struct Harm {
    leader_changes: usize,
    job_restarts: usize,
    double_writers: usize,
    lost_pointers: usize,
    /// More changes than the fault is reason for, or none where one is due.
    wrong: bool,
}

impl Harm {
    /// Nothing but changes that a leader which was not heard in time would be reason for.
    pub fn is_of_time(&self) -> bool {
        self.wrong && self.leader_changes + self.job_restarts > 0 && self.double_writers + self.lost_pointers == 0
    }
}

/// All tasks run under another JVM.
pub async fn recovered(cluster: &Cluster, job: &str, before: &Before, begin: Instant) -> Duration {
    measured("all tasks RUNNING under another leader", seconds(120), async || {
        let stored = cluster.config_map(&cluster_config_map()).await?;
        let leader = cluster.leader().await.filter(|_| lock_holder(&stored) != before.holder)?;
        cluster.job_managers[leader].rest().job(job).await.ok().filter(Job::runs)
    })
    .await;
    begin.elapsed()
}

pub async fn judge(cluster: &Cluster, job: &str, before: &Before, after: &Checkpoints, fault: Fault) -> Harm {
    let name = names::job_config_map(&names::kubernetes_cluster_id(NAME), job);
    let is_ha = |request: &&Request| request.name == cluster_config_map() || request.name == name;
    let servers = cluster.plane.servers.iter().zip(&before.answered);
    let all: Vec<Request> = servers
        .flat_map(|(server, answered)| server.audit().of(NAMESPACE, "configmaps").split_off(*answered))
        .collect();
    assert!(all.iter().any(|request| fault.shows_in(request)), "the fault does not show in the audit log");
    let writes: Vec<Request> = all.into_iter().filter(|request| request.is_write() && request.succeeded()).collect();
    let writes: Vec<&Request> = writes.iter().filter(is_ha).collect();
    let leader_changes = new_holders(&writes, before.holder.clone());
    // A JVM that lost its leadership and regained it counts anew.
    let goes_on = leader_changes == 0 && after.restores >= before.restores;
    let job_restarts = if goes_on { after.restores - before.restores } else { after.restores } as usize;
    let restored_older = leader_changes > 0 && after.restored.is_none_or(|restored| restored < before.latest);
    let counted_back = cluster.checkpoint_counter(job).await < before.counter;
    let harm = Harm {
        leader_changes,
        job_restarts,
        double_writers: older_after_newer(&writes) + held_twice(&requests(&cluster.plane, NAMESPACE, "leases")).len(),
        lost_pointers: usize::from(restored_older || counted_back),
        wrong: leader_changes > fault.may_change_leader()
            || (leader_changes == 0 && fault.must_change_leader())
            || job_restarts > fault.may_change_leader() + fault.may_restart_job_more(),
    };
    say(format!("{harm:?}, restored {:?} of {}", after.restored, before.latest));
    harm
}

/// How often another JVM took Flink's lock, which it writes itself when it begins to lead.
fn new_holders(writes: &[&Request], mut holder: Option<String>) -> usize {
    let of_jvm = writes.iter().filter(|write| write.user == JVM && write.verb == "patch");
    let takers = of_jvm.filter_map(|write| serde_json::from_str::<Value>(write.annotation(LOCK_ANNOTATION)?).ok());
    let mut changes = 0;
    for taker in takers.filter_map(|record| Some(record["holderIdentity"].as_str()?.to_owned())) {
        changes += usize::from(holder.as_ref() != Some(&taker));
        holder = Some(taker);
    }
    changes
}

/// A line of the table.
pub struct Row {
    name: &'static str,
    pub runs: usize,
    /// Runs that are not counted, because another one showed what they did to be the machine's doing.
    pub repeated: usize,
    harm: Harm,
    running: Vec<u128>,
}

impl Row {
    pub fn new(name: &'static str) -> Self {
        Self { name, runs: 0, repeated: 0, harm: Harm::default(), running: Vec::new() }
    }

    pub fn add(&mut self, harm: Harm, running: Option<Duration>) {
        self.runs += 1;
        self.harm.leader_changes += harm.leader_changes;
        self.harm.job_restarts += harm.job_restarts;
        self.harm.double_writers += harm.double_writers;
        self.harm.lost_pointers += harm.lost_pointers;
        self.harm.wrong |= harm.wrong;
        self.running.extend(running.map(|running| running.as_millis()));
    }

    pub fn is_clean(&self) -> bool {
        !self.harm.wrong && self.harm.double_writers == 0 && self.harm.lost_pointers == 0
    }

    fn running_p50(&self) -> Option<u128> {
        percentile(&self.running, 50)
    }
}

/// The table.
pub fn print(rows: &[Row]) {
    println!(
        "\n{:<44} {:>5} {:>8} {:>9} {:>8} {:>9} {:>12}",
        "fault", "runs", "leader", "job", "double", "lost", "RUNNING"
    );
    println!(
        "{:<44} {:>5} {:>8} {:>9} {:>8} {:>9} {:>12}",
        "", "", "changes", "restarts", "writers", "pointers", "p50 ms"
    );
    for row in rows {
        let running = row.running_p50().map_or_else(|| "-".to_owned(), |running| running.to_string());
        let repeated = if row.repeated == 0 { String::new() } else { format!("  {} repeated", row.repeated) };
        let verdict = if row.is_clean() { "" } else { "  VIOLATION" };
        let Harm { leader_changes, job_restarts, double_writers, lost_pointers, .. } = row.harm;
        println!(
            "{:<44} {:>5} {leader_changes:>8} {job_restarts:>9} {double_writers:>8} {lost_pointers:>9} {running:>12}{repeated}{verdict}",
            row.name, row.runs
        );
    }
}

/// The same for machines, of what has run so far: what ends the test leaves a report.
pub fn write(rows: &[Row]) {
    let report = rows
        .iter()
        .filter(|row| row.runs > 0)
        .map(|row| {
            json!({
                "fault": row.name,
                "runs": row.runs,
                "repeated": row.repeated,
                "leader_changes": row.harm.leader_changes,
                "job_restarts": row.harm.job_restarts,
                "double_writers": row.harm.double_writers,
                "lost_pointers": row.harm.lost_pointers,
                "running_ms_p50": row.running_p50(),
            })
        })
        .collect();
    report::write_rows("faults", "fault", report);
}
