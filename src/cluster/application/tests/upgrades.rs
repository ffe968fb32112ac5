//! Tests changes of a running application: in every mode, refused, rolled back, halted.

use crate::api::application::UpgradeMode;
use crate::cluster::application::tests::*;
use crate::ledger::jobs::RecordedState;

#[test]
fn an_upgrade_from_the_last_state_keeps_the_run_and_never_has_pods_of_both_versions() {
    let mut world = World::running(json!({}));
    let run = world.application().job_id.clone();
    world.changes("2");
    assert_eq!(world.step(), Phase::Upgrading);
    assert_eq!((world.decision.stopped, world.deployed_argument().as_str()), (true, "1"));
    assert_eq!(world.step(), Phase::Upgrading);
    assert_eq!(world.deployed_argument().as_str(), "1");
    assert_eq!(world.pods_go(), Phase::Starting);
    assert_eq!(world.deployed_argument().as_str(), "2");
    assert!(!world.decision.stopped);
    world.comes_up();
    assert_eq!((world.application().job_id.as_str(), world.last_upgrade().0), (run.as_str(), "Succeeded"));
}

#[test]
fn changes_that_need_no_new_run_are_taken_over_as_they_come() {
    let mut world = World::running(json!({}));
    world.spec.job_manager.replicas = 5;
    assert_eq!(world.step(), Phase::Running);
    let deployed: FlinkHaClusterSpec =
        serde_json::from_str(&world.application().deployed).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(deployed.job_manager.replicas, 5);
}

#[test]
fn a_version_that_does_not_come_up_is_taken_back_once() {
    let mut world = World::running(json!({}));
    let run = world.application().job_id.clone();
    world.changes("2");
    world.step();
    world.pods_go();
    world.pods = true;
    assert_eq!(world.step(), Phase::Starting);
    world.second += 60;
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.pods_go(), Phase::Starting);
    assert_eq!((world.deployed_argument().as_str(), world.application().job_id.as_str()), ("1", run.as_str()));
    world.comes_up();
    assert_eq!(world.last_upgrade(), ("RolledBack", "not all tasks ran within 60s"));
    assert_eq!(world.step(), Phase::Running, "the same definition is not tried again");
    assert_eq!(conditions::cause(world.application(), None).map(|cause| cause.reason), Some("UpgradeRolledBack"));
    world.changes("3");
    assert_eq!(world.step(), Phase::Upgrading, "another one is");
}

#[test]
fn a_savepoint_does_not_hide_why_a_definition_was_taken_back() {
    let mut world = World::running(json!({}));
    world.changes("2");
    world.step();
    world.pods_go();
    world.second += 60;
    world.step();
    world.pods_go();
    world.comes_up();
    let told = |world: &World| conditions::cause(world.application(), None).map(|cause| (cause.reason, cause.message));
    let taken_back = told(&world);
    assert!(taken_back.as_ref().is_some_and(|(reason, _)| *reason == "UpgradeRolledBack"));
    world.job().savepoint_trigger_nonce = Some(2);
    world.step();
    world.answers("nonce-2-uid", Ok("s3://b/s/y"));
    world.step();
    assert_eq!(told(&world), taken_back);
    world.job().savepoint_trigger_nonce = Some(3);
    world.step();
    world.answers("nonce-3-uid", Err("no space"));
    world.step();
    let both = told(&world).map(|(_, message)| message).unwrap_or_default();
    assert!(
        both.contains("not all tasks ran") && both.ends_with("savepointTriggerNonce 3: no savepoint: no space"),
        "{both}"
    );
}

#[test]
fn a_main_method_that_throws_is_not_waited_for() {
    let mut world = World::running(json!({}));
    let run = world.application().job_id.clone();
    world.changes("2");
    world.step();
    world.pods_go();
    world.begins(Some((&run, None)));
    world.progress.error = Some("x.Y: no such argument".to_owned());
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.last_upgrade(), ("RolledBack", "x.Y: no such argument"));
    assert_eq!(world.application().job_id, run, "its checkpoints are still in its HA data");
    let mut first = World::new(json!({}));
    first.begins(None);
    first.progress.error = Some("x.Y: no such argument".to_owned());
    assert_eq!(first.step(), Phase::Starting, "there is nothing to go back to");
}

#[test]
fn a_cause_that_does_not_go_by_itself_is_not_waited_for_until_the_deadline() {
    let mut world = World::running(json!({ "upgradeDeadline": "10m" }));
    world.changes("2");
    world.step();
    world.pods_go();
    world.causes = vec![Cause { reason: "ImagePullFailed", message: "no image".to_owned() }];
    assert_eq!(world.step(), Phase::Starting);
    world.second += 30;
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.last_upgrade(), ("RolledBack", "no image"));
}

#[test]
fn if_going_back_does_not_help_nothing_more_is_tried() {
    let mut world = World::running(json!({}));
    world.changes("2");
    world.step();
    world.pods_go();
    world.second += 60;
    world.step();
    world.pods_go();
    world.second += 60;
    assert_eq!(world.step(), Phase::Halted);
    assert_eq!((world.last_upgrade().0, world.decision.stopped), ("Failed", false));
    world.comes_up();
}

#[test]
fn a_version_whose_job_fails_at_once_is_taken_back_from_the_checkpoint_that_it_found() {
    let mut world = World::running(json!({}));
    let run = world.application().job_id.clone();
    world.changes("2");
    world.step();
    world.pods_go();
    world.begins(Some((&run, Some("s3://b/chk-7"))));
    world.ends("Failed");
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.last_upgrade(), ("RolledBack", "x.Y: why"));
    assert_ne!(world.application().job_id, run, "that run has a tombstone");
    assert_eq!(world.application().restored_from.as_deref(), Some("s3://b/chk-7"));
    assert_eq!(world.pods_go(), Phase::Starting);
    assert_eq!(world.deployed_argument().as_str(), "1");
    world.comes_up();
}

#[test]
fn state_is_never_dropped_to_go_back() {
    let mut world = World::running(json!({}));
    let run = world.application().job_id.clone();
    world.changes("2");
    world.step();
    world.pods_go();
    world.begins(Some((&run, None)));
    world.ends("Failed");
    assert_eq!(world.step(), Phase::Halted);
    assert_eq!(world.last_upgrade().0, "Failed");
}

#[test]
fn a_savepoint_is_complete_and_its_job_ended_before_any_pod_goes() {
    let mut world = World::running(json!({ "upgradeMode": "savepoint" }));
    let run = world.application().job_id.clone();
    world.changes("2");
    assert_eq!(world.step(), Phase::Savepointing);
    assert!(!world.decision.stopped);
    let request = world.decision.request.clone().unwrap_or_else(|| panic!("a request"));
    assert_eq!(
        (request.directory.as_str(), request.stop, request.job.as_str()),
        ("s3://b/s/ns.demo/upgrade-2-uid", true, run.as_str())
    );
    world.answers("upgrade-2-uid", Ok("s3://b/s/x"));
    assert_eq!(world.step(), Phase::Savepointing);
    assert!(!world.decision.stopped);
    world.ends("Finished");
    assert_eq!(world.step(), Phase::Upgrading);
    assert!(world.decision.stopped);
    assert_ne!(world.application().job_id, run);
    assert_eq!(world.application().restored_from.as_deref(), Some("s3://b/s/x"));
    assert_eq!(world.pods_go(), Phase::Starting);
    world.second += 60;
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.application().restored_from.as_deref(), Some("s3://b/s/x"), "the same state");
}

#[test]
fn of_several_definitions_that_did_not_come_up_the_run_before_all_of_them_comes_back() {
    let mut world = World::running(json!({ "upgradeMode": "stateless" }));
    let run = world.application().job_id.clone();
    for change in ["2", "3"] {
        world.changes(change);
        assert_eq!(world.step(), Phase::Upgrading);
        assert_eq!(world.pods_go(), Phase::Starting);
        world.pods = true;
    }
    world.second += 60;
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.application().job_id.as_str(), run.as_str());
}

#[test]
fn without_a_savepoint_the_job_runs_on_unchanged() {
    let mut world = World::running(json!({ "upgradeMode": "savepoint" }));
    world.changes("2");
    world.step();
    world.answers("upgrade-2-uid", Err("not writable"));
    assert_eq!(world.step(), Phase::Running);
    assert_eq!(world.last_upgrade(), ("Refused", "not writable"));
    assert_eq!(world.step(), Phase::Running);
    assert_eq!(world.deployed_argument().as_str(), "1");
    world.job().state = JobState::Suspended;
    world.generation += 1;
    assert_eq!(world.step(), Phase::Savepointing);
    world.answers("suspend-3-uid", Err("not writable"));
    assert_eq!(world.step(), Phase::Running);
    assert_eq!(world.step(), Phase::Running, "not suspended without it");
}

#[test]
fn a_suspension_that_failed_under_an_earlier_operator_is_not_tried_again() {
    for (is_of_this_run, phase) in [(true, Phase::Running), (false, Phase::Savepointing)] {
        let mut world = World::running(json!({ "upgradeMode": "savepoint" }));
        let stops = is_of_this_run.then(|| world.job_id());
        world.answers("suspend-2", Err("not writable"));
        world.progress.savepoint.iter_mut().for_each(|answer| answer.stops = stops);
        world.job().state = JobState::Suspended;
        world.generation += 1;
        assert_eq!(world.step(), phase);
    }
}

#[test]
fn a_job_that_ends_while_it_is_being_stopped_has_ended() {
    let mut world = World::running(json!({ "upgradeMode": "savepoint" }));
    world.changes("2");
    world.step();
    world.answers("upgrade-2-uid", Err("the job ended before the savepoint was complete"));
    world.ends("Finished");
    assert_eq!(world.step(), Phase::Ending);
}

#[test]
fn stateless_is_another_run_and_goes_back_to_the_one_before_if_that_is_still_whole() {
    let mut world = World::running(json!({ "upgradeMode": "stateless" }));
    let run = world.application().job_id.clone();
    world.changes("2");
    world.step();
    assert!(world.application().job_id != run && world.application().restored_from.is_none());
    world.pods_go();
    world.second += 60;
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.application().job_id.as_str(), run.as_str());
    world.pods_go();
    world.comes_up();
    world.changes("3");
    world.step();
    world.pods_go();
    world.begins(Some((&run, Some("s3://b/chk-9"))));
    let superseded = world.jobs.iter_mut().find(|job| job.id == run).unwrap_or_else(|| panic!("a job"));
    (superseded.state, superseded.ended) = (RecordedState::Superseded, Some("then".to_owned()));
    world.second += 60;
    assert_eq!(world.step(), Phase::RollingBack);
    assert_eq!(world.application().restored_from.as_deref(), Some("s3://b/chk-9"));
    assert_ne!(world.application().job_id, run, "the run before was superseded");
}

#[test]
fn a_roll_back_has_the_credentials_of_the_present_spec_and_does_not_begin_without_them() {
    use crate::api::v1alpha1::Scalar;
    let set = |world: &mut World, value: Option<&str>| {
        let configuration = &mut world.spec.flink_configuration;
        match value {
            Some(value) => {
                drop(configuration.insert("s3.secret-key".to_owned(), Scalar::Text(value.to_owned())));
            }
            None => drop(configuration.remove("s3.secret-key")),
        }
    };
    for present in [Some("new"), None] {
        let mut world = World::new(json!({}));
        set(&mut world, Some("old"));
        world.decision = world.decide(None);
        world.comes_up();
        assert!(!world.application().deployed.contains("old") && world.application().deployed.contains("null"));
        set(&mut world, present);
        world.changes("2");
        assert_eq!(world.step(), Phase::Upgrading);
        assert_eq!(world.pods_go(), Phase::Starting);
        world.pods = true;
        world.second += 60;
        if present.is_none() {
            assert_eq!(world.step(), Phase::Starting, "it keeps trying");
            let told: Vec<_> = conditions::causes(world.application(), &world.spec, None).collect();
            assert_eq!(told.iter().map(|cause| cause.reason).collect::<Vec<_>>(), ["DefinitionIncomplete"]);
            continue;
        }
        assert_eq!(world.step(), Phase::RollingBack);
        assert_eq!(world.pods_go(), Phase::Starting);
        let deployed = definitions::Definition::read(&world.application().deployed, &world.spec);
        let deployed = deployed.ok().and_then(|deployed| deployed.complete()).unwrap_or_else(|| panic!("complete"));
        assert_eq!(deployed.flink_configuration["s3.secret-key"], Scalar::Text("new".to_owned()));
        assert_eq!(deployed.job.map(|job| job.args), Some(vec!["1".to_owned()]));
    }
}

#[test]
fn the_last_state_of_another_version_of_flink_is_refused_before_the_job_stops_and_a_savepoint_is_the_way() {
    let mut world = World::running(json!({}));
    (world.led_by, world.spec.flink_version) = (FlinkVersion::of("1.20.5"), Some("2.3.0".to_owned()));
    world.changes("2");
    assert_eq!((world.step(), world.decision.stopped), (Phase::Running, false));
    let told = |world: &World| conditions::cause(world.application(), None).map(|cause| (cause.reason, cause.message));
    let refused = told(&world);
    let (reason, message) = refused.clone().unwrap_or_default();
    assert_eq!((reason, world.last_upgrade().0), ("UpgradeRefused", "Refused"));
    for part in ["the job runs on unchanged", "Flink 1.20.5", "Flink 2.3.0", "spec.job.upgradeMode: savepoint"] {
        assert!(message.contains(part), "{part} not in {message}");
    }
    assert_eq!((world.step(), world.application().upgrades.len()), (Phase::Running, 1), "it is not tried again");
    world.job().savepoint_trigger_nonce = Some(2);
    world.step();
    world.answers("nonce-2-uid", Ok("s3://b/s/y"));
    world.step();
    assert_eq!(told(&world), refused, "a savepoint does not hide it");
    let mut corrected = World { decision: world.decision.clone(), ..World::running(json!({})) };
    (corrected.led_by, corrected.spec.flink_version) = (FlinkVersion::of("1.20.5"), Some("1.20".to_owned()));
    corrected.job().args = vec!["2".to_owned()];
    corrected.job().savepoint_trigger_nonce = Some(2);
    assert_eq!(corrected.step(), Phase::Upgrading, "the declared version was wrong");
    world.job().upgrade_mode = UpgradeMode::Savepoint;
    assert_eq!(world.step(), Phase::Savepointing);
}

#[test]
fn a_version_of_flink_that_is_not_known_refuses_nothing_and_one_that_the_gateways_refuse_is_taken_back_soon() {
    for (led_by, declared) in [(None, Some("2.3.0")), (Some("2.2.1"), None), (Some("2.2.1"), Some("2.3"))] {
        let mut world = World::running(json!({ "upgradeDeadline": "10m" }));
        world.led_by = led_by.and_then(FlinkVersion::of);
        world.spec.flink_version = declared.map(str::to_owned);
        world.changes("2");
        assert_eq!(world.step(), Phase::Upgrading, "{led_by:?} {declared:?}");
        world.pods_go();
        world.causes = vec![Cause { reason: "UpgradeRefused", message: "not known".to_owned() }];
        world.second += 30;
        assert_eq!(world.step(), Phase::RollingBack);
        assert_eq!(world.last_upgrade(), ("RolledBack", "not known"));
    }
}
