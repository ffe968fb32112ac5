//! Tests plans over the cases in which they differ.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::FlinkHaClusterSpec;
use crate::api::application::{Application, Phase, UpgradeMode};
use crate::api::names::{SAVEPOINT_ANNOTATION, SWITCHOVER_ANNOTATION};
use crate::api::v1alpha1::Scalar;
use crate::cluster::application::version;
use crate::cluster::cause::Cause;
use crate::cluster::presence::Presence;
use crate::cluster::switchover::Switchover;
use crate::cluster::tests as fixture;
use crate::ledger::refusal::{Refusal, STORED_BY_ANOTHER};

const RUN: &str = "0000000000000000000000000000000a";

fn environment() -> Environment {
    Environment { gateway_image: "flinkha:2".to_owned(), gateway_log: "info".to_owned(), ..Environment::default() }
}

fn decide(
    resource: &FlinkHaCluster,
    before: &FlinkHaClusterStatus,
    observed: &Observed,
) -> Result<Reconciliation, Lookup> {
    plan(resource, before, observed, &environment(), Timestamp::UNIX_EPOCH)
}

/// Returns the plan from a complete observation.
fn planned(resource: &FlinkHaCluster, before: &FlinkHaClusterStatus, observed: &Observed) -> Reconciliation {
    decide(resource, before, observed).unwrap_or_else(|lookup| panic!("{lookup:?} was not made"))
}

fn rejection(plan: &Reconciliation) -> (&'static str, Option<u64>) {
    let rejection = plan.rollout.as_ref().err().unwrap_or_else(|| panic!("it is applied"));
    assert!(plan.desired.frozen && plan.requests == Requests::default(), "{plan:?}");
    (rejection.cause.reason, plan.look_again.map(|time| time.as_secs()))
}

fn ledger(data: Value) -> Observed {
    let ledger = serde_json::from_value(json!({ "metadata": {}, "data": data })).expect("a ledger");
    Observed { ledger: Some(Arc::new(ledger)), ..Observed::default() }
}

/// Nothing is stored, according to the API server itself.
fn nothing() -> Observed {
    Observed { ledger_is_current: true, stored: StoredHaData::Absent, ..Observed::default() }
}

fn none() -> FlinkHaClusterStatus {
    FlinkHaClusterStatus::default()
}

/// The status of a run of the fixture's definition in this phase.
fn in_phase(phase: Phase) -> FlinkHaClusterStatus {
    let spec = fixture::application_resource().spec;
    let deployed = serde_json::to_string(&spec).expect("a spec");
    let application = Application {
        phase,
        job_id: RUN.to_owned(),
        runs: 1,
        starts: 1,
        version: version(&spec),
        stable: Some(deployed.clone()),
        deployed,
        ..Application::default()
    };
    FlinkHaClusterStatus { application: Some(application), ..none() }
}

fn changed(change: impl FnOnce(&mut FlinkHaClusterSpec)) -> FlinkHaCluster {
    let mut resource = fixture::application_resource();
    change(&mut resource.spec);
    resource
}

fn with_other_arguments() -> FlinkHaCluster {
    changed(|spec| {
        let job = spec.job.as_mut().expect("a job");
        (job.args, job.upgrade_mode) = (vec!["--other".to_owned()], UpgradeMode::LastState);
    })
}

fn phase(plan: &Reconciliation) -> Phase {
    plan.desired.application().expect("an application").phase
}

#[test]
fn a_session_cluster_is_planned_from_the_caches_alone() {
    let plan = planned(&fixture::resource(), &none(), &Observed::default());
    let rollout = plan.rollout.expect("it is applied");
    assert_eq!((rollout.gateway_image.image.as_str(), rollout.tried_first.is_none()), ("flinkha:2", true));
    assert_eq!(rollout.objects.job_managers["spec"]["replicas"], 3);
    assert_eq!((plan.requests, plan.look_again), (Requests::default(), None));
}

#[test]
fn a_spec_that_is_not_sound_is_rejected_until_it_is_changed() {
    let mut resource = fixture::resource();
    resource.spec.flink_configuration.insert("rest.port".to_owned(), Scalar::Number(1));
    assert_eq!(rejection(&planned(&resource, &none(), &Observed::default())), ("InvalidSpec", None));
    // An application makes no decision that would be written down.
    let resource = changed(|spec| {
        spec.flink_configuration.insert("rest.port".to_owned(), Scalar::Number(1));
    });
    let plan = planned(&resource, &none(), &nothing());
    assert!(rejection(&plan) == ("InvalidSpec", None) && plan.desired.application().is_none());
}

#[test]
fn what_is_stored_and_cannot_be_read_lets_nothing_begin_and_is_looked_at_again() {
    let unreadable = ledger(json!({ "jobs": "?" }));
    assert_eq!(rejection(&planned(&fixture::resource(), &none(), &unreadable)), ("LedgerUnreadable", Some(30)));
    let running = in_phase(Phase::Running);
    let kept = planned(&with_other_arguments(), &running, &unreadable);
    assert_eq!((rejection(&kept), phase(&kept)), (("LedgerUnreadable", Some(30)), Phase::Running));
    assert_ne!(kept.desired.spec, with_other_arguments().spec, "the pods stay what they were made from");
    let refusal = Refusal::new(STORED_BY_ANOTHER, "no number".to_owned());
    let unreadable = Observed { stored: StoredHaData::Unreadable(refusal), ..nothing() };
    let plan = planned(&fixture::application_resource(), &none(), &unreadable);
    assert_eq!((rejection(&plan), plan.desired.run()), ((STORED_BY_ANOTHER, Some(30)), None));
}

#[test]
fn a_change_that_would_leave_jobs_behind_is_rejected() {
    let place = json!({ "state": "Collectable", "place": { "storageDir": "file:///elsewhere" } }).to_string();
    let jobs = json!([{ "id": RUN, "state": "Running" }]).to_string();
    let observed = ledger(json!({ "haData": place, "jobs": jobs }));
    let plan = planned(&fixture::resource(), &none(), &observed);
    assert_eq!(rejection(&plan), ("JobsStoredElsewhere", None));
}

#[test]
fn before_the_first_decision_the_ledger_and_then_the_ha_data_are_looked_up() {
    let resource = fixture::application_resource();
    let cached = ledger(json!({}));
    assert_eq!(decide(&resource, &none(), &cached).err(), Some(Lookup::Ledger), "a cache may be late");
    let current = Observed { ledger_is_current: true, ..Observed::default() };
    assert_eq!(decide(&resource, &none(), &current).err(), Some(Lookup::StoredHaData));
    assert!(planned(&resource, &none(), &nothing()).desired.run().is_some());
    let on_zookeeper =
        changed(|spec| spec.high_availability = fixture::on_zookeeper().spec().high_availability.clone());
    assert!(decide(&on_zookeeper, &none(), &current).is_ok(), "there are no ConfigMaps");
    let running = in_phase(Phase::Running);
    assert_eq!(decide(&resource, &running, &Observed::default()).err(), Some(Lookup::Ledger), "it has lost its label");
    assert!(decide(&resource, &running, &cached).is_ok());
}

#[test]
fn what_waits_for_pods_to_be_gone_has_it_proven_before_the_ledger_is_read() {
    let (resource, stopping) = (with_other_arguments(), in_phase(Phase::Upgrading));
    assert_eq!(decide(&resource, &stopping, &Observed::default()).err(), Some(Lookup::Presence));
    let gone = Observed { presence: Some(Presence::Gone), ..Observed::default() };
    assert_eq!(decide(&resource, &stopping, &gone).err(), Some(Lookup::Ledger));
    let ready = Observed { presence: Some(Presence::Gone), ..nothing() };
    assert_eq!(phase(&planned(&resource, &stopping, &ready)), Phase::Starting);
    let there = Observed { presence: Some(Presence::There(Vec::new())), ..nothing() };
    let waiting = planned(&resource, &stopping, &there);
    assert_eq!((phase(&waiting), waiting.look_again), (Phase::Upgrading, Some(PODS_INTERVAL)));
    let makes_some = json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": 1 } });
    let moving =
        Observed { job_manager_deployment: serde_json::from_value(makes_some).ok().map(Arc::new), ..nothing() };
    assert!(decide(&resource, &stopping, &moving).is_ok(), "a watch tells when it is worth to ask");
}

#[test]
fn another_run_takes_the_place_of_the_present_one_only_by_the_ledger_as_it_is() {
    let resource = changed(|spec| spec.job.as_mut().expect("a job").upgrade_mode = UpgradeMode::Stateless);
    let suspended = in_phase(Phase::Suspended);
    let cached = Observed { presence: Some(Presence::Gone), ..ledger(json!({})) };
    assert_eq!(decide(&resource, &suspended, &cached).err(), Some(Lookup::Ledger));
    let current = Observed { ledger_is_current: true, ..cached };
    let run = planned(&resource, &suspended, &current).desired.run().expect("a run");
    assert!(run.job_id.as_str() != RUN && run.replaces[0].as_str() == RUN, "{run:?}");
}

#[test]
fn a_suspended_application_starts_when_no_pods_are_left_of_a_start_that_was_not_written_down() {
    let (resource, suspended) = (fixture::application_resource(), in_phase(Phase::Suspended));
    assert_eq!(decide(&resource, &suspended, &ledger(json!({}))).err(), Some(Lookup::Presence));
    let there = Observed { presence: Some(Presence::There(Vec::new())), ..ledger(json!({})) };
    let waiting = planned(&resource, &suspended, &there);
    assert_eq!((phase(&waiting), waiting.look_again), (Phase::Suspended, Some(PODS_INTERVAL)));
    assert!(waiting.desired.is_stopped());
    let gone = Observed { presence: Some(Presence::Gone), ..ledger(json!({})) };
    assert_eq!(phase(&planned(&resource, &suspended, &gone)), Phase::Starting);
}

#[test]
fn what_comes_after_a_stop_is_tried_before_it_and_when_it_is_rejected_the_job_runs_on() {
    let running = in_phase(Phase::Running);
    let plan = planned(&with_other_arguments(), &running, &ledger(json!({})));
    let rollout = plan.rollout.as_ref().expect("it is applied");
    let is_other = |objects: &Objects| objects.job_managers.to_string().contains("--other");
    assert!(rollout.tried_first.as_ref().is_some_and(is_other) && !is_other(&rollout.objects));
    assert_eq!((phase(&plan), &rollout.objects.job_managers["spec"]["replicas"]), (Phase::Upgrading, &json!(0)));
    let rejected = plan.rejected(Rejection::invalid_template("spec.jobManager.podTemplate", "no"), &running);
    assert_eq!((rejection(&rejected), phase(&rejected)), (("InvalidPodTemplate", None), Phase::Running));
    assert!(!rejected.desired.is_stopped());
    let same = planned(&fixture::application_resource(), &running, &ledger(json!({})));
    assert!(same.rollout.is_ok_and(|rollout| rollout.tried_first.is_none()), "nothing is stopped");
}

#[test]
fn the_gateways_image_stays_until_the_pods_are_replaced_anyway() {
    let resource = fixture::resource();
    let objects = build::build(&fixture::cluster(), &environment());
    let live = serde_json::from_value(json!({ "metadata": objects.job_managers["metadata"] })).expect("a Deployment");
    let observed = Observed { job_manager_deployment: Some(Arc::new(live)), ..Observed::default() };
    let before = FlinkHaClusterStatus { gateway_image: Some("flinkha:1".to_owned()), ..none() };
    let rollout = |resource| planned(resource, &before, &observed).rollout.expect("it is applied");
    let pinned = rollout(&resource);
    let image = |rollout: &Rollout| {
        let pod = &rollout.objects.job_managers["spec"]["template"]["spec"];
        pod["initContainers"][0]["image"].as_str().map(str::to_owned)
    };
    let chosen = |rollout: &Rollout| (rollout.gateway_image.image.clone(), image(rollout).unwrap_or_default());
    assert_eq!(chosen(&pinned), ("flinkha:1".to_owned(), "flinkha:1".to_owned()));
    let mut other = resource.clone();
    other.spec.image = "flink:2.3.1".to_owned();
    let replaced = rollout(&other);
    assert_eq!(chosen(&replaced), ("flinkha:2".to_owned(), "flinkha:2".to_owned()));
    let mut asked = resource.clone();
    asked.metadata.annotations = Some([("flinkha.dev/upgrade-gateways".to_owned(), "now".to_owned())].into());
    let plan = planned(&asked, &before, &observed);
    let upgraded = plan.rollout.expect("it is applied");
    assert_eq!(chosen(&upgraded), ("flinkha:2".to_owned(), "flinkha:2".to_owned()));
    assert!(upgraded.note.is_none(), "nobody else waits for it");
    let events = [upgraded.gateway_image.note, plan.requests.upgrade_gateways].map(|note| note.map(|note| note.reason));
    assert_eq!(events, [Some("GatewayImageReplaced".to_owned()), Some("GatewayImageCurrent".to_owned())]);
}

#[test]
fn the_next_look_is_the_earliest_of_all_reasons_for_one() {
    let (resource, seconds) = (fixture::application_resource(), Duration::from_secs);
    let starting = planned(&resource, &none(), &nothing());
    assert!(starting.look_again.is_some_and(|wake| wake > seconds(30)), "the deadline: {:?}", starting.look_again);
    let taken = || Rejection::unwatched(Cause { reason: "NameTaken", message: String::new() });
    assert_eq!(starting.rejected(taken(), &none()).look_again, Some(seconds(30)));
    let there = Observed { presence: Some(Presence::There(Vec::new())), ..nothing() };
    let stopping = in_phase(Phase::Upgrading);
    let waiting = planned(&resource, &stopping, &there);
    assert_eq!(waiting.rejected(taken(), &stopping).look_again, Some(PODS_INTERVAL));
    let running = planned(&resource, &in_phase(Phase::Running), &ledger(json!({})));
    assert_eq!(running.look_again, None, "watches tell");
}

#[test]
fn the_leader_is_asked_for_what_it_was_not_asked_for_yet_and_a_switchover_is_answered_in_any_case() {
    let wants_savepoint = changed(|spec| {
        spec.job.as_mut().expect("a job").savepoint_trigger_nonce = Some(7);
        spec.flink_configuration
            .insert("execution.checkpointing.savepoint-dir".to_owned(), Scalar::Text("s3://b/s".to_owned()));
    });
    let mut before = in_phase(Phase::Running);
    before.application.as_mut().expect("an application").version = version(&wants_savepoint.spec);
    let lease = |annotations: Value| {
        let lease = serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).expect("a Lease");
        Observed { lease: Some(Arc::new(lease)), ..ledger(json!({})) }
    };
    let note = |observed: &Observed| planned(&wants_savepoint, &before, observed).requests.savepoint;
    assert_eq!(note(&ledger(json!({}))), None, "there is no Lease yet");
    let text = note(&lease(json!({}))).and_then(|note| note.text).expect("it is asked for");
    assert!(text.contains("nonce-7") && text.contains("s3://b/s/"), "{text}");
    assert_eq!(note(&lease(json!({ SAVEPOINT_ANNOTATION: text }))), None, "it was asked for");
    let running = in_phase(Phase::Running);
    let stale = planned(&fixture::application_resource(), &running, &lease(json!({ SAVEPOINT_ANNOTATION: "old" })));
    assert!(stale.requests.savepoint.is_some_and(|note| note.text.is_none()), "the answered one is removed");

    let mut resource = fixture::resource();
    resource.metadata.annotations = Some([(SWITCHOVER_ANNOTATION.to_owned(), "any".to_owned())].into());
    let plan = planned(&resource, &none(), &Observed::default());
    assert!(matches!(plan.requests.switchover, Some(Switchover::Refuse { .. })), "nobody leads: {plan:?}");
    let rejected = plan.rejected(Rejection::apply_failed("quota".to_owned()), &none());
    assert!(rejected.requests.switchover.is_some());
}

#[test]
fn a_restart_rolls_the_pods_of_the_same_run_and_is_only_noted_for_a_suspended_job() {
    let nonce = |plan: &Reconciliation| {
        let objects = plan.rollout.as_ref().expect("it is applied").objects.clone();
        [objects.job_managers, objects.task_managers].map(|deployment| {
            let annotations = deployment["spec"]["template"]["metadata"]["annotations"].clone();
            (deployment["spec"]["replicas"].as_i64(), annotations["flinkha.dev/restart-nonce"].clone())
        })
    };
    let restarted = changed(|spec| spec.restart_nonce = Some(1));
    let plan = planned(&restarted, &in_phase(Phase::Running), &nothing());
    assert_eq!(nonce(&plan), [(Some(3), "1".into()), (Some(2), "1".into())]);
    let (before, after) = (in_phase(Phase::Running).application, plan.desired.application().cloned());
    let identity = |one: Option<Application>| one.map(|one| (one.phase, one.version, one.job_id, one.runs, one.starts));
    assert_eq!(identity(before), identity(after.clone()));
    let stable = after.and_then(|after| (after.upgrades.is_empty()).then_some(after.stable)).flatten();
    assert!(stable.is_some_and(|stable| stable.contains("\"restartNonce\":1")), "a roll-back restarts nothing again");
    let suspended = changed(|spec| {
        spec.restart_nonce = Some(1);
        spec.job.as_mut().expect("a job").state = crate::api::application::JobState::Suspended;
    });
    let plan = planned(&suspended, &in_phase(Phase::Suspended), &nothing());
    assert_eq!((phase(&plan), nonce(&plan).map(|one| one.0)), (Phase::Suspended, [Some(0), Some(0)]));
}

#[test]
fn pods_that_were_made_with_a_credential_that_has_changed_stay_until_they_are_replaced() {
    let with_key = |spec: &mut FlinkHaClusterSpec, value: &str| {
        spec.flink_configuration.insert("s3.secret-key".to_owned(), Scalar::Text(value.to_owned()));
        spec.flink_configuration
            .insert("execution.checkpointing.savepoint-dir".to_owned(), Scalar::Text("s3://b/s".to_owned()));
    };
    let deployed = changed(|spec| with_key(spec, "old")).spec;
    let (text, version) = (crate::cluster::application::definitions::text(&deployed), version(&deployed));
    let plan = |phase, value: &str| {
        let resource = changed(|spec| {
            with_key(spec, value);
            spec.job.iter_mut().for_each(|job| job.args = vec!["--other".to_owned()]);
        });
        let mut before = in_phase(phase);
        before.application.iter_mut().for_each(|application| {
            (application.deployed, application.stable) = (text.clone(), Some(text.clone()));
            application.version = version.clone();
            application.savepoint_request = Some("upgrade-1".to_owned());
        });
        let there = Observed { presence: Some(Presence::There(Vec::new())), ..nothing() };
        planned(&resource, &before, &there)
    };
    let kept = |plan: &Reconciliation| plan.rollout.as_ref().map(|rollout| rollout.keeps_pods).ok();
    let (same, rotated) = (plan(Phase::Savepointing, "old"), plan(Phase::Savepointing, "new"));
    assert_eq!((phase(&same), kept(&same)), (Phase::Savepointing, Some(false)));
    assert_eq!(same.desired.spec, deployed, "they are built as they were");
    assert_eq!((phase(&rotated), kept(&rotated)), (Phase::Savepointing, Some(true)));
    let going = plan(Phase::Upgrading, "new");
    assert_eq!((phase(&going), kept(&going)), (Phase::Upgrading, Some(false)), "none are to be there");
}
