//! Jobs that end in every way, at random moments, with leaders killed at random moments: nothing of them is left, and a
//! job that lives beside them all the while keeps everything.
//!
//! Usage: `cargo test --features long-tests --test long -- gc`; CYCLES (100) of submit and end, drawn by SEED (by the
//! clock), and AROUND (50) more in which the leader is killed in the second around the job's end. PROVIDER=zookeeper
//! for the other provider. Writes `target/bench/gc.json` and fails when anything is left, lost or revived.

use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, Provider};
use crate::support::left::{Left, files};
use crate::support::provider::on_zookeeper;
use crate::support::report::{self, number, percentile};
use crate::support::rest::Job;
use crate::support::{eventually, say, script, seconds};
use serde_json::json;

/// How a job ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Finishes,
    Cancelled,
    Fails,
}

#[derive(Default)]
struct Count {
    /// Jobs that ended without a durable record just when the leader was killed, and went on.
    resumed: usize,
    kills: usize,
    /// Jobs with a durable record of their end that a later leader ran again.
    revived: usize,
    gc: Vec<Duration>,
}

pub async fn run() {
    let (cycles, around): (usize, usize) = (number("CYCLES", 100), number("AROUND", 50));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    let seed = number("SEED", clock.as_secs());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(Provider::ours(), 3, 1).await;
    let living = cluster.run_sequence(0, 100).await;
    cluster.wait_for_checkpoints(&living, 2).await;
    say(format!("{cycles} cycles and {around} around an end, of SEED={seed}"));
    let mut count = Count::default();
    for cycle in 1..=cycles + around {
        let lives = Duration::from_millis(random.u64(700..2500));
        let (end, kill) = if cycle <= cycles {
            let end = [End::Finishes, End::Cancelled, End::Fails][random.usize(..3)];
            (end, random.bool().then(|| Duration::from_millis(random.u64(..2500))))
        } else {
            // These two end when they are told to.
            let end = [End::Cancelled, End::Fails][random.usize(..2)];
            (end, Some(lives + Duration::from_millis(random.u64(..1000)) - Duration::from_millis(300)))
        };
        let before = count.gc.len();
        once(&mut cluster, end, kill, lives, &mut count).await;
        say(format!(
            "{cycle} of {}: {end:?}, leader killed {kill:?}, gone {:?} after its end",
            cycles + around,
            count.gc[before]
        ));
        let rest = cluster.leader_rest().await;
        eventually("the living job on all tasks", seconds(60), async || rest.job(&living).await.ok().filter(Job::runs))
            .await;
    }
    // What lives must be able to come back once more, and ends as the others.
    cluster.wait_for_checkpoints(&living, 1).await;
    let rest = cluster.leader_rest().await;
    let savepoints = format!("file://{}", cluster.path().join("savepoints").display());
    rest.stop_with_savepoint(&living, &savepoints).await.expect("a savepoint of the living job");
    cluster.wait_for_state(&living, "FINISHED", seconds(60)).await;
    let begin = Instant::now();
    let left = loop {
        let left = Left::of(&cluster).await;
        if left.is_nothing() || begin.elapsed() > seconds(30) {
            break left;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("living job: {}", script("jobs/verify", &[&cluster.output().display().to_string(), "any"]));
    let [p50, p99] = [50, 99].map(|per_cent| percentile(&count.gc, per_cent).unwrap_or_default());
    println!(
        "{} jobs ended, {} leaders killed, {} jobs without a durable end went on, {} with one were revived; left: {} keys, {} ConfigMaps, {} znodes, {} files; \
         terminal → nothing left p50 {p50:?}, p99 {p99:?}",
        cycles + around,
        count.kills,
        count.resumed,
        count.revived,
        left.keys.len(),
        left.config_maps.len(),
        left.znodes.len(),
        left.files.len()
    );
    let report = json!({"cycles": cycles + around, "lost_jobs": 0, "resumed": count.resumed, "revived": count.revived,
        "left": {"keys": left.keys.len(), "configmaps": left.config_maps.len(), "znodes": left.znodes.len(), "files": left.files.len()},
        "gc_ms": {"p50": p50.as_millis() as u64, "p99": p99.as_millis() as u64}});
    report::write(if on_zookeeper() { "gc-zookeeper" } else { "gc" }, &report);
    assert!(left.is_nothing(), "left: {left:#?}");
    assert_eq!(count.revived, 0, "a job with a durable record of its end ran again");
}

/// One job from its beginning to its end, and until nothing names it any more.
async fn once(cluster: &mut Cluster, end: End, kill: Option<Duration>, lives: Duration, count: &mut Count) {
    let output = cluster.path().join("others").display().to_string();
    let millis = lives.as_millis().to_string();
    let job = match end {
        End::Finishes => cluster.submit("WordCount", &["--checkpoint-interval-millis", "200"]).await,
        End::Cancelled => {
            let arguments =
                ["--output", &output, "--lines", "0", "--rate", "50", "--checkpoint-interval-millis", "300"];
            cluster.submit("KeyedSequence", &arguments).await
        }
        End::Fails => {
            cluster.submit("FailsForGood", &["--after-millis", &millis, "--checkpoint-interval-millis", "300"]).await
        }
    };
    let job = job.expect("failed to submit a job");
    let submitted = Instant::now();
    let mut killed = false;
    let mut cancels: u32 = 0;
    let mut ended = None;
    // The leader under which a durable record of the end was first seen.
    let mut recorded: Option<usize> = None;
    let mut revived = false;
    let gone = eventually(&format!("nothing of {job}"), seconds(120), async || {
        let now = submitted.elapsed();
        if !killed && kill.is_some_and(|kill| now >= kill) {
            killed = true;
            if let Some(leader) = cluster.leader().await {
                cluster.job_managers[leader].jvm.kill();
                count.kills += 1;
                cluster.job_managers[leader].jvm.restart();
            }
        }
        let leader = cluster.leader().await?;
        let rest = cluster.job_managers[leader].rest();
        if recorded.is_none() && results(cluster).iter().any(|file| file.to_string_lossy().contains(&job)) {
            recorded = Some(leader);
        }
        let state = rest.job(&job).await.ok();
        revived |= recorded.is_some_and(|then| then != leader)
            && state.as_ref().is_some_and(|job| !job.has_ended() && job.state != "SUSPENDED");
        if matches!(end, End::Cancelled)
            && now >= lives + seconds(10) * cancels
            && state.as_ref().is_some_and(Job::runs)
        {
            // A leader that dies between the answer and the record of the end leaves a job that goes on; it is
            // cancelled again.
            count.resumed += usize::from(cancels > 0);
            cancels += 1;
            let _ = rest.cancel(&job).await;
        }
        if ended.is_none() && state.as_ref().is_some_and(Job::has_ended) {
            ended = Some(Instant::now());
        }
        let over = ended.is_some() || (state.is_none() && killed);
        let left = Left::of(cluster).await.naming(&job);
        (over && left == 0).then(|| ended.map_or(Duration::ZERO, |ended| ended.elapsed()))
    })
    .await;
    count.gc.push(gone);
    count.revived += usize::from(revived);
    cluster.mend().await;
}

/// Results of jobs, DIRTY and clean, that can be read. One whose writer died before it was whole is no record.
fn results(cluster: &Cluster) -> Vec<std::path::PathBuf> {
    let whole = |file: &std::path::PathBuf| {
        std::fs::read(file).is_ok_and(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).is_ok())
    };
    files(&cluster.storage().join("job-result-store")).into_iter().filter(whole).collect()
}
