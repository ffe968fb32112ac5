//! Periodic savepoints: at most one request at a time, none twice, and none that hurts the job.

use jiff::SignedDuration;

use super::*;
use crate::api::savepoints::{PeriodicSavepoints, Retain};
use crate::cluster::application::periodic::{causes, requested, shown, time_left};
use crate::flink::job_state::FlinkState;

const INTERVAL: i64 = 3600;

fn seconds(text: Option<&str>) -> Option<i64> {
    text?.strip_prefix("periodic-")?.parse().ok()
}

impl World {
    /// One whose job runs and takes savepoints.
    fn periodic(job: Value) -> Self {
        let mut savepoints = json!({ "savepoints": { "interval": "1h", "retain": { "count": 2, "age": "168h" } } });
        crate::cluster::merge::merge(&mut savepoints, job);
        let mut world = Self::running(savepoints);
        world.progress.state = Some(FlinkState::Running);
        world
    }

    fn request(&self) -> Option<&str> {
        requested(self.application())
    }

    fn progress(&self) -> PeriodicSavepoints {
        self.application().periodic_savepoints.clone().unwrap_or_default()
    }

    fn passes(&mut self, seconds: i64) {
        self.second += seconds - 1;
        self.step();
    }

    /// The leader notes the savepoint and answers.
    fn takes(&mut self) -> String {
        let id = self.request().unwrap_or_else(|| panic!("a request")).to_owned();
        let path = format!("s3://b/s/ns.demo/{id}/3/savepoint-00aa00-{}", self.second);
        let at = Timestamp::from_second(self.second).unwrap_or_default().to_string();
        let (job, taken) = (Some(self.job_id()), TakenSavepoint::default());
        self.savepoints.push(TakenSavepoint { id: id.clone(), job, path: path.clone(), at, ..taken });
        self.answers(&id, Ok(&path));
        self.step();
        path
    }
}

#[test]
fn one_is_asked_for_whenever_the_interval_has_passed_and_only_one_at_a_time() {
    let mut world = World::periodic(json!({}));
    world.step();
    assert_eq!((world.request(), world.decision.wake.is_some()), (None, true));
    world.passes(INTERVAL);
    let id = world.request().unwrap_or_else(|| panic!("a request")).to_owned();
    let asked = world.decision.request.clone().unwrap_or_else(|| panic!("a request"));
    assert_eq!((asked.id.as_str(), asked.stop), (id.as_str(), false));
    assert_eq!(asked.directory, format!("s3://b/s/ns.demo/{id}"));
    let retain = asked.retain.unwrap_or_else(|| panic!("what is kept"));
    assert_eq!((retain.count, retain.age_seconds, retain.in_use), (2, Some(168 * 3600), Vec::new()));
    world.passes(1000);
    assert_eq!(world.request(), Some(id.as_str()), "it is waited for");
    let path = world.takes();
    assert_eq!((world.request(), world.progress().failures), (None, 0));
    assert_eq!(world.application().savepoints.last().map(|one| one.path.clone()), Some(path));
    assert_eq!(world.application().last_savepoint, None, "nobody asked for it, and nothing goes back to it");
    world.passes(INTERVAL - 1100);
    assert_eq!(world.request(), None);
    world.passes(200);
    assert!(seconds(world.request()) > seconds(Some(&id)), "the interval counts from the request");
}

#[test]
fn without_an_interval_there_are_none_and_the_status_says_nothing() {
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    world.job().savepoints.interval = None;
    world.step();
    assert!(world.request().is_some(), "the one that was asked for is waited for");
    world.takes();
    world.step();
    world.passes(10 * INTERVAL);
    assert_eq!((world.request(), world.application().periodic_savepoints.clone()), (None, None));
}

#[test]
fn a_failure_is_told_and_tried_again_ever_later_and_a_success_ends_that() {
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    for (failures, wait) in [(1, 60), (2, 120), (3, 240), (4, 480)] {
        let id = world.request().unwrap_or_else(|| panic!("a request")).to_owned();
        world.answers(&id, Err("disk full"));
        world.step();
        assert_eq!((world.request(), world.progress().failures), (None, failures));
        let told: Vec<_> = causes(world.application()).collect();
        assert_eq!(told[0].reason, "PeriodicSavepointFailed");
        assert!(told[0].message.contains("disk full") && told[0].message.contains("spec.job.savepoints.interval"));
        assert_eq!((world.phase(), world.application().error.clone()), (Phase::Running, None), "the job runs on");
        world.passes(wait - 1);
        assert_eq!(world.request(), None, "{failures}");
        world.passes(1);
    }
    world.takes();
    assert_eq!((world.progress().failures, causes(world.application()).count()), (0, 0));
}

#[test]
fn the_time_to_the_next_try_grows_to_the_interval_or_an_hour() {
    let now = Timestamp::from_second(1_000_000).unwrap_or_default();
    let left = |interval: i64, failures| {
        let progress =
            PeriodicSavepoints { last: Some(crate::api::time::seconds(now)), failures, ..Default::default() };
        time_left(SignedDuration::from_secs(interval), &progress, now).as_secs()
    };
    assert_eq!([0, 1, 2, 7, 100, i64::MAX].map(|failures| left(86400, failures)), [86400, 60, 120, 3840, 86400, 86400]);
    assert_eq!([0, 1, 2, 100, -1].map(|failures| left(10, failures)), [10, 60, 120, 3600, 10]);
    let never = time_left(SignedDuration::from_secs(9), &PeriodicSavepoints::default(), now);
    assert_eq!(never, SignedDuration::ZERO);
}

#[test]
fn a_request_that_nobody_answers_is_given_up() {
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    world.passes(3599);
    assert!(world.request().is_some() && world.decision.wake.is_some());
    world.passes(1);
    assert_eq!((world.request(), world.progress().failures), (None, 1));
    assert!(world.progress().error.is_some_and(|error| error.contains("has not answered")));
}

#[test]
fn what_somebody_asks_for_comes_before_and_after_but_never_beside_it() {
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    world.job().savepoint_trigger_nonce = Some(7);
    world.step();
    assert!(world.request().is_some(), "the one in progress ends first");
    world.takes();
    assert_eq!(world.application().savepoint_request.as_deref(), Some("nonce-7-uid"));
    assert!(world.decision.request.as_ref().is_some_and(|request| request.retain.is_none()));
    world.passes(INTERVAL);
    assert_eq!(world.application().savepoint_request.as_deref(), Some("nonce-7-uid"), "it is due and waits");
    world.answers("nonce-7-uid", Ok("s3://b/7"));
    world.step();
    assert!(world.request().is_some());
    assert_eq!(world.application().last_savepoint.as_ref().map(|one| one.path.as_str()), Some("s3://b/7"));
}

#[test]
fn an_upgrade_or_a_suspension_takes_the_place_of_a_request_and_none_is_made_meanwhile() {
    for (mode, phase) in [("last-state", Phase::Upgrading), ("savepoint", Phase::Savepointing)] {
        let mut world = World::periodic(json!({ "upgradeMode": mode }));
        world.passes(INTERVAL);
        assert!(world.request().is_some());
        world.changes("2");
        assert_eq!(world.step(), phase, "{mode}");
        assert_eq!(world.request(), None);
        let stop = world.decision.request.as_ref().map(|request| (request.id.clone(), request.stop));
        assert_eq!(stop, (mode == "savepoint").then(|| ("upgrade-2-uid".to_owned(), true)));
        world.passes(10 * INTERVAL);
        assert_eq!((world.request(), world.phase()), (None, phase));
    }
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    world.job().state = JobState::Suspended;
    assert_eq!((world.step(), world.application().savepoint_request.clone()), (Phase::Suspending, None));
}

#[test]
fn none_is_asked_for_of_a_job_that_does_not_run() {
    let mut world = World::periodic(json!({}));
    for state in [Some(FlinkState::from("RESTARTING")), None] {
        world.progress.state = state;
        world.passes(3 * INTERVAL);
        assert_eq!(world.request(), None);
    }
    world.progress.state = Some(FlinkState::Running);
    world.progress.job = Some(JobId::from_number(77));
    world.step();
    assert_eq!(world.request(), None, "that is of another run");
    world.progress.job = Some(world.job_id());
    world.step();
    assert!(world.request().is_some());
}

#[test]
fn a_clock_that_is_set_back_delays_by_one_interval_at_most_and_no_id_comes_twice() {
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    let id = world.request().unwrap_or_else(|| panic!("a request")).to_owned();
    world.takes();
    world.second = 10;
    world.step();
    world.passes(INTERVAL + 1);
    assert!(world.request().is_some_and(|next| next != id), "{:?}", world.request());
    world.takes();
    // The same second again, of which the ledger knows.
    world.second -= 2 * INTERVAL;
    world.step();
    world.second = seconds(Some(&id)).unwrap_or_default() - 1;
    world.decision.application.periodic_savepoints = Some(PeriodicSavepoints {
        last: Some(crate::api::time::seconds(Timestamp::UNIX_EPOCH)),
        ..PeriodicSavepoints::default()
    });
    world.step();
    assert_eq!(seconds(world.request()), seconds(Some(&id)).map(|second| second + 1));
}

#[test]
fn a_lost_status_makes_none_sooner_because_the_ledger_knows_the_last() {
    let mut world = World::periodic(json!({}));
    world.passes(INTERVAL);
    world.takes();
    world.decision.application.periodic_savepoints = None;
    world.passes(INTERVAL - 100);
    assert_eq!(world.request(), None);
    world.decision.application.periodic_savepoints = None;
    world.passes(200);
    assert!(world.request().is_some(), "and none later");
}

#[test]
fn whatever_the_resource_refers_to_is_in_use() {
    let mut world = World::periodic(json!({}));
    let path = |number: u32| format!("s3://b/s/ns.demo/periodic-1/3/savepoint-{number}");
    let application = &mut world.decision.application;
    application.restored_from = Some(path(1));
    application.upgrades.push(crate::api::application::Upgrade { restored_from: Some(path(2)), ..Default::default() });
    application.stable = Some(json!({ "job": { "initialSavepointPath": path(3) } }).to_string());
    world.progress.before = Some(Before { job: JobId::from_number(1), checkpoint: Some(path(4)) });
    world.job().initial_savepoint_path = Some(path(5));
    world.second += INTERVAL;
    // It goes on in this step, so `stable` is what it was before.
    world.job().savepoints.retain = Some(Retain { count: 0, age: None });
    world.step();
    let retain = world.decision.request.as_ref().and_then(|request| request.retain.clone());
    let retain = retain.unwrap_or_else(|| panic!("what is kept"));
    assert_eq!(retain.count, 1, "the latest is always kept");
    assert_eq!(retain.in_use, [1, 2, 4, 5].map(path), "the definition that runs is the stable one now");
    world.decision.application.last_savepoint = Some(crate::api::application::Savepoint {
        path: "s3://b/nonce-1/savepoint-9".to_owned(),
        ..Default::default()
    });
    world.step();
    let again = world.decision.request.and_then(|request| request.retain).unwrap_or_default();
    assert_eq!(again.in_use, retain.in_use, "only what can be of a periodic one is told");
}

#[test]
fn the_status_lists_the_latest_that_are_there() {
    let taken = |number: i64| TakenSavepoint {
        id: format!("periodic-{number}"),
        path: number.to_string(),
        removing: number == 29,
        ..TakenSavepoint::default()
    };
    let listed = shown(&(0..30).map(taken).collect::<Vec<_>>());
    assert_eq!((listed.len(), listed[0].path.as_str(), listed[19].path.as_str()), (20, "9", "28"));
    let mut world = World::periodic(json!({}));
    world.savepoints = vec![TakenSavepoint { error: Some("no rights".to_owned()), ..taken(1) }];
    world.step();
    let told: Vec<_> = causes(world.application()).collect();
    assert!(told[0].reason == "SavepointNotRemoved" && told[0].message.contains("no rights"), "{told:?}");
    world.savepoints.clear();
    world.step();
    assert_eq!(world.application().savepoints.len(), 1, "a ledger that says nothing proves nothing");
}

/// Leaders answer, fail, die and stay silent; people ask for savepoints and upgrades; the clock jumps.
#[test]
fn whatever_happens_there_is_one_request_at_a_time_and_no_id_twice() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..200 {
        let mode = if random.bool() { "savepoint" } else { "last-state" };
        let mut world = World::periodic(json!({ "upgradeMode": mode }));
        let (mut asked, mut last): (Vec<String>, Option<String>) = (Vec::new(), None);
        for _ in 0..60 {
            world.second = (world.second + random.i64(-3000..6000)).max(0);
            match random.u8(0..8) {
                0 if world.request().is_some() => drop(world.takes()),
                1 => {
                    if let Some(id) = world.request().map(str::to_owned) {
                        world.answers(&id, Err("x"));
                    }
                }
                2 => world.job().savepoint_trigger_nonce = Some(random.i64(1..5)),
                3 => {
                    if let Some(id) =
                        world.application().savepoint_request.clone().filter(|id| id.starts_with("nonce-"))
                    {
                        world.answers(&id, Ok("s3://n"));
                    }
                }
                4 if random.u8(0..6) == 0 => world.changes("2"),
                5 => world.progress.state = Some(FlinkState::from("RESTARTING")),
                _ => world.progress.state = Some(FlinkState::Running),
            }
            world.step();
            let now = world.application().savepoint_request.clone();
            if let Some(id) = now.clone().filter(|id| id.starts_with("periodic-") && last.as_ref() != Some(id)) {
                assert!(!asked.contains(&id), "{id} was asked for before");
                assert_eq!(world.phase(), Phase::Running);
                asked.push(id);
            }
            if let Some(before) = last.filter(|id| id.starts_with("periodic-")) {
                let is_kept = now.as_ref() == Some(&before);
                let is_answered = world.progress.savepoint.as_ref().is_some_and(|answer| answer.id == before);
                let is_given_up = world.progress().failures > 0;
                assert!(
                    is_kept || is_answered || is_given_up || world.phase() != Phase::Running,
                    "{before} was dropped"
                );
            }
            last = now;
        }
    }
}
