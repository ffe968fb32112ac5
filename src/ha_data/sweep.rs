//! Decides for one file of a storage directory whether anything still needs it.
//!
//! Flink writes a file before its pointer. To remove them, it marks the pointer, removes the file, and then removes the
//! pointer. A leader that dies in between leaves an orphan. So a file that no pointer names is an orphan only beyond an
//! age that exceeds any such interval, and only while everything that could name it is readable. Unknown never deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::inventory::Inventory;
use crate::flink::ha_file::Kind;
use crate::flink::job_id::JobId;

/// The decision about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileVerdict {
    InUse,
    /// No readable pointer names it, but something else could.
    Protected,
    /// No pointer names it, and it may be too young for one.
    Young,
    Orphan,
    /// Flink did not write it.
    Foreign,
}

/// The facts on which the decision rests.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub inventory: &'a Inventory,
    /// Jobs with a DIRTY result: Flink is still cleaning up.
    pub dirty: &'a BTreeSet<JobId>,
    /// Jobs without an end in the ledger, with the files of their plans: somebody may have removed their ConfigMaps,
    /// and may restore them.
    pub living: &'a BTreeMap<JobId, Vec<String>>,
    /// A younger file stays.
    pub age_limit: Duration,
}

/// Decides by the file's path. For a checkpoint the job is not known yet; [`of_checkpoint`] completes the decision.
pub fn verdict(path: &str, age: Duration, known: &Evidence) -> FileVerdict {
    let inventory = known.inventory;
    match Kind::of(path) {
        Kind::Foreign => FileVerdict::Foreign,
        Kind::Marker => FileVerdict::InUse,
        Kind::Plan | Kind::Checkpoint if inventory.named.contains(path) => FileVerdict::InUse,
        Kind::Plan if inventory.unreadable_plan => FileVerdict::Protected,
        Kind::Plan if known.living.values().flatten().any(|plan| plan == path) => FileVerdict::Protected,
        Kind::Blob(job) if inventory.may_live(job) => FileVerdict::InUse,
        // The job of a plan that cannot be read may be any.
        Kind::Blob(_) if inventory.unreadable_plan => FileVerdict::Protected,
        Kind::Blob(job) if known.dirty.contains(&job) || known.living.contains_key(&job) => FileVerdict::Protected,
        _ if age < known.age_limit => FileVerdict::Young,
        _ => FileVerdict::Orphan,
    }
}

/// Decides about a checkpoint that [`verdict`] considers an orphan, once its metadata has been read. `job` is `None` if
/// the metadata cannot be parsed.
pub fn of_checkpoint(job: Option<JobId>, known: &Evidence) -> FileVerdict {
    let Some(job) = job else { return FileVerdict::Protected };
    let inventory = known.inventory;
    // A live job without a pointer: somebody has removed its ConfigMap, and the one that a new leader creates instead
    // is empty.
    let lives = inventory.stored.contains(&job) || known.living.contains_key(&job);
    let lost = lives && !inventory.with_checkpoint.contains(&job);
    if inventory.unreadable_checkpoint.contains(&job) || known.dirty.contains(&job) || lost {
        FileVerdict::Protected
    } else {
        FileVerdict::Orphan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_number(0x0e45_19cf_f01b_3cb1_d46c_eefb_ba31_d9ae);
    const DAY: Duration = Duration::from_secs(86_400);

    fn judge(path: &str, age: Duration, inventory: &Inventory) -> FileVerdict {
        verdict(path, age, &Evidence { inventory, dirty: &BTreeSet::new(), living: &BTreeMap::new(), age_limit: DAY })
    }

    #[test]
    fn only_what_flink_names_so_is_flinks() {
        assert_eq!(Kind::of("submittedJobGraph0123456789ab"), Kind::Plan);
        assert_eq!(Kind::of("submittedApplicationabc"), Kind::Plan);
        assert_eq!(Kind::of("completedCheckpoint72c00e5cb65a"), Kind::Checkpoint);
        assert_eq!(Kind::of(&format!("blob/job_{JOB}/blob_p-12")), Kind::Blob(JOB));
        assert_eq!(Kind::of(&format!("blob/application_{JOB}/blob_p-12")), Kind::Blob(JOB));
        for foreign in [
            "completedCheckpoint",
            "completedCheckpoint.txt",
            "a/completedCheckpointab",
            "blob/no_job/blob_t-1",
            "blob/job_x/blob_p",
            "notes",
        ] {
            assert_eq!(Kind::of(foreign), Kind::Foreign, "{foreign}");
        }
    }

    #[test]
    fn what_nothing_names_is_an_orphan_only_past_the_age() {
        let inventory = Inventory::default();
        for path in ["submittedJobGraphab", "completedCheckpointab", &format!("blob/job_{JOB}/blob_p-1")] {
            assert_eq!(judge(path, DAY, &inventory), FileVerdict::Orphan, "{path}");
            assert_eq!(judge(path, DAY / 2, &inventory), FileVerdict::Young, "{path}");
        }
        assert_eq!(judge("notes.txt", DAY, &inventory), FileVerdict::Foreign);
    }

    #[test]
    fn unknown_never_deletes() {
        let live = Inventory { stored: [JOB].into(), ..Inventory::default() };
        assert_eq!(judge(&format!("blob/job_{JOB}/blob_p-1"), DAY, &live), FileVerdict::InUse);
        let named = Inventory { named: ["completedCheckpointab".to_owned()].into(), ..Inventory::default() };
        assert_eq!(judge("completedCheckpointab", DAY, &named), FileVerdict::InUse);
        assert_eq!(
            judge("submittedJobGraphab", DAY, &Inventory { unreadable_plan: true, ..Inventory::default() }),
            FileVerdict::Protected
        );
        let of_nobody_knows_whom = Inventory { unreadable_plan: true, ..Inventory::default() };
        assert_eq!(judge(&format!("blob/job_{JOB}/blob_p-1"), DAY, &of_nobody_knows_whom), FileVerdict::Protected);
        let (none, nobody) = (BTreeSet::new(), BTreeMap::new());
        let of = |inventory: &Inventory, job| {
            of_checkpoint(job, &Evidence { inventory, dirty: &none, living: &nobody, age_limit: DAY })
        };
        assert_eq!(of(&live, Some(JOB)), FileVerdict::Protected, "its ConfigMap has been removed");
        assert_eq!(of(&Inventory::default(), None), FileVerdict::Protected, "not understood");
        let unreadable = Inventory { unreadable_checkpoint: [JOB].into(), ..Inventory::default() };
        assert_eq!(of(&unreadable, Some(JOB)), FileVerdict::Protected);
        assert_eq!(of(&Inventory::default(), Some(JOB)), FileVerdict::Orphan);
        let emptied = Inventory { stored: [JOB].into(), with_config_map: [JOB].into(), ..Inventory::default() };
        assert_eq!(of(&emptied, Some(JOB)), FileVerdict::Protected, "its ConfigMap has been removed, and made anew");
        // The ledger still has what somebody has removed from all ConfigMaps.
        let living = BTreeMap::from([(JOB, vec!["submittedJobGraphab".to_owned()])]);
        let known = Evidence { inventory: &Inventory::default(), dirty: &none, living: &living, age_limit: DAY };
        assert_eq!(verdict("submittedJobGraphab", DAY, &known), FileVerdict::Protected);
        assert_eq!(verdict(&format!("blob/job_{JOB}/blob_p-1"), DAY, &known), FileVerdict::Protected);
        assert_eq!(of_checkpoint(Some(JOB), &known), FileVerdict::Protected);
    }
}
