//! Failovers of a job of many tasks, by the options of the JobManagers' JVMs: those of the operator (serial collector,
//! C1 alone), the serial collector with both compilers, and Java's defaults. One run, the same job. Prints p50, and
//! writes all samples to `target/bench/tasks.json`.
//!
//! Usage: `cargo test --features kind-tests --test bench-tasks`; TASKS (1000) of the job, RUNS (4) kills of each.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kind/kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

use kit::failover::{Failover, kill_leaders};
use kit::namespace::Namespace;
use kit::ours;
use serde_json::{Value, json};
use support::report::{self, number, percentile};

/// As in production.
const JAVA_OPTIONS: [&str; 2] = ["", ""];

const STAGES: usize = 10;

/// What the resource says of the JVMs.
const OPTIONS: [(&str, &str, &str); 3] = [
    ("serial, C1 alone", "Default", ""),
    ("serial, both compilers", "Default", "-XX:TieredStopAtLevel=4"),
    ("Java's defaults", "None", ""),
];

#[tokio::main]
async fn main() {
    let tasks = number("TASKS", 1000_usize);
    let mut report = json!({ "tasks": tasks });
    println!(
        "{:<24} {:>15} {:>15} {:>24}",
        format!("{tasks} tasks"),
        "granted p50 ms",
        "RUNNING p50 ms",
        "the JVM that takes over"
    );
    for (title, by_operator, options) in OPTIONS {
        let failovers = turn(by_operator, options, tasks / STAGES).await;
        let of = |time: fn(&Failover) -> u128| failovers.iter().map(time).collect::<Vec<u128>>();
        let granted = of(|one| one.granted.as_millis());
        let running = of(|one| one.running.as_millis());
        let processor = of(|one| u128::from(one.processor_millis[0]));
        let p50 = |samples: &[u128]| percentile(samples, 50).unwrap_or_default();
        println!("{title:<24} {:>15} {:>15} {:>24}", p50(&granted), p50(&running), p50(&processor));
        report[title] = json!({ "granted_ms": granted, "running_ms": running, "processor_ms": processor });
    }
    report::write("tasks", &report);
}

/// A new cluster, a new job, some kills; nothing of it is left for the next turn.
async fn turn(by_operator: &str, options: &str, parallelism: usize) -> Vec<Failover> {
    let mut resource = ours::example();
    let spec = &mut resource["spec"];
    spec["jobManager"]["jvmOptions"] = by_operator.into();
    spec["jobManager"]["replicas"] = 2.into();
    spec["taskManager"]["replicas"] = 1.into();
    spec["taskManager"]["resources"] = json!({ "limits": { "memory": "4Gi" } });
    let configuration = &mut spec["flinkConfiguration"];
    configuration["env.java.opts.jobmanager"] = options.into();
    configuration["taskmanager.numberOfTaskSlots"] = Value::from(parallelism + 1);
    // A TaskManager on two processors takes longer than ten seconds to start so many.
    configuration["pekko.ask.timeout"] = "120 s".into();
    configuration["taskmanager.memory.network.max"] = "1gb".into();
    configuration["taskmanager.memory.network.fraction"] = "0.3".into();
    let cluster = ours::apply(Namespace::fresh("bench-tasks"), &resource).await;
    cluster.wait_until_ready().await;
    let (parallelism, stages) = (parallelism.to_string(), STAGES.to_string());
    let arguments = ["--parallelism", &parallelism, "--stages", &stages, "--checkpoint-interval-millis", "2000"];
    let job = cluster.run("ManyTasks", &arguments, 2).await;
    let failovers = kill_leaders(&cluster, &job, number("RUNS", 4)).await;
    cluster.namespace.delete();
    failovers
}
