//! What gateways answer to `flinkha ask`, beside a running job: what they reach, what the storage holds, and what a
//! sweep finds or removes. The standby removes nothing.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::cluster::{Cluster, JobManager, NAME, NAMESPACE};
use crate::support::gateway::hand_over_socket;
use crate::support::operator::PROGRAM;
use flinkha::api::names;
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// An orphan, once it is old: no plan of this cluster has this name.
const ORPHAN: &str = "submittedExecutionPlan0123456789ab";

/// Asks as the plugin does in the gateway's container.
fn ask(one: &JobManager, question: &Value) -> Value {
    let mut command = Command::new(PROGRAM);
    command.args(["ask", "--socket"]).arg(hand_over_socket(&one.directory));
    let mut asking = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = asking.stdin.take().expect("a pipe");
    writeln!(stdin, "{question}").expect("sent");
    // The end of the question is the end of its line: standard input stays open.
    let output = block_in_place(|| asking.wait_with_output()).expect("an answer");
    drop(stdin);
    assert!(output.status.success(), "{question}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

pub fn gateways_answer(cluster: &Cluster, leader: &str, job: &str) {
    let of = |is_leader: bool| {
        let found = cluster.job_managers.iter().find(|one| (one.pod == leader) == is_leader);
        found.expect("a leader and a standby")
    };
    let (leader, standby) = (of(true), of(false));
    let addresses = [format!("{}:{}", standby.address, names::PROBE_PORT), format!("{}:1", standby.address)];
    let examined = &ask(leader, &json!({ "examine": { "addresses": addresses } }))["examined"];
    assert_eq!(
        (&examined["leads"], &examined["version"]),
        (&json!(true), &json!(env!("CARGO_PKG_VERSION"))),
        "{examined}"
    );
    for part in ["storage", "pointers", "ledger"] {
        assert!(examined[part]["failed"].is_null() && examined[part]["milliseconds"].is_u64(), "{examined}");
    }
    assert!(
        examined["addresses"][0]["failed"].is_null() && examined["addresses"][1]["failed"].is_string(),
        "{examined}"
    );
    assert_eq!(ask(standby, &json!({ "examine": { "addresses": [] } }))["examined"]["leads"], false);

    let directory = cluster.storage().join(names::high_availability_cluster_id(NAMESPACE, NAME));
    let plan = std::fs::read_dir(&directory).expect("the cluster's directory").flatten();
    let plan = plan.map(|file| file.file_name().to_string_lossy().into_owned());
    let plan = plan.into_iter().find(|name| name.starts_with("submitted")).expect("the job's graph or plan");
    let bytes = std::fs::metadata(directory.join(&plan)).expect("its size").len();
    let found = &ask(leader, &json!({ "lookUp": { "files": [plan, "none"] } }))["found"];
    assert_eq!(
        (&found["files"][0]["bytes"], &found["files"][1]),
        (&json!(bytes), &json!({ "file": "none" })),
        "{found}"
    );
    assert!(found["marks"].as_array().is_some_and(|marks| marks.len() == 1), "{found}");

    let old = File::create(directory.join(ORPHAN)).expect("an orphan");
    old.set_modified(SystemTime::now() - Duration::from_secs(48 * 3600)).expect("an old file");
    let sweep = |removes: bool| json!({ "sweep": { "removes": removes } });
    let why = ask(standby, &sweep(true))["refused"].clone();
    assert_eq!(why, "this JobManager does not lead, and only the leader sweeps");
    let dry = &ask(leader, &sweep(false))["swept"];
    let listed: Vec<&str> =
        dry["files"].as_array().into_iter().flatten().filter_map(|file| file["path"].as_str()).collect();
    assert_eq!(
        (listed, &dry["orphans"]["files"], &dry["orphans"]["removed"]),
        (vec![ORPHAN], &json!(1), &json!(0)),
        "{dry}"
    );
    assert!(directory.join(ORPHAN).exists(), "a dry run removes nothing");
    let swept = &ask(leader, &sweep(true))["swept"];
    assert_eq!((&swept["orphans"]["files"], &swept["orphans"]["removed"]), (&json!(0), &json!(1)), "{swept}");
    assert!(!directory.join(ORPHAN).exists() && directory.join(&plan).exists(), "job {job} needs its plan");
}
