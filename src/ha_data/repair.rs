//! Decides how to repair result stores after a leader that died between two writes, before the next JVM sees a free
//! lock. Without the repair every later leader ends its process.
//!
//! * An entry that is not JSON: its writer died between creating the file and writing it
//!   (`FileSystemJobResultStore.getDirtyResultsInternal` then fails, in all versions). Flink cleans up only after it
//!   has written the entry, so a job whose key is still stored is complete: without the entry it resumes from its last
//!   checkpoint.
//! * A job's entry without its application's (Flink 2.3.0, `Dispatcher.onStart` checks for it): the leader died between
//!   the two. The gateway writes the application's entry from the job's; Flink then finishes the clean-up itself.

use std::collections::BTreeSet;

use crate::flink::job_id::JobId;
use crate::flink::result::{Entry, Outcome, Store};

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// Remove this torn DIRTY entry.
    Remove { store: Store, id: JobId },
    /// Write the DIRTY entry of this application from its job's outcome.
    Write { application: JobId, of_job: Outcome },
}

/// Decides from the entries and the keys of the cluster ConfigMap, both read after the term's stamp. An unknown entry
/// stays as it is.
pub fn mend(entries: &[Entry], stored_jobs: &BTreeSet<JobId>, stored_applications: &BTreeSet<JobId>) -> Vec<Mend> {
    let torn = entries.iter().filter(|entry| entry.dirty && entry.torn);
    // A job without a key may be partly cleaned up, and then the entry is the only record of its end. An application's
    // entry can be written again.
    let removable = torn.filter(|entry| entry.store == Store::Application || stored_jobs.contains(&entry.id));
    let mut mends: Vec<Mend> = removable.map(|entry| Mend::Remove { store: entry.store, id: entry.id }).collect();
    let has_entry =
        |id: JobId| entries.iter().any(|entry| entry.store == Store::Application && entry.id == id && !entry.torn);
    for job in entries.iter().filter(|entry| entry.store == Store::Job && entry.dirty) {
        let Some(outcome) = &job.outcome else { continue };
        let Some(application) = outcome.application else { continue };
        if !has_entry(application) && !stored_applications.contains(&application) {
            mends.push(Mend::Write { application, of_job: outcome.clone() });
        }
    }
    mends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flink::job_state::End;

    const JOB: JobId = JobId::from_number(1);

    fn entry(store: Store, torn: bool) -> Entry {
        let outcome = Outcome { application: (store == Store::Job).then_some(JOB), ..Outcome::of(End::Canceled) };
        Entry { store, id: JOB, dirty: true, outcome: (!torn).then_some(outcome), torn }
    }

    fn set(ids: &[JobId]) -> BTreeSet<JobId> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_torn_entry_goes_only_while_its_job_is_whole() {
        let torn = [entry(Store::Job, true)];
        assert_eq!(mend(&torn, &set(&[JOB]), &set(&[])), [Mend::Remove { store: Store::Job, id: JOB }]);
        assert!(mend(&torn, &set(&[]), &set(&[])).is_empty(), "unknown never deletes");
    }

    #[test]
    fn a_missing_application_is_made_up_for_and_others_are_left() {
        let job = entry(Store::Job, false);
        let [Mend::Write { application, .. }] = &mend(std::slice::from_ref(&job), &set(&[JOB]), &set(&[]))[..] else {
            panic!("nothing")
        };
        assert_eq!(*application, JOB);
        assert!(mend(&[job.clone(), entry(Store::Application, false)], &set(&[JOB]), &set(&[])).is_empty());
        assert!(
            mend(std::slice::from_ref(&job), &set(&[JOB]), &set(&[JOB])).is_empty(),
            "its application is stored: it will be recovered"
        );
        let mends = mend(&[job, entry(Store::Application, true)], &set(&[JOB]), &set(&[]));
        assert!(matches!(&mends[..], [Mend::Remove { store: Store::Application, .. }, Mend::Write { .. }]));
    }
}
