//! Versions and runs, and the life of an application step by step.

mod again;
mod last_savepoint;
mod periodic;
mod upgrades;

use crate::ledger::application::Before;
use crate::ledger::application::Progress;
use crate::ledger::application::SavepointAnswer;
use serde_json::{Value, json};

use crate::api::application::{JobSpec, JobState};
use crate::api::v1alpha1::Scalar;
use crate::cluster::application::*;
use crate::cluster::cause::Cause;
use crate::cluster::tests as fixture;
use crate::flink::version::FlinkVersion;
use crate::ledger::jobs;
use crate::ledger::savepoints::TakenSavepoint;

/// A resource, what is seen of it, and what was decided last.
struct World {
    spec: FlinkHaClusterSpec,
    generation: i64,
    second: i64,
    pods: bool,
    shows_pods: bool,
    progress: Progress,
    jobs: Vec<jobs::Job>,
    savepoints: Vec<TakenSavepoint>,
    causes: Vec<Cause>,
    led_by: Option<FlinkVersion>,
    decision: Decision,
}

impl World {
    fn new(job: Value) -> Self {
        let mut spec = fixture::resource().spec;
        let mut json = json!({ "jarURI": "local:///app.jar", "args": ["1"], "upgradeDeadline": "60s" });
        crate::cluster::merge::merge(&mut json, job);
        spec.job = Some(serde_json::from_value(json).unwrap_or_else(|error| panic!("{error}")));
        spec.flink_configuration
            .insert("execution.checkpointing.savepoint-dir".to_owned(), Scalar::Text("s3://b/s/".to_owned()));
        let (progress, decision) = (Progress::default(), Decision::default());
        let mut world = Self {
            spec,
            generation: 1,
            second: 0,
            pods: true,
            shows_pods: false,
            progress,
            jobs: Vec::new(),
            savepoints: Vec::new(),
            causes: Vec::new(),
            led_by: None,
            decision,
        };
        world.decision = world.decide(None);
        world
    }

    /// One that runs.
    fn running(job: Value) -> Self {
        let mut world = Self::new(job);
        world.comes_up();
        world
    }

    fn decide(&self, before: Option<&Application>) -> Decision {
        let inputs = Inputs {
            uid: "uid",
            generation: self.generation,
            own_directory: "ns.demo",
            pods: self.pods,
            shows_pods: self.shows_pods,
            progress: &self.progress,
            jobs: &self.jobs,
            savepoints: &self.savepoints,
            stored: None,
            causes: &self.causes,
            led_by: self.led_by.as_ref(),
            now: Timestamp::from_second(self.second).unwrap_or_default(),
        };
        lifecycle::step(&self.spec, self.spec.job.as_ref().unwrap_or_else(|| panic!("a job")), before, &inputs)
    }

    fn step(&mut self) -> Phase {
        self.second += 1;
        let before = self.decision.application.clone();
        self.decision = self.decide(Some(&before));
        assert_eq!(self.decide(Some(&before)), self.decision, "a step can be made again");
        self.phase()
    }

    fn phase(&self) -> Phase {
        self.decision.application.phase
    }

    fn application(&self) -> &Application {
        &self.decision.application
    }

    fn job(&mut self) -> &mut JobSpec {
        self.spec.job.as_mut().unwrap_or_else(|| panic!("a job"))
    }

    /// Its leader says so.
    fn begins(&mut self, before: Option<(&str, Option<&str>)>) {
        let Application { version, starts, .. } = self.application().clone();
        let job = self.job_id();
        let before = before.map(|(job, checkpoint)| Before { job: id(job), checkpoint: checkpoint.map(str::to_owned) });
        self.progress = Progress {
            job: Some(job),
            version,
            before,
            start: starts,
            savepoint: self.progress.savepoint.clone(),
            ..Progress::default()
        };
        if self.jobs.iter().all(|known| known.id != job) {
            self.jobs.push(jobs::Job::of(job));
        }
    }

    fn job_id(&self) -> JobId {
        id(&self.application().job_id)
    }

    fn comes_up(&mut self) {
        self.pods = true;
        self.begins(None);
        self.progress.up = Some("then".to_owned());
        assert_eq!(self.step(), Phase::Running);
    }

    fn changes(&mut self, argument: &str) {
        self.generation += 1;
        self.job().args = vec![argument.to_owned()];
    }

    /// The pods go when they are told to.
    fn pods_go(&mut self) -> Phase {
        assert!(self.decision.stopped);
        self.pods = false;
        self.step()
    }

    fn ends(&mut self, state: &str) {
        let (id, now) = (self.job_id(), Timestamp::from_second(self.second).unwrap_or_default().to_string());
        let job = self.jobs.iter_mut().find(|job| job.id == id).unwrap_or_else(|| panic!("a job"));
        (job.state, job.ended, job.collected) = (state.into(), Some(now.clone()), Some(now));
        job.cause = (state == "Failed").then(|| "x.Y: why".to_owned());
    }

    fn answers(&mut self, id: &str, answer: Result<&str, &str>) {
        let (path, error) = (answer.ok().map(str::to_owned), answer.err().map(str::to_owned));
        self.progress.savepoint =
            Some(SavepointAnswer { id: id.to_owned(), path, error, ..SavepointAnswer::default() });
    }

    fn deployed_argument(&self) -> String {
        let spec: FlinkHaClusterSpec =
            serde_json::from_str(&self.application().deployed).unwrap_or_else(|error| panic!("{error}"));
        spec.job.map(|job| job.args.concat()).unwrap_or_default()
    }

    fn last_upgrade(&self) -> (&str, &str) {
        let upgrade = self.application().upgrades.last().unwrap_or_else(|| panic!("an upgrade"));
        (upgrade.result.as_str(), upgrade.why.as_deref().unwrap_or_default())
    }
}

fn id(text: &str) -> JobId {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_job_that_finishes_loses_its_pods_when_nothing_is_left_of_its_data() {
    let mut world = World::running(json!({}));
    world.ends("Finished");
    let index = world.jobs.len() - 1;
    world.jobs[index].collected = None;
    assert_eq!(world.step(), Phase::Ending);
    assert!(!world.decision.stopped, "its HA data is still being removed, by the leader");
    world.jobs[index].collected = Some("now".to_owned());
    world.step();
    assert_eq!(world.pods_go(), Phase::Ended);
    assert!(world.decision.clean);
    world.changes("2");
    assert_eq!(world.step(), Phase::Ended);
    assert!(world.decision.stopped, "the end is absorbing");
}

#[test]
fn a_job_whose_data_cannot_be_removed_loses_its_pods_after_a_while() {
    let mut world = World::running(json!({}));
    world.ends("Failed");
    let index = world.jobs.len() - 1;
    world.jobs[index].collected = None;
    assert_eq!(world.step(), Phase::Ending);
    assert!(!world.decision.stopped);
    world.second += 100;
    world.step();
    assert_eq!(world.pods_go(), Phase::Ended);
    assert_eq!(
        (world.application().result.as_deref(), world.application().error.as_deref()),
        (Some("Failed"), Some("x.Y: why"))
    );
}

#[test]
fn a_resource_whose_job_has_ended_is_deleted_when_its_time_is_over() {
    let mut world = World::running(json!({}));
    world.spec.ttl_seconds_after_finished = Some(10);
    world.ends("Finished");
    world.step();
    assert_eq!(world.pods_go(), Phase::Ended);
    assert!(!world.decision.delete && world.decision.wake.is_some());
    world.second += 10;
    world.step();
    assert!(world.decision.delete);
}

#[test]
fn suspended_jobs_have_no_pods_and_go_on_where_they_were() {
    let mut world = World::running(json!({}));
    let run = world.application().job_id.clone();
    world.job().state = JobState::Suspended;
    assert_eq!(world.step(), Phase::Suspending);
    assert!(world.decision.stopped);
    assert_eq!(world.pods_go(), Phase::Suspended);
    assert_eq!(world.step(), Phase::Suspended);
    assert!(world.decision.stopped);
    world.job().state = JobState::Running;
    assert_eq!(world.step(), Phase::Starting);
    assert_eq!((world.decision.stopped, world.application().job_id.as_str()), (false, run.as_str()));
    world.comes_up();
}

#[test]
fn a_new_nonce_takes_a_savepoint_beside_the_job_and_the_first_one_does_not() {
    let mut world = World::running(json!({ "savepointTriggerNonce": 1 }));
    assert_eq!(world.decision.request, None);
    world.job().savepoint_trigger_nonce = Some(2);
    assert_eq!(world.step(), Phase::Running);
    assert!(world.decision.request.as_ref().is_some_and(|request| request.id == "nonce-2-uid" && !request.stop));
    world.answers("nonce-2-uid", Ok("s3://b/s/y"));
    world.step();
    assert_eq!(world.decision.request, None);
    assert_eq!(
        world.application().last_savepoint.as_ref().map(|savepoint| savepoint.path.as_str()),
        Some("s3://b/s/y")
    );
}

#[test]
fn an_answer_to_a_former_resource_of_this_name_is_none_to_this_one() {
    for former in ["nonce-2", "nonce-2-former"] {
        let mut world = World::running(json!({ "savepointTriggerNonce": 1 }));
        world.answers(former, Ok("s3://b/s/old"));
        world.job().savepoint_trigger_nonce = Some(2);
        world.step();
        assert!(world.decision.request.as_ref().is_some_and(|request| request.id == "nonce-2-uid"), "{former}");
        assert_eq!(world.application().last_savepoint, None);
    }
}

#[test]
fn a_request_of_an_operator_of_an_earlier_version_is_not_repeated() {
    let mut world = World::running(json!({ "savepointTriggerNonce": 1 }));
    world.job().savepoint_trigger_nonce = Some(2);
    world.step();
    world.decision.application.savepoint_request = Some("nonce-2".to_owned());
    world.step();
    assert!(world.decision.request.as_ref().is_some_and(|request| request.id == "nonce-2"));
    world.answers("nonce-2", Ok("s3://b/s/y"));
    world.step();
    assert_eq!((&world.decision.request, world.application().savepoint_trigger_nonce), (&None, Some(2)));
}

#[test]
fn a_resource_applied_again_goes_on_with_the_run_whose_data_was_retained() {
    let world = World::running(json!({}));
    let again = world.decide(None);
    assert_eq!(again.application.job_id, world.application().job_id);
    let mut ended = world;
    ended.ends("Finished");
    ended.progress.job = Some(ended.job_id());
    assert_eq!(id(&ended.decide(None).application.job_id), job_id("uid", 1), "an ended one does not");
}

/// The first start was begun and could not be written down, and the definition may have changed since.
#[test]
fn pods_of_a_start_that_is_on_no_record_go_before_another_one() {
    let mut world = World::new(json!({}));
    world.shows_pods = true;
    world.decision = world.decide(None);
    assert_eq!((world.phase(), world.decision.stopped), (Phase::Upgrading, true));
    assert_eq!(world.step(), Phase::Upgrading);
    let first = world.application().starts;
    assert_eq!(world.pods_go(), Phase::Starting);
    assert!(world.application().starts > first, "what is left of that start never leads again");
}

#[test]
fn what_concerns_one_kind_of_pod_makes_no_new_version() {
    let before = fixture::application().spec().clone();
    let changed = |change: &dyn Fn(&mut FlinkHaClusterSpec)| {
        let mut after = before.clone();
        change(&mut after);
        version(&after) != version(&before)
    };
    let set = |spec: &mut FlinkHaClusterSpec, key: &str| {
        drop(spec.flink_configuration.insert(key.to_owned(), Scalar::Number(7)))
    };
    assert!(changed(&|spec| spec.image.push('x')));
    assert!(changed(&|spec| spec.job.as_mut().unwrap_or_else(|| panic!("a job")).args.push("x".to_owned())));
    assert!(changed(&move |spec| set(spec, "parallelism.default")));
    assert!(!changed(&move |spec| set(spec, "taskmanager.numberOfTaskSlots")));
    assert!(!changed(&|spec| spec.job_manager.replicas = 5));
    assert!(!changed(&|spec| spec.job.as_mut().unwrap_or_else(|| panic!("a job")).savepoint_trigger_nonce = Some(1)));
}

#[test]
fn ids_of_runs_are_flinks_and_differ() {
    assert_ne!(job_id("uid", 1), job_id("uid", 2));
    // Running applications are known by it.
    assert_eq!(job_id("uid", 1), "8a719c252163ebd552a79fb338f90a39");
}

#[test]
fn while_a_resource_cannot_be_applied_nothing_is_carried_out_and_its_pods_stay_gone() {
    let resource = fixture::application_resource();
    let held = |phase| {
        let application = Application { phase, ..Application::default() };
        let before = FlinkHaClusterStatus { application: Some(application), ..FlinkHaClusterStatus::default() };
        let desired = Desired::of(&resource, &before, &Observed::default(), Timestamp::UNIX_EPOCH);
        desired.unwrap_or_else(|rejection| panic!("{rejection}")).frozen(&before)
    };
    let (suspended, stopping) = (held(Phase::Suspended), held(Phase::Savepointing));
    assert!(suspended.frozen && suspended.is_stopped());
    assert!(stopping.frozen && !stopping.is_stopped(), "what the leader was asked for stays asked for");
}
