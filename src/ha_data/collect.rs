//! What of a terminal job may go: a pure decision.
//!
//! A job is terminal only by a clean entry in Flink's result store **and** the absence of its key from a cluster
//! ConfigMap that carries the current term's stamp: the store is a plain file, and a JobManager that has lost the
//! leadership can still write one for a job that runs elsewhere. Everything else is unknown, and unknown never deletes.

use std::collections::BTreeSet;

use super::inventory::Inventory;
use crate::flink::ha_file::Kind;
use crate::flink::result::{Entry, Outcome, Store};

/// An entry that may go, after its tombstone is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collectable {
    pub store: Store,
    pub id: String,
    pub outcome: Outcome,
}

/// Entries that may go; those of jobs before those of applications, because an application's end follows its jobs'.
/// `inventory` was read after the entries, in the current term.
pub fn collectable(entries: &[Entry], inventory: &Inventory) -> Vec<Collectable> {
    let dirty: BTreeSet<&str> = entries.iter().filter(|entry| entry.dirty).map(|entry| entry.id.as_str()).collect();
    let mut found: Vec<Collectable> = entries
        .iter()
        .filter(|entry| !dirty.contains(entry.id.as_str()))
        .filter(|entry| !inventory.may_live(&entry.id))
        .filter_map(|entry| {
            let outcome = entry.outcome.clone()?;
            Some(Collectable { store: entry.store, id: entry.id.clone(), outcome })
        })
        .collect();
    found.sort_by_key(|collectable| collectable.store);
    found
}

/// Is a file of the cluster's directory one of an ended job, that nothing needs any more? `job` is the job of a
/// checkpoint, once its file has been read. Files of ended jobs need no age: nothing will ever name them again.
pub fn is_left_over(path: &str, job: Option<&str>, ended: &[Ended], inventory: &Inventory) -> Option<String> {
    let of = |id: &str| ended.iter().find(|job| job.id == id).map(|job| job.id.clone());
    match Kind::of(path) {
        _ if inventory.named.contains(path) => None,
        Kind::Blob(job) => of(&job),
        Kind::Checkpoint => of(job?),
        Kind::Plan if inventory.unreadable_plan => None,
        Kind::Plan => ended.iter().find(|job| job.plans.iter().any(|plan| plan == path)).map(|job| job.id.clone()),
        Kind::Marker | Kind::Foreign => None,
    }
}

/// A job whose tombstone is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub id: String,
    /// Files of its graphs or plans, as the ledger noted them when they were stored.
    pub plans: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, dirty: bool) -> Entry {
        Entry {
            store: Store::Job,
            id: id.into(),
            dirty,
            outcome: Some(Outcome { state: "Failed", ..Outcome::default() }),
            torn: false,
        }
    }

    fn ids(entries: &[Entry], stored: &[&str], with_config_map: &[&str]) -> Vec<String> {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let inventory =
            Inventory { stored: set(stored), with_config_map: set(with_config_map), ..Inventory::default() };
        collectable(entries, &inventory).into_iter().map(|collectable| collectable.id).collect()
    }

    #[test]
    fn a_clean_entry_of_a_job_without_key_and_config_map_goes() {
        assert_eq!(ids(&[entry("a", false)], &[], &[]), ["a"]);
    }

    #[test]
    fn unknown_never_deletes() {
        assert!(ids(&[entry("a", true)], &[], &[]).is_empty(), "Flink is still cleaning up");
        assert!(ids(&[entry("a", false), entry("a", true)], &[], &[]).is_empty(), "Flink is still cleaning up");
        assert!(ids(&[entry("a", false)], &["a"], &[]).is_empty(), "the job is stored: it runs, here or elsewhere");
        assert!(ids(&[entry("a", false)], &[], &["a"]).is_empty(), "the job has checkpoint pointers");
        assert!(
            ids(&[Entry { outcome: None, ..entry("a", false) }], &[], &[]).is_empty(),
            "the entry is not understood"
        );
    }
}
