//! The ledger as the operator keeps it in memory: its keys, read, and of the jobs only those that the status shows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ledger::application::Progress;
use crate::ledger::bounds;
use crate::ledger::certificates::{self, CertificateNotes};
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::failovers::Failovers;
use crate::ledger::jobs::{self, HaData, Job, RecordedState};
use crate::ledger::savepoints::TakenSavepoints;
use crate::ledger::secrets::{self, SecretsNote};

/// The keys of the ledger ([`crate::ledger`]), read.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(from = "Texts", rename_all = "camelCase")]
pub struct LedgerData {
    pub jobs: Vec<Job>,
    /// Number of ended jobs, of all that the ledger records, whose data has not been removed although it was to be.
    pub uncollected: usize,
    pub ha_data: Option<HaData>,
    pub application: Option<Progress>,
    pub secrets: Option<SecretsNote>,
    pub certificates: CertificateNotes,
    /// The last changes of leader. No decision rests on them, nor on the checkpoints, so text that is not understood is
    /// nothing.
    pub failovers: Failovers,
    /// The last checkpoints of jobs.
    pub checkpoints: Checkpoints,
    /// The last savepoints of the application. Nothing that is removed rests on what the operator reads of them.
    pub savepoints: TakenSavepoints,
    /// Keys whose text is not understood: what they say is not known, which is not the same as nothing.
    pub unreadable: Vec<String>,
}

/// The keys of the ledger as they are stored: JSON in strings.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Texts {
    jobs: Option<String>,
    ha_data: Option<String>,
    application: Option<String>,
    secrets: Option<String>,
    certificates: Option<String>,
    failovers: Option<String>,
    checkpoints: Option<String>,
    savepoints: Option<String>,
}

impl From<Texts> for LedgerData {
    fn from(texts: Texts) -> Self {
        let mut unreadable = Vec::new();
        let jobs: Vec<Job> = read(texts.jobs, jobs::JOBS_KEY, &mut unreadable).unwrap_or_default();
        let is_left = |job: &&Job| bounds::is_uncollected(job) && job.state != RecordedState::Superseded;
        let (uncollected, jobs) = (jobs.iter().filter(is_left).count(), shown(jobs));
        let ha_data = read(texts.ha_data, jobs::HA_DATA_KEY, &mut unreadable);
        let application = read(texts.application, crate::ledger::application::LEDGER_KEY, &mut unreadable);
        let secrets = read(texts.secrets, secrets::LEDGER_KEY, &mut unreadable);
        let certificates = read(texts.certificates, certificates::LEDGER_KEY, &mut unreadable).unwrap_or_default();
        let failovers = texts.failovers.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let checkpoints = texts.checkpoints.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let savepoints = texts.savepoints.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self {
            jobs,
            uncollected,
            ha_data,
            application,
            secrets,
            certificates,
            failovers,
            checkpoints,
            savepoints,
            unreadable,
        }
    }
}

fn read<T: DeserializeOwned>(text: Option<String>, key: &str, unreadable: &mut Vec<String>) -> Option<T> {
    let read = serde_json::from_str(&text?);
    if read.is_err() {
        unreadable.push(key.to_owned());
    }
    read.ok()
}

/// Ended jobs that the status shows; the latest.
const SHOWN: usize = 20;

fn shown(mut jobs: Vec<Job>) -> Vec<Job> {
    let mut surplus = jobs.iter().filter(|job| job.has_ended()).count().saturating_sub(SHOWN);
    jobs.retain(|job| {
        let hidden = job.has_ended() && surplus > 0;
        surplus -= usize::from(hidden);
        !hidden
    });
    jobs.shrink_to_fit();
    jobs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_history_that_is_not_understood_stops_nothing_and_one_of_earlier_versions_is_empty() {
        let of = |data: serde_json::Value| serde_json::from_value::<LedgerData>(data).expect("a ledger");
        let torn = of(json!({ "failovers": "[{", "checkpoints": "[]", "savepoints": "{", "jobs": "[]" }));
        assert_eq!(torn, of(json!({ "jobs": "[]" })));
        assert!(torn.unreadable.is_empty() && torn.failovers.0.is_empty());
        let later = of(json!({ "failovers": r#"[{"term":3,"to":"b","later":1}]"#, "later": "key" }));
        assert_eq!((later.failovers.0.len(), later.failovers.0[0].term), (1, 3));
    }
}
