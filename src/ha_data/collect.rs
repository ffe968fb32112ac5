//! Decides which data of a terminal job may be removed.
//!
//! A job is terminal only with a clean entry in Flink's result store **and** without a key in a cluster ConfigMap that
//! carries the current term's stamp. The store consists of plain files, and a JobManager that has lost the leadership
//! can still write an entry for a job that runs elsewhere. Everything else is unknown, and unknown never deletes.

use std::collections::BTreeSet;

use super::inventory::Inventory;
use crate::flink::ha_file::Kind;
use crate::flink::job_id::JobId;
use crate::flink::result::{Entry, Outcome, Store};
use crate::ledger::bounds;
use crate::ledger::jobs::Job;

/// A result entry that may be removed after its tombstone is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collectable {
    pub store: Store,
    pub id: JobId,
    pub outcome: Outcome,
}

/// Returns the entries that may be removed: those of jobs before those of applications, because an application ends
/// after its jobs. `inventory` was read after the entries, in the current term.
pub fn collectable(entries: &[Entry], inventory: &Inventory) -> Vec<Collectable> {
    let dirty: BTreeSet<JobId> = entries.iter().filter(|entry| entry.dirty).map(|entry| entry.id).collect();
    let mut found: Vec<Collectable> = entries
        .iter()
        .filter(|entry| !dirty.contains(&entry.id))
        .filter(|entry| !inventory.may_live(entry.id))
        .filter_map(|entry| {
            let outcome = entry.outcome.clone()?;
            Some(Collectable { store: entry.store, id: entry.id, outcome })
        })
        .collect();
    found.sort_by_key(|collectable| collectable.store);
    found
}

/// Returns those of the entries whose tombstones the ledger has, or has room for. The others stay in the storage, where
/// they prove the end of their jobs, until data of other ended jobs could be removed.
pub fn with_room(mut found: Vec<Collectable>, jobs: &[Job]) -> Vec<Collectable> {
    let mut buried: BTreeSet<JobId> = jobs.iter().filter(|job| job.has_ended()).map(|job| job.id).collect();
    let room = bounds::room_for_tombstones(jobs);
    let most = buried.len() + room;
    found.retain(|one| buried.contains(&one.id) || (buried.len() < most && buried.insert(one.id)));
    found
}

/// Returns the ended job whose file this is, if nothing needs the file any more. `job` is the job of a checkpoint, once
/// its metadata has been read. Files of ended jobs need no minimum age: no pointer will ever name them again.
pub fn is_left_over(path: &str, job: Option<JobId>, ended: &[EndedJob], inventory: &Inventory) -> Option<JobId> {
    let of = |id: JobId| ended.iter().find(|job| job.id == id).map(|job| job.id);
    match Kind::of(path) {
        _ if inventory.named.contains(path) => None,
        Kind::Blob(job) => of(job),
        Kind::Checkpoint => of(job?),
        Kind::Plan if inventory.unreadable_plan => None,
        Kind::Plan => ended.iter().find(|job| job.plans.iter().any(|plan| plan == path)).map(|job| job.id),
        Kind::Marker | Kind::Foreign => None,
    }
}

/// A job whose tombstone is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedJob {
    pub id: JobId,
    /// Files of its graphs or plans, as the ledger noted them while they were stored.
    pub plans: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flink::job_state::End;

    const JOB: JobId = JobId::from_number(1);

    fn entry(dirty: bool) -> Entry {
        Entry { store: Store::Job, id: JOB, dirty, outcome: Some(Outcome::of(End::Failed)), torn: false }
    }

    fn ids(entries: &[Entry], stored: &[JobId], with_config_map: &[JobId]) -> Vec<JobId> {
        let set = |ids: &[JobId]| ids.iter().copied().collect();
        let inventory =
            Inventory { stored: set(stored), with_config_map: set(with_config_map), ..Inventory::default() };
        collectable(entries, &inventory).into_iter().map(|collectable| collectable.id).collect()
    }

    #[test]
    fn a_clean_entry_of_a_job_without_key_and_config_map_goes() {
        assert_eq!(ids(&[entry(false)], &[], &[]), [JOB]);
    }

    #[test]
    fn unknown_never_deletes() {
        assert!(ids(&[entry(true)], &[], &[]).is_empty(), "Flink is still cleaning up");
        assert!(ids(&[entry(false), entry(true)], &[], &[]).is_empty(), "Flink is still cleaning up");
        assert!(ids(&[entry(false)], &[JOB], &[]).is_empty(), "the job is stored: it runs, here or elsewhere");
        assert!(ids(&[entry(false)], &[], &[JOB]).is_empty(), "the job has checkpoint pointers");
        assert!(ids(&[Entry { outcome: None, ..entry(false) }], &[], &[]).is_empty(), "the entry is not understood");
    }

    #[test]
    fn results_for_whose_tombstones_there_is_no_room_stay_where_they_are() {
        let collectable = |number| {
            let id = JobId::from_number(number);
            Collectable { store: Store::Job, id, outcome: Outcome::of(End::Failed) }
        };
        let ended = |number| Job { ended: Some("then".into()), ..Job::of(JobId::from_number(number)) };
        let jobs: Vec<Job> = (2..bounds::UNCOLLECTED as u128).map(ended).collect();
        let left = |jobs: &[Job]| {
            let of_application = Collectable { store: Store::Application, ..collectable(10_001) };
            let found =
                vec![collectable(7), collectable(10_001), collectable(10_002), collectable(10_003), of_application];
            with_room(found, jobs).iter().map(|one| (one.id, one.store)).collect::<Vec<_>>()
        };
        let id = JobId::from_number;
        let (job, application) = (Store::Job, Store::Application);
        assert_eq!(left(&jobs), [(id(7), job), (id(10_001), job), (id(10_002), job), (id(10_001), application)]);
        let full: Vec<Job> = jobs.into_iter().chain([ended(20_000), ended(20_001)]).collect();
        assert_eq!(left(&full), [(id(7), job)]);
    }
}
