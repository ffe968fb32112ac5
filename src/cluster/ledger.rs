//! The ledger: what became of the jobs of a cluster. One ConfigMap, written by the leading gateway, read by the operator.

use serde::{Deserialize, Serialize};

use crate::flink::result::Outcome;

/// Key of the ledger ConfigMap that holds JSON of `Vec<Tombstone>`.
pub const JOBS_KEY: &str = "jobs";
/// Key of the ledger ConfigMap that holds JSON of [`StorageState`].
pub const STORAGE_KEY: &str = "storage";

/// Tombstones kept; the oldest go first. About 200 bytes each, far below the limit of 1 MiB.
const LIMIT: usize = 1000;

/// A job that reached a terminal state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Finished`, `Canceled` or `Failed`.
    pub state: String,
    /// When the gateway learned of it, RFC 3339.
    pub ended: String,
    /// When nothing of its HA data was left; absent while that is not sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<String>,
}

/// What the gateway can say of the storage directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageState {
    /// `Collectable`, `NotCollectable` or `Shared`.
    pub state: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Reads the tombstones. Text that is not ours counts as none, and is not written over: see [`bury`].
pub fn read(text: Option<&str>) -> Result<Vec<Tombstone>, serde_json::Error> {
    text.map_or(Ok(Vec::new()), serde_json::from_str)
}

/// Adds a tombstone for a job, or keeps the one that stands.
pub fn bury(tombstones: &mut Vec<Tombstone>, id: &str, outcome: &Outcome, now: &str) {
    if tombstones.iter().any(|tombstone| tombstone.id == id) {
        return;
    }
    tombstones.push(Tombstone {
        id: id.to_owned(),
        name: outcome.name.clone(),
        state: outcome.state.to_owned(),
        ended: now.to_owned(),
        collected: None,
    });
    let surplus = tombstones.len().saturating_sub(LIMIT);
    tombstones.drain(..surplus);
}

/// Notes that nothing is left of these jobs. True when that is news.
pub fn confirm(tombstones: &mut [Tombstone], ids: &[String], now: &str) -> bool {
    let mut news = false;
    for tombstone in tombstones.iter_mut().filter(|tombstone| tombstone.collected.is_none() && ids.contains(&tombstone.id)) {
        tombstone.collected = Some(now.to_owned());
        news = true;
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_stands_once_and_the_ledger_is_bounded() {
        let outcome = Outcome { name: "words".into(), state: "Finished", ..Outcome::default() };
        let mut tombstones = Vec::new();
        for number in 0..LIMIT + 5 {
            bury(&mut tombstones, &number.to_string(), &outcome, "then");
            bury(&mut tombstones, &number.to_string(), &outcome, "later");
        }
        assert_eq!(tombstones.len(), LIMIT);
        assert_eq!(tombstones[0].id, "5");
        assert_eq!(tombstones[0].ended, "then");
        assert!(confirm(&mut tombstones, &["7".into()], "now"));
        assert!(!confirm(&mut tombstones, &["7".into()], "again"));
        let text = serde_json::to_string(&tombstones).expect("JSON");
        assert_eq!(read(Some(&text)).expect("tombstones"), tombstones);
    }
}
