//! Keeps the ledger's list of jobs within what Kubernetes stores: a ConfigMap has at most 1 MiB, and a write of a
//! larger one fails.
//!
//! What goes first says least: why old jobs failed and how they were called, then tombstones of jobs of which nothing
//! is left. A tombstone of a job whose data may still exist stays, and so does a job without an end: it protects its
//! files.

use super::jobs::{Job, RecordedState};

/// Number of ended jobs of which nothing is left that are kept; the oldest are dropped first.
pub const COLLECTED: usize = 1000;

/// Number of ended jobs of which data may be left. More are not recorded: their results stay in the storage, which
/// prove their end too. Of an application's superseded runs, the oldest beyond this number are dropped: if their data
/// appears again, no JobManager leads over it.
pub const UNCOLLECTED: usize = 1000;

/// Number of jobs in a storage that cannot be read, of which nothing but the record is left; the oldest are dropped
/// first. Nothing is removed from such a storage, so the record protects nothing.
pub const UNKNOWN: usize = 1000;

/// Files of plans that are kept for a job; Flink writes another one when the job's resource requirements change.
const PLANS: usize = 20;

/// Bytes of the list as JSON.
pub const BYTES: usize = 900 << 10;

/// Makes the list as small as it has to be.
pub fn keep_small(jobs: &mut Vec<Job>) {
    for job in jobs.iter_mut() {
        let surplus = job.plans.len().saturating_sub(PLANS);
        job.plans.drain(..surplus);
    }
    drop_oldest(jobs, COLLECTED, is_collected);
    let uncollected = jobs.iter().filter(|job| is_uncollected(job)).count();
    let superseded = |job: &Job| is_uncollected(job) && job.state == RecordedState::Superseded;
    let others = uncollected - jobs.iter().filter(|job| superseded(job)).count();
    drop_oldest(jobs, UNCOLLECTED.saturating_sub(others), superseded);
    shorten(jobs);
}

/// Number of further tombstones of jobs whose data is not removed yet.
pub fn room_for_tombstones(jobs: &[Job]) -> usize {
    UNCOLLECTED.saturating_sub(jobs.iter().filter(|job| is_uncollected(job)).count())
}

/// Drops the oldest jobs of which nothing is left but the record. Only for a storage that cannot be read.
pub fn drop_unknown(jobs: &mut Vec<Job>) {
    drop_oldest(jobs, UNKNOWN, |job| !job.has_ended() && job.state == RecordedState::Unknown);
}

/// Whether an ended job may still have data: its removal is not confirmed.
pub fn is_uncollected(job: &Job) -> bool {
    job.has_ended() && job.collected.is_none()
}

fn is_collected(job: &Job) -> bool {
    job.collected.is_some()
}

/// The list is in the order of begins and ends.
fn drop_oldest(jobs: &mut Vec<Job>, kept: usize, is_one: impl Fn(&Job) -> bool) {
    let mut surplus = jobs.iter().filter(|job| is_one(job)).count().saturating_sub(kept);
    jobs.retain(|job| {
        let goes = surplus > 0 && is_one(job);
        surplus -= usize::from(goes);
        !goes
    });
}

/// Something that the list can do without.
struct Detail {
    of: fn(&Job) -> bool,
    remove: fn(&mut Job),
}

/// In the order in which they go.
const DETAILS: [Detail; 5] = [
    Detail { of: Job::has_ended, remove: |job| job.cause = None },
    Detail { of: Job::has_ended, remove: |job| job.name.clear() },
    Detail { of: |job| !job.has_ended(), remove: |job| job.name.clear() },
    Detail { of: |_| true, remove: |job| drop(job.plans.drain(..job.plans.len().saturating_sub(1))) },
    // None at all, and not unknown: they would be looked for again.
    Detail { of: |job| job.jars.is_some(), remove: |job| job.jars = Some(Vec::new()) },
];

/// Removes details of the oldest jobs, and then the oldest tombstones of which nothing is left, until the list is small
/// enough.
fn shorten(jobs: &mut Vec<Job>) {
    let mut surplus = (jobs.iter().map(bytes).sum::<usize>() + 2).saturating_sub(BYTES);
    for Detail { of, remove } in DETAILS {
        for job in jobs.iter_mut().filter(|job| of(job)) {
            if surplus == 0 {
                return;
            }
            let before = bytes(job);
            remove(job);
            surplus = surplus.saturating_sub(before - bytes(job));
        }
    }
    jobs.retain(|job| {
        let goes = surplus > 0 && is_collected(job);
        surplus = surplus.saturating_sub(if goes { bytes(job) } else { 0 });
        !goes
    });
}

/// Bytes of a job in the list, with its comma.
fn bytes(job: &Job) -> usize {
    // Serializing a job cannot fail: its keys are strings.
    serde_json::to_string(job).map_or(0, |text| text.len() + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;
    use crate::flink::job_id::JobId;
    use crate::flink::job_state::End;
    use crate::flink::result::Outcome;
    use crate::ledger::jobs::{
        Begun, CONFIG_MAP_LIMIT, HA_DATA_KEY, HaData, JOBS_KEY, UNENDED, bury, confirm, has_room, note, supersede,
    };

    const TIME: &str = "2026-11-30T01:02:03.123456789Z";
    /// Four bytes in UTF-8.
    const LONG: &str = "\u{1f600}";

    fn id(number: usize) -> JobId {
        JobId::from_number(number as u128)
    }

    fn failed() -> Outcome {
        Outcome { name: LONG.repeat(200), cause: Some(LONG.repeat(500)), ..Outcome::of(End::Failed) }
    }

    fn stored(numbers: std::ops::Range<usize>, plan: &str) -> BTreeMap<JobId, Begun> {
        let begun = Begun { name: LONG.repeat(200), started: TIME.to_owned(), plan: Some(plan.to_owned()) };
        numbers.map(|number| (id(number), begun.clone())).collect()
    }

    fn list(jobs: &[Job]) -> String {
        serde_json::to_string(jobs).expect("JSON")
    }

    /// As many jobs of each kind as are kept, each as large as it can be.
    fn largest() -> Vec<Job> {
        let mut jobs = Vec::new();
        note(&mut jobs, &stored(0..UNENDED, "plan"), &BTreeSet::new());
        let plans: Vec<String> = (0..30).map(|write| format!("submittedExecutionPlan{write:012x}")).collect();
        jobs.iter_mut().for_each(|job| job.plans.clone_from(&plans));
        for number in 10_000..10_000 + COLLECTED + 50 {
            bury(&mut jobs, id(number), &failed(), TIME);
            confirm(&mut jobs, &BTreeMap::from([(id(number), 1)]), TIME);
        }
        for number in 20_000..20_000 + UNCOLLECTED {
            bury(&mut jobs, id(number), &failed(), TIME);
        }
        jobs
    }

    #[test]
    fn the_largest_list_fits_and_lacks_nothing_that_protects_data() {
        let mut jobs = largest();
        assert!(list(&jobs).len() > 4 * CONFIG_MAP_LIMIT, "{}", list(&jobs).len());
        keep_small(&mut jobs);
        let list = list(&jobs);
        println!("the largest list of jobs: {} bytes", list.len());
        assert!(list.len() <= BYTES, "{}", list.len());
        let unended = jobs.iter().filter(|job| !job.has_ended());
        assert_eq!(unended.clone().count(), UNENDED);
        assert!(
            unended
                .clone()
                .all(|job| job.plans.last().is_some_and(|plan| plan == "submittedExecutionPlan00000000001d"))
        );
        assert_eq!(jobs.iter().filter(|job| is_uncollected(job)).count(), UNCOLLECTED);
        let collected: Vec<_> = jobs.iter().filter(|job| is_collected(job)).collect();
        assert!(collected.len() > COLLECTED / 2 && collected.last().is_some_and(|job| job.id == id(11_049)));
        let unreadable = (0..100).map(|number| crate::api::names::job_config_map(&"d".repeat(45), id(number).as_str()));
        let ha_data = HaData { message: LONG.repeat(1000), unreadable: unreadable.collect(), ..HaData::default() };
        let data = json!({ JOBS_KEY: list, HA_DATA_KEY: json!(ha_data).to_string() });
        let values: usize =
            data.as_object().into_iter().flatten().filter_map(|(_, text)| Some(text.as_str()?.len())).sum();
        println!("the largest ledger: {values} bytes of data, {} as an object", data.to_string().len());
        assert!(values < CONFIG_MAP_LIMIT && data.to_string().len() < 3 * CONFIG_MAP_LIMIT / 2);
        let before = jobs.clone();
        keep_small(&mut jobs);
        assert_eq!(jobs, before);
    }

    #[test]
    fn a_list_that_is_small_enough_stays_as_it_is() {
        let mut jobs = Vec::new();
        note(&mut jobs, &stored(0..900, "plan"), &BTreeSet::new());
        bury(&mut jobs, id(7), &failed(), TIME);
        let before = jobs.clone();
        keep_small(&mut jobs);
        assert_eq!(jobs, before);
    }

    #[test]
    fn tombstones_of_jobs_with_data_outlive_any_number_of_later_ones() {
        let mut jobs = Vec::new();
        bury(&mut jobs, id(1), &failed(), TIME);
        for number in 100..100 + 3 * COLLECTED {
            bury(&mut jobs, id(number), &failed(), TIME);
            confirm(&mut jobs, &BTreeMap::from([(id(number), 0)]), TIME);
            if number % 100 == 99 {
                keep_small(&mut jobs);
            }
        }
        assert_eq!(jobs.len(), COLLECTED + 1);
        assert!(jobs[0].id == id(1) && jobs[1].id == id(100 + 2 * COLLECTED));
        assert_eq!(room_for_tombstones(&jobs), UNCOLLECTED - 1);
    }

    #[test]
    fn superseded_runs_whose_storage_cannot_be_read_do_not_pile_up() {
        let mut jobs = Vec::new();
        bury(&mut jobs, id(0), &failed(), TIME);
        (1..UNCOLLECTED + 20).for_each(|number| supersede(&mut jobs, id(number), TIME));
        keep_small(&mut jobs);
        assert_eq!((jobs.len(), jobs[0].id, jobs[1].id), (UNCOLLECTED, id(0), id(21)));
    }

    #[test]
    fn no_more_jobs_are_recorded_than_fit_and_those_of_an_unreadable_storage_are_forgotten_in_time() {
        let mut jobs = Vec::new();
        note(&mut jobs, &stored(0..UNENDED + 10, "plan"), &BTreeSet::new());
        assert!(jobs.len() == UNENDED && !has_room(&jobs));
        note(&mut jobs, &stored(0..1, "plan"), &BTreeSet::new());
        drop_unknown(&mut jobs);
        assert_eq!((jobs.len(), jobs[0].id), (UNKNOWN + 1, id(0)), "one of them is stored");
        assert!(has_room(&jobs));
    }
}
