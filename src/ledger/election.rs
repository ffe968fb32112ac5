//! The election of a cluster with ZooKeeper, as its ledger tells of it. Flink itself elects; the gateway of the leader
//! writes down who leads, in which term, and what the change was. A term is a number that rises with every note of a
//! new leader; no write of an older one is accepted.
//!
//! The operator reads the notes as it reads a Lease, so that status, labels and events are made by the same code.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::names::{CHANGE_ANNOTATION, LEADER_ANNOTATION, TERM_ANNOTATION};
use crate::lease::record::Change;
use crate::lease::term::{Incarnation, Term};

/// Reason of a change of leader for which the former leader's gateway gave none.
const SESSION_ENDED: &str = "SessionEnded";

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Leading {
    /// Name of the pod; empty while nobody leads.
    pub pod: String,
    /// RFC 3339.
    pub since: String,
}

/// The gateway that takes a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimant {
    pub pod: String,
    pub pod_uid: String,
    /// Random per gateway process.
    pub process: String,
    /// `None`: the gateway holds the leader's place while no JVM leads.
    pub jvm: Option<Incarnation>,
}

/// What the ledger says of the election.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notes {
    pub term: Option<Term>,
    pub leading: Leading,
    pub change: Option<Change>,
}

impl Notes {
    /// Annotations that do not parse count as absent.
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

    /// Merge patch that writes these notes, if the ledger still has this resourceVersion.
    pub fn to_patch(&self, version: &str) -> Value {
        json!({ "metadata": { "resourceVersion": version, "annotations": self.annotations() } })
    }

    /// The term after the ledger's. Every term of a cluster with ZooKeeper is made here.
    pub fn next_term(&self, claimant: &Claimant) -> Term {
        Term {
            number: self.term.as_ref().map_or(0, |term| term.number) + 1,
            pod_uid: claimant.pod_uid.clone(),
            process: claimant.process.clone(),
            jvm: claimant.jvm.unwrap_or(Incarnation::NONE),
        }
    }

    /// The notes of a pod that has won Flink's election and does not lead yet. A gateway that was restarted beside a
    /// leading JVM takes a new term too, but that is no change of leader.
    pub fn taken(&self, claimant: &Claimant, now: Timestamp) -> Self {
        let term = self.next_term(claimant);
        let (pod, number) = (&claimant.pod, term.number);
        let same_jvm = self.leading.pod == *pod
            && self.term.as_ref().is_some_and(|before| before.pod_uid == term.pod_uid && before.jvm == term.jvm);
        let change = match &self.change {
            Some(change) if same_jvm => Change { term: number, ..change.clone() },
            // The last leader's gateway has said why.
            Some(change) if self.leading.pod.is_empty() && change.to.is_empty() => {
                Change { term: number, ..change.clone() }
            }
            _ if self.leading.pod.is_empty() && self.change.is_none() => {
                Change { term: number, why: "FirstLeader".to_owned(), ..Change::default() }
            }
            _ => Change {
                term: number,
                from: self.leading.pod.clone(),
                why: SESSION_ENDED.to_owned(),
                ..Change::default()
            },
        };
        let since = if same_jvm { self.leading.since.clone() } else { format!("{now:.0}") };
        Self { term: Some(term), leading: Leading { pod: pod.clone(), since }, change: Some(change) }
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

    /// The notes after a leader's gateway has told why the leader is one no more; `None` if they stay as they are.
    ///
    /// A successor may have taken its term before: it saw only that the session has ended. What it wrote as the reason
    /// is corrected as long as it does not lead.
    pub fn ended(&self, term: &Term, pod: &str, why: &str) -> Option<Self> {
        if self.term.as_ref() == Some(term) {
            let change = Change { from: self.leading.pod.clone(), why: why.to_owned(), ..Change::default() };
            return Some(Self { leading: Leading::default(), change: Some(change), ..self.clone() });
        }
        let is_next = self.term.as_ref().is_some_and(|now| now.number.checked_sub(1) == Some(term.number));
        let guessed = self
            .change
            .as_ref()
            .filter(|change| is_next && change.to.is_empty() && change.from == pod && change.why == SESSION_ENDED)?;
        Some(Self { change: Some(Change { why: why.to_owned(), ..guessed.clone() }), ..self.clone() })
    }
}

/// The election as a Lease would tell of it; `None` if the ledger says nothing of one.
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

    fn by(pod: &str) -> Claimant {
        let jvm = Some(Incarnation { pid: 1, started: 2 });
        Claimant { pod: pod.into(), pod_uid: pod.into(), process: "p".into(), jvm }
    }

    /// The gateway of the first leader tells that its JVM has died.
    fn died(notes: &Notes, pod: &str) -> Option<Notes> {
        notes.ended(&Notes::default().next_term(&by(pod)), pod, "JobManagerDied")
    }

    fn metadata(notes: &Notes) -> ObjectMeta {
        serde_json::from_value(notes.to_patch("7")["metadata"].clone()).expect("metadata")
    }

    #[test]
    fn a_failover_is_told_by_both_gateways_and_read_as_from_a_lease() {
        let now = Timestamp::UNIX_EPOCH;
        let first = Notes::default().taken(&by("a"), now).granted(0, now);
        assert_eq!(
            (first.term.as_ref().map(|term| term.number), first.change.as_ref().map(|change| change.from.as_str())),
            (Some(1), Some(""))
        );
        let second = died(&Notes::of(&metadata(&first)), "a").expect("its end is told").taken(&by("b"), now);
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
    fn a_gateway_that_leads_without_a_jvm_has_a_term_too() {
        let first = Notes::default().taken(&by("a"), Timestamp::UNIX_EPOCH);
        let term = first.next_term(&Claimant { jvm: None, ..by("b") });
        assert_eq!(term.to_string(), "2.b.p.0-0");
    }

    #[test]
    fn a_leader_that_could_not_say_why_is_named_all_the_same() {
        let first = Notes::default().taken(&by("a"), Timestamp::UNIX_EPOCH).granted(0, Timestamp::UNIX_EPOCH);
        let change = first.taken(&by("b"), Timestamp::UNIX_EPOCH).change.expect("a change");
        assert_eq!((change.from.as_str(), change.why.as_str()), ("a", "SessionEnded"));
    }

    /// The gateway of a killed leader ends its session, and then its own write may be slower than the successor.
    #[test]
    fn a_leaders_reason_counts_although_its_successor_was_faster() {
        let now = Timestamp::UNIX_EPOCH;
        let first = Notes::default().taken(&by("a"), now).granted(0, now);
        let taken = first.taken(&by("b"), now);
        let told = died(&taken, "a").expect("the reason is corrected");
        let expected = died(&first, "a").expect("its end is told").taken(&by("b"), now);
        assert_eq!(told, expected, "both orders say the same");
        assert_eq!(died(&told, "a"), None, "once");
        assert_eq!(died(&taken.granted(5, now), "a"), None, "what was told of a leader that leads stays");
        assert_eq!(died(&taken.taken(&by("c"), now), "a"), None, "this is the end of another leader");
        assert_eq!(died(&taken, "c"), None, "another pod's reason");
    }

    #[test]
    fn a_restarted_gateway_takes_a_new_term_and_tells_of_no_change() {
        let now = Timestamp::UNIX_EPOCH;
        let first = Notes::default().taken(&by("a"), now).granted(3, now);
        let again = first.taken(&Claimant { process: "q".into(), ..by("a") }, now).granted(99, now);
        assert_eq!(again.change.as_ref().map(|change| (change.leaderless_millis, change.to.as_str())), Some((3, "a")));
        assert_eq!(again.term.map(|term| (term.number, term.process)), Some((2, "q".to_owned())));
        assert_eq!(lease_of(&ObjectMeta::default()), None);
    }
}
