//! The conditions of a resource as tools read them: every state of a cluster and of an application.

use std::sync::Arc;

use flinkha::api::FlinkHaCluster;
use flinkha::api::application::Application;
use flinkha::api::status::FlinkHaClusterStatus;
use flinkha::cluster::application::decision::Decision;
use flinkha::cluster::application::{Desired, version};
use flinkha::cluster::cause::Cause;
use flinkha::cluster::events::notes;
use flinkha::cluster::merge::merge;
use flinkha::cluster::observed::{Observed, ObservedDeployment};
use flinkha::cluster::rejection::Rejection;
use flinkha::cluster::status::{Applied, status};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::kstatus::{Kstatus, is_waited_for, kstatus};

/// What is there of Flink.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Pods {
    /// Nothing, and nothing is asked for.
    #[default]
    None,
    /// Everything, with a leader.
    Up,
    /// A leader and a standby; a pod is missing.
    OneLost,
    /// Kubernetes replaces pods; leader and standby are ready.
    Replaced,
    /// All pods are there, and none is ready.
    Down,
    /// All is as before a change that was just written.
    Late,
}

/// A state, and how it is read.
#[derive(Default)]
struct Case {
    name: &'static str,
    pods: Pods,
    /// Of `status.application`; absent in a session cluster.
    application: Option<Value>,
    /// `spec.job.state`.
    suspended: bool,
    /// The definition that is asked for has failed.
    refused_definition: bool,
    /// The API server or the operator refuses the resource.
    refused: Option<&'static str>,
    is_deleted: bool,
    /// Somebody has paused the resource.
    paused: bool,
    /// Conditions until now: of generation 1, rolled out; the resource's is 2.
    was: Was,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Was {
    /// Ready in generation 1; generation 2 has just been asked for.
    #[default]
    ReadyBefore,
    /// Generation 2 was rolled out.
    RolledOut,
    /// The resource is new.
    New,
    /// Generation 2 has been on the way for 11 minutes, over a cluster that was ready.
    RollingForLong,
    /// Generation 2 was refused, over a cluster that was ready.
    Stalled,
    /// As an operator before the conditions `Reconciling` and `Stalled` left a cluster that was ready.
    FormerVersion,
}

const NOW: i64 = 100_000;

fn before(was: Was) -> Value {
    let condition = |kind: &str, holds: bool, generation: i64, age: i64| {
        let at = Timestamp::from_second(NOW - age).unwrap_or_default();
        let reason = if kind == "Progressing" { "Complete" } else { "Before" };
        json!({
            "type": kind,
            "status": if holds { "True" } else { "False" },
            "reason": reason,
            "message": "",
            "observedGeneration": generation,
            "lastTransitionTime": at.to_string(),
        })
    };
    let (ready, reconciling, stalled) = match was {
        Was::New => return json!({}),
        Was::FormerVersion => {
            let conditions = json!([condition("Ready", true, 2, 900), condition("Progressing", false, 2, 900)]);
            return json!({ "observedGeneration": 2, "conditions": conditions });
        }
        Was::ReadyBefore => (1, condition("Reconciling", false, 1, 900), condition("Stalled", false, 1, 900)),
        Was::RolledOut => (2, condition("Reconciling", false, 2, 900), condition("Stalled", false, 2, 900)),
        Was::RollingForLong => (1, condition("Reconciling", true, 2, 660), condition("Stalled", false, 2, 900)),
        Was::Stalled => (1, condition("Reconciling", false, 2, 60), condition("Stalled", true, 2, 60)),
    };
    let seen = if was == Was::ReadyBefore { 1 } else { 2 };
    json!({ "observedGeneration": seen, "conditions": [condition("Ready", true, ready, 900), reconciling, stalled] })
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn observed(pods: Pods) -> Observed {
    let pod = |name: &str, ready: bool| {
        let ready = if ready { "True" } else { "False" };
        Arc::new(from(json!({
            "metadata": { "name": name },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        })))
    };
    let deployment = |replicas: i32, updated: i32| -> Option<Arc<ObservedDeployment>> {
        let status = json!({ "observedGeneration": 3, "replicas": replicas, "updatedReplicas": updated });
        let written: ObservedDeployment =
            from(json!({ "metadata": { "uid": "u", "generation": 3 }, "status": status }));
        Some(Arc::new(if pods == Pods::Late { written.written("u", 4) } else { written }))
    };
    let change = json!({ "term": 3, "from": "", "to": "a", "why": "FirstLeader", "leaderlessMillis": 0, "at": "" });
    let annotations = json!({ "flinkha.dev/term": "3.uid.process.1-1", "flinkha.dev/last-change": change.to_string() });
    let lease = |holder: &str| {
        Some(Arc::new(from(
            json!({ "metadata": { "annotations": annotations }, "spec": { "holderIdentity": holder } }),
        )))
    };
    let ready = pods != Pods::Down;
    let (job_managers, updated) = match pods {
        Pods::None => {
            return Observed {
                job_manager_deployment: deployment(0, 0),
                task_manager_deployment: deployment(0, 0),
                ..Observed::default()
            };
        }
        Pods::OneLost => (vec![pod("a", ready), pod("b", ready), pod("c", false)], 3),
        Pods::Replaced => (vec![pod("a", ready), pod("b", ready), pod("c", ready)], 1),
        Pods::Up | Pods::Down | Pods::Late => (vec![pod("a", ready), pod("b", ready), pod("c", ready)], 3),
    };
    Observed {
        lease: lease(if ready { "a" } else { "" }),
        job_manager_pods: job_managers,
        task_manager_pods: vec![pod("t", ready)],
        job_manager_deployment: deployment(3, updated),
        task_manager_deployment: deployment(1, 1),
        ..Observed::default()
    }
}

impl Case {
    fn resource(&self) -> FlinkHaCluster {
        let mut resource = json!({
            "apiVersion": "flinkha.dev/v1alpha1",
            "kind": "FlinkHaCluster",
            "metadata": { "name": "demo", "namespace": "flink", "uid": "u", "generation": 2 },
            "spec": {
                "image": "flink:2.3.0",
                "highAvailability": { "storageDir": "file:///flink/ha" },
                "jobManager": { "replicas": 3 },
                "taskManager": { "replicas": 1 },
            },
        });
        if self.application.is_some() {
            let state = if self.suspended { "suspended" } else { "running" };
            resource["spec"]["job"] = json!({ "jarURI": "local:///app.jar", "state": state });
        }
        if self.is_deleted {
            resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        if self.paused {
            resource["metadata"]["annotations"] = json!({ "flinkha.dev/reconcile": "disabled" });
        }
        from(resource)
    }

    /// The resource with the status that is written for it.
    fn written(&self, before: &FlinkHaClusterStatus) -> Value {
        let mut resource = self.resource();
        let application = self.application.as_ref().map(|partial| {
            let mut full = json!({ "jobId": "00000000000000000000000000000001", "version": version(&resource.spec), "deployed": "{}" });
            if self.refused_definition {
                full["refused"] = version(&resource.spec).into();
                full["version"] = "another".into();
            }
            merge(&mut full, partial.clone());
            from::<Application>(full)
        });
        let stopped = self.pods == Pods::None;
        let decision = application.map(|application| Decision { application, stopped, ..Decision::default() });
        let desired =
            Desired { spec: resource.spec.clone(), decision, frozen: self.refused.is_some(), keeps_pods: false };
        let outcome = match self.refused {
            Some(reason) => Err(Rejection::of(Cause { reason, message: "no".to_owned() })),
            None => Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None }),
        };
        let now = Timestamp::from_second(NOW).unwrap();
        resource.status = Some(status(&resource, &desired, before, &observed(self.pods), &outcome, now).status);
        json!(resource)
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn phase(phase: &str) -> Option<Value> {
    Some(json!({ "phase": phase }))
}

fn ended(result: &str) -> Option<Value> {
    Some(json!({ "phase": "Ended", "result": result, "error": "x.Y: why" }))
}

fn failed_upgrade(phase: &str, result: &str) -> Option<Value> {
    let upgrades = json!([{ "generation": 2, "mode": "last-state", "result": result }]);
    Some(json!({ "phase": phase, "error": "x.Y: why", "upgrades": upgrades }))
}

/// Each state, its kstatus, the value of `Ready`, and whether `kubectl wait --for=condition=Ready` returns.
fn cases() -> Vec<(Case, Kstatus, &'static str, bool)> {
    use Kstatus::{Current, Failed, InProgress, Terminating};
    let session = |name, pods, was| Case { name, pods, was, ..Case::default() };
    let application = |name, pods, application| Case { name, pods, application, ..Case::default() };
    let asked = |name, pods, application| Case { name, pods, application, suspended: true, ..Case::default() };
    let refused = |name, was, reason| Case { name, pods: Pods::Up, was, refused: Some(reason), ..Case::default() };
    let paused = |name, pods, was| Case { name, pods, was, paused: true, ..Case::default() };
    vec![
        (session("new, nothing there", Pods::Down, Was::New), InProgress, "False", false),
        (session("new, it works and a pod is missing", Pods::OneLost, Was::New), InProgress, "True", true),
        (session("new, all there", Pods::Up, Was::New), Current, "True", true),
        (session("changed, all there", Pods::Up, Was::ReadyBefore), Current, "True", true),
        (
            session("changed, written, not seen by a late watch", Pods::Late, Was::ReadyBefore),
            InProgress,
            "True",
            false,
        ),
        (session("changed, pods being replaced", Pods::Replaced, Was::ReadyBefore), InProgress, "True", false),
        (session("changed, a pod is missing", Pods::OneLost, Was::ReadyBefore), InProgress, "True", false),
        (session("changed, nobody leads at the moment", Pods::Down, Was::ReadyBefore), InProgress, "True", false),
        (session("changed, nobody leads after 10 min", Pods::Down, Was::RollingForLong), InProgress, "False", false),
        (
            session("changed, works, incomplete after 10 min", Pods::OneLost, Was::RollingForLong),
            InProgress,
            "True",
            false,
        ),
        (session("rolled out", Pods::Up, Was::RolledOut), Current, "True", true),
        (session("rolled out, then a standby is lost", Pods::OneLost, Was::RolledOut), Current, "True", true),
        (session("rolled out, then everything is", Pods::Down, Was::RolledOut), InProgress, "False", false),
        (session("replaced by another operator", Pods::Replaced, Was::RolledOut), InProgress, "True", true),
        (session("refused before, all there now", Pods::Up, Was::Stalled), Current, "True", true),
        (session("refused before, on its way now", Pods::OneLost, Was::Stalled), InProgress, "True", false),
        (session("of a former version, all there", Pods::Up, Was::FormerVersion), Current, "True", true),
        (session("of a former version, a standby is lost", Pods::OneLost, Was::FormerVersion), Current, "True", true),
        // What is refused fails, whatever runs on.
        (Case { pods: Pods::Down, ..refused("refused, new", Was::New, "InvalidSpec") }, Failed, "False", false),
        (refused("refused change", Was::ReadyBefore, "InvalidSpec"), Failed, "True", false),
        (refused("refused template", Was::ReadyBefore, "InvalidPodTemplate"), Failed, "True", false),
        (refused("refused by the API server", Was::ReadyBefore, "ApplyFailed"), Failed, "True", false),
        (refused("unknown what is stored", Was::ReadyBefore, "LedgerUnreadable"), Failed, "True", false),
        (refused("name of another", Was::ReadyBefore, "NameTaken"), Failed, "True", false),
        (application("starting", Pods::Up, phase("Starting")), InProgress, "True", false),
        (application("starting, no pod ready", Pods::Down, phase("Starting")), InProgress, "True", false),
        (application("running", Pods::Up, phase("Running")), Current, "True", true),
        (application("running, pods being replaced", Pods::Replaced, phase("Running")), InProgress, "True", false),
        (application("stopping with a savepoint", Pods::Up, phase("Savepointing")), InProgress, "True", false),
        (application("upgrading", Pods::None, phase("Upgrading")), InProgress, "True", false),
        (
            application("rolling back", Pods::None, failed_upgrade("RollingBack", "RolledBack")),
            InProgress,
            "True",
            false,
        ),
        (asked("suspending", Pods::Down, phase("Suspending")), InProgress, "True", false),
        (asked("suspended as asked", Pods::None, phase("Suspended")), Current, "True", true),
        (application("suspended, to run again", Pods::None, phase("Suspended")), InProgress, "True", false),
        (application("ending", Pods::Down, phase("Ending")), InProgress, "True", false),
        (application("finished", Pods::None, ended("Finished")), Current, "True", true),
        (application("cancelled", Pods::None, ended("Canceled")), Current, "True", true),
        (application("failed", Pods::None, ended("Failed")), Failed, "False", false),
        (application("halted", Pods::Up, failed_upgrade("Halted", "Failed")), Failed, "False", false),
        (
            Case {
                refused_definition: true,
                ..application("rolled back, runs as before", Pods::Up, failed_upgrade("Running", "RolledBack"))
            },
            Failed,
            "True",
            false,
        ),
        (
            Case {
                refused_definition: true,
                ..application("no savepoint, runs as before", Pods::Up, failed_upgrade("Running", "Refused"))
            },
            Failed,
            "True",
            false,
        ),
        (
            asked(
                "cannot be suspended, runs on",
                Pods::Up,
                Some(json!({ "phase": "Running", "error": "no savepoint" })),
            ),
            Failed,
            "True",
            false,
        ),
        (
            application(
                "a savepoint beside the job failed",
                Pods::Up,
                Some(json!({ "phase": "Running", "error": "no" })),
            ),
            Current,
            "True",
            true,
        ),
        (Case { is_deleted: true, ..session("deleted", Pods::Up, Was::RolledOut) }, Terminating, "False", false),
        // What is paused claims nothing that was not done.
        (paused("paused, rolled out", Pods::Up, Was::RolledOut), Current, "True", true),
        (paused("paused, then everything is lost", Pods::Down, Was::RolledOut), InProgress, "False", false),
        (paused("paused, then changed", Pods::Up, Was::ReadyBefore), InProgress, "True", false),
        (paused("paused, then changed, nobody leads", Pods::Down, Was::ReadyBefore), InProgress, "False", false),
        (paused("paused in a roll-out", Pods::Replaced, Was::RollingForLong), InProgress, "True", false),
        (paused("paused, new", Pods::None, Was::New), InProgress, "False", false),
        (paused("paused, refused before", Pods::Up, Was::Stalled), Failed, "True", false),
        (
            Case { application: phase("Upgrading"), ..paused("paused in an upgrade", Pods::None, Was::RollingForLong) },
            InProgress,
            "False",
            false,
        ),
        (
            Case { is_deleted: true, ..paused("paused, then deleted", Pods::Up, Was::RolledOut) },
            Terminating,
            "True",
            true,
        ),
    ]
}

/// Name, resource as it is written, and kstatus of all states.
#[allow(dead_code)] // Argo CD's scripts are tested with them, in another program.
pub fn written_cases() -> Vec<(&'static str, Value, Kstatus)> {
    cases().into_iter().map(|(case, read, ..)| (case.name, case.written(&from(before(case.was))), read)).collect()
}

#[test]
fn every_state_is_read_by_tools_as_it_is_meant() {
    for (case, expected, ready, waited_for) in cases() {
        let object = case.written(&from(before(case.was)));
        let found = (
            kstatus(&object),
            condition(&object, "Ready")["status"].as_str().unwrap(),
            is_waited_for(&object, "Ready"),
        );
        assert_eq!(found, (expected, ready, waited_for), "{}: {:#}", case.name, object["status"]["conditions"]);
        let holds = |kind: &str| condition(&object, kind)["status"] == "True";
        assert!(!(holds("Reconciling") && holds("Stalled")), "{}", case.name);
        for kind in ["LeaderElected", "Ready", "Progressing", "Degraded", "Reconciling", "Stalled"] {
            let reason = condition(&object, kind)["reason"].as_str().unwrap_or_default();
            assert!(reason.starts_with(|c: char| c.is_ascii_uppercase()), "{}: {kind} has no reason", case.name);
        }
        let pause = condition(&object, "Paused");
        assert_eq!(pause["status"].as_str(), case.paused.then_some("True"), "{}", case.name);
        let seen = if case.paused { before(case.was)["observedGeneration"].clone() } else { 2.into() };
        assert_eq!(object["status"]["observedGeneration"], seen, "{}", case.name);
        // A status that was written is not written again.
        let again = case.written(&from(object["status"].clone()));
        if !matches!(case.was, Was::RollingForLong) {
            assert_eq!(again["status"], object["status"], "{}", case.name);
        }
    }
}

#[test]
fn nobody_is_named_as_the_leader_of_what_is_being_deleted() {
    let case = Case { is_deleted: true, pods: Pods::Up, ..Case::default() };
    let object = case.written(&from(before(Was::RolledOut)));
    assert_eq!(object["status"]["leader"], Value::Null);
    for kind in ["LeaderElected", "Ready"] {
        assert_eq!(
            (condition(&object, kind)["status"].as_str(), condition(&object, kind)["reason"].as_str()),
            (Some("False"), Some("Deleting")),
            "{kind}"
        );
        assert!(!condition(&object, kind)["message"].as_str().unwrap().contains("leads"));
    }
}

#[test]
fn a_crash_is_no_failure_of_the_roll_out() {
    let mut observed = observed(Pods::Down);
    let last = json!({ "terminated": { "exitCode": 1, "reason": "Error", "message": "out of luck" } });
    let container = json!({ "name": "flink-main-container", "restartCount": 9, "lastState": last });
    let crashing = json!({ "metadata": { "name": "a" }, "status": { "containerStatuses": [container] } });
    observed.job_manager_pods = vec![Arc::new(from(crashing))];
    let (resource, applied) =
        (Case::default().resource(), Ok(Applied { gateway_image: "flinkha:1".to_owned(), objects: None, turn: None }));
    let desired = Desired { spec: resource.spec.clone(), decision: None, frozen: false, keeps_pods: false };
    let mut before = FlinkHaClusterStatus::default();
    for minute in 0..60 {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        before = status(&resource, &desired, &before, &observed, &applied, now).status;
        let object = json!({ "metadata": { "generation": 2 }, "status": before });
        assert_eq!(condition(&object, "Degraded")["reason"], "CrashLooping");
        assert_eq!(kstatus(&object), Kstatus::InProgress, "minute {minute}");
    }
}

#[test]
fn a_pause_says_what_waits_and_a_deletion_that_waits_names_its_leader_and_the_way_out() {
    let paused = |was, is_deleted| {
        Case { pods: Pods::Up, was, is_deleted, paused: true, ..Case::default() }.written(&from(before(was)))
    };
    let changed = paused(Was::ReadyBefore, false);
    assert_eq!(condition(&changed, "Paused")["reason"], "ReconcileDisabled");
    for kind in ["Progressing", "Reconciling"] {
        assert_eq!(condition(&changed, kind)["reason"], "Paused", "{kind}");
    }
    assert_eq!(condition(&changed, "Degraded")["status"], "False", "a pause is no problem");
    let deleted = paused(Was::RolledOut, true);
    assert_eq!(deleted["status"]["leader"]["pod"], "a", "it leads on");
    let degraded = condition(&deleted, "Degraded");
    assert_eq!(degraded["reason"], "DeletionWaits");
    assert!(degraded["message"].as_str().unwrap().ends_with("flinkha.dev/reconcile-"), "{degraded}");
}

#[test]
fn the_beginning_and_the_end_of_a_pause_are_events() {
    let status = |paused| {
        let case = Case { pods: Pods::Up, was: Was::RolledOut, paused, ..Case::default() };
        from::<FlinkHaClusterStatus>(case.written(&from(before(Was::RolledOut)))["status"].clone())
    };
    let reasons = |before: bool, after: bool| {
        let notes = notes(&status(before), &status(after));
        notes.into_iter().map(|note| note.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(false, true), ["Paused"]);
    assert_eq!(reasons(true, false), ["Resumed"]);
    assert_eq!((reasons(true, true), reasons(false, false)), (vec![], vec![]));
}
