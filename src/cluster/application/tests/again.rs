//! Tests a resource that is created again over what an earlier one has left.

use crate::ledger::application::Progress;
use std::sync::Arc;

use crate::cluster::application::tests::*;
use crate::cluster::rejection::Rejection;
use crate::ha_data::handover::{Stored, StoredState, judge};

const OURS: JobId = JobId::from_number(0xa);
const FORMER: JobId = JobId::from_number(0xb);

fn ledger(data: Value) -> Observed {
    let ledger =
        serde_json::from_value(json!({ "metadata": {}, "data": data })).unwrap_or_else(|error| panic!("{error}"));
    Observed { ledger: Some(Arc::new(ledger)), ..Observed::default() }
}

fn first(observed: &Observed) -> Result<Desired, Rejection> {
    let resource = fixture::application_resource();
    Desired::of(&resource, &FlinkHaClusterStatus::default(), observed, Timestamp::UNIX_EPOCH)
}

fn stored(cluster: &Value) -> Stored {
    Stored::in_config_map(cluster).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn applied_again_with_another_definition_it_starts_above_what_the_ledger_tells() {
    let mut world = World::running(json!({}));
    world.changes("2");
    world.step();
    world.pods_go();
    world.comes_up();
    let run = world.application().job_id.clone();
    world.changes("3");
    let again = world.decide(None).application;
    assert_eq!((again.job_id.as_str(), again.starts), (run.as_str(), world.progress.start + 1));
    assert_ne!(again.version, world.progress.version);
    world.ends("Finished");
    assert_eq!(world.decide(None).application.starts, world.progress.start + 1, "a new run over an old ledger too");
}

/// Somebody has edited the status or the ledger: the operator has other clusters to look after.
#[test]
fn no_number_in_a_status_or_a_ledger_makes_the_operator_count_to_it() {
    let mut world = World::running(json!({ "upgradeMode": "stateless" }));
    let application = &mut world.decision.application;
    (application.runs, application.starts) = (i64::MAX, i64::MAX);
    application.previous_job_id = Some("of no run of this resource".to_owned());
    world.progress.start = i64::MAX;
    world.changes("2");
    world.step();
    world.pods_go();
    assert!(world.application().replaces.len() <= 1001, "{}", world.application().replaces.len());
    assert_eq!(world.application().starts, i64::MAX);
}

#[test]
fn what_cannot_be_read_is_not_absent_and_nothing_begins() {
    let progress = json!({ "job": FORMER, "version": "v1", "start": 2 }).to_string();
    let jobs = json!([{ "id": FORMER, "state": "Running" }]).to_string();
    for data in
        [json!({ "jobs": jobs, "application": "{" }), json!({ "jobs": "nothing of ours", "application": progress })]
    {
        assert!(first(&ledger(data.clone())).is_err(), "{data}");
    }
    let sound = first(&ledger(json!({ "jobs": jobs, "application": progress })));
    assert!(sound.is_ok_and(|desired| desired.run().is_some()));
}

/// Somebody has edited the status: the run that goes on stands in the ledger.
#[test]
fn a_status_with_a_run_that_flink_cannot_have_counts_as_none() {
    let progress = json!({ "job": FORMER, "version": "v1", "start": 2 }).to_string();
    let jobs = json!([{ "id": FORMER, "state": "Running" }]).to_string();
    let observed = ledger(json!({ "jobs": jobs, "application": progress }));
    let resource = fixture::application_resource();
    let edited = Application { job_id: "x".to_owned(), ..Application::default() };
    let status = FlinkHaClusterStatus { application: Some(edited), ..FlinkHaClusterStatus::default() };
    let desired = Desired::of(&resource, &status, &observed, Timestamp::UNIX_EPOCH);
    let run = desired.unwrap_or_else(|rejection| panic!("{rejection}")).run();
    assert_eq!(run.map(|run| (run.job_id, run.start)), Some((FORMER, 3)));
}

#[test]
fn a_session_cluster_whose_ledger_cannot_be_read_stays_as_it_is() {
    for (key, text) in [("jobs", "?"), ("haData", "{")] {
        let observed = ledger(json!({ key: text }));
        let desired =
            Desired::of(&fixture::resource(), &FlinkHaClusterStatus::default(), &observed, Timestamp::UNIX_EPOCH);
        let cause = desired.err().unwrap_or_else(|| panic!("{key} counts as nothing")).cause;
        assert!(cause.reason == "LedgerUnreadable" && cause.message.contains(key), "{cause:?}");
    }
    let sound = ledger(json!({ "jobs": "[]" }));
    let desired = Desired::of(&fixture::resource(), &FlinkHaClusterStatus::default(), &sound, Timestamp::UNIX_EPOCH);
    assert!(desired.is_ok());
}

#[test]
fn pods_of_an_earlier_start_adopt_nothing() {
    let run = Run::new(OURS, "v1", 1);
    let cluster = json!({
        "metadata": { "annotations": { "flinkha.dev/application": format!("{OURS}/v2"), "flinkha.dev/application-start": "2" } },
        "data": { format!("executionPlan-{OURS}"): "x" },
    });
    let adoption = judge(&run, &stored(&cluster), &Progress::default(), &[], &[]);
    assert!(!matches!(adoption, StoredState::Supersede(_) | StoredState::Ours), "{adoption:?}");
}

#[test]
fn a_run_that_the_operator_does_not_name_is_not_superseded() {
    let run = Run::new(OURS, "v1", 1);
    let cluster = json!({
        "metadata": { "annotations": { "flinkha.dev/application": format!("{FORMER}/v1") } },
        "data": { format!("executionPlan-{FORMER}"): "x" },
    });
    let adoption = judge(&run, &stored(&cluster), &Progress::default(), &[], &[]);
    assert!(!matches!(adoption, StoredState::Supersede(_)), "{adoption:?}");
}

#[test]
fn the_run_of_the_later_start_is_the_last_one_and_it_names_what_it_was_about_to_replace() {
    let progress = |job: JobId, start: i64| Progress { job: Some(job), start, ..Progress::default() };
    let marked = |start: Option<i64>| Stored {
        mark: Some(format!("{FORMER}/v1")),
        start,
        plans: [FORMER].into(),
        ..Stored::default()
    };
    let find = |progress: &Progress, jobs: &[crate::ledger::jobs::Job], stored: &Stored| {
        let found = super::super::again::find(progress, jobs, Some(stored));
        (found.retained, found.has_state, found.starts, found.replaces)
    };
    let (ours, former) = (Some(OURS), Some(FORMER));
    let lost = find(&Progress::default(), &[], &marked(Some(4)));
    assert_eq!(lost, (former, true, 4, Vec::new()), "the ledger was deleted");
    assert_eq!(find(&Progress::default(), &[], &marked(None)), (former, true, 0, Vec::new()));
    assert_eq!(
        find(&progress(OURS, 3), &[], &marked(Some(4))),
        (former, true, 4, Vec::new()),
        "put back from an old copy"
    );
    assert_eq!(find(&progress(OURS, 5), &[], &marked(Some(4))), (ours, false, 5, vec![FORMER]));
    assert_eq!(
        find(&progress(OURS, 5), &[], &marked(None)),
        (ours, false, 5, Vec::new()),
        "which was later is not known"
    );
    let ended = crate::ledger::jobs::Job { ended: Some("then".to_owned()), ..crate::ledger::jobs::Job::of(FORMER) };
    assert_eq!(find(&progress(FORMER, 4), &[ended], &marked(Some(4))), (None, false, 4, Vec::new()));
}

#[test]
fn a_run_that_was_stopped_with_a_savepoint_goes_on_from_it_when_the_resource_is_applied_again() {
    for has_tombstone in [true, false] {
        let mut world = World::running(json!({ "upgradeMode": "savepoint" }));
        // Of the resource before, which had another UID.
        let run = FORMER;
        world.progress.job = Some(run);
        world.answers("suspend-2", Ok("s3://b/s/y"));
        if let Some(answer) = &mut world.progress.savepoint {
            answer.stops = Some(run);
        }
        let ended = has_tombstone.then(|| "then".to_owned());
        world.jobs = vec![crate::ledger::jobs::Job { ended, ..crate::ledger::jobs::Job::of(run) }];
        let again = world.decide(None).application;
        assert_ne!(again.job_id, run.to_string(), "its job has ended");
        assert_eq!(again.restored_from.as_deref(), Some("s3://b/s/y"));
        assert_eq!(again.starts, world.progress.start + 1);
        assert_eq!(again.replaces.contains(&run.to_string()), !has_tombstone);
        let mut beside_pods = World { shows_pods: true, ..World::new(json!({})) };
        (beside_pods.progress, beside_pods.jobs) = (world.progress.clone(), world.jobs.clone());
        beside_pods.decision = beside_pods.decide(None);
        assert_eq!((beside_pods.phase(), beside_pods.pods_go()), (Phase::Upgrading, Phase::Starting));
        assert_eq!(beside_pods.application().replaces, again.replaces, "also when it waits for pods that go");
        let ledger = crate::cluster::ledger_data::LedgerData {
            application: Some(world.progress.clone()),
            jobs: world.jobs.clone(),
            ..Default::default()
        };
        use crate::api::v1alpha1::{OnDelete, Provider};
        for (on_delete, kept) in [(OnDelete::Retain, true), (OnDelete::Delete, false)] {
            let plan = crate::cluster::deletion::DeletionPlan::default();
            assert_eq!(crate::cluster::deletion::keeps_ledger(on_delete, Provider::Kubernetes, &plan, &ledger), kept);
        }
    }
    let mut later = World::running(json!({}));
    later.answers("suspend-2", Ok("s3://b/s/y"));
    if let Some(answer) = &mut later.progress.savepoint {
        answer.stops = Some(FORMER);
    }
    assert_eq!(later.decide(None).application.job_id, later.application().job_id, "another run has begun since");
}

#[test]
fn the_runs_in_whose_place_one_begins_are_named_while_its_pods_stay() {
    let mut world = World::running(json!({ "upgradeMode": "stateless" }));
    let first = world.application().job_id.clone();
    assert!(world.application().replaces.is_empty());
    world.changes("2");
    world.step();
    world.pods_go();
    let second = world.application().job_id.clone();
    assert_eq!(world.application().replaces, std::slice::from_ref(&first));
    world.changes("3");
    world.step();
    world.pods_go();
    assert_eq!(world.application().replaces, [first.clone(), second.clone()], "the second may have begun");
    world.comes_up();
    assert_eq!(world.application().previous_job_id, None);
    assert_eq!(world.application().replaces, [first, second], "the pods are not changed when it has come up");
    world.job().upgrade_mode = crate::api::application::UpgradeMode::LastState;
    world.job().state = JobState::Suspended;
    world.step();
    world.pods_go();
    world.job().state = JobState::Running;
    assert_eq!(world.step(), Phase::Starting);
    assert_eq!(world.application().replaces.len(), 0);
}

#[test]
fn what_an_earlier_operator_decided_is_put_right_once() {
    let mut world = World::new(json!({}));
    world.progress = Progress { job: Some(world.job_id()), start: 7, ..Progress::default() };
    assert_eq!(world.step(), Phase::Starting);
    assert_eq!(world.application().starts, 8);
    assert_eq!(world.step(), Phase::Starting);
    assert_eq!(world.application().starts, 8);
    world.decision.application.previous_job_id = Some(FORMER.to_string());
    world.step();
    assert_eq!(world.application().replaces, [FORMER.to_string()]);
}

#[test]
fn the_data_of_the_znode_is_read_in_both_forms() {
    use crate::ha_data::handover::{parse_znode, znode_of};
    let run = Run::new(OURS, "v1", 3);
    let mark = Some(format!("{OURS}/v1"));
    assert_eq!(parse_znode(znode_of(&run).as_bytes()), Some((mark.clone(), Some(3))));
    assert_eq!(parse_znode(format!("{OURS}/v1").as_bytes()), Some((mark, None)));
    assert_eq!(parse_znode(b""), Some((None, None)));
    for other in ["a/b/c", "a", "a/b/1/d", "\u{0}"] {
        assert_eq!(parse_znode(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn what_the_mark_alone_tells_of_is_left_alone_and_hinders_nobody() {
    let run = Run::new(OURS, "v1", 1);
    let stored = Stored { mark: Some(format!("{FORMER}/v1")), ..Stored::default() };
    let StoredState::Supersede(plan) = judge(&run, &stored, &Progress::default(), &[], &[]) else {
        panic!("nothing is stored")
    };
    assert!(plan.superseded.is_empty() && plan.from.is_none());
    let begun = Progress { start: 2, ..Progress::default() };
    assert_eq!(judge(&run, &stored, &begun, &[], &[]), StoredState::Later(2), "by the ledger too");
}
