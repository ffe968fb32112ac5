//! Decides what a command changes in a resource: a field or an annotation that everybody may write. The operator does
//! the rest, as after `kubectl patch`.
//!
//! Invariant: no I/O and no clock.

use serde_json::{Value, json};

use crate::api::FlinkHaCluster;
use crate::api::application::{JobSpec, JobState, Phase, UpgradeMode};
use crate::api::names::{RECONCILE_ANNOTATION, SWITCHOVER_ANNOTATION};
use crate::cluster::application::{savepoint_directory, version};
use crate::cluster::pause::Pause;

/// A change that a command asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceChange {
    /// The merge patch; `None` if the resource is like that already.
    pub patch: Option<Value>,
    /// What is said once it is made.
    pub said: String,
}

/// Decides, or refuses with a sentence.
pub type ChangeDecision = Result<ResourceChange, String>;

/// Requests another leader. Whether it is possible was decided before.
pub fn switchover(resource: &FlinkHaCluster, to: &str) -> Value {
    // Of the same resource, but of any version: a request does not depend on what else is in it.
    let uid = &resource.metadata.uid;
    json!({ "metadata": { "uid": uid, "annotations": { SWITCHOVER_ANNOTATION: to } } })
}

/// Restarts all pods.
pub fn restart(resource: &FlinkHaCluster) -> ChangeDecision {
    is_not_deleted(resource)?;
    let application = resource.status.as_ref().and_then(|status| status.application.as_ref());
    if let Some(application) = application {
        if matches!(application.phase, Phase::Suspended | Phase::Ended) {
            return Err(format!(
                "{} has no pods to restart: its application is {:?}",
                named(resource),
                application.phase
            ));
        }
        if application.refused.as_ref().is_some_and(|refused| *refused == version(&resource.spec)) {
            return Err(format!(
                "{} requests a definition that failed (UpgradeRolledBack), so nothing restarts; change the definition, \
                 or set it back",
                named(resource)
            ));
        }
    }
    let nonce = resource.spec.restart_nonce.map_or(1, |nonce| nonce.wrapping_add(1));
    let said = "restarts all pods: JobManagers one by one, the leader last, and TaskManagers; jobs resume from their last \
                checkpoint";
    Ok(change(resource, json!({ "restartNonce": nonce }), said))
}

/// Suspends an application.
pub fn suspend(resource: &FlinkHaCluster) -> ChangeDecision {
    let job = application(resource, "suspended")?;
    let kept = match job.upgrade_mode {
        UpgradeMode::LastState => "its last checkpoint",
        UpgradeMode::Savepoint => "the savepoint with which it is stopped",
        UpgradeMode::Stateless => "no state, because of upgradeMode: stateless",
    };
    let said = format!("is being suspended: its pods end, and it resumes from {kept}");
    state(resource, job, JobState::Suspended, &said)
}

/// Resumes an application.
pub fn resume(resource: &FlinkHaCluster) -> ChangeDecision {
    let job = application(resource, "resumed")?;
    state(resource, job, JobState::Running, "is being resumed: its pods start")
}

fn state(resource: &FlinkHaCluster, job: &JobSpec, wanted: JobState, said: &str) -> ChangeDecision {
    if job.state == wanted {
        let said =
            format!("{}: spec.job.state is {} already", named(resource), json!(wanted).as_str().unwrap_or_default());
        return Ok(ResourceChange { patch: None, said });
    }
    Ok(change(resource, json!({ "job": { "state": wanted } }), said))
}

/// Requests a savepoint beside the running job; also returns the number of the request.
///
/// # Errors
/// A sentence that says why there can be none.
pub fn savepoint(resource: &FlinkHaCluster) -> Result<(ResourceChange, i64), String> {
    let job = application(resource, "saved in this way")?;
    let name = named(resource);
    if job.state == JobState::Suspended {
        return Err(format!(
            "{name} is suspended, so no job runs of which a savepoint could be taken; resume it first"
        ));
    }
    if let Some(pause) = Pause::of(resource) {
        return Err(format!("{name}: {}", pause.message(resource)));
    }
    if savepoint_directory(&resource.spec).is_none() {
        return Err(format!(
            "{name} has no directory for savepoints; set the key execution.checkpointing.savepoint-dir in \
             spec.flinkConfiguration"
        ));
    }
    let status = resource.status.as_ref().and_then(|status| status.application.as_ref());
    let last = job.savepoint_trigger_nonce.max(status.and_then(|application| application.savepoint_trigger_nonce));
    // Zero requests nothing.
    let nonce = last.unwrap_or_default().max(0).checked_add(1).unwrap_or(1);
    let change = change(resource, json!({ "job": { "savepointTriggerNonce": nonce } }), "was asked for a savepoint");
    Ok((change, nonce))
}

/// What became of the savepoint of this number; `None` while that is not known.
pub fn savepoint_result(resource: &FlinkHaCluster, nonce: i64) -> Option<Result<String, String>> {
    let application = resource.status.as_ref()?.application.as_ref()?;
    if application.savepoint_trigger_nonce != Some(nonce) {
        return None;
    }
    let (id, without_uid) = (format!("nonce-{nonce}-"), format!("nonce-{nonce}"));
    let is_of_it = |id_of: &str| id_of == without_uid || id_of.starts_with(&id);
    let savepoint = application.last_savepoint.as_ref().filter(|savepoint| is_of_it(&savepoint.id));
    Some(match savepoint {
        Some(savepoint) => Ok(savepoint.path.clone()),
        None => Err(application.error.clone().unwrap_or_else(|| "no reason was reported".to_owned())),
    })
}

/// Pauses the operator's work on a cluster.
pub fn pause(resource: &FlinkHaCluster) -> ChangeDecision {
    if Pause::of(resource) == Some(Pause::Disabled) {
        return Ok(ResourceChange { patch: None, said: format!("{} is paused already", named(resource)) });
    }
    let said =
        "is paused: the operator changes nothing of it until kubectl flinkha unpause; JobManagers fail over as always";
    Ok(annotated(resource, json!("disabled"), said))
}

/// Ends a pause.
pub fn unpause(resource: &FlinkHaCluster) -> ChangeDecision {
    if Pause::of(resource).is_none() {
        return Ok(ResourceChange { patch: None, said: format!("{} is not paused", named(resource)) });
    }
    Ok(annotated(resource, Value::Null, "is not paused any more: the operator applies the resource as it is now"))
}

fn annotated(resource: &FlinkHaCluster, value: Value, said: &str) -> ResourceChange {
    let mut metadata = of_version(resource);
    metadata["annotations"] = json!({ RECONCILE_ANNOTATION: value });
    ResourceChange { patch: Some(json!({ "metadata": metadata })), said: format!("{} {said}", named(resource)) }
}

fn change(resource: &FlinkHaCluster, spec: Value, said: &str) -> ResourceChange {
    let waits = Pause::of(resource).map(|_| "; but the resource is paused, so this waits for kubectl flinkha unpause");
    ResourceChange {
        patch: Some(json!({ "metadata": of_version(resource), "spec": spec })),
        said: format!("{} {said}{}", named(resource), waits.unwrap_or_default()),
    }
}

/// The metadata by which the API server refuses a change of any other version.
fn of_version(resource: &FlinkHaCluster) -> Value {
    json!({ "uid": resource.metadata.uid, "resourceVersion": resource.metadata.resource_version })
}

fn application<'a>(resource: &'a FlinkHaCluster, what: &str) -> Result<&'a JobSpec, String> {
    is_not_deleted(resource)?;
    let Some(job) = &resource.spec.job else {
        let name = named(resource);
        return Err(format!("{name} is a session cluster; only an application (spec.job) can be {what}"));
    };
    let status = resource.status.as_ref().and_then(|status| status.application.as_ref());
    match status.map(|application| application.phase) {
        Some(Phase::Ending | Phase::Ended) => Err(format!("the job of {} has ended", named(resource))),
        _ => Ok(job),
    }
}

fn is_not_deleted(resource: &FlinkHaCluster) -> Result<(), String> {
    match resource.metadata.deletion_timestamp {
        Some(_) => Err(format!("{} is being deleted", named(resource))),
        None => Ok(()),
    }
}

/// `<namespace>/<name>`.
fn named(resource: &FlinkHaCluster) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&resource.metadata.namespace), text(&resource.metadata.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    fn application_with(status: Value) -> FlinkHaCluster {
        let mut resource = fixture::application_resource();
        resource.metadata.resource_version = Some("7".to_owned());
        resource.status = serde_json::from_value(json!({ "application": status, "conditions": [] })).ok();
        let savepoints = ("execution.checkpointing.savepoint-dir".to_owned(), "s3://b".to_owned());
        let value = crate::api::v1alpha1::Scalar::Text(savepoints.1);
        resource.spec.flink_configuration.insert(savepoints.0, value);
        resource
    }

    fn running() -> FlinkHaCluster {
        application_with(json!({ "phase": "Running", "jobId": "a" }))
    }

    fn paused(mut resource: FlinkHaCluster) -> FlinkHaCluster {
        resource.metadata.annotations = Some([(RECONCILE_ANNOTATION.to_owned(), "disabled".to_owned())].into());
        resource
    }

    #[test]
    fn a_change_is_one_of_the_version_that_was_read() {
        let patch = restart(&running()).expect("a change").patch.expect("a patch");
        assert_eq!(
            patch,
            json!({ "metadata": { "uid": "4b1d", "resourceVersion": "7" }, "spec": { "restartNonce": 1 } })
        );
        let mut restarted = running();
        restarted.spec.restart_nonce = Some(i64::MAX);
        let patch = restart(&restarted).expect("a change").patch.expect("a patch");
        assert_eq!(patch["spec"]["restartNonce"], i64::MIN);
        let patch = switchover(&running(), "any");
        assert_eq!(patch, json!({ "metadata": { "uid": "4b1d", "annotations": { "flinkha.dev/switchover": "any" } } }));
    }

    #[test]
    fn what_would_do_nothing_is_refused_with_the_reason() {
        let suspended = application_with(json!({ "phase": "Suspended", "jobId": "a" }));
        let mut deleted = running();
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).ok();
        let failed = application_with(json!({ "phase": "Running", "refused": version(&running().spec) }));
        let without = fixture::application_resource();
        let ended = application_with(json!({ "phase": "Ended", "jobId": "a" }));
        for (refused, expected) in [
            (restart(&suspended), "flink/demo has no pods to restart: its application is Suspended"),
            (restart(&deleted), "flink/demo is being deleted"),
            (restart(&failed), "flink/demo requests a definition that failed (UpgradeRolledBack)"),
            (suspend(&fixture::resource()), "flink/demo is a session cluster; only an application (spec.job) can be"),
            (resume(&ended), "the job of flink/demo has ended"),
            (savepoint(&without).map(|(change, _)| change), "flink/demo has no directory for savepoints; set the key"),
            (savepoint(&paused(running())).map(|(change, _)| change), "flink/demo: the operator changes nothing"),
        ] {
            let said = refused.expect_err(expected);
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn a_state_is_changed_once_and_a_pause_holds_the_change_up() {
        let change = suspend(&running()).expect("a change");
        assert_eq!(change.patch.expect("a patch")["spec"], json!({ "job": { "state": "suspended" } }));
        assert!(change.said.ends_with("it resumes from its last checkpoint"), "{}", change.said);
        assert!(suspend(&paused(running())).expect("a change").said.contains("paused, so this waits"));
        let again = resume(&running()).expect("a change");
        assert_eq!((again.patch, again.said.as_str()), (None, "flink/demo: spec.job.state is running already"));
        let mut suspended = running();
        suspended.spec.job.as_mut().expect("a job").state = JobState::Suspended;
        assert_eq!(resume(&suspended).expect("a change").patch.expect("a patch")["spec"]["job"]["state"], "running");
        let annotation =
            |change: ChangeDecision| change.expect("a change").patch.map(|patch| patch["metadata"].clone());
        let expected =
            json!({ "uid": "4b1d", "resourceVersion": "7", "annotations": { RECONCILE_ANNOTATION: "disabled" } });
        assert_eq!(annotation(pause(&running())), Some(expected));
        assert_eq!((annotation(pause(&paused(running()))), annotation(unpause(&running()))), (None, None));
        let ends = annotation(unpause(&paused(running()))).expect("a patch");
        assert!(ends["annotations"][RECONCILE_ANNOTATION].is_null() && ends["annotations"].is_object());
    }

    #[test]
    fn a_savepoint_has_a_number_that_no_other_has() {
        let mut resource = application_with(json!({ "phase": "Running", "savepointTriggerNonce": 4 }));
        resource.spec.job.as_mut().expect("a job").savepoint_trigger_nonce = Some(-3);
        let (change, nonce) = savepoint(&resource).expect("a change");
        assert_eq!((nonce, &change.patch.expect("a patch")["spec"]["job"]["savepointTriggerNonce"]), (5, &json!(5)));
        assert_eq!(savepoint_result(&resource, 5), None);
        let done = |status: Value| savepoint_result(&application_with(status), 5);
        let taken =
            json!({ "savepointTriggerNonce": 5, "lastSavepoint": { "path": "s3://b/5", "id": "nonce-5-5f0c1d7e" } });
        assert_eq!(done(taken), Some(Ok("s3://b/5".to_owned())));
        let failed = json!({
            "savepointTriggerNonce": 5, "error": "no space", "lastSavepoint": { "path": "s3://b/4", "id": "nonce-4" },
        });
        assert_eq!(done(failed), Some(Err("no space".to_owned())));
    }
}
