//! Decides about other operators: which pods belong to one release of the chart, whether the operator of a Lease is
//! gone, and who reconciles a resource.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};

use super::events::EventNote;
use super::status::CONTESTED;
use crate::api::FlinkHaCluster;
use crate::api::names::{FINALIZER, OPERATOR_ANNOTATION};
use crate::api::time::seconds;
use crate::lease::record::Record;

/// Name of the operators' Lease without a flag, and in all versions before there was one.
pub const DEFAULT_LEASE: &str = "flinkha-operator";

/// The reason of a condition and of an event: another operator reconciles the resource.
pub const MANAGED_BY_ANOTHER: &str = "ManagedByAnother";

/// Kubernetes shortens the name of a Deployment's pod to this before it adds a random end.
const LONGEST_PREFIX: usize = 58;
/// After a pod of this release has released the Lease of former versions, another one may still take it.
const SETTLES: Duration = Duration::from_secs(5);
/// An operator whose Lease has not been written for this long is gone. A live one writes every 2 s; an update of its
/// Deployment takes less.
pub const GONE: Duration = Duration::from_secs(60);
/// Time between two reads counts only so far: while the API server is away, nobody can renew.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Does this pod belong to the Deployment of this name? A pod is named `<deployment>-<hash>-<random>`.
pub fn is_of_deployment(pod: &str, deployment: &str) -> bool {
    let prefix = format!("{deployment}-");
    if let Some(shortened) = prefix.get(..LONGEST_PREFIX) {
        return pod.starts_with(shortened);
    }
    let ends: Option<Vec<&str>> = pod.strip_prefix(&prefix).map(|end| end.split('-').collect());
    ends.is_some_and(|ends| ends.len() == 2 && ends.iter().all(|end| !end.is_empty()))
}

/// The Deployment of a pod, by the pod's name.
pub fn deployment_of(pod: &str) -> Option<&str> {
    let (replica_set, _) = pod.rsplit_once('-')?;
    replica_set.rsplit_once('-').map(|(deployment, _)| deployment)
}

/// What the Lease of former versions means for an operator that has a Lease of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Former {
    /// No operator of this release works under it.
    Free,
    /// The pod of this name may still work under it.
    Held(String),
}

/// Judges the Lease of former versions. `stood`: for how long it has stood unchanged; `deployment`: of this release.
pub fn former(record: Option<&Record>, stood: Duration, deployment: &str) -> Former {
    let Some(record) = record else { return Former::Free };
    let (last, ends) = if record.holder.is_empty() {
        let released = record.change.as_ref().map(|change| change.from.as_str()).unwrap_or_default();
        (released, SETTLES)
    } else {
        let duration = Duration::from_millis(record.duration_millis).max(Duration::from_secs(15));
        (record.holder.as_str(), duration + duration / 20)
    };
    if !is_of_deployment(last, deployment) || stood >= ends { Former::Free } else { Former::Held(last.to_owned()) }
}

/// What is known of the operator that a resource names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Its Lease was written less than [`GONE`] ago, as far as this operator knows.
    Alive,
    Gone,
    /// This operator may not read its Lease.
    Unknown,
}

/// Judges an operator by the time for which its Lease has stood, or has been absent.
pub fn other(stood: Duration) -> Other {
    if stood >= GONE { Other::Gone } else { Other::Alive }
}

/// Who reconciles a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This operator.
    Ours,
    /// Nobody yet, or a version that did not say so.
    Nobody,
    Others(String),
}

/// The operator that a resource names.
pub fn noted(resource: &FlinkHaCluster) -> Option<&str> {
    resource.annotation(OPERATOR_ANNOTATION)
}

/// Reads the claim on a resource. `own`: `<namespace>/<Lease>` of this operator; `None` without an election: then there
/// is no second operator, by contract.
pub fn claim(own: Option<&str>, noted: Option<&str>) -> Claim {
    match (own, noted.filter(|noted| !noted.is_empty())) {
        (None, _) => Claim::Ours,
        (Some(own), Some(noted)) if own == noted => Claim::Ours,
        (Some(_), None) => Claim::Nobody,
        (Some(_), Some(noted)) => Claim::Others(noted.to_owned()),
    }
}

/// The resources that an operator reconciles, of those in its namespaces.
#[derive(Clone, Debug)]
pub struct Selection {
    /// `<namespace>/<Lease>` of this operator; `None` without an election.
    pub own: Option<String>,
    /// The label selector, as Kubernetes writes it.
    pub selector: String,
}

impl Selection {
    /// What is to be said on a resource that this operator has reconciled, and of which its watch says that it is gone:
    /// it exists, but its labels have changed. `metadata` is as it was before. A resource that is really gone has lost
    /// our finalizer before.
    pub fn left(&self, metadata: &ObjectMeta) -> Option<EventNote> {
        let noted = metadata.annotations.iter().flatten().find(|(key, _)| *key == OPERATOR_ANNOTATION);
        let is_ours = self.own.is_none() || noted.map(|(_, noted)| noted) == self.own.as_ref();
        let is_held = metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
        (is_ours && is_held).then(|| EventNote {
            warning: true,
            reason: "NotSelected".to_owned(),
            message: format!(
                "operator {} reconciles resources with the labels {}, which this one no longer has: it changes nothing \
                 any more, and JobManagers go on and fail over without it. An operator that selects this resource takes \
                 it over as it is; until then its changes and its deletion wait",
                self.own.as_deref().unwrap_or("without an election"),
                self.selector
            ),
        })
    }
}

/// The sentence about a resource that this operator takes over because another one does not select it.
pub fn no_longer_selected(own: &str, another: &str, selector: &str) -> String {
    format!(
        "operator {own} reconciles this resource from now on: {another} reconciles only resources with the labels {selector}"
    )
}

/// The condition that says so, on a resource of another operator.
pub fn contested(resource: &FlinkHaCluster) -> Option<&Condition> {
    let conditions = &resource.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == CONTESTED)
}

/// Has that condition stood for so long that its writer may be gone? One that is there writes it again.
pub fn is_old(contested: &Condition, now: Timestamp) -> bool {
    now.duration_since(contested.last_transition_time.0) >= SignedDuration::from_mins(10)
}

/// Makes that condition.
pub fn contested_by(message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: CONTESTED.to_owned(),
        status: "True".to_owned(),
        reason: MANAGED_BY_ANOTHER.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: seconds(now),
    }
}

/// The sentence about a resource of another operator, for its condition and for the log.
pub fn left_to(own: &str, another: &str, resource: (&str, &str), known: Other) -> String {
    let (namespace, name) = resource;
    let then = match known {
        Other::Alive | Other::Gone => format!(
            "If {another} is gone for good, {own} takes over {} s after the last write of its Lease",
            GONE.as_secs()
        ),
        Other::Unknown => format!(
            "{own} may not read Lease {another}, so it never takes over by itself: if {another} is gone for good, run \
             kubectl --namespace {namespace} annotate flinkhacluster {name} {OPERATOR_ANNOTATION}-"
        ),
    };
    format!(
        "operator {another} (namespace/Lease) reconciles this resource; operator {own} watches the same namespace and \
         changes nothing. Give the releases different namespaces (watchNamespaces) or labels (labelSelector), or \
         uninstall one. {then}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::record::Change;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(holder: &str) -> Record {
        Record { holder: holder.to_owned(), duration_millis: 15_000, ..Record::default() }
    }

    fn released(from: &str) -> Record {
        Record { change: Some(Change { from: from.to_owned(), ..Change::default() }), ..held("") }
    }

    #[test]
    fn a_pod_belongs_to_the_release_whose_deployment_made_it() {
        for (pod, deployment, expected) in [
            ("flinkha-operator-7d9c5b-x2x4z", "flinkha-operator", true),
            ("flinkha-operator-b-operator-7d9c5b-x2x4z", "flinkha-operator", false),
            ("flinkha-operator", "flinkha-operator", false),
            ("other-operator-7d9c5b-x2x4z", "flinkha-operator", false),
            ("", "flinkha-operator", false),
        ] {
            assert_eq!(is_of_deployment(pod, deployment), expected, "{pod} {deployment}");
        }
        let long = "a".repeat(53) + "-operator";
        assert!(is_of_deployment(&format!("{}x2x4z", &long[..58]), &long), "Kubernetes shortens the name of its pods");
        assert_eq!(deployment_of("flinkha-operator-7d9c5b-x2x4z"), Some("flinkha-operator"));
        assert_eq!(deployment_of("pod"), None);
    }

    #[test]
    fn a_former_operator_of_this_release_is_waited_for_until_its_lease_is_silent_or_settled() {
        let (ours, theirs) = ("a-operator-1-1", "b-operator-1-1");
        let judge = |record: &Record, stood: u32| former(Some(record), SECOND * stood, "a-operator");
        assert_eq!(former(None, Duration::ZERO, "a-operator"), Former::Free, "nobody ever held it");
        assert_eq!(judge(&held(ours), 15), Former::Held(ours.to_owned()));
        assert_eq!(judge(&held(ours), 16), Former::Free, "it is silent");
        assert_eq!(judge(&held(theirs), 0), Former::Free, "another release");
        assert_eq!(judge(&released(ours), 0), Former::Held(ours.to_owned()), "its standby may take it");
        assert_eq!(judge(&released(ours), 5), Former::Free);
        assert_eq!(judge(&released(theirs), 0), Former::Free);
        assert_eq!(judge(&held(""), 0), Former::Free, "nobody ever held it");
    }

    #[test]
    fn an_operator_is_gone_when_its_lease_has_stood_for_a_minute() {
        assert_eq!((other(SECOND * 59), other(SECOND * 60)), (Other::Alive, Other::Gone));
    }

    #[test]
    fn a_resource_belongs_to_the_operator_that_it_names_and_without_a_name_to_the_first() {
        let other = || Claim::Others("b/b-operator".to_owned());
        for (own, noted, expected) in [
            (Some("a/a-operator"), None, Claim::Nobody),
            (Some("a/a-operator"), Some(""), Claim::Nobody),
            (Some("a/a-operator"), Some("a/a-operator"), Claim::Ours),
            (Some("a/a-operator"), Some("b/b-operator"), other()),
            (None, Some("b/b-operator"), Claim::Ours),
            (None, None, Claim::Ours),
        ] {
            assert_eq!(claim(own, noted), expected, "{own:?} {noted:?}");
        }
    }

    #[test]
    fn a_resource_that_loses_the_labels_is_told_once_and_one_that_is_gone_or_anothers_is_not() {
        let selection = Selection { own: Some("a/a-operator".to_owned()), selector: "team=a".to_owned() };
        let metadata = |operator: &str, finalizers: &[&str]| ObjectMeta {
            annotations: Some([(OPERATOR_ANNOTATION.to_owned(), operator.to_owned())].into()),
            finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
            ..ObjectMeta::default()
        };
        let told = selection.left(&metadata("a/a-operator", &[FINALIZER])).map(|note| note.message);
        assert!(
            told.as_deref().is_some_and(|told| told.contains("a/a-operator") && told.contains("team=a")),
            "{told:?}"
        );
        assert!(selection.left(&metadata("a/a-operator", &[])).is_none(), "it is deleted");
        assert!(selection.left(&metadata("b/b-operator", &[FINALIZER])).is_none());
        assert!(selection.left(&ObjectMeta::default()).is_none());
    }

    #[test]
    fn a_resource_of_another_operator_tells_the_way_out() {
        let of = |known| left_to("a/a-operator", "b/b-operator", ("flink", "demo"), known);
        assert!(of(Other::Alive).contains("60 s after the last write of its Lease"), "{}", of(Other::Alive));
        let command = "kubectl --namespace flink annotate flinkhacluster demo flinkha.dev/operator-";
        assert!(of(Other::Unknown).contains(command), "{}", of(Other::Unknown));
    }
}
