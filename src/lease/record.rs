//! What we write into a `coordination.k8s.io/v1` Lease, and what we make of one.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::term::Term;
use crate::api::names::{ANY_POD, CHANGE_ANNOTATION, PEERS_ANNOTATION, SWITCHOVER_ANNOTATION, TERM_ANNOTATION};

/// The part of a Lease that the election reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Name of the holder's pod; empty means free.
    pub holder: String,
    /// Term of the holder, or of the last one when free. `None` on a Lease that nobody ever held, or with an annotation
    /// that we did not write.
    pub term: Option<Term>,
    /// Milliseconds, from `spec.leaseDurationSeconds`; 0 when absent.
    pub duration_millis: u64,
    pub change: Option<Change>,
    pub peers: Peers,
    /// Who is asked to lead: the name of a pod, or [`ANY_POD`]. Written by the operator, removed by the next holder.
    pub switchover: Option<String>,
}

/// The holder and those whose promises its validity rests on (I11). Empty when the Lease is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// `address:port` where the holder's gateway is reached by its peers.
    pub address: String,
    /// How long a member's promise lasts.
    pub promise_millis: u64,
    pub members: Vec<Member>,
}

/// A candidate that promises the holder not to take the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub pod_uid: String,
    /// `address:port` of its gateway.
    pub address: String,
}

impl Peers {
    pub fn lists(&self, pod_uid: &str) -> bool {
        self.members.iter().any(|member| member.pod_uid == pod_uid)
    }
}

/// The last change of leader. A record of a free Lease has it half filled by the one who gave up;
/// the successor completes it when its JVM leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Term that the change led to; 0 while nobody has taken the Lease.
    pub term: u64,
    /// Pod that led before; empty for the first leader.
    pub from: String,
    /// Pod that leads now; empty while no JVM of the new term leads.
    pub to: String,
    /// One word for machines, such as `JobManagerDied`.
    pub why: String,
    /// Milliseconds without a leader, measured in parts by both gateways, each on its own monotonic clock.
    pub leaderless_millis: u64,
    /// Wall clock of the successor, for people. RFC 3339; empty while nobody has taken over.
    #[serde(default)]
    pub at: String,
    /// Flink's own name for the JVM that leads, as it stands in its lock. From here a gateway that was restarted puts
    /// right a lock that somebody has edited; empty while no JVM of the new term leads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
}

impl Record {
    /// Free because its holder gave it back, not because somebody emptied it by hand.
    pub fn is_given_back(&self) -> bool {
        self.holder.is_empty() && self.change.as_ref().is_some_and(|change| change.term == 0 && change.to.is_empty())
    }

    /// The holder, or of a Lease that was emptied by hand the pod that led last.
    pub fn last_holder(&self) -> &str {
        match &self.change {
            Some(change) if self.holder.is_empty() => &change.to,
            _ => &self.holder,
        }
    }

    /// Reads a Lease. Annotations that do not parse count as absent.
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

    /// Somebody else is asked to lead.
    pub fn prefers_another(&self, pod: &str) -> bool {
        self.switchover.as_ref().is_some_and(|wanted| wanted != ANY_POD && wanted != pod)
    }

    /// Merge patch that writes this record, if the Lease still has resourceVersion `version`; whatever is not ours
    /// stays. `now` is for people (`renewTime`, `acquireTime`); nothing decides by it.
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
