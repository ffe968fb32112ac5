//! What goes wrong around a cluster, and whether the resource says so: each case injures one cluster of a real
//! operator on a real kube-apiserver, and measures how long it takes until a condition names what is wrong. There are
//! no kubelets and no controllers: what they write is written by hand ([`world`]).
//!
//! The table is printed, and written to `target/bench/adversity.json`. With `FORMER_PROGRAM` and `FORMER_CHART` the
//! same cases run against that operator first, and the table shows both. A case that it tells too is a control; it is
//! silent about the others.

mod applications;
mod deletion;
mod election;
mod ha_data;
mod pods;
mod resources;
mod world;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::operator::Installation;
use crate::support::say;
use world::{Seen, World};

/// Cases at a time.
const AT_A_TIME: usize = 12;

/// The operator's own election is not what is looked at, and ends the former operator where processors are scarce.
const ALONE: [&str; 2] = ["--leader-election", "false"];

/// One case.
struct Case {
    name: &'static str,
    run: Run,
}

type Run = Box<dyn Fn(World) -> Pin<Box<dyn Future<Output = Seen> + Send>> + Send + Sync>;

/// A case by its function, whose name says what goes wrong.
macro_rules! cases {
    ($($room:ident: $($name:ident)*;)*) => {
        vec![$($(Case { name: stringify!($name), run: Box::new(|world| Box::pin($room::$name(world))) },)*)*]
    };
}

fn cases() -> Vec<Case> {
    cases! {
        pods: an_image_cannot_be_pulled a_job_manager_crashes a_job_manager_has_too_little_memory
            a_task_manager_crashes no_node_has_room
            a_quota_refuses_pods an_environment_is_missing a_secret_volume_is_missing
            a_volume_of_an_init_container_is_missing a_volume_is_attached_elsewhere a_sandbox_cannot_be_made
            no_scheduler_looks_at_a_pod a_pod_is_gated a_job_manager_does_not_become_ready
            task_managers_are_lost;
        election: nobody_leads_any_more no_standby_is_left the_leaders_pod_is_gone the_address_is_lost
            a_job_manager_is_unknown data_of_another_run_is_stored a_candidate_says_why_it_cannot_lead
            the_peers_key_is_lost;
        applications: a_task_manager_has_failed_and_the_arguments_change
            a_job_manager_was_evicted_and_the_job_is_suspended a_pod_stays_on_a_lost_node
            a_savepoint_is_not_answered a_savepoint_fails the_main_method_throws
            the_running_definition_is_unreadable an_upgrade_does_not_come_up a_job_fails_for_good;
        deletion: a_quota_refuses_the_purge a_policy_refuses_the_purge the_purge_cannot_start a_job_manager_lives_on;
        ha_data: a_ledger_is_torn the_storage_is_unreachable two_clusters_share_a_directory a_config_map_is_full
            a_pointer_is_unreadable the_quorum_is_unreachable;
        resources: fields_contradict_each_other a_pod_template_is_invalid a_deployment_is_somebody_elses
            a_policy_refuses_an_object a_webhook_does_not_answer the_finalizer_is_refused labels_of_pods_are_refused
            the_directory_changes_under_jobs an_annotation_is_not_understood;
    }
}

/// What the former version tells too.
const CONTROLS: [&str; 19] = [
    "an_image_cannot_be_pulled",
    "no_node_has_room",
    "a_quota_refuses_pods",
    "an_environment_is_missing",
    "task_managers_are_lost",
    "no_standby_is_left",
    "the_leaders_pod_is_gone",
    "a_savepoint_fails",
    "the_main_method_throws",
    "an_upgrade_does_not_come_up",
    "the_storage_is_unreachable",
    "two_clusters_share_a_directory",
    "a_config_map_is_full",
    "a_pointer_is_unreadable",
    "the_quorum_is_unreachable",
    "fields_contradict_each_other",
    "a_pod_template_is_invalid",
    "a_policy_refuses_an_object",
    "an_annotation_is_not_understood",
];

/// Outcome of a case on one version of the operator.
struct Row {
    case: &'static str,
    seen: Seen,
}

pub async fn run() {
    let former = match (std::env::var_os("FORMER_PROGRAM"), std::env::var_os("FORMER_CHART")) {
        (Some(program), Some(chart)) => {
            say("the former operator");
            let installation = Installation::start_version(Path::new(&program), Path::new(&chart), &ALONE).await;
            all(installation, false).await
        }
        _ => Vec::new(),
    };
    say("this operator");
    let rows = all(Installation::start_with_flags("adversity", &ALONE).await, true).await;
    let of_former = |case: &str| former.iter().find(|row| row.case == case);
    println!("{:64} {:10} {:44} {:>7}  the former operator", "case", "kind", "outcome", "seconds");
    let (mut report, mut contradictions) = (Vec::new(), 0);
    for row in &rows {
        let before = of_former(row.case);
        let kind = if CONTROLS.contains(&row.case) { "control" } else { "red" };
        if let Some(before) = before
            && before.seen.silent == (kind == "control")
        {
            println!("{}: the former operator is to be {kind}, and it was: {}", row.case, before.seen.outcome);
            contradictions += 1;
        }
        let said = before.map_or("not run".to_owned(), |before| before.seen.outcome.clone());
        let Seen { outcome, seconds, silent, .. } = &row.seen;
        println!("{:64} {kind:10} {outcome:44} {seconds:7.1}  {said}", row.case);
        report
            .push(json!({ "case": row.case, "kind": kind, "outcome": outcome, "seconds": seconds, "silent": silent }));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/adversity.json");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, serde_json::to_string_pretty(&Value::Array(report)).unwrap()).unwrap();
    let failed: Vec<&Row> = rows.iter().filter(|row| row.seen.failed()).collect();
    for row in &failed {
        println!("{}: {} {}", row.case, row.seen.outcome, row.seen.message);
    }
    let verdict = if failed.is_empty() && contradictions == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} cases; {} failed; none may be silent", rows.len(), failed.len());
    assert!(failed.is_empty() && contradictions == 0);
}

/// Runs all cases beside each other. What is not told by the former operator is a result and no failure.
async fn all(installation: Installation, strict: bool) -> Vec<Row> {
    let only = std::env::var("ONLY").unwrap_or_default();
    let installation = Arc::new(installation);
    let slots = Arc::new(Semaphore::new(AT_A_TIME));
    let mut tasks = Vec::new();
    for case in cases().into_iter().filter(|case| case.name.contains(&only)) {
        let (installation, slots) = (Arc::clone(&installation), Arc::clone(&slots));
        let task = tokio::spawn(async move {
            let _slot = slots.acquire_owned().await.unwrap();
            let world = World::new(&installation, case.name, strict).await;
            (case.run)(world).await
        });
        tasks.push((case.name, task));
    }
    let mut rows = Vec::new();
    for (case, task) in tasks {
        let seen = task.await.unwrap_or_else(|error| Seen::broken(&error.to_string()));
        say(format!("{case}: {} after {:.1} s: {}", seen.outcome, seen.seconds, seen.message));
        rows.push(Row { case, seen });
    }
    rows
}
