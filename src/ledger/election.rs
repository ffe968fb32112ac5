//! Keeps the notes about Flink's election in ZooKeeper on the ledger. Flink itself elects. The gateway of the leader
//! notes who leads, in which term, and what changed. A term's number rises with every note of a new leader, and no
//! write of an older term is accepted.
//!
//! The operator reads the notes as a Lease, so that the same code makes status, labels and events for both providers.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::names::{CHANGE_ANNOTATION, LEADER_ANNOTATION, TERM_ANNOTATION};
use crate::lease::record::Change;
use crate::lease::term::Term;

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leading {
    /// Name of the pod; empty while nobody leads.
    pub pod: String,
    /// When it became the leader, RFC 3339; empty while nobody leads.
    pub since: String,
}

/// What the ledger says of the election.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    pub term: Option<Term>,
    pub leading: Leading,
    pub change: Option<Change>,
}

impl Notes {
    /// Reads the notes. An annotation that does not parse counts as absent.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
        Self {
            term: annotation(TERM_ANNOTATION).and_then(|text| text.parse().ok()),
            leading: annotation(LEADER_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            change: annotation(CHANGE_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
        }
    }

    fn annotations(&self) -> Value {
        let mut annotations = json!({ LEADER_ANNOTATION: json!(self.leading).to_string() });
        if let Some(term) = &self.term {
            annotations[TERM_ANNOTATION] = term.to_string().into();
        }
        if let Some(change) = &self.change {
            annotations[CHANGE_ANNOTATION] = json!(change).to_string().into();
        }
        annotations
    }

    /// Returns the merge patch that writes these notes if the ledger still has resourceVersion `version`.
    pub fn to_patch(&self, version: &str) -> Value {
        json!({ "metadata": { "resourceVersion": version, "annotations": self.annotations() } })
    }

    /// The notes of a pod that has won Flink's election and does not lead yet. `term` has no number yet; it gets the
    /// next one. A gateway that was restarted beside a leading JVM takes a new term too, but that is no change of
    /// leader.
    pub fn taken(&self, pod: &str, term: Term, now: Timestamp) -> Self {
        let number = self.term.as_ref().map_or(0, |term| term.number) + 1;
        let same_jvm = self.leading.pod == pod
            && self.term.as_ref().is_some_and(|before| before.pod_uid == term.pod_uid && before.jvm == term.jvm);
        let change = match &self.change {
            Some(change) if same_jvm => Change { term: number, ..change.clone() },
            // The last leader's gateway has noted why.
            Some(change) if self.leading.pod.is_empty() && change.to.is_empty() => {
                Change { term: number, ..change.clone() }
            }
            _ if self.leading.pod.is_empty() && self.change.is_none() => {
                Change { term: number, why: "FirstLeader".to_owned(), ..Change::default() }
            }
            _ => Change {
                term: number,
                from: self.leading.pod.clone(),
                why: "SessionEnded".to_owned(),
                ..Change::default()
            },
        };
        let since = if same_jvm { self.leading.since.clone() } else { format!("{now:.0}") };
        Self {
            term: Some(Term { number, ..term }),
            leading: Leading { pod: pod.to_owned(), since },
            change: Some(change),
        }
    }

    /// The same once its JVM leads. `leaderless`: milliseconds since the last leader's latch was gone.
    pub fn granted(&self, leaderless: u64, now: Timestamp) -> Self {
        let change = self.change.clone().unwrap_or_default();
        if change.to == self.leading.pod {
            return self.clone();
        }
        let to = self.leading.pod.clone();
        Self {
            change: Some(Change { to, leaderless_millis: leaderless, at: format!("{now:.3}"), ..change }),
            ..self.clone()
        }
    }

    /// Returns the notes after the end of a leadership, with its reason.
    pub fn released(&self, why: &str) -> Self {
        let change = Change { from: self.leading.pod.clone(), why: why.to_owned(), ..Change::default() };
        Self { leading: Leading::default(), change: Some(change), ..self.clone() }
    }
}

/// Returns the election as a Lease; `None` if the ledger has no notes about one.
pub fn lease_of(ledger: &ObjectMeta) -> Option<Lease> {
    let annotations = ledger.annotations.as_ref()?;
    annotations.get(LEADER_ANNOTATION)?;
    let notes = Notes::of(ledger);
    let spec = LeaseSpec {
        holder_identity: Some(notes.leading.pod.clone()).filter(|pod| !pod.is_empty()),
        acquire_time: notes.leading.since.parse().ok().map(MicroTime),
        ..LeaseSpec::default()
    };
    let kept = annotations.iter().filter(|(key, _)| [TERM_ANNOTATION, CHANGE_ANNOTATION].contains(&key.as_str()));
    let annotations = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    Some(Lease { metadata: ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() }, spec: Some(spec) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::record::Record;
    use crate::lease::term::Incarnation;

    fn term(uid: &str) -> Term {
        Term { number: 0, pod_uid: uid.into(), process: "p".into(), jvm: Incarnation { pid: 1, started: 2 } }
    }

    fn metadata(notes: &Notes) -> ObjectMeta {
        serde_json::from_value(notes.to_patch("7")["metadata"].clone()).expect("metadata")
    }

    #[test]
    fn a_failover_is_told_by_both_gateways_and_read_as_from_a_lease() {
        let now = Timestamp::UNIX_EPOCH;
        let first = Notes::default().taken("a", term("a"), now).granted(0, now);
        assert_eq!(
            (first.term.as_ref().map(|term| term.number), first.change.as_ref().map(|change| change.from.as_str())),
            (Some(1), Some(""))
        );
        let second = Notes::of(&metadata(&first)).released("JobManagerDied").taken("b", term("b"), now);
        let lease = lease_of(&metadata(&second)).expect("a Lease");
        assert_eq!(Record::of(&lease).change.map(|change| change.to).as_deref(), Some(""), "it does not lead yet");
        let lease = lease_of(&metadata(&second.granted(120, now))).expect("a Lease");
        let record = Record::of(&lease);
        let change = record.change.expect("a change");
        assert_eq!((record.holder.as_str(), record.term.map(|term| term.number)), ("b", Some(2)));
        assert_eq!(
            (change.from.as_str(), change.to.as_str(), change.why.as_str(), change.leaderless_millis),
            ("a", "b", "JobManagerDied", 120)
        );
    }

    #[test]
    fn a_leader_that_could_not_say_why_is_named_all_the_same() {
        let first = Notes::default().taken("a", term("a"), Timestamp::UNIX_EPOCH).granted(0, Timestamp::UNIX_EPOCH);
        let change = first.taken("b", term("b"), Timestamp::UNIX_EPOCH).change.expect("a change");
        assert_eq!((change.from.as_str(), change.why.as_str()), ("a", "SessionEnded"));
    }

    #[test]
    fn a_restarted_gateway_takes_a_new_term_and_tells_of_no_change() {
        let now = Timestamp::UNIX_EPOCH;
        let first = Notes::default().taken("a", term("a"), now).granted(3, now);
        let again = first.taken("a", Term { process: "q".into(), ..term("a") }, now).granted(99, now);
        assert_eq!(again.change.as_ref().map(|change| (change.leaderless_millis, change.to.as_str())), Some((3, "a")));
        assert_eq!(again.term.map(|term| (term.number, term.process)), Some((2, "q".to_owned())));
        assert_eq!(lease_of(&ObjectMeta::default()), None);
    }
}
