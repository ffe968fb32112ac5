//! Unknown never deletes: one thing of a cluster's HA data is mangled, and nothing goes that it may have named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::flink::ha_data::{COUNTER, is_leader};
use crate::flink::job_id::JobId;
use crate::flink::job_state::{End, FlinkState};
use crate::flink::pointer;
use crate::flink::result::{self, Entry, Outcome, Store};
use crate::flink::znodes::{ClusterZnodes, JobZnode, PlanZnode};
use crate::ha_data::collect::{EndedJob, collectable, is_left_over};
use crate::ha_data::inventory::Inventory;
use crate::ha_data::repair::{Mend, mend};
use crate::ha_data::sweep::{Evidence, FileVerdict, of_checkpoint, verdict};
use crate::input::Input;

const JOB: JobId = JobId::from_number(0xa);
const PLAN: &str = "submittedJobGraph00000000000a";
const CHECKPOINT: &str = "completedCheckpoint00000000000b";
const OLD: Duration = Duration::from_secs(1 << 20);

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 3 {
        0 => config_maps(input.byte(), input.rest()),
        1 => znodes(input.byte(), input.rest()),
        _ => results(&mut input),
    }
}

/// A pointer as Flink writes it, as far as it is read: an object of a class with one field.
fn pointer_to(name: &str) -> Vec<u8> {
    let uri = format!("file:/ha/flink.demo/{name}");
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let class = [&b"\x73\x72"[..], &text("java.net.URI"), &[0; 8], b"\x02\x00\x01L", &text("string")].concat();
    let field = [&b"\x74"[..], &text("Ljava/lang/String;"), b"\x78\x70\x74", &text(&uri)].concat();
    [&b"\xac\xed\x00\x05"[..], &class, &field].concat()
}

/// What is looked at: a ConfigMap's value may be anything, the rest of the cluster is as Flink writes it.
fn config_maps(what: u8, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (plan, checkpoint) = (BASE64_STANDARD.encode(pointer_to(PLAN)), BASE64_STANDARD.encode(pointer_to(CHECKPOINT)));
    let (plan_key, checkpoint_key) = (format!("jobGraph-{JOB}"), "checkpointID-0000000000000000001".to_owned());
    let mangled = if what & 8 == 0 { text.clone() } else { BASE64_STANDARD.encode(bytes) };
    let (plan_key, plan, checkpoint_key, checkpoint) = match what % 4 {
        0 => (plan_key, mangled.clone(), checkpoint_key, checkpoint),
        1 => (plan_key, plan, checkpoint_key, mangled.clone()),
        2 => (text.clone(), plan, checkpoint_key, checkpoint),
        _ => (plan_key, plan, text.clone(), checkpoint),
    };
    let config_map = |name: String, key: String, value: String| {
        let data = BTreeMap::from([(key, value)]);
        json!({ "metadata": { "name": name }, "data": data })
    };
    // Without the ConfigMap of its job nothing else says that it lives.
    let is_alone = what & 16 != 0;
    let all = [
        config_map("demo-cluster-config-map".to_owned(), plan_key, plan),
        config_map(format!("demo-{JOB}-config-map"), checkpoint_key, checkpoint),
    ];
    let inventory = Inventory::of("demo", if is_alone { &all[..1] } else { &all });
    // A pointer that is read names another file; a key that is no pointer's names none.
    let (is_replaced, is_no_pointer) = (pointer::file(&mangled).is_ok(), is_leader(&text) || text == COUNTER);
    let keeps_plan = match what % 4 {
        0 => !is_replaced,
        2 => !is_leader(&text),
        _ => true,
    };
    let keeps_checkpoint = match what % 4 {
        _ if is_alone => false,
        1 => !is_replaced,
        3 => !is_no_pointer,
        _ => true,
    };
    let keeps_blob = what % 4 != 2 || !is_leader(&text);
    // A key with the id of another job is a plan of that job.
    let is_of_another = what % 4 == 2 && !inventory.unreadable_plan && !inventory.stored.contains(&JOB);
    judge(&inventory, keeps_plan, keeps_checkpoint, keeps_blob && !is_of_another);
}

/// The same of znodes.
fn znodes(what: u8, bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes).into_owned();
    let (mut plan, mut checkpoint) = (pointer_to(PLAN), pointer_to(CHECKPOINT));
    let (mut plan_id, mut job_id) = (Some(JOB), Some(JOB));
    match what % 4 {
        0 => plan = bytes.to_vec(),
        1 => checkpoint = bytes.to_vec(),
        2 => plan_id = JobId::of(&name),
        _ => job_id = JobId::of(&name),
    }
    let is_read = pointer::file_of(bytes).is_ok();
    let all = ClusterZnodes {
        plans: vec![PlanZnode {
            path: "/flink/demo/jobgraphs/x".to_owned(),
            id: plan_id,
            pointer: plan,
            is_going: false,
        }],
        jobs: vec![JobZnode {
            id: job_id,
            path: "/flink/demo/jobs/x".to_owned(),
            checkpoints: vec![checkpoint],
            ..JobZnode::default()
        }],
        ..ClusterZnodes::default()
    };
    let inventory = Inventory::of_znodes(&all);
    judge(&inventory, what % 4 != 0 || !is_read, what % 4 != 1 || !is_read, true);
}

fn judge(inventory: &Inventory, keeps_plan: bool, keeps_checkpoint: bool, keeps_blob: bool) {
    let (dirty, living, ended) = (BTreeSet::new(), BTreeMap::new(), Vec::<EndedJob>::new());
    let evidence = Evidence { inventory, dirty: &dirty, living: &living, age_limit: Duration::ZERO };
    let blob = format!("blob/job_{JOB}/blob_p-1");
    for (path, keeps) in [(PLAN, keeps_plan), (CHECKPOINT, keeps_checkpoint), (blob.as_str(), keeps_blob)] {
        let found = match verdict(path, OLD, &evidence) {
            FileVerdict::Orphan if path == CHECKPOINT => of_checkpoint(Some(JOB), &evidence),
            found => found,
        };
        assert!(!keeps || found != FileVerdict::Orphan, "{path} is taken for an orphan: {inventory:?}");
        assert_eq!(is_left_over(path, Some(JOB), &ended, inventory), None);
    }
    assert!(of_checkpoint(None, &evidence) != FileVerdict::Orphan);
    let named = inventory.named.iter().map(String::as_str);
    for path in named.filter(|path| [PLAN, CHECKPOINT].contains(path)) {
        let ended = [EndedJob { id: JOB, plans: vec![PLAN.to_owned(), CHECKPOINT.to_owned()] }];
        assert_eq!(is_left_over(path, Some(JOB), &ended, inventory), None, "{path} is in use");
    }
}

/// Entries of result stores: nothing is collected but by a whole entry of that very job, and nothing that may live.
fn results(input: &mut Input) {
    let store = if input.byte() & 1 == 0 { Store::Job } else { Store::Application };
    let (name, content) = (input.text(), String::from_utf8_lossy(input.rest()).into_owned());
    let Some(entry) = result::entry(store, &name, &content) else { return };
    assert!(name == format!("{}{}.json", entry.id, if entry.dirty { "_DIRTY" } else { "" }));
    if let Some(outcome) = &entry.outcome {
        whole(&entry, outcome, &content);
    }
    let entries = [entry.clone()];
    let stored = Inventory { stored: BTreeSet::from([entry.id]), ..Inventory::default() };
    assert!(collectable(&entries, &stored).is_empty(), "a job that may live");
    let goes = !collectable(&entries, &Inventory::default()).is_empty();
    assert!(!goes || (!entry.dirty && entry.outcome.is_some()), "an entry that proves nothing");
    let removes =
        mend(&entries, &BTreeSet::new(), &BTreeSet::new()).iter().any(|one| matches!(one, Mend::Remove { .. }));
    assert!(!removes || (entry.torn && store == Store::Application && entry.dirty));
}

fn whole(entry: &Entry, outcome: &Outcome, content: &str) {
    let json: Value = serde_json::from_str(content).expect("an outcome is read from JSON");
    let result = &json["result"];
    assert!(result["id"] == entry.id.as_str() || result["application-id"] == entry.id.as_str());
    let states = [&result["application-status"], &result["application-state"]];
    let ends = ["SUCCEEDED", "FINISHED", "CANCELED", "FAILED"];
    assert!(states.iter().any(|state| ends.contains(&state.as_str().unwrap_or_default())));
    assert!(outcome.cause.as_ref().is_none_or(|cause| cause.chars().count() <= 500));
    // The entry that is made of it is one.
    let written = result::application_entry(entry.id, outcome);
    let made = result::entry(Store::Application, &format!("{}_DIRTY.json", entry.id), &written);
    assert_eq!(made.and_then(|made| made.outcome).map(|outcome| outcome.state), Some(outcome.state));
    assert!(
        End::ALL
            .into_iter()
            .any(|end| FlinkState::from(end.as_str().to_uppercase().as_str()).end() == Some(outcome.state))
    );
}
