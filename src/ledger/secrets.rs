//! The Secrets of `spec.flinkConfigurationFrom`, as the leading gateway sees them: it notes a digest under the
//! gateways' key, from which nobody can guess a value, and how often it has changed. The operator replaces pods by that
//! number, and needs no right to read Secrets.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Key of the ledger ConfigMap that holds JSON of [`SecretsNote`].
pub const LEDGER_KEY: &str = "secrets";

/// The kubelet has updated all mounts of a Secret by then: its sync period is a minute, and so is the life of its
/// cache.
pub(super) const SETTLING: Duration = Duration::from_secs(180);

/// What the ledger says of the Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretsNote {
    /// Names of the Secrets, in the order of the spec.
    pub names: Vec<String>,
    /// Digest of their contents, after a mark of the key and a hyphen. Empty before the first one that Flink can be
    /// started with.
    pub digest: String,
    /// How often the contents have changed.
    pub changes: u64,
    /// Why the present contents do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What one gateway has seen of the Secrets since its process began. Its mounts may be behind those of others.
#[derive(Clone, Debug, Default)]
pub struct SeenSecrets {
    names: Vec<String>,
    /// The digest of now, or why there is none.
    now: Option<Result<String, String>>,
    /// The first digest.
    first: Option<String>,
    /// Digests that it has seen before that of now.
    former: BTreeSet<String>,
    /// When it first saw what it sees now, since some moment.
    since: Duration,
}

impl SeenSecrets {
    /// Takes in a look at the mounts.
    pub fn look(&mut self, names: Vec<String>, digest: Result<String, String>, now: Duration) {
        if self.now.as_ref() == Some(&digest) && self.names == names {
            return;
        }
        if let Some(Ok(before)) = self.now.take() {
            self.former.insert(before);
        }
        if let Ok(digest) = &digest {
            self.former.remove(digest);
            self.first.get_or_insert_with(|| digest.clone());
        }
        (self.names, self.now, self.since) = (names, Some(digest), now);
    }

    /// Returns what is to be noted in the place of `before`. `leads`: since when this gateway's JVM leads.
    pub fn noted(&self, before: &SecretsNote, leads: Duration, now: Duration) -> SecretsNote {
        let digest = match &self.now {
            None => return before.clone(),
            Some(Err(problem)) => return SecretsNote { problem: Some(problem.clone()), ..before.clone() },
            Some(Ok(digest)) => digest,
        };
        let note = |digest: &str, changes| SecretsNote {
            names: self.names.clone(),
            digest: digest.to_owned(),
            changes,
            problem: None,
        };
        // The spec names other Secrets, which has replaced the pods; or nothing was noted yet. Pods may have begun with
        // what this process saw first.
        if before.digest.is_empty() || before.names != self.names {
            return note(self.first.as_ref().unwrap_or(digest), before.changes);
        }
        // The gateways have another key: such digests cannot be compared.
        if key_of(&before.digest) != key_of(digest) {
            return note(digest, before.changes);
        }
        // Whoever leads since a moment may be behind the one that led before.
        let is_settled = now.saturating_sub(self.since.max(leads)) >= SETTLING;
        if *digest == before.digest {
            note(digest, before.changes)
        } else if self.former.contains(&before.digest) || is_settled {
            note(digest, before.changes + 1)
        } else {
            // Another gateway has noted something that this one has not seen: a later state, as a rule.
            before.clone()
        }
    }

    /// Whether a look says something else than the last note. A look that is behind has to be compared again later.
    pub fn differs(&self, noted: &SecretsNote) -> bool {
        match &self.now {
            None => false,
            Some(Err(problem)) => noted.problem.as_ref() != Some(problem),
            Some(Ok(digest)) => noted.problem.is_some() || noted.digest != *digest || noted.names != self.names,
        }
    }
}

/// The mark of the key in a digest, before its hyphen.
fn key_of(digest: &str) -> Option<&str> {
    digest.split_once('-').map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(digests: &[&str]) -> SeenSecrets {
        let mut seen = SeenSecrets::default();
        for digest in digests {
            seen.look(vec!["s3".to_owned()], Ok((*digest).to_owned()), second(0));
        }
        seen
    }

    /// What is new, of a gateway that leads since the beginning.
    fn note(seen: &SeenSecrets, before: &SecretsNote, now: Duration) -> Option<SecretsNote> {
        Some(seen.noted(before, second(0), now)).filter(|noted| noted != before)
    }

    fn noted(digest: &str, changes: u64) -> SecretsNote {
        SecretsNote { names: vec!["s3".to_owned()], digest: digest.to_owned(), changes, problem: None }
    }

    #[test]
    fn a_change_is_counted_once_whoever_notes_it() {
        let first = note(&seen(&["a"]), &SecretsNote::default(), second(1)).expect("the first note");
        assert_eq!(first, noted("a", 0), "pods begin with it");
        assert_eq!(note(&seen(&["a"]), &first, second(1)), None);
        let changed = note(&seen(&["a", "b"]), &first, second(1)).expect("a change");
        assert_eq!(changed, noted("b", 1));
        assert_eq!(note(&seen(&["a", "b"]), &changed, second(1)), None, "another gateway sees it too");
        assert_eq!(note(&seen(&["b"]), &changed, second(1)), None, "and one that came after it");
        assert_eq!(note(&seen(&["b", "a"]), &changed, second(1)), Some(noted("a", 2)), "it was changed back");
    }

    #[test]
    fn a_gateway_whose_mounts_are_behind_takes_nothing_back() {
        assert_eq!(note(&seen(&["a"]), &noted("b", 1), second(179)), None);
        assert_eq!(note(&seen(&["a"]), &noted("b", 1), second(180)), Some(noted("a", 2)), "it is not behind");
        assert!(seen(&["a"]).differs(&noted("b", 1)), "it looks again");
        let day = Duration::from_secs(86_400);
        let later = |leads| seen(&["a"]).noted(&noted("b", 1), leads, day);
        assert_eq!(later(day - second(179)), noted("b", 1), "it leads since a moment");
        assert_eq!(later(day - second(180)), noted("a", 2));
    }

    #[test]
    fn a_change_between_the_start_of_pods_and_the_first_note_is_one() {
        let first = note(&seen(&["a", "b"]), &SecretsNote::default(), second(1)).expect("the first note");
        assert_eq!(first, noted("a", 0));
        assert_eq!(note(&seen(&["a", "b"]), &first, second(1)), Some(noted("b", 1)));
    }

    #[test]
    fn another_key_of_the_gateways_is_no_change_of_a_secret() {
        assert_eq!(note(&seen(&["k2-a"]), &noted("k1-a", 3), second(1)), Some(noted("k2-a", 3)));
        assert_eq!(note(&seen(&["k2-a", "k2-b"]), &noted("k2-a", 3), second(1)), Some(noted("k2-b", 4)));
    }

    #[test]
    fn other_secrets_in_the_spec_are_no_change_of_a_secret() {
        let before = SecretsNote { names: vec!["other".to_owned()], ..noted("x", 4) };
        assert_eq!(note(&seen(&["a"]), &before, second(1)), Some(noted("a", 4)));
    }

    #[test]
    fn contents_that_flink_must_not_get_are_told_and_counted_when_they_are_mended() {
        let mut seen = seen(&["a"]);
        seen.look(vec!["s3".to_owned()], Err("why".to_owned()), second(1));
        let told = note(&seen, &noted("a", 0), second(1)).expect("a note");
        assert_eq!(told, SecretsNote { problem: Some("why".to_owned()), ..noted("a", 0) });
        assert!(!seen.differs(&told));
        seen.look(vec!["s3".to_owned()], Ok("a".to_owned()), second(2));
        assert_eq!(note(&seen, &told, second(2)), Some(noted("a", 0)), "nothing has changed after all");
        seen.look(vec!["s3".to_owned()], Ok("c".to_owned()), second(3));
        assert_eq!(note(&seen, &told, second(3)), Some(noted("c", 1)));
        assert_eq!(
            serde_json::json!(noted("a", 0)),
            serde_json::json!({ "names": ["s3"], "digest": "a", "changes": 0 })
        );
    }
}
