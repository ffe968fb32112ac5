//! The savepoint of a deletion: taken, or told; never waited for without an end, and no state lost in silence.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::FlinkHaCluster;
use crate::api::application::Phase;
use crate::api::status::FlinkHaClusterStatus;
use crate::api::v1alpha1::OnDelete;
use crate::cluster::application::last_savepoint::{EndOfWait, LastSavepoint, last_savepoint};
use crate::cluster::merge::merge;
use crate::cluster::observed::Observed;
use crate::cluster::tests as fixture;
use crate::ledger::application::SavepointRequest;

const RUN: &str = "0123456789abcdef0123456789abcdef";
const FORMER: &str = "1123456789abcdef0123456789abcdef";

/// A resource that was deleted at second 0, its status, and what is seen of it.
struct Deleted {
    resource: FlinkHaCluster,
    status: FlinkHaClusterStatus,
    observed: Value,
    data: Value,
}

impl Deleted {
    /// An application that runs.
    fn new(savepoints: Value, application: Value) -> Self {
        let mut resource = json!(fixture::application_resource());
        let path = "s3://b/s/";
        resource["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        resource["spec"]["flinkConfiguration"]["execution.checkpointing.savepoint-dir"] = path.into();
        resource["spec"]["haData"] = json!({ "onDelete": "Delete" });
        resource["spec"]["job"]["savepoints"] = savepoints;
        let mut status = json!({ "phase": "Running", "jobId": RUN, "stable": "{}", "version": "v", "starts": 1 });
        merge(&mut status, application);
        let status = serde_json::from_value(json!({ "application": status }));
        Self {
            resource: serde_json::from_value(resource).unwrap_or_else(|error| panic!("{error}")),
            status: status.unwrap_or_else(|error| panic!("{error}")),
            observed: json!({ "metadata": { "name": "demo-jobmanager" } }),
            data: json!({ "application": { "job": RUN, "version": "v", "start": 1, "state": "RUNNING" }, "jobs": [{
                "id": RUN, "state": "Running",
            }] }),
        }
    }

    fn wanted() -> Self {
        Self::new(json!({ "onDelete": true, "onDeleteDeadline": "5m" }), json!({}))
    }

    fn decides(&self, second: i64) -> LastSavepoint {
        let texts: serde_json::Map<String, Value> = self
            .data
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, data)| (key.clone(), data.to_string().into()))
            .collect();
        let ledger = serde_json::from_value(json!({ "metadata": {}, "data": texts }));
        let deployment = serde_json::from_value(self.observed.clone()).ok();
        let observed = Observed {
            ledger: Some(Arc::new(ledger.unwrap_or_else(|error| panic!("{error}")))),
            job_manager_deployment: deployment.map(Arc::new),
            ..Observed::default()
        };
        let now = Timestamp::from_second(second).unwrap_or_default();
        last_savepoint(&self.resource, &self.status, &observed, now)
    }

    /// The request, after the status was written.
    fn waits(&mut self, second: i64) -> (SavepointRequest, String) {
        match self.decides(second) {
            LastSavepoint::Wait { application, request, cause } => {
                assert_eq!((application.phase, cause.reason), (Phase::Savepointing, "SavepointOnDeleteWaits"));
                self.status.application = Some(*application);
                (request.unwrap_or_else(|| panic!("a request")), cause.message)
            }
            LastSavepoint::Go(end) => panic!("{end:?}"),
        }
    }

    fn goes(&self, second: i64) -> EndOfWait {
        match self.decides(second) {
            LastSavepoint::Go(end) => end,
            LastSavepoint::Wait { cause, .. } => panic!("{cause:?}"),
        }
    }

    fn answers(&mut self, id: &str, answer: Value) {
        let mut savepoint = json!({ "id": id, "attempt": 1, "by": "pod", "stops": RUN });
        merge(&mut savepoint, answer);
        self.data["application"]["savepoint"] = savepoint;
    }
}

fn at(second: i64) -> String {
    Timestamp::from_second(second).unwrap_or_default().to_string()
}

#[test]
fn the_job_is_stopped_with_a_savepoint_and_the_deletion_goes_on_when_it_is_known() {
    let mut deleted = Deleted::wanted();
    let (asked, message) = deleted.waits(1);
    let directory = "s3://b/s/flink.demo/delete-1".to_owned();
    assert_eq!((asked.id.as_str(), asked.stop, &asked.directory), ("delete-1", true, &directory));
    for words in ["1970-01-01T00:05:00Z at the latest", "no JobManager has taken", "\"onDelete\":false"] {
        assert!(message.contains(words), "{words} in {message}");
    }
    assert_eq!(deleted.waits(9).0, asked, "the same one is waited for");
    deleted.answers("delete-1", json!({ "path": "s3://b/s/sp", "at": at(10) }));
    let waits = deleted.decides(11);
    assert!(matches!(waits, LastSavepoint::Wait { request: None, .. }), "the leader removes what is left: {waits:?}");
    assert_eq!(deleted.goes(70).path.as_deref(), Some("s3://b/s/sp"), "not for ever");
    let tombstone = json!([{ "id": RUN, "state": "Finished", "ended": at(12), "collected": at(13) }]);
    deleted.data["jobs"] = tombstone;
    let end = deleted.goes(14);
    assert_eq!(
        (end.path.as_deref(), end.missing.as_deref(), end.at.map(|at| at.as_second())),
        (Some("s3://b/s/sp"), None, Some(10))
    );
    assert_eq!(end.retaining(&deleted.resource).spec.ha_data.on_delete, OnDelete::Delete);
    assert!(end.sentence().is_some_and(|sentence| sentence.contains("s3://b/s/sp")));
    end.note(&mut deleted.status, &Observed::default());
    (deleted.data, deleted.observed) = (json!({}), Value::Null);
    assert_eq!(deleted.goes(9999).path.as_deref(), Some("s3://b/s/sp"), "the ledger is gone");
}

#[test]
fn what_fails_is_tried_again_until_the_deadline_and_then_the_ha_data_stays() {
    let mut deleted = Deleted::wanted();
    let (first, _) = deleted.waits(1);
    deleted.answers(&first.id, json!({ "error": "disk full", "at": at(5) }));
    let (same, message) = deleted.waits(7);
    assert_eq!(same.id, first.id);
    assert!(message.contains("disk full"), "{message}");
    let (second, message) = deleted.waits(15);
    assert!(second.id == "delete-15" && message.contains("disk full"), "{message}");
    let (same, message) = deleted.waits(16);
    assert!(same == second && message.contains("disk full"), "{message}");
    deleted.waits(299);
    let end = deleted.goes(300);
    assert!(end.path.is_none() && end.at.map(|at| at.as_second()) == Some(300));
    assert_eq!(end.retaining(&deleted.resource).spec.ha_data.on_delete, OnDelete::Retain);
    let told = end.sentence().unwrap_or_default();
    for words in ["not complete within 5m", "disk full", "HA data stays"] {
        assert!(told.contains(words), "{words} in {told}");
    }
}

#[test]
fn whoever_needs_no_savepoint_says_so_and_the_deletion_goes_on() {
    let mut deleted = Deleted::wanted();
    deleted.waits(1);
    deleted.resource.spec.job.iter_mut().for_each(|job| job.savepoints.on_delete = false);
    let end = deleted.goes(2);
    assert_eq!(end, EndOfWait::default());
    assert_eq!(end.retaining(&deleted.resource).spec.ha_data.on_delete, OnDelete::Delete);
    assert_eq!(Deleted::new(json!({ "interval": "1h" }), json!({})).goes(1), EndOfWait::default());
    let mut session = Deleted::wanted();
    session.resource.spec.job = None;
    assert_eq!(session.goes(1), EndOfWait::default());
}

#[test]
fn an_upgrade_that_stops_the_job_makes_the_savepoint() {
    let on_its_way = json!({ "phase": "Savepointing", "savepointRequest": "upgrade-4" });
    let mut deleted = Deleted::new(json!({ "onDelete": true }), on_its_way);
    let (asked, _) = deleted.waits(1);
    assert_eq!((asked.id.as_str(), asked.directory.as_str()), ("upgrade-4", "s3://b/s/flink.demo/upgrade-4"));
    deleted.answers("upgrade-4", json!({ "path": "s3://b/s/4", "at": at(3), "stops": null }));
    assert_eq!(deleted.goes(90).path.as_deref(), Some("s3://b/s/4"), "a gateway of an earlier version has answered");
    // A savepoint beside the job is none.
    let beside = json!({ "savepointRequest": "periodic-1" });
    let mut deleted = Deleted::new(json!({ "onDelete": true }), beside);
    deleted.answers("periodic-1", json!({ "path": "s3://b/s/1", "at": at(3), "stops": null }));
    assert_eq!(deleted.waits(5).0.id, "delete-5");
}

#[test]
fn an_answer_about_another_run_is_none() {
    let mut deleted = Deleted::wanted();
    deleted.answers("delete-1", json!({ "path": "s3://b/old", "at": at(0), "stops": FORMER }));
    let (asked, _) = deleted.waits(1);
    deleted.answers(&asked.id, json!({ "path": "s3://b/old", "at": at(0), "stops": FORMER }));
    deleted.waits(2);
}

#[test]
fn where_no_job_runs_nothing_is_waited_for_and_state_is_never_dropped() {
    let of = |application: Value, data: Value| {
        let mut deleted = Deleted::new(json!({ "onDelete": true }), application);
        deleted.data = data;
        deleted.goes(1)
    };
    let ledger = |job: &str| {
        json!({ "application": { "job": job, "version": "v", "start": 1 }, "jobs": [{
        "id": job, "state": "Running",
    }] })
    };
    // Suspended from its last state.
    assert!(of(json!({ "phase": "Suspended" }), ledger(RUN)).missing.is_some());
    // Suspended with a savepoint, from which the next run would begin.
    let saved = json!({ "phase": "Suspended", "previousJobId": FORMER, "restoredFrom": "s3://b/5" });
    assert_eq!(of(saved.clone(), ledger(FORMER)).path.as_deref(), Some("s3://b/5"));
    assert!(of(saved, json!({})).missing.is_some(), "the ledger is lost, so that is not known");
    // The pods are going for another version.
    assert!(of(json!({ "phase": "Upgrading" }), ledger(RUN)).missing.is_some());
    // It has ended by itself.
    let mut ended = ledger(RUN);
    ended["jobs"] = json!([{ "id": RUN, "state": "Finished", "ended": at(0) }]);
    assert_eq!(of(json!({}), ended), EndOfWait::default());
    // It has never begun.
    assert_eq!(of(json!({ "phase": "Starting", "stable": null }), json!({})), EndOfWait::default());
    // Nothing is known of a run that came up.
    let lost = json!({ "phase": "Suspended", "restoredFrom": "s3://b/old" });
    assert!(of(lost, json!({})).missing.is_some());
    // The status was edited.
    assert!(of(json!({ "jobId": "x" }), ledger(RUN)).missing.is_some());
    assert_eq!(of(json!({ "jobId": "x" }), json!({})), EndOfWait::default());
}

#[test]
fn a_deployment_that_somebody_has_deleted_makes_no_savepoint() {
    for absent in [Value::Null, json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:00:00Z" } })] {
        let mut deleted = Deleted::wanted();
        deleted.observed = absent;
        assert!(deleted.goes(1).missing.is_some_and(|why| why.contains("no JobManager")));
    }
    let mut deleted = Deleted::wanted();
    deleted.resource.spec.flink_configuration.clear();
    assert!(deleted.goes(1).missing.is_some_and(|why| why.contains("execution.checkpointing.savepoint-dir")));
}

#[test]
fn a_deletion_ends_whatever_the_ledger_and_the_clock_say() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..500 {
        let phases = ["Starting", "Running", "Savepointing", "Upgrading", "Suspended", "Halted", "Ending", "Ended"];
        let phase = phases[random.usize(0..phases.len())];
        let mut deleted =
            Deleted::new(json!({ "onDelete": true, "onDeleteDeadline": "5m" }), json!({ "phase": phase }));
        if random.u8(0..4) == 0 {
            deleted.data = json!({});
        }
        let (mut second, mut latest) = (0, 0);
        for _ in 0..20 {
            second = (second + random.i64(-20..60)).max(0);
            latest = latest.max(second);
            let LastSavepoint::Wait { application, .. } = deleted.decides(second) else { break };
            deleted.status.application = Some(*application);
            let id =
                deleted.status.application.as_ref().and_then(|one| one.savepoint_request.clone()).unwrap_or_default();
            if random.u8(0..3) == 0 && deleted.data != json!({}) {
                let error = json!({ "error": "x", "at": at(second) });
                let path = json!({ "path": "s3://b/p", "at": at(second) });
                deleted.answers(&id, if random.bool() { error } else { path });
            }
        }
        let end = deleted.goes(301.max(latest + 61));
        let answer = &deleted.data["application"]["savepoint"];
        assert_eq!(end.path.is_some(), answer["path"].is_string(), "{end:?} {answer}");
        assert!(end.path.is_some() || end.missing.is_some() || phase == "Ended", "{phase}: {end:?}");
    }
}
