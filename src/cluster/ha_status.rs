//! The parts of the status that the ledger tells: jobs, and the state of their HA data.

use jiff::Timestamp;

use crate::api::status::{ConfigMapSize, HaDataStatus, JobStatus, OrphansStatus};
use crate::api::time::seconds;
use crate::ledger::jobs;

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
