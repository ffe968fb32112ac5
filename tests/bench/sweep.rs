//! What a sweep of a large bucket costs a gateway: memory above all.
//!
//! Usage: `cargo test --release --features long-tests --test long -- sweep`; OBJECTS (1,000,000). Writes
//! `target/bench/sweep.json`.

use std::path::Path;
use std::time::Instant;

use crate::support::cluster::{Cluster, NAME, NAMESPACE, Provider};
use crate::support::gateway::Timings;
use crate::support::report::{self, number};
use crate::support::{eventually, say, seconds};
use flinkha::api::names;
use serde_json::json;

/// Objects in one directory of the server.
const IN_ONE: u32 = 1000;

pub async fn run() {
    let objects: u32 = number("OBJECTS", 1_000_000);
    let provider = Provider::ours_with(Timings { orphan_age: "1h", sweep_period: "5s", ..Timings::DEFAULT });
    let mut cluster = Cluster::start_on_s3(provider, 1, 1).await;
    let before = cluster.job_managers[0].gateway().memory("VmHWM");
    let begin = Instant::now();
    let directory = cluster.storage().join(names::high_availability_cluster_id(NAMESPACE, NAME));
    fill(&directory, objects);
    say(format!("{objects} objects laid down in {:.0} s", begin.elapsed().as_secs_f32()));
    let log =
        |cluster: &mut Cluster| cluster.job_managers[0].gateway().log().matches("swept the storage directory").count();
    // The sweep that runs now may have begun before the last object was there.
    let swept = log(&mut cluster);
    let mut begin = Instant::now();
    let mut last = swept;
    eventually("a sweep of all objects", seconds(1800), async || {
        let now = log(&mut cluster);
        if now == swept + 1 && last == swept {
            begin = Instant::now();
        }
        last = now;
        (now >= swept + 2).then_some(())
    })
    .await;
    let took = begin.elapsed();
    let after = cluster.job_managers[0].gateway().memory("VmHWM");
    println!(
        "a sweep of {objects} objects: {:.0} s; memory of the gateway at most {before} KiB before, {after} KiB with it",
        took.as_secs_f32()
    );
    report::write(
        "sweep",
        &json!({ "objects": objects, "seconds": took.as_secs_f32(), "peak_kib": { "before": before, "with": after } }),
    );
    // The directory is large; a test that goes on would wait for its removal.
    std::fs::remove_dir_all(&directory).expect("failed to remove the objects");
}

fn fill(directory: &Path, objects: u32) {
    for number in 0..objects {
        let of_job = directory.join(format!("blob/job_{:032x}", number / IN_ONE));
        if number % IN_ONE == 0 {
            std::fs::create_dir_all(&of_job).expect("failed to make a directory");
        }
        std::fs::File::create(of_job.join(format!("blob_p-{number:08x}"))).expect("failed to make an object");
    }
}
