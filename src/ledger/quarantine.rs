//! Notes of jobs that are set aside, or that Flink could not recover: their jars, and which of their files are gone.

use std::collections::{BTreeMap, BTreeSet};

use super::jobs::{Job, RecordedState, end};
use crate::flink::job_id::JobId;

/// Number of jars of a job that are noted. Most jobs have one.
pub const JARS: usize = 8;

/// Number of missing files of a job that are noted.
const MISSING: usize = 4;

/// Notes which jobs are set aside, also those that nobody has noted; [`super::jobs::note`] takes them for running.
/// Returns whether anything changed.
pub fn note_quarantined(jobs: &mut Vec<Job>, quarantined: impl IntoIterator<Item = JobId>) -> bool {
    let before = jobs.clone();
    for id in quarantined {
        match jobs.iter_mut().find(|job| job.id == id) {
            Some(job) if job.has_ended() => {}
            Some(job) => job.state = RecordedState::Quarantined,
            None => jobs.push(Job { state: RecordedState::Quarantined, ..Job::of(id) }),
        }
    }
    *jobs != before
}

/// Notes the jars of jobs that have none noted. Returns whether anything changed.
pub fn note_jars(jobs: &mut [Job], found: &BTreeMap<JobId, Vec<String>>) -> bool {
    let mut news = false;
    for job in jobs.iter_mut().filter(|job| job.jars.is_none() && !job.has_ended()) {
        let Some(jars) = found.get(&job.id) else { continue };
        job.jars = Some(jars.iter().take(JARS).cloned().collect());
        news = true;
    }
    news
}

/// Notes which files of each job are gone. Returns whether anything changed.
pub fn note_missing(jobs: &mut [Job], missing: &BTreeMap<JobId, BTreeSet<String>>) -> bool {
    let mut news = false;
    for job in jobs.iter_mut().filter(|job| !job.has_ended()) {
        let files: Vec<String> = missing.get(&job.id).into_iter().flatten().take(MISSING).cloned().collect();
        news |= job.missing != files;
        job.missing = files;
    }
    news
}

/// Notes that somebody has asked by name to remove this job, if it is in quarantine. Returns whether it is.
pub fn drop_quarantined(jobs: &mut Vec<Job>, id: JobId, now: &str) -> bool {
    let is_quarantined = jobs.iter().any(|job| job.id == id && job.state == RecordedState::Quarantined);
    if is_quarantined {
        end(jobs, id, now, |job| job.state = RecordedState::Dropped);
    }
    is_quarantined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::jobs::{Begun, note};

    fn id(number: u128) -> JobId {
        JobId::from_number(number)
    }

    #[test]
    fn what_is_in_quarantine_is_stored_and_ends_only_by_name() {
        let (mut jobs, nobody) = (Vec::new(), BTreeSet::new());
        let begun = Begun { plan: Some("plan".into()), ..Begun::default() };
        note(&mut jobs, &BTreeMap::from([(id(1), begun)]), &nobody);
        let jar = BTreeMap::from([(id(1), vec!["blob/job_1/blob_p-1".to_owned(); JARS + 1]), (id(2), Vec::new())]);
        assert!(note_jars(&mut jobs, &jar) && !note_jars(&mut jobs, &jar));
        assert_eq!(jobs[0].jars.as_ref().map(Vec::len), Some(JARS));
        let missing = BTreeMap::from([(id(1), BTreeSet::from(["plan".to_owned()]))]);
        assert!(note_missing(&mut jobs, &missing) && !note_missing(&mut jobs, &missing));
        assert!(!drop_quarantined(&mut jobs, id(1), "then"), "it runs, and is cancelled in Flink");
        assert!(note_quarantined(&mut jobs, [id(1), id(2)]) && !note_quarantined(&mut jobs, [id(1), id(2)]));
        assert!(jobs.iter().all(|job| job.is_stored() && job.state == RecordedState::Quarantined));
        assert!(drop_quarantined(&mut jobs, id(1), "then") && !drop_quarantined(&mut jobs, id(1), "later"));
        let dropped = jobs.iter().find(|job| job.id == id(1)).expect("the job");
        assert!(dropped.ended_without_result() && !dropped.is_stored());
        assert_eq!((&dropped.jars, dropped.missing.len(), dropped.plans.len()), (&None, 0, 1));
        note_quarantined(&mut jobs, [id(1)]);
        assert!(jobs.iter().any(|job| job.id == id(1) && job.has_ended()), "an end is final");
        assert!(!note_missing(&mut jobs, &missing), "of an ended job nothing is missing");
    }
}
