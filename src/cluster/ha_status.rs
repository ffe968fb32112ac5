//! The parts of the status that the ledger tells: jobs, and the state of their HA data.

use jiff::Timestamp;

use crate::api::status::{CheckpointStatus, ConfigMapSize, HaDataStatus, JobStatus, OrphansStatus};
use crate::api::time::seconds;
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::jobs;

/// Jobs without an end that the status shows. The resource has at most 1.5 MiB, of which its spec takes what it needs.
const SHOWN: usize = 200;

/// The jobs as the status shows them, and the number of those that it leaves out: the oldest without an end.
pub fn jobs(all: &[jobs::Job], checkpoints: &Checkpoints) -> (Vec<JobStatus>, Option<i64>) {
    let mut left_out = all.iter().filter(|job| !job.has_ended()).count().saturating_sub(SHOWN);
    let number = i64::try_from(left_out).ok().filter(|number| *number > 0);
    let is_shown = |one: &&jobs::Job| {
        let goes = left_out > 0 && !one.has_ended();
        left_out -= usize::from(goes);
        !goes
    };
    (all.iter().filter(is_shown).map(|one| with_checkpoint(one, checkpoints)).collect(), number)
}

/// A job with its last checkpoint, unless it has ended.
pub fn with_checkpoint(one: &jobs::Job, checkpoints: &Checkpoints) -> JobStatus {
    let last = checkpoints.0.get(&one.id).filter(|_| !one.has_ended()).map(|noted| CheckpointStatus {
        id: i64::try_from(noted.id).unwrap_or(i64::MAX),
        completed: noted.completed.parse().ok().map(seconds),
        path: noted.path.clone(),
    });
    JobStatus { last_checkpoint: last, ..job(one) }
}

/// A job as the status shows it.
pub fn job(job: &jobs::Job) -> JobStatus {
    let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok().map(seconds);
    JobStatus {
        id: job.id.to_string(),
        name: job.name.clone(),
        state: job.state.to_string(),
        started: time(&job.started),
        ended: time(&job.ended),
        collected: time(&job.collected),
        missing_files: job.missing.clone(),
        last_checkpoint: None,
    }
}

/// The HA data as the status shows it.
pub fn ha_data(ha_data: &jobs::HaData) -> HaDataStatus {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    HaDataStatus {
        state: ha_data.state.clone(),
        message: ha_data.message.clone(),
        largest_config_map: ha_data.largest.as_ref().map(|size| ConfigMapSize {
            name: size.name.clone(),
            bytes: number(size.bytes as u64),
            per_cent: number(size.per_cent() as u64),
        }),
        without_copy: Some(ha_data.without_copy).filter(|copies| *copies > 0).map(|copies| number(copies as u64)),
        orphans: ha_data.orphans.as_ref().map(|orphans| OrphansStatus {
            files: number(orphans.files),
            bytes: number(orphans.bytes),
            removed: number(orphans.removed),
            foreign: number(orphans.foreign),
            protected: number(orphans.protected),
        }),
    }
}

/// Has this status's largest ConfigMap passed the share of its limit that is worth a warning?
pub fn is_half_full(ha_data: Option<&HaDataStatus>) -> bool {
    ha_data.and_then(|ha_data| ha_data.largest_config_map.as_ref()).is_some_and(|size| size.per_cent >= 50)
}

impl From<&ConfigMapSize> for jobs::Size {
    fn from(size: &ConfigMapSize) -> Self {
        Self { name: size.name.clone(), bytes: usize::try_from(size.bytes).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flink::job_id::JobId;
    use crate::ledger::jobs::Job;

    #[test]
    fn the_latest_of_many_jobs_are_shown_and_the_others_are_counted() {
        let job = |number, ended: Option<&str>| Job {
            ended: ended.map(str::to_owned),
            ..Job::of(JobId::from_number(number))
        };
        let ended = [job(1, Some("2026-01-01T00:00:00Z")), job(2, Some("2026-01-01T00:00:00Z"))];
        let unended = |count: u128| (10..10 + count).map(|number| job(number, None));
        let all: Vec<Job> = ended.clone().into_iter().chain(unended(200)).collect();
        let (shown, left_out) = jobs(&all, &Checkpoints::default());
        assert_eq!((shown.len(), left_out), (202, None));
        let all: Vec<Job> = ended.into_iter().chain(unended(1000)).collect();
        let (shown, left_out) = jobs(&all, &Checkpoints::default());
        assert_eq!((shown.len(), left_out), (202, Some(800)));
        assert_eq!(shown[2].id, JobId::from_number(810).to_string());
    }

    #[test]
    fn a_job_has_its_last_checkpoint_until_it_ends() {
        let mut one = Job::of(JobId::from_number(1));
        let text =
            json!({ one.id.to_string(): { "id": 17, "completed": "2026-01-01T00:00:00Z", "path": "file:/c/chk-17" } });
        let checkpoints: Checkpoints = serde_json::from_value(text).unwrap_or_default();
        let expected = json!({ "id": 17, "completed": "2026-01-01T00:00:00Z", "path": "file:/c/chk-17" });
        assert_eq!(json!(jobs(std::slice::from_ref(&one), &checkpoints).0[0].last_checkpoint), expected);
        assert_eq!(with_checkpoint(&Job::of(JobId::from_number(2)), &checkpoints).last_checkpoint, None);
        one.ended = Some("2026-01-01T00:00:00Z".to_owned());
        assert_eq!(with_checkpoint(&one, &checkpoints).last_checkpoint, None);
    }
}
