//! How long a failover takes: ours, ours with class-data archives in the image, Flink's own Kubernetes HA with its
//! defaults, with short timings, and with the JVM options that ours has. The same version of Flink and the same job on
//! the same cluster in the same run, in turns and never at once. Prints p50 and p99, and writes all samples to
//! `target/bench/failover.json`.
//!
//! Usage: `cargo test --features kind-tests --test bench-failover`; RUNS (10) kills of each of ours, NATIVE_RUNS (3) of
//! each of the others, ROW_RUNS (3) of everything else that befalls a leader of ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kind/kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kit::cluster::Cluster;
use kit::disturbance::Disturbance;
use kit::failover::{Failover, kill_leaders};
use kit::machine::flink_version;
use kit::namespace::Namespace;
use kit::processor_time::PARTS;
use kit::{native, ours};
use serde_json::{Map, Value, json};
use support::report::{self, number, percentile};
use support::{say, script};

/// Flink's own: both sides of the comparison run as in production.
const JAVA_OPTIONS: [&str; 2] = ["", ""];

/// What a JobManager of a session cluster has here (`spec.jobManager.jvmOptions`).
const SAME_OPTIONS: &str = "-XX:+IgnoreUnrecognizedVMOptions -XX:+NeverActAsServerClassMachine -XX:TieredStopAtLevel=1";

#[derive(Clone, Copy)]
enum Provider {
    Ours,
    OursArchive,
    Native,
    NativeTuned,
    NativeSameJvm,
}

impl Provider {
    const ALL: [Self; 5] = [Self::Ours, Self::OursArchive, Self::Native, Self::NativeTuned, Self::NativeSameJvm];

    const fn key(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursArchive => "ours_archive",
            Self::Native => "native",
            Self::NativeTuned => "native_tuned",
            Self::NativeSameJvm => "native_same_jvm",
        }
    }

    const fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursArchive)
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Ours => "FlinkHaCluster",
            Self::OursArchive => "FlinkHaCluster, class-data archives in the image",
            Self::Native => "Flink's Kubernetes HA, its defaults (15/15/5 s)",
            Self::NativeTuned => "Flink's Kubernetes HA, short timings (5/4/1 s)",
            Self::NativeSameJvm => "Flink's Kubernetes HA, JVM options as ours",
        }
    }

    async fn start(self) -> Cluster {
        let namespace = |name| Namespace::fresh(name);
        match self {
            Self::Ours => ours::start(namespace("bench-ours")).await,
            Self::OursArchive => {
                let archives = script("rig/flink-classes", &[]);
                script("rig/load", &[&archives]);
                let mut resource = ours::example();
                resource["spec"]["image"] = archives.into();
                let cluster = ours::apply(namespace("bench-ours-archive"), &resource).await;
                cluster.wait_until_ready().await;
                cluster
            }
            Self::Native => native::start(namespace("bench-native"), native::DEFAULT, 3, 2).await,
            Self::NativeTuned => native::start(namespace("bench-native-tuned"), native::TUNED, 3, 2).await,
            Self::NativeSameJvm => {
                let (namespace, name, deployment) = (namespace("bench-native-jvm"), "native", "native-jobmanager");
                native::start_as(namespace, name, deployment, native::DEFAULT, [3, 2], SAME_OPTIONS).await
            }
        }
    }
}

#[tokio::main]
async fn main() {
    let begin = Instant::now();
    let (runs, native_runs) = (number("RUNS", 10), number("NATIVE_RUNS", 3));
    let rounds = native_runs.max(1);
    let mut failovers: [Vec<Failover>; 5] = Default::default();
    for round in 0..rounds {
        for (provider, failovers) in Provider::ALL.into_iter().zip(&mut failovers) {
            let runs = if provider.is_ours() { runs } else { native_runs };
            let kills = runs * (round + 1) / rounds - runs * round / rounds;
            say(format!("round {} of {rounds}, {}: {kills} kills", round + 1, provider.title()));
            if kills > 0 {
                failovers.extend(turn(provider, kills).await);
            }
        }
    }
    let rows = befall_all(number("ROW_RUNS", 3)).await;
    let mut report = json!({
        "runs": runs,
        "rows": rows.iter().map(|(what, failovers)| (what.title(), numbers(failovers))).collect::<BTreeMap<_, _>>(),
        "flink": flink_version(),
    });
    for (provider, failovers) in Provider::ALL.into_iter().zip(&failovers) {
        report[provider.key()] = numbers(failovers);
    }
    print_table(&failovers);
    print_processors(&failovers);
    print_rows(&rows);
    report::write("failover", &report);
    println!("{:.0} s in all", begin.elapsed().as_secs_f32());
}

/// A new cluster, a new job, some kills; nothing of it is left for the next turn.
async fn turn(provider: Provider, kills: usize) -> Vec<Failover> {
    let begin = Instant::now();
    let cluster = provider.start().await;
    let arguments = ["--output", "/flink/output", "--checkpoint-interval-millis", "1000"];
    let job = cluster.run("KeyedSequence", &arguments, 2).await;
    say(format!("up with a job after {:.0} s", begin.elapsed().as_secs_f32()));
    let failovers = kill_leaders(&cluster, &job, kills).await;
    cluster.namespace.delete();
    failovers
}

/// Everything else that befalls a leader of ours, so many times.
async fn befall_all(runs: usize) -> Vec<(Disturbance, Vec<Failover>)> {
    if runs == 0 {
        return Vec::new();
    }
    let cluster = Provider::Ours.start().await;
    let arguments = ["--output", "/flink/output", "--checkpoint-interval-millis", "1000"];
    let job = cluster.run("KeyedSequence", &arguments, 2).await;
    let mut rows = Vec::new();
    for what in Disturbance::ALL {
        say(what.title());
        let mut failovers = Vec::new();
        for _ in 0..runs {
            failovers.push(what.befall(&cluster, &job).await);
        }
        rows.push((what, failovers));
    }
    cluster.namespace.delete();
    rows
}

type Time = fn(&Failover) -> Duration;

fn numbers(failovers: &[Failover]) -> Value {
    let of = |time: Time| {
        let samples: Vec<u128> = failovers.iter().map(|failover| time(failover).as_millis()).collect();
        json!({"p50": percentile(&samples, 50), "p99": percentile(&samples, 99), "samples": samples})
    };
    let processors =
        PARTS.into_iter().enumerate().map(|(index, part)| (part.to_owned(), json!(processor_millis(failovers, index))));
    let processors: Map<String, Value> = processors.collect();
    json!({
        "granted_ms": of(|one| one.granted),
        "running_ms": of(|one| one.running),
        "processor_ms": processors,
    })
}

fn print_rows(rows: &[(Disturbance, Vec<Failover>)]) {
    println!(
        "\n{:<30} {:>5} {:>15} {:>15} {:>15} {:>15}",
        "FlinkHaCluster", "runs", "granted p50 ms", "p99 ms", "RUNNING p50 ms", "p99 ms"
    );
    for (what, failovers) in rows {
        let of = |time: Time, per_cent| {
            let samples: Vec<u128> = failovers.iter().map(|failover| time(failover).as_millis()).collect();
            percentile(&samples, per_cent).map_or_else(String::new, |millis| millis.to_string())
        };
        let granted = |per_cent| of(|one| one.granted, per_cent);
        let running = |per_cent| of(|one| one.running, per_cent);
        let (title, runs) = (what.title(), failovers.len());
        println!(
            "  {title:<28} {runs:>5} {:>15} {:>15} {:>15} {:>15}",
            granted(50),
            granted(99),
            running(50),
            running(99)
        );
    }
}

/// Processor time of one of [`PARTS`], p50.
fn processor_millis(failovers: &[Failover], part: usize) -> Option<u128> {
    let samples: Vec<u128> = failovers.iter().map(|one| u128::from(one.processor_millis[part])).collect();
    percentile(&samples, 50)
}

fn print_processors(failovers: &[Vec<Failover>; 5]) {
    let keys = Provider::ALL.map(|provider| format!("{:>16}", provider.key())).join("");
    println!("\n{:<50}{keys}", "processor time until all tasks RUNNING, p50 ms");
    for (index, part) in PARTS.into_iter().enumerate() {
        print!("  {part:<48}");
        for failovers in failovers {
            print!("{:>16}", processor_millis(failovers, index).map_or_else(String::new, |millis| millis.to_string()));
        }
        println!();
    }
}

fn print_table(failovers: &[Vec<Failover>; 5]) {
    let times: [(&str, Time); 3] = [
        ("kill → granted", |one| one.granted),
        ("kill → all tasks RUNNING", |one| one.running),
        ("kill → new checkpoint", |one| one.checkpoint),
    ];
    for (what, time) in times {
        println!("\n{what:<50} {:>5} {:>10} {:>10} {:>12}", "kills", "p50 ms", "p99 ms", "p50 to ours");
        let samples = |of: &[Failover]| -> Vec<u128> { of.iter().map(|failover| time(failover).as_millis()).collect() };
        let ours = percentile(&samples(&failovers[0]), 50);
        for (provider, failovers) in Provider::ALL.into_iter().zip(failovers) {
            let samples = samples(failovers);
            let (Some(p50), Some(p99)) = (percentile(&samples, 50), percentile(&samples, 99)) else { continue };
            let ratio = ours.map_or_else(String::new, |ours| format!("{:.1}×", p50 as f64 / ours as f64));
            println!("  {:<48} {:>5} {p50:>10} {p99:>10} {ratio:>12}", provider.title(), samples.len());
        }
    }
}
