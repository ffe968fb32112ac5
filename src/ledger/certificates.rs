//! The certificates of `spec.tls`, as the leading gateway sees them: it notes a digest of each, and how often it has
//! changed. The operator replaces pods by that number, and needs no right to read Secrets.
//!
//! Pods make their key stores when they start, so whoever counts a change promises that pods that start now have it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secrets::SETTLING;

/// Key of the ledger ConfigMap that holds JSON of [`CertificateNotes`].
pub const LEDGER_KEY: &str = "certificates";

/// What the ledger says of the certificates, by the field of `spec.tls`.
pub type CertificateNotes = BTreeMap<String, CertificateNote>;

/// What it says of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificateNote {
    /// Name of the Secret; empty where it is not known.
    pub secret: String,
    /// Digest of the certificate and of whom it trusts.
    pub digest: String,
    /// How often they have changed.
    pub changes: u64,
}

/// What a gateway sees of one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenCertificate {
    pub secret: String,
    /// Of the mounted Secret.
    pub mounted: String,
    /// Of what this pod's Flink was started with.
    pub used: String,
    /// Whether pods start with what is mounted, and others accept it.
    pub is_usable: bool,
}

/// What one gateway sees of all of them. Its mounts may be behind those of others.
#[derive(Clone, Debug, Default)]
pub struct SeenCertificates {
    now: BTreeMap<String, SeenCertificate>,
    /// When it first saw what is mounted now, since some moment.
    since: Duration,
}

impl SeenCertificates {
    /// Takes in a look at all mounts; returns whether what is mounted has changed since the last one.
    pub fn look(&mut self, seen: BTreeMap<String, SeenCertificate>, now: Duration) -> bool {
        let before = std::mem::replace(&mut self.now, seen);
        let is_as_before = before.values().map(|one| &one.mounted).eq(self.now.values().map(|one| &one.mounted));
        if !is_as_before {
            self.since = now;
        }
        !is_as_before && !before.is_empty()
    }

    /// Returns what is to be noted in the place of `before`. `leads`: since when this gateway's JVM leads.
    ///
    /// A change counts when nothing has changed for a while: all mounts have it then, and certificates that are renewed
    /// together replace the pods once. Whoever has led for less time may be behind the one that led before.
    pub fn noted(&self, before: &CertificateNotes, leads: Duration, now: Duration) -> CertificateNotes {
        let is_settled = now.saturating_sub(self.since.max(leads)) >= SETTLING;
        self.now.iter().map(|(field, seen)| (field.clone(), seen.noted(before.get(field), is_settled))).collect()
    }
}

impl SeenCertificate {
    fn noted(&self, before: Option<&CertificateNote>, is_settled: bool) -> CertificateNote {
        match before {
            Some(before) if before.secret == self.secret => {
                let counts = before.digest != self.mounted && self.is_usable && is_settled;
                if counts { self.note(&self.mounted, before.changes + 1) } else { before.clone() }
            }
            // Nothing was noted yet; or the spec names another Secret, which has replaced the pods. They are like this
            // one.
            other => self.note(&self.used, other.map_or(0, |other| other.changes)),
        }
    }

    fn note(&self, digest: &str, changes: u64) -> CertificateNote {
        CertificateNote { secret: self.secret.clone(), digest: digest.to_owned(), changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;
    const SOON: Duration = Duration::from_secs(179);
    const LATER: Duration = Duration::from_secs(180);

    fn one(mounted: &str, used: &str) -> SeenCertificate {
        SeenCertificate { secret: "a".to_owned(), mounted: mounted.to_owned(), used: used.to_owned(), is_usable: true }
    }

    fn seen(all: &[(&str, SeenCertificate)]) -> SeenCertificates {
        let mut seen = SeenCertificates::default();
        seen.look(map(all), START);
        seen
    }

    fn map<T: Clone>(all: &[(&str, T)]) -> BTreeMap<String, T> {
        all.iter().map(|(field, one)| ((*field).to_owned(), one.clone())).collect()
    }

    fn note(digest: &str, changes: u64) -> CertificateNote {
        CertificateNote { secret: "a".to_owned(), digest: digest.to_owned(), changes }
    }

    #[test]
    fn a_renewed_certificate_counts_once_and_only_when_all_mounts_have_it() {
        let mut seen = seen(&[("rest", one("old", "old"))]);
        let first = seen.noted(&CertificateNotes::new(), START, START);
        assert_eq!(first, map(&[("rest", note("old", 0))]), "pods begin with it");
        assert_eq!(seen.noted(&first, START, LATER), first);
        assert!(seen.look(map(&[("rest", one("new", "old"))]), LATER));
        assert!(!seen.look(map(&[("rest", one("new", "old"))]), LATER * 2), "it is the same");
        assert_eq!(seen.noted(&first, START, LATER + SOON), first);
        let counted = seen.noted(&first, START, LATER * 2);
        assert_eq!(counted, map(&[("rest", note("new", 1))]));
        assert_eq!(seen.noted(&counted, START, LATER * 9), counted, "this pod is the last one to be replaced");
        let after = self::seen(&[("rest", one("new", "new"))]);
        assert_eq!(after.noted(&counted, START, LATER * 9), counted, "a pod that came after it");
    }

    #[test]
    fn certificates_that_are_renewed_together_count_together() {
        let mut seen = seen(&[("internal", one("i", "i")), ("rest", one("r", "r"))]);
        let before = seen.noted(&CertificateNotes::new(), START, START);
        seen.look(map(&[("internal", one("i2", "i")), ("rest", one("r", "r"))]), START);
        seen.look(map(&[("internal", one("i2", "i")), ("rest", one("r2", "r"))]), SOON);
        assert_eq!(seen.noted(&before, START, LATER), before, "one is settled and the other is not");
        let counted = seen.noted(&before, START, SOON + LATER);
        assert_eq!(counted, map(&[("internal", note("i2", 1)), ("rest", note("r2", 1))]));
    }

    #[test]
    fn a_gateway_that_leads_since_a_moment_may_be_behind_and_takes_nothing_back() {
        let (behind, noted) = (seen(&[("rest", one("old", "old"))]), map(&[("rest", note("new", 1))]));
        let day = Duration::from_secs(86_400);
        assert_eq!(behind.noted(&noted, day, day + SOON), noted);
        assert_eq!(behind.noted(&noted, day, day + LATER), map(&[("rest", note("old", 2))]), "it was changed back");
    }

    #[test]
    fn a_certificate_with_which_no_pod_would_start_replaces_none() {
        let broken = SeenCertificate { is_usable: false, ..one("broken", "old") };
        let noted = map(&[("rest", note("old", 0))]);
        assert_eq!(seen(&[("rest", broken)]).noted(&noted, START, LATER), noted);
    }

    #[test]
    fn a_pod_that_uses_a_former_certificate_when_nothing_was_noted_is_replaced() {
        let late = seen(&[("rest", one("new", "old"))]);
        let first = late.noted(&CertificateNotes::new(), START, LATER);
        assert_eq!(first, map(&[("rest", note("old", 0))]));
        assert_eq!(late.noted(&first, START, LATER), map(&[("rest", note("new", 1))]));
    }

    #[test]
    fn what_the_spec_changes_replaces_no_pod_once_more() {
        let before = map(&[("rest", CertificateNote { secret: "other".to_owned(), ..note("other", 4) })]);
        let now = seen(&[("internal", one("i", "i")), ("rest", one("new", "new"))]).noted(&before, START, LATER);
        assert_eq!(now, map(&[("internal", note("i", 0)), ("rest", note("new", 4))]), "another Secret; one more field");
        let less = seen(&[("internal", one("i", "i"))]).noted(&now, START, LATER);
        assert_eq!(less, map(&[("internal", note("i", 0))]), "one field less");
    }

    #[test]
    fn the_ledger_holds_it_as_earlier_gateways_have_written_it() {
        let text = r#"{"rest":{"secret":"a","digest":"d","changes":2}}"#;
        assert_eq!(serde_json::from_str::<CertificateNotes>(text).ok(), Some(map(&[("rest", note("d", 2))])));
        assert_eq!(
            serde_json::json!(map(&[("rest", note("d", 2))])),
            serde_json::json!({ "rest": { "secret": "a", "digest": "d", "changes": 2 } })
        );
    }
}
