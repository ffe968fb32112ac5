//! What of a terminal job may go: a pure decision.
//!
//! A job is terminal only by a clean entry in Flink's result store **and** the absence of its key from a cluster ConfigMap that
//! carries the current term's stamp: the store is a plain file, and a JobManager that has lost the leadership can still write one
//! for a job that runs elsewhere. Everything else is unknown, and unknown never deletes.

use std::collections::BTreeSet;

use crate::flink::result::{Entry, Outcome, Store};

/// What is known, all read in the same term.
pub struct Known<'a> {
    pub entries: &'a [Entry],
    /// Jobs and applications with a key in the stamped cluster ConfigMap.
    pub stored: &'a BTreeSet<String>,
    /// Jobs with a ConfigMap of their own.
    pub with_config_map: &'a BTreeSet<String>,
}

/// An entry that may go, after its tombstone is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collectable {
    pub store: Store,
    pub id: String,
    pub outcome: Outcome,
}

/// Entries that may go; those of jobs before those of applications, because an application's end follows its jobs'.
pub fn collectable(known: &Known) -> Vec<Collectable> {
    let dirty: BTreeSet<&str> = known.entries.iter().filter(|entry| entry.dirty).map(|entry| entry.id.as_str()).collect();
    let mut found: Vec<Collectable> = known
        .entries
        .iter()
        .filter(|entry| !dirty.contains(entry.id.as_str()))
        .filter(|entry| !known.stored.contains(&entry.id) && !known.with_config_map.contains(&entry.id))
        .filter_map(|entry| {
            let outcome = entry.outcome.clone()?;
            Some(Collectable { store: entry.store, id: entry.id.clone(), outcome })
        })
        .collect();
    found.sort_by_key(|collectable| collectable.store);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, dirty: bool) -> Entry {
        Entry { store: Store::Job, id: id.into(), dirty, outcome: Some(Outcome { state: "Failed", ..Outcome::default() }), torn: false }
    }

    fn ids(entries: &[Entry], stored: &[&str], with_config_map: &[&str]) -> Vec<String> {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let known = Known { entries, stored: &set(stored), with_config_map: &set(with_config_map) };
        collectable(&known).into_iter().map(|collectable| collectable.id).collect()
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
        assert!(ids(&[Entry { outcome: None, ..entry("a", false) }], &[], &[]).is_empty(), "the entry is not understood");
    }
}
