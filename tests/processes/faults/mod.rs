//! Everything that may go wrong, again and again, with real Flink JVMs and real kube-apiservers; and what came of it,
//! judged by the API servers' own audit logs, by Flink's REST interface, and at the end by the job's output.
//!
//! Usage: `cargo test --features long-tests --test long -- faults`; FAULTS (5) runs of each in an order drawn by SEED
//! (by the clock), OUTAGE_SECONDS (90) for outages, LOSSES (50) of one JVM's leadership in a row, ONLY (all) for parts
//! of the names, with commas between, or all names without a part after a `!`. Writes `target/bench/faults.json` and
//! fails on any violation.

mod fault;
mod judge;
use std::time::Duration;

use self::fault::Fault;
use self::judge::{Before, Harm, Row};
use crate::support::cluster::{Cluster, Provider};
use crate::support::report::number;
use crate::support::{eventually, say, script, seconds};

pub async fn run() {
    let begin = std::time::Instant::now();
    let runs = number("FAULTS", 5);
    let outage = seconds(number("OUTAGE_SECONDS", 90));
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut cluster = Cluster::start_with(Provider::ours(), 3, 1, 2).await;
    let job = cluster.run_sequence(0, 100).await;
    let wanted = |fault: &Fault| match only.strip_prefix('!') {
        Some(part) => !fault.name().contains(part),
        None => only.split(',').any(|part| fault.name().contains(part)),
    };
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(wanted).collect();
    let mut rows: Vec<Row> = faults.iter().map(|fault| Row::new(fault.name())).collect();
    let of = |fault: &Fault| if *fault == Fault::LostAndRegained { 1 } else { runs };
    let mut order: Vec<usize> =
        faults.iter().enumerate().flat_map(|(row, fault)| std::iter::repeat_n(row, of(fault))).collect();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let seed = number("SEED", clock.as_secs());
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    say(format!("{} faults in the order of SEED={seed}", order.len()));
    for (done, row) in order.iter().enumerate() {
        say(format!("{} of {}: {}", done + 1, order.len(), faults[*row].name()));
        let (mut harm, mut running) = once(&mut cluster, &job, faults[*row], outage).await;
        // A machine that stands still for seconds is a fault of its own, on top of this one. What the product does
        // wrong it does again.
        if harm.is_of_time() {
            say("more harm than it may do: once more");
            rows[*row].repeated += 1;
            (harm, running) = once(&mut cluster, &job, faults[*row], outage).await;
        }
        rows[*row].add(harm, running);
        judge::write(&rows);
    }
    judge::print(&rows);
    let rest = cluster.leader_rest().await;
    rest.stop_with_savepoint(&job, &format!("file://{}", cluster.path().join("savepoints").display()))
        .await
        .expect("a savepoint");
    cluster.wait_for_state(&job, "FINISHED", seconds(60)).await;
    let faults: usize = rows.iter().map(|row| row.runs).sum();
    println!(
        "output after {faults} faults: {}",
        script("jobs/verify", &[&cluster.output().display().to_string(), "any"])
    );
    println!("{:.0} s in all", begin.elapsed().as_secs_f32());
    assert!(rows.iter().all(Row::is_clean), "a fault did more harm than it may");
}

/// One fault, and what came of it. Afterwards all is well again.
async fn once(cluster: &mut Cluster, job: &str, fault: Fault, outage: Duration) -> (Harm, Option<Duration>) {
    let before = Before::of(cluster, job).await;
    let leader = before.leader;
    let begin = std::time::Instant::now();
    fault.strike(cluster, leader, fault.lasts(outage)).await;
    let running = if fault.moves_the_job() {
        let running = judge::recovered(cluster, job, &before, begin).await;
        fault.heal(cluster, leader).await;
        Some(running)
    } else {
        tokio::time::sleep(fault.lasts(outage)).await;
        fault.heal(cluster, leader).await;
        None
    };
    cluster.mend().await;
    cluster.wait_for_members().await;
    // What somebody's hand has done to the Lease is found at its next write, up to 10 s later.
    eventually("a Lease that names leader and term", seconds(60), async || {
        let (lease, leader) = (cluster.lease().await, cluster.leader().await?);
        (lease.holder == cluster.job_managers[leader].pod && lease.term.is_some()).then_some(())
    })
    .await;
    let after = eventually("a new checkpoint", seconds(120), async || {
        let now = cluster.job_managers[cluster.leader().await?].rest().checkpoints(job).await.ok()?;
        now.latest.is_some_and(|latest| latest > before.latest).then_some(now)
    })
    .await;
    (judge::judge(cluster, job, &before, &after, fault).await, running)
}
