//! The ledger as the leader knows it in its term, and what of it somebody has taken away since: a deleted ledger, one
//! that was made anew empty or restored from a backup, a key that is gone or unreadable, a tombstone that is missing.
//!
//! Nobody but the leader writes the ledger's data, so what the leader has seen last is what belongs there. It is put
//! back by compare-and-swap, and never over what a newer term has written. Any other change of a value stands: somebody
//! has made it on purpose.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use super::application::{LEDGER_KEY, Progress};
use super::bounds;
use super::checkpoints::CHECKPOINTS_KEY;
use super::failovers::FAILOVERS_KEY;
use super::jobs::{self, HA_DATA_KEY, HaData, JOBS_KEY};
use super::savepoints::SAVEPOINTS_KEY;
use super::unready;
use crate::api::names::{
    CHANGE_ANNOTATION, CLUSTER_LABEL, LEADER_ANNOTATION, MANAGED_BY_LABEL, NO_KEY_ANNOTATION, PROBE_ANNOTATION,
    REFUSAL_ANNOTATION, TERM_ANNOTATION,
};
use crate::lease::stamp::relation;
use crate::lease::term::{Relation, Term};

/// Annotations that no writer of ours removes.
const LASTING: [&str; 3] = [TERM_ANNOTATION, LEADER_ANNOTATION, CHANGE_ANNOTATION];

/// The last version that the leader has read or written in its term.
#[derive(Clone, Debug)]
pub struct LedgerCopy {
    term: Term,
    ledger: ConfigMap,
}

impl LedgerCopy {
    /// `None` if a newer term has written this ledger, or if it is being deleted.
    pub fn of(ledger: &ConfigMap, term: &Term) -> Option<Self> {
        let is_foreign = relation(&json!(ledger), term).0 == Relation::Higher;
        let is_going = ledger.metadata.deletion_timestamp.is_some();
        (!is_foreign && !is_going).then(|| Self { term: term.clone(), ledger: ledger.clone() })
    }

    pub fn is_of(&self, term: &Term) -> bool {
        self.term == *term
    }

    /// Follows a version of the same object that is not older, which an answer to a write may be.
    pub fn follow(&mut self, seen: &ConfigMap) {
        let is_same = seen.metadata.uid == self.ledger.metadata.uid;
        if !is_same || version(seen) >= version(&self.ledger) {
            self.ledger = seen.clone();
        }
    }

    /// The merge patch that puts back what is missing in the ledger as it is now; `None` if nothing is, or if this term
    /// has nothing to say any more.
    pub fn patch(&self, seen: &ConfigMap) -> Option<Value> {
        Self::of(seen, &self.term)?;
        let is_another = seen.metadata.uid != self.ledger.metadata.uid;
        let data = self.missing_data(seen, is_another);
        let labels = missing(&self.ledger.metadata.labels, &seen.metadata.labels, |key| {
            is_another || [MANAGED_BY_LABEL, CLUSTER_LABEL].contains(&key)
        });
        let mut annotations = missing(&self.ledger.metadata.annotations, &seen.metadata.annotations, |key| {
            LASTING.contains(&key) || is_another && !is_passing(key)
        });
        if data.is_empty() && labels.is_empty() && annotations.is_empty() {
            return None;
        }
        if self.is_stamped() {
            annotations.insert(TERM_ANNOTATION.to_owned(), self.term.to_string().into());
        }
        Some(json!({
            "metadata": {
                "resourceVersion": seen.metadata.resource_version,
                "labels": labels,
                "annotations": annotations,
            },
            "data": data,
        }))
    }

    /// The ledger to create in the place of one that is gone; `None` if it said nothing.
    pub fn to_create(&self) -> Option<ConfigMap> {
        let ObjectMeta { name, namespace, labels, annotations, .. } = self.ledger.metadata.clone();
        let data = self.ledger.data.clone().filter(|data| !data.is_empty())?;
        let mut annotations = annotations.unwrap_or_default();
        annotations.retain(|key, _| !is_passing(key));
        if self.is_stamped() {
            annotations.insert(TERM_ANNOTATION.to_owned(), self.term.to_string());
        }
        let metadata = ObjectMeta { name, namespace, labels, annotations: Some(annotations), ..ObjectMeta::default() };
        Some(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() })
    }

    /// A leader has written it.
    fn is_stamped(&self) -> bool {
        self.ledger.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(TERM_ANNOTATION))
    }

    fn missing_data(&self, seen: &ConfigMap, is_another: bool) -> Map<String, Value> {
        let empty = BTreeMap::new();
        let now = seen.data.as_ref().unwrap_or(&empty);
        let is_missing = |key: &str, text: &str| match now.get(key) {
            // Whoever removes what cannot be read follows the advice that the resource gives.
            None => is_another || is_readable(key, text),
            Some(now) if now == text => false,
            Some(now) => is_another || is_readable(key, text) && (!is_readable(key, now) || loses(key, text, now)),
        };
        let kept = self.ledger.data.iter().flatten().filter(|(key, text)| is_missing(key, text));
        kept.map(|(key, text)| (key.clone(), text.as_str().into())).collect()
    }
}

/// Entries that are not there as they were.
fn missing(
    kept: &Option<BTreeMap<String, String>>,
    seen: &Option<BTreeMap<String, String>>,
    counts: impl Fn(&str) -> bool,
) -> Map<String, Value> {
    let is_missing = |key: &str| counts(key) && seen.as_ref().is_none_or(|seen| !seen.contains_key(key));
    let kept = kept.iter().flatten().filter(|(key, _)| is_missing(key));
    kept.map(|(key, text)| (key.clone(), text.as_str().into())).collect()
}

/// Says something about a moment, and its writer writes it again.
fn is_passing(annotation: &str) -> bool {
    [NO_KEY_ANNOTATION, PROBE_ANNOTATION, REFUSAL_ANNOTATION].contains(&annotation)
        || unready::is_annotation(annotation)
}

fn is_readable(key: &str, text: &str) -> bool {
    match key {
        JOBS_KEY => jobs::read(Some(text)).is_ok(),
        HA_DATA_KEY => serde_json::from_str::<HaData>(text).is_ok(),
        LEDGER_KEY => serde_json::from_str::<Progress>(text).is_ok(),
        FAILOVERS_KEY | CHECKPOINTS_KEY | SAVEPOINTS_KEY => serde_json::from_str::<Value>(text).is_ok(),
        _ => true,
    }
}

/// Something final is gone that no leader removes: the end of a job, except the oldest of many, or the name of the
/// directory's owner.
fn loses(key: &str, kept: &str, text: &str) -> bool {
    match key {
        JOBS_KEY => {
            let (Ok(kept), Ok(now)) = (jobs::read(Some(kept)), jobs::read(Some(text))) else { return false };
            let ended = now.iter().filter(|job| job.has_ended());
            let has_ended = |kept: &jobs::Job| now.iter().any(|job| job.id == kept.id && job.has_ended());
            let is_full = ended.count() >= bounds::COLLECTED || text.len() > bounds::BYTES / 2;
            !is_full && kept.iter().any(|job| job.has_ended() && !has_ended(job))
        }
        HA_DATA_KEY => {
            let owner = |text: &str| serde_json::from_str::<HaData>(text).ok().and_then(|ha_data| ha_data.owner);
            owner(kept).is_some() && owner(text).is_none()
        }
        _ => false,
    }
}

/// Versions of one object rise.
fn version(ledger: &ConfigMap) -> Option<u64> {
    ledger.metadata.resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: &str = r#"[{"id":"00000000000000000000000000000001","state":"FINISHED","ended":"then"}]"#;

    fn term(number: u64) -> Term {
        format!("{number}.uid.process.7-8").parse().expect("a term")
    }

    fn ledger(uid: &str, version: &str, stamp: Option<u64>, data: Value) -> ConfigMap {
        let mut annotations = json!({ PROBE_ANNOTATION: "now" });
        if let Some(number) = stamp {
            annotations[TERM_ANNOTATION] = term(number).to_string().into();
        }
        let labels = json!({ MANAGED_BY_LABEL: "flinkha", CLUSTER_LABEL: "demo", "team": "a" });
        serde_json::from_value(json!({
            "metadata": {
                "name": "demo-ledger", "namespace": "flink", "uid": uid, "resourceVersion": version, "labels": labels,
                "annotations": annotations,
            },
            "data": data,
        }))
        .expect("a ConfigMap")
    }

    fn copy() -> LedgerCopy {
        let data = json!({ JOBS_KEY: ENDED, HA_DATA_KEY: r#"{"owner":"us"}"# });
        LedgerCopy::of(&ledger("a", "7", Some(3), data), &term(3)).expect("a copy")
    }

    #[test]
    fn one_that_is_gone_or_made_anew_gets_everything_back_with_the_stamp() {
        let created = copy().to_create().expect("a ledger");
        assert_eq!(created.data, copy().ledger.data);
        assert_eq!((created.metadata.uid, created.metadata.resource_version), (None, None));
        let annotations = created.metadata.annotations.unwrap_or_default();
        assert_eq!(annotations, BTreeMap::from([(TERM_ANNOTATION.to_owned(), term(3).to_string())]));
        for data in [json!(null), json!({}), json!({ JOBS_KEY: "[]" })] {
            let patch = copy().patch(&ledger("b", "9", None, data)).expect("a patch");
            assert_eq!(patch["data"], json!(copy().ledger.data));
            assert_eq!(patch["metadata"]["resourceVersion"], "9", "by compare-and-swap");
            assert_eq!(patch["metadata"]["annotations"][TERM_ANNOTATION], term(3).to_string());
        }
    }

    #[test]
    fn nothing_is_put_over_a_newer_term_and_nothing_into_what_is_being_deleted() {
        assert!(copy().patch(&ledger("b", "9", Some(4), json!({}))).is_none());
        assert!(LedgerCopy::of(&ledger("a", "7", Some(4), json!({})), &term(3)).is_none());
        let mut going = ledger("a", "9", Some(3), json!({}));
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok();
        assert!(copy().patch(&going).is_none());
    }

    #[test]
    fn in_the_same_ledger_what_is_lost_comes_back_and_what_somebody_writes_stands() {
        let patched = |data: Value| copy().patch(&ledger("a", "8", Some(3), data)).map(|patch| patch["data"].clone());
        let jobs = json!({ JOBS_KEY: ENDED });
        assert_eq!(patched(json!({ JOBS_KEY: ENDED, HA_DATA_KEY: r#"{"owner":"us","state":"Shared"}"# })), None);
        assert_eq!(patched(json!({ JOBS_KEY: "[]", HA_DATA_KEY: r#"{"owner":"us"}"# })), Some(jobs.clone()));
        assert_eq!(patched(json!({ JOBS_KEY: "torn", HA_DATA_KEY: r#"{"owner":"us"}"# })), Some(jobs));
        assert_eq!(
            patched(json!({ JOBS_KEY: ENDED, HA_DATA_KEY: "{}" })),
            Some(json!({ HA_DATA_KEY: r#"{"owner":"us"}"# }))
        );
        let mut unlabelled = copy().ledger;
        unlabelled.metadata.labels = None;
        let patch = copy().patch(&unlabelled).expect("a patch");
        assert_eq!(patch["metadata"]["labels"], json!({ MANAGED_BY_LABEL: "flinkha", CLUSTER_LABEL: "demo" }));
    }

    #[test]
    fn what_could_not_be_read_before_may_be_removed_as_the_resource_advises() {
        let torn = LedgerCopy::of(&ledger("a", "7", Some(3), json!({ JOBS_KEY: "torn" })), &term(3)).expect("a copy");
        assert!(torn.patch(&ledger("a", "8", Some(3), json!({}))).is_none());
        assert!(torn.patch(&ledger("b", "8", None, json!({}))).is_some(), "a ledger made anew");
    }

    #[test]
    fn an_older_version_that_a_watch_shows_late_is_not_followed() {
        let mut copy = copy();
        copy.follow(&ledger("a", "6", Some(3), json!({})));
        assert!(copy.to_create().is_some());
        copy.follow(&ledger("a", "8", Some(3), json!({})));
        assert!(copy.to_create().is_none());
    }
}
