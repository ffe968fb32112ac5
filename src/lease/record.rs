//! Reads and writes the record of the election: a `coordination.k8s.io/v1` Lease with four annotations of this product.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::term::Term;
use crate::api::names::{ANY_POD, CHANGE_ANNOTATION, PEERS_ANNOTATION, SWITCHOVER_ANNOTATION, TERM_ANNOTATION};

/// The part of a Lease that the election reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Name of the holder's pod; empty when the Lease is free.
    pub holder: String,
    /// Term of the holder; on a free Lease, the term of the last holder. `None` if nobody ever held the Lease, or if
    /// the annotation is not one that a gateway wrote.
    pub term: Option<Term>,
    /// Milliseconds, from `spec.leaseDurationSeconds`; 0 when absent.
    pub duration_millis: u64,
    /// The last change of leader; `None` on a Lease without a valid annotation.
    pub change: Option<Change>,
    pub peers: Peers,
    /// The candidate that should lead: the name of a pod, or [`ANY_POD`]. The operator writes it; the next holder
    /// removes it.
    pub switchover: Option<String>,
}

/// The holder's address and the members on whose promises its validity rests (I11). Empty when the Lease is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// `address:port` at which peers reach the holder's gateway.
    pub address: String,
    /// Milliseconds for which a member's promise lasts.
    pub promise_millis: u64,
    pub members: Vec<Member>,
}

/// A candidate that promises the holder not to take the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// UID of the candidate's pod.
    pub pod_uid: String,
    /// `address:port` of its gateway.
    pub address: String,
}

impl Peers {
    pub fn lists(&self, pod_uid: &str) -> bool {
        self.members.iter().any(|member| member.pod_uid == pod_uid)
    }
}

/// The last change of leader. A holder that releases the Lease fills in its half; the successor completes it when its
/// JVM leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Term to which the change led; 0 until a successor takes the Lease.
    pub term: u64,
    /// Pod that led before; empty for the first leader.
    pub from: String,
    /// Pod that leads now; empty until the JVM of the new term leads.
    pub to: String,
    /// Reason in CamelCase, such as `JobManagerDied`.
    pub why: String,
    /// Milliseconds without a leader. Each of the two gateways measures its part on its own monotonic clock.
    pub leaderless_millis: u64,
    /// Wall clock of the successor in RFC 3339, for display only; empty until its JVM leads.
    #[serde(default)]
    pub at: String,
    /// Holder identity that Flink wrote into the lock for the leading JVM; empty until the JVM of the new term leads. A
    /// gateway that was restarted reads it here to repair a lock that somebody edited.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
}

impl Record {
    /// Is the Lease free because its holder released it? A Lease whose holder somebody removed by hand is not.
    pub fn is_given_back(&self) -> bool {
        self.holder.is_empty() && self.change.as_ref().is_some_and(|change| change.term == 0 && change.to.is_empty())
    }

    /// The holder; on a free Lease, the pod that led last, if the record names it.
    pub fn last_holder(&self) -> &str {
        match &self.change {
            Some(change) if self.holder.is_empty() => &change.to,
            _ => &self.holder,
        }
    }

    /// Reads a Lease. An annotation that does not parse counts as absent.
    pub fn of(lease: &Lease) -> Self {
        let annotation = |key: &str| lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key));
        let spec = lease.spec.as_ref();
        Self {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
            term: annotation(TERM_ANNOTATION).and_then(|text| text.parse().ok()),
            duration_millis: spec
                .and_then(|spec| spec.lease_duration_seconds)
                .map_or(0, |seconds| seconds.max(0) as u64 * 1000),
            change: annotation(CHANGE_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
            peers: annotation(PEERS_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
            switchover: annotation(SWITCHOVER_ANNOTATION).cloned(),
        }
    }

    /// Does a switchover request name another pod?
    pub fn prefers_another(&self, pod: &str) -> bool {
        self.switchover.as_ref().is_some_and(|wanted| wanted != ANY_POD && wanted != pod)
    }

    /// Returns the merge patch that writes this record if the Lease still has resourceVersion `version`. The patch
    /// leaves fields and annotations of others as they are. `now` fills `renewTime` and, if `acquired`, `acquireTime`;
    /// no decision reads them.
    pub fn to_patch(&self, version: &str, now: Timestamp, acquired: bool) -> Value {
        let time = |when: Timestamp| format!("{when:.6}");
        let mut spec = json!({
            "holderIdentity": self.holder,
            // The API server refuses a duration of zero.
            "leaseDurationSeconds": self.duration_millis.div_ceil(1000).max(1),
            "renewTime": time(now),
        });
        let mut annotations = json!({});
        if let Some(term) = &self.term {
            annotations[TERM_ANNOTATION] = json!(term.to_string());
            spec["leaseTransitions"] = json!(term.number.min(i32::MAX as u64));
        }
        if let Some(change) = &self.change {
            annotations[CHANGE_ANNOTATION] = json!(json!(change).to_string());
        }
        let peers = (self.peers != Peers::default()).then(|| json!(self.peers).to_string());
        annotations[PEERS_ANNOTATION] = json!(peers);
        if acquired && !self.holder.is_empty() {
            annotations[SWITCHOVER_ANNOTATION] = Value::Null;
        }
        if acquired {
            spec["acquireTime"] = json!(time(now));
        }
        json!({ "metadata": { "resourceVersion": version, "annotations": annotations }, "spec": spec })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::term::Incarnation;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let record = Record {
            holder: "demo-1".into(),
            term: Some(Term {
                number: 3,
                pod_uid: "u".into(),
                process: "p".into(),
                jvm: Incarnation { pid: 1, started: 2 },
            }),
            duration_millis: 15_000,
            change: Some(Change { term: 3, from: "demo-0".into(), why: "JobManagerDied".into(), ..Change::default() }),
            peers: Peers {
                address: "10.0.0.1:6181".into(),
                promise_millis: 4_000,
                members: vec![Member { pod_uid: "v".into(), address: "10.0.0.2:6181".into() }],
            },
            switchover: None,
        };
        let acquired = record.to_patch("7", Timestamp::UNIX_EPOCH, true);
        assert_eq!(acquired["spec"]["acquireTime"], "1970-01-01T00:00:00.000000Z");
        assert!(
            acquired["metadata"]["annotations"][SWITCHOVER_ANNOTATION].is_null(),
            "a request is removed by who takes over"
        );
        let patch = record.to_patch("7", Timestamp::UNIX_EPOCH, false);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        let lease: Lease = serde_json::from_value(patch).expect("a Lease");
        assert_eq!(Record::of(&lease), record);
    }

    #[test]
    fn an_empty_lease_is_free_and_has_no_term() {
        assert_eq!(Record::of(&Lease::default()), Record::default());
    }
}
