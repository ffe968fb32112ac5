//! ConfigMaps as anybody may have written them: whose they are, what they hold, what goes when the resource is deleted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::core::ObjectMeta;
use serde_json::Value;

use crate::api::names::{self, CLUSTER_LABEL, MANAGED_BY_LABEL};
use crate::api::v1alpha1::OnDelete;
use crate::cluster::deletion;
use crate::flink::job_id::JobId;
use crate::flink::lock::{self, HeldLock};
use crate::flink::{ha_data, pointer};
use crate::ha_data::foreign::{
    HaConfigMaps, has_history, is_labelled, is_marked, is_own, may_be_renewed_elsewhere, name_taken,
};
use crate::ha_data::handover::Stored;
use crate::ha_data::inventory::Inventory;
use crate::ha_data::quarantine::Moves;
use crate::input::Input;
use crate::ledger::jobs::Job;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let jobs: Vec<Job> = serde_json::from_slice(input.line()).unwrap_or_default();
    let mut objects = Vec::new();
    while !input.is_empty() && objects.len() < 8 {
        objects.push(input.json());
    }
    for object in &objects {
        of_lock(object);
        ownership(object);
        let _ = (is_marked(object), has_history(object));
        if let Err(refusal) = Stored::in_config_map(object) {
            assert!(!refusal.message.is_empty());
        }
        let stored = ha_data::stored(object);
        assert!(stored.is_superset(&ha_data::stored_jobs(object)));
        assert!(ha_data::stored_by_others(object).iter().all(|id| !stored.iter().any(|job| job == id)));
    }
    of_lock_text(&String::from_utf8_lossy(bytes));
    inventory(&objects);
    deletion(&objects, &jobs);
    let by_name: BTreeMap<String, Value> =
        objects.iter().map(|object| (name(object).to_owned(), object.clone())).collect();
    let all = HaConfigMaps { cluster_id: "demo", cluster: objects.first(), jobs: &by_name };
    assert_eq!(all.refusal().is_some(), !all.unmarked().is_empty());
    assert!(!all.refusal_of_living().message.is_empty());
    let taken: Vec<String> = objects.iter().map(|object| name(object).to_owned()).collect();
    assert_eq!(name_taken("demo", &taken).is_some(), !taken.is_empty());
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn of_lock(object: &Value) {
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let _ = may_be_renewed_elsewhere(object, now);
    }
    if let Some(text) = lock::of_object(object) {
        of_lock_text(text);
    }
}

fn of_lock_text(text: &str) {
    if let Some(held) = HeldLock::of(text) {
        assert_eq!(lock::holder(text).as_ref(), Some(&held.holder));
        assert!(!held.holder.is_empty());
        let ours = lock::held(&held.holder, Timestamp::UNIX_EPOCH);
        let read = HeldLock::of(&ours).expect("what we write is a lock");
        assert!(read.holder == held.holder && !read.was_renewed());
    }
    assert_eq!(lock::holder(&lock::free(Timestamp::UNIX_EPOCH)).as_deref(), Some(""));
}

/// Another's labels are not ours, whatever else stands there.
fn ownership(object: &Value) {
    let Ok(metadata) = serde_json::from_value::<ObjectMeta>(object["metadata"].clone()) else { return };
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    if is_labelled(&metadata, "demo") {
        assert_eq!((label(CLUSTER_LABEL), is_own(&metadata, "demo")), (Some("demo"), true));
    }
    let is_owned = metadata.owner_references.iter().flatten().any(|owner| owner.kind == "FlinkHaCluster");
    if label(CLUSTER_LABEL).is_some_and(|cluster| cluster != "demo") && !is_owned {
        assert!(!is_own(&metadata, "demo"), "{metadata:?} is another's, {:?}", label(MANAGED_BY_LABEL));
    }
}

/// What is stored may live, and what a readable pointer names is in use.
fn inventory(objects: &[Value]) {
    let inventory = Inventory::of("demo", objects);
    for object in objects.iter().filter(|object| name(object) == names::cluster_config_map("demo")) {
        assert!(ha_data::stored(object).iter().all(|job| inventory.may_live(*job)));
        for (key, value) in object["data"].as_object().into_iter().flatten() {
            let key = ha_data::key_in_quarantine(key).unwrap_or(key);
            let Some(value) = value.as_str().filter(|_| ha_data::plan_of(key).is_some()) else { continue };
            match pointer::file(value) {
                Ok(uri) => assert!(inventory.named.contains(pointer::name(&uri))),
                Err(_) => assert!(inventory.unreadable_plan),
            }
        }
    }
    let _ = inventory.unreadable("demo");
    for object in objects.iter().filter(|object| name(object) == names::cluster_config_map("demo")) {
        quarantine(object, &inventory);
    }
}

/// What is set aside is in use as before, and comes back as it was.
fn quarantine(cluster: &Value, inventory: &Inventory) {
    // The API server stores texts only.
    if cluster["data"].as_object().is_some_and(|data| data.values().any(|value| !value.is_string())) {
        return;
    }
    let applications = ha_data::stored_applications(cluster);
    let is_free = |job: &JobId| !inventory.quarantined.contains_key(job) && !applications.contains(job);
    let aside: BTreeSet<JobId> = ha_data::stored_jobs(cluster).into_iter().filter(is_free).collect();
    let there = Moves { aside: aside.clone(), back: BTreeSet::new() };
    let back = Moves { aside: BTreeSet::new(), back: aside.clone() };
    let moved = merge(cluster, &there.patch(cluster));
    let (before, after) = (Inventory::of("demo", &[cluster.clone()]), Inventory::of("demo", &[moved.clone()]));
    assert!(before.named == after.named && before.unreadable_plan == after.unreadable_plan);
    assert!(aside.iter().all(|job| after.may_live(*job) && !after.stored.contains(job)), "{moved}");
    let (pointers, returned) = (&cluster["data"], merge(&moved, &back.patch(&moved)));
    assert!(aside.is_empty() || *pointers == returned["data"], "{pointers} is not {returned}");
}

/// A merge patch of the data.
fn merge(object: &Value, patch: &Value) -> Value {
    let mut object = object.clone();
    for (key, value) in patch["data"].as_object().into_iter().flatten() {
        match (object["data"].as_object_mut(), value) {
            (Some(data), Value::Null) => drop(data.remove(key)),
            (Some(data), value) => drop(data.insert(key.clone(), value.clone())),
            (None, _) => {}
        }
    }
    object
}

/// Nothing goes that carries no mark, and with `Retain` nothing of a job that has no end.
fn deletion(objects: &[Value], jobs: &[Job]) {
    for on_delete in [OnDelete::Delete, OnDelete::Retain] {
        let plan = deletion::plan(on_delete, "demo", objects, jobs);
        assert_eq!(plan.delete.len() + plan.keep.len() + plan.foreign.len(), objects.len());
        for object in objects.iter().filter(|object| !is_marked(object)) {
            assert!(plan.foreign.iter().any(|foreign| foreign == name(object)));
        }
        for object in objects.iter().filter(|object| on_delete == OnDelete::Retain && is_marked(object)) {
            let job = ha_data::job_of("demo", name(object));
            let has_ended = |job| jobs.iter().any(|known| known.id == job && known.has_ended());
            let is_twice = objects.iter().filter(|other| name(other) == name(object)).count() > 1;
            let may_go = name(object) == names::cluster_config_map("demo") || job.is_some_and(has_ended);
            assert!(may_go || is_twice || !plan.delete.iter().any(|deleted| deleted == name(object)));
        }
        let _ = plan.of_others();
    }
}
