//! Whether anybody is left who could write a cluster's HA data. It is proven before data goes, before pods of another
//! version come, and before an application counts as suspended or ended.
//!
//! Labels prove nothing: a pod whose labels are changed leaves its ReplicaSet and leads on. Two things do prove it.
//! Every pod that may write runs as the ServiceAccount of its component, which cannot be changed while the pod exists.
//! And a process whose pod was removed by force shows in the Lease, which it renews. Unknown counts as present.
//!
//! A pod in phase `Failed` or `Succeeded` stays until somebody deletes it, so an application that goes on does not wait
//! for it. Its phase may be wrong, where it was written for a kubelet that is lost: then its process shows in the Lease
//! all the same. Before data is removed with the resource, all pods count.

use std::time::Duration;

use kube::core::ObjectMeta;

use super::build::selector;
use super::cause::Cause;
use crate::api::names;
use crate::lease::record::Record;

/// Duration of a Lease that does not tell it.
const DURATION: Duration = Duration::from_secs(15);
/// The promise of members, of a record that does not tell it.
const PROMISE: Duration = Duration::from_secs(4);

/// A pod that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub uid: String,
    /// Labels that the pod should carry and does not, as `key=value`.
    pub missing: Vec<String>,
    /// A ReplicaSet looks after it.
    pub owned: bool,
    /// It is being deleted.
    pub ends: bool,
}

impl Found {
    /// The pods of a component among all that run as its ServiceAccount. Only the pod of the Job that purges is none.
    pub fn among<'a>(cluster: &str, component: &str, pods: impl Iterator<Item = &'a ObjectMeta>) -> Vec<Self> {
        let purge = names::purge(cluster);
        let purges = |pod: &&ObjectMeta| {
            let owners = pod.owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.kind == "Job" && owner.name == purge)
        };
        let labels = selector(cluster, component);
        let found = |pod: &ObjectMeta| {
            let carries = |key: &str| pod.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
            let missing = labels.iter().filter(|(key, value)| carries(key) != value.as_str());
            Self {
                name: pod.name.clone().unwrap_or_default(),
                uid: pod.uid.clone().unwrap_or_default(),
                missing: missing.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect(),
                owned: pod.owner_references.iter().flatten().any(|owner| owner.controller == Some(true)),
                ends: pod.deletion_timestamp.is_some(),
            }
        };
        pods.filter(|pod| !purges(pod)).map(found).collect()
    }

    /// Nothing of Kubernetes is going to end it.
    fn is_stray(&self) -> bool {
        !self.ends && (!self.missing.is_empty() || !self.owned)
    }
}

/// What is known of the election.
#[derive(Clone, Copy, Debug)]
pub enum ElectionEvidence<'a> {
    /// There is no Lease: nobody holds one.
    Absent,
    /// The Lease, and for how long it has provably stood unchanged, by the clock of who asks.
    Lease { record: &'a Record, stood: Duration },
    /// The notes of a cluster with ZooKeeper. Who holds the latch is seen by the Job that purges, and by the next
    /// version's gateways.
    Quorum(&'a Record),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody is left.
    Gone,
    /// Pods exist, each with its part in the election, if it has one.
    There(Vec<(Found, Option<&'static str>)>),
    /// No pod exists, but the Lease is held and has not stood still for so long yet.
    Unproven { holder: String, patience: Duration },
}

/// Decides.
pub fn presence(pods: Vec<Found>, election: ElectionEvidence<'_>) -> Presence {
    if !pods.is_empty() {
        let part = |pod: &Found| match election {
            ElectionEvidence::Lease { record, .. } | ElectionEvidence::Quorum(record) => part(pod, record),
            ElectionEvidence::Absent => None,
        };
        return Presence::There(pods.into_iter().map(|pod| (pod.clone(), part(&pod))).collect());
    }
    match election {
        ElectionEvidence::Lease { record, stood } if !is_free(record) && stood <= patience(record) => {
            Presence::Unproven { holder: record.last_holder().to_owned(), patience: patience(record) }
        }
        ElectionEvidence::Lease { .. } | ElectionEvidence::Quorum(_) | ElectionEvidence::Absent => Presence::Gone,
    }
}

fn part(pod: &Found, record: &Record) -> Option<&'static str> {
    if record.holder == pod.name
        || (!record.holder.is_empty() && record.term.as_ref().is_some_and(|term| term.pod_uid == pod.uid))
    {
        Some("it leads")
    } else {
        record.peers.lists(&pod.uid).then_some("the leader rests on its promise")
    }
}

/// Given back, or never held. One that somebody has emptied by hand is neither.
fn is_free(record: &Record) -> bool {
    record.is_given_back() || (record.holder.is_empty() && record.term.is_none() && record.change.is_none())
}

/// After this time without a change of the Lease no holder can be valid: its duration and the furthest promise, and 5 %
/// for drift.
fn patience(record: &Record) -> Duration {
    let or = |millis: u64, default| if millis == 0 { default } else { Duration::from_millis(millis) };
    (or(record.duration_millis, DURATION) + or(record.peers.promise_millis, PROMISE)).mul_f64(1.05)
}

impl Presence {
    /// There is a pod that waiting alone does not end.
    pub fn has_stray(&self) -> bool {
        matches!(self, Self::There(pods) if pods.iter().any(|(pod, _)| pod.is_stray()))
    }

    /// Who is left, and the way out; `None` when nobody is.
    pub fn sentence(&self) -> Option<String> {
        match self {
            Self::Gone => None,
            Self::There(pods) => Some(pods.iter().map(|(pod, part)| of_pod(pod, *part)).collect::<Vec<_>>().join("; ")),
            Self::Unproven { holder, patience } => Some(format!(
                "the Lease is held by {holder}, whose pod is gone or has ended but whose process may live: the operator continues when the Lease has not changed for {} s; \
                 if it is renewed all the time, end that process on its node",
                patience.as_secs_f64().ceil()
            )),
        }
    }

    /// Why an application does not go on.
    pub fn cause(&self) -> Option<Cause> {
        let message =
            |sentence| format!("pods of the former version must end before the application continues: {sentence}");
        self.sentence().map(|sentence| Cause { reason: "PodsRemain", message: message(sentence) })
    }
}

fn of_pod(pod: &Found, part: Option<&str>) -> String {
    let Found { name, missing, .. } = pod;
    let part = part.map(|part| format!(" ({part})")).unwrap_or_default();
    if !pod.is_stray() {
        return format!(
            "pod {name}{part} has not ended; if its node is lost, remove it: kubectl delete pod --force {name}"
        );
    }
    if missing.is_empty() {
        return format!("pod {name}{part} belongs to no ReplicaSet, so nothing ends it: kubectl delete pod {name}");
    }
    let labels = missing.join(" ");
    format!(
        "pod {name}{part} has lost the label {labels}, so nothing ends it: kubectl delete pod {name}, or restore the label: kubectl label pod {name} \
         {labels} --overwrite"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lease::record::{Change, Member, Peers};
    use crate::lease::term::{Incarnation, Term};

    const LONG: Duration = Duration::from_secs(60);

    fn metadata(name: &str, labels: serde_json::Value, owner: Option<(&str, &str)>) -> ObjectMeta {
        let owners: Vec<_> = owner
            .map(|(kind, name)| json!({ "apiVersion": "x/v1", "kind": kind, "name": name, "uid": "o", "controller": true }))
            .into_iter()
            .collect();
        let pod = json!({ "name": name, "uid": format!("uid-{name}"), "labels": labels, "ownerReferences": owners });
        serde_json::from_value(pod).expect("metadata")
    }

    fn found(pods: &[ObjectMeta]) -> Vec<Found> {
        Found::among("demo", names::JOB_MANAGER, pods.iter())
    }

    fn stray() -> Vec<Found> {
        let labels = json!({ "app.kubernetes.io/component": "jobmanager", "app.kubernetes.io/managed-by": "flinkha" });
        found(&[metadata("a", labels, None)])
    }

    fn held(by: &str) -> Record {
        Record {
            holder: by.to_owned(),
            term: Some(Term {
                number: 3,
                pod_uid: format!("uid-{by}"),
                process: "p".into(),
                jvm: Incarnation { pid: 1, started: 2 },
            }),
            duration_millis: 15_000,
            change: Some(Change { term: 3, to: by.to_owned(), ..Change::default() }),
            peers: Peers {
                promise_millis: 4_000,
                members: vec![Member { pod_uid: "uid-a".into(), address: String::new() }],
                ..Peers::default()
            },
            switchover: None,
        }
    }

    fn given_back() -> Record {
        let change = Change { from: "a".into(), why: "PodTerminating".into(), ..Change::default() };
        Record { holder: String::new(), peers: Peers::default(), change: Some(change), ..held("a") }
    }

    #[test]
    fn a_pod_without_labels_is_there_whatever_the_lease_says_and_the_way_out_is_told() {
        let records = [held("a"), held("b"), given_back(), Record::default()];
        let elections = records
            .iter()
            .flat_map(|record| [ElectionEvidence::Lease { record, stood: LONG }, ElectionEvidence::Quorum(record)]);
        for election in elections.chain([ElectionEvidence::Absent]) {
            let found = presence(stray(), election);
            assert!(found.has_stray());
            let sentence = found.sentence().expect("a sentence");
            for words in ["kubectl delete pod a", "kubectl label pod a app.kubernetes.io/instance=demo --overwrite"] {
                assert!(sentence.contains(words), "{sentence}");
            }
            assert_eq!(found.cause().map(|cause| cause.reason), Some("PodsRemain"));
        }
    }

    #[test]
    fn holder_and_members_are_named() {
        let sentence = |record: &Record| {
            presence(stray(), ElectionEvidence::Lease { record, stood: LONG }).sentence().unwrap_or_default()
        };
        assert!(sentence(&held("a")).contains("pod a (it leads)"));
        assert!(sentence(&held("b")).contains("pod a (the leader rests on its promise)"));
        assert!(!sentence(&given_back()).contains('('));
    }

    #[test]
    fn a_process_whose_pod_was_removed_shows_in_the_lease_that_it_renews() {
        let decide = |record: &Record, seconds| {
            presence(Vec::new(), ElectionEvidence::Lease { record, stood: Duration::from_secs(seconds) })
        };
        let emptied = Record { holder: String::new(), ..held("a") };
        let untold = Record { duration_millis: 0, peers: Peers::default(), ..held("a") };
        for record in [held("a"), emptied, untold] {
            assert!(matches!(decide(&record, 0), Presence::Unproven { ref holder, .. } if holder == "a"), "{record:?}");
            assert!(decide(&record, 19).sentence().is_some_and(|sentence| sentence.contains("held by a")));
            assert_eq!(decide(&record, 20), Presence::Gone);
        }
        for free in [given_back(), Record::default()] {
            assert_eq!(decide(&free, 0), Presence::Gone, "{free:?}");
        }
        assert_eq!(presence(Vec::new(), ElectionEvidence::Absent), Presence::Gone);
        // The znodes decide.
        assert_eq!(presence(Vec::new(), ElectionEvidence::Quorum(&held("a"))), Presence::Gone);
    }

    #[test]
    fn the_pod_that_purges_is_no_job_manager_and_a_label_alone_makes_none_of_it() {
        let labels = json!(selector("demo", names::PURGE));
        assert_eq!(found(&[metadata("demo-purge-x", labels.clone(), Some(("Job", "demo-purge")))]), []);
        assert_eq!(
            found(&[metadata("a", labels.clone(), None), metadata("b", labels, Some(("Job", "other")))]).len(),
            2
        );
    }

    #[test]
    fn who_ends_by_itself_is_no_stray() {
        let labels = json!(selector("demo", names::JOB_MANAGER));
        let owned = metadata("a", labels.clone(), Some(("ReplicaSet", "demo-jobmanager-1")));
        let ends = ObjectMeta {
            deletion_timestamp: serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok(),
            ..owned.clone()
        };
        let orphan = metadata("b", labels, None);
        let has_stray = |pod| presence(found(&[pod]), ElectionEvidence::Absent).has_stray();
        assert_eq!((has_stray(owned), has_stray(ends), has_stray(orphan)), (false, false, true));
    }
}
