//! The life of a release that began with the former version: upgraded, rolled back, upgraded again, uninstalled,
//! installed again. Clusters and their jobs outlive all of it, and nothing moves that was not announced. `rig/former`
//! says what the former version is.

use std::time::{Duration, Instant};

use flinkha::api::application::{Application, Phase};
use flinkha::api::names;
use flinkha::ledger::jobs::{HA_DATA_KEY, HaData, JOBS_KEY, Job, read};
use serde_json::Value;

use super::step::{Step, Watched, print};
use crate::applications::wait_for_condition;
use crate::ended_jobs::assert_nothing_remains;
use crate::kit::application;
use crate::kit::cluster::Cluster;
use crate::kit::failover::kill_leader;
use crate::kit::machine::kubectl;
use crate::kit::namespace::Namespace;
use crate::kit::operator;
use crate::kit::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

/// Marks of the former version do not say which gateway wrote them: for so long nothing is collected, once.
const SETTLING: Duration = seconds(120);
/// An operator that finds a reason to replace pods does so within a few seconds of its start.
const AT_WORK: Duration = seconds(15);
const FORMER: &str = "flinkha/flinkha:former";
const THIS: &str = "flinkha/flinkha:dev";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "replaces the operator for all namespaces: make test-upgrade"]
async fn jobs_go_on_through_upgrade_roll_back_and_uninstallation_and_nothing_moves_that_was_not_announced() {
    machine::want_all();
    let _share = machine::share().await;
    let [for_session, for_application, for_later] =
        ["kind-former-session", "kind-former-application", "kind-former-later"].map(Namespace::fresh);
    operator::install_former();
    assert!(!declares("restartNonce"), "the former definition has not what this test adds");
    let clusters = start([for_session, for_application]).await;
    let [session, application] = &clusters;
    let mut rows = Vec::new();

    let steps = begin([&session.watched, &application.watched], "upgrade").await;
    operator::helm_upgrade();
    assert!(declares("restartNonce"));
    replace_job_managers(&steps, 1, THIS, &mut rows).await;
    operator::test("flinkha");
    let lasting = lasting_objects(&clusters);
    // It has never been under the former version, and has what that does not know.
    let later = start_later(for_later).await;

    let steps = begin([&session.watched, &application.watched], "roll-back").await;
    let of_later = later.step("roll-back").await;
    operator::roll_back();
    // The former version announces nothing.
    replace_job_managers(&steps, 0, FORMER, &mut rows).await;
    // What was created and not applied is not the former operator's to take back: it changes nothing, and says so.
    later.cluster.wait_for_degraded("InvalidPodTemplate", &["lifecycle"]).await;
    of_later.assert_nothing_moved().await;
    rows.push(of_later.row().await);
    assert_eq!(lasting_objects(&clusters), lasting, "the definition stays at the later version");

    let steps = begin([&session.watched, &application.watched], "upgrade again").await;
    let of_later = later.step("upgrade again").await;
    operator::helm_upgrade();
    replace_job_managers(&steps, 1, THIS, &mut rows).await;
    let replaced = Instant::now();
    eventually("a cluster that can be changed again", seconds(60), async || {
        later.cluster.degraded().await.is_none().then_some(())
    })
    .await;
    of_later.assert_nothing_moved().await;
    rows.push(of_later.row().await);
    later.cluster.namespace.delete();
    for one in &clusters {
        one.assert_application_went_on().await;
    }

    // A job that ends while nothing is collected.
    let arguments = ["--output", "/flink/output/short", "--lines", "500", "--rate", "500"];
    let short = session.cluster().submit("KeyedSequence", &arguments).await;
    session.cluster().wait_for_end(&short, "FINISHED").await;
    tokio::join!(session.wait_for_collection(replaced), application.wait_for_collection(replaced));
    let collected = async || ledger(session.cluster()).await.job(&short).filter(|job| job.collected.is_some());
    eventually("the job that ended meanwhile is collected", seconds(60), collected).await;
    session.cluster().namespace.verify("output/short", "500");

    let steps = begin([&session.watched, &application.watched], "uninstallation, and a killed leader").await;
    operator::uninstall();
    for (one, step) in clusters.iter().zip(&steps) {
        kill_leader(one.cluster(), one.job()).await;
        one.cluster().wait_until_ready().await;
        step.assert_one_container_restarted().await;
        step.assert_no_warning();
        rows.push(step.row().await);
    }
    assert_eq!(lasting_objects(&clusters), lasting);

    let steps = begin([&session.watched, &application.watched], "installation").await;
    operator::helm_upgrade();
    for one in &clusters {
        let leader = one.cluster().holder().await;
        let told = async || one.cluster().resource().await.status?.leader.filter(|told| told.pod == leader);
        eventually("the operator tells who leads", seconds(60), told).await;
    }
    tokio::time::sleep(AT_WORK).await;
    for step in &steps {
        step.assert_nothing_moved().await;
        step.assert_no_warning();
        rows.push(step.row().await);
    }
    assert_eq!(lasting_objects(&clusters), lasting);
    print(&rows);

    session.cluster().cancel(session.job()).await;
    assert_nothing_remains(session.cluster()).await;
    application.cluster().leading_rest().await.cancel(application.job()).await.expect("failed to cancel the job");
    wait_for_condition(application.cluster(), "Complete");
    application.cluster().assert_nothing_remains().await;
    for one in &clusters {
        let ledger = ledger(one.cluster()).await;
        assert_eq!(ledger.job(one.job()).expect("a tombstone").state.to_string(), "Canceled");
        one.assert_ledger_went_on(&ledger);
        one.watched.verify();
    }
    for one in clusters {
        one.watched.cluster.namespace.delete();
    }
}

async fn begin<'a>(clusters: [&'a Watched; 2], step: &'static str) -> [Step<'a>; 2] {
    let [one, other] = clusters;
    [one.step(step).await, other.step(step).await]
}

/// Waits until the operator that works now has replaced the JobManagers, as it was `announced` by so many events.
async fn replace_job_managers(steps: &[Step<'_>; 2], announced: usize, image: &str, rows: &mut Vec<String>) {
    let latest = tokio::join!(steps[0].replaced(), steps[1].replaced());
    for (step, latest) in steps.iter().zip([latest.0, latest.1]) {
        step.assert_job_managers_replaced(latest, announced).await;
        step.assert_gateways(image).await;
        rows.push(step.row().await);
    }
}

/// What neither an upgrade nor a roll-back nor an uninstallation makes anew: UIDs of the definition, of the resources
/// and of their Leases; and what the definition declares.
fn lasting_objects(clusters: &[Upgraded; 2]) -> (Vec<String>, Value) {
    let uid = "--output=jsonpath={.items[*].metadata.uid}";
    let of = |one: &Upgraded| {
        let name = &one.cluster().name;
        let names = [format!("flinkhacluster/{name}"), format!("lease/{}", names::lease(name))];
        one.cluster().namespace.kubectl(&["get", &names[0], &names[1], uid])
    };
    let mut definition = definition();
    let own = definition["metadata"]["uid"].as_str().expect("a UID").to_owned();
    (clusters.iter().map(of).chain([own]).collect(), definition["spec"].take())
}

fn definition() -> Value {
    serde_json::from_str(&kubectl(&["get", operator::DEFINITION, "--output", "json"])).expect("an object in JSON")
}

fn declares(field: &str) -> bool {
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    definition().pointer(&format!("{schema}/{field}")).is_some()
}

/// A session cluster with a job that has ended and one that runs, and an application.
async fn start([for_session, for_application]: [Namespace; 2]) -> [Upgraded; 2] {
    let arguments = ["--output", "/flink/output/application", "--rate", "100"];
    let resource = application::resource(&for_application, "KeyedSequence", &arguments);
    let session = ours::apply(for_session, &small_session("session", 2)).await;
    let application = ours::apply(for_application, &resource).await;
    session.wait_until_ready().await;
    application.wait_until_ready().await;

    let arguments = ["--output", "/flink/output/ended", "--lines", "500", "--rate", "500"];
    let ended = session.submit("KeyedSequence", &arguments).await;
    session.wait_for_end(&ended, "FINISHED").await;
    assert_nothing_remains(&session).await;
    let run = session.run("KeyedSequence", &["--output", "/flink/output/session", "--rate", "100"], 3).await;
    let job = application.wait_for_phase(Phase::Running).await.job_id;
    application.wait_for_checkpoints(&job, 3).await;
    let session = Upgraded::find(session, run).await;
    assert!(session.ledger.job(&ended).is_some_and(|job| job.collected.is_some()), "{:?}", session.ledger);
    [session, Upgraded::find(application, job).await]
}

async fn start_later(namespace: Namespace) -> Watched {
    let cluster = ours::apply(namespace, &small_session("later", 1)).await;
    cluster.wait_until_ready().await;
    let job = cluster.run("KeyedSequence", &["--output", "/flink/output/later", "--rate", "100"], 3).await;
    Watched::new(cluster, job).await
}

/// The example with one TaskManager, which has room for two jobs.
pub fn small_session(name: &str, job_managers: u32) -> Value {
    let mut example = ours::example();
    example["metadata"]["name"] = name.into();
    example["spec"]["jobManager"]["replicas"] = job_managers.into();
    example["spec"]["taskManager"]["replicas"] = 1.into();
    example["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"] = 4.into();
    example
}

/// A cluster that is upgraded under its job, and what the former version knew of it.
struct Upgraded {
    watched: Watched,
    ledger: Ledger,
    application: Application,
}

#[derive(Debug)]
struct Ledger {
    jobs: Vec<Job>,
    ha_data: HaData,
}

impl Ledger {
    fn job(&self, id: &str) -> Option<Job> {
        self.jobs.iter().find(|job| job.id == id).cloned()
    }
}

impl Upgraded {
    async fn find(cluster: Cluster, job: String) -> Self {
        let (ledger, application) = (ledger(&cluster).await, cluster.application().await);
        let image = cluster.resource().await.status.and_then(|status| status.gateway_image);
        assert_eq!(image.as_deref(), Some(FORMER));
        assert!(ledger.job(&job).is_some_and(|job| job.is_stored()), "{ledger:?}");
        Self { watched: Watched::new(cluster, job).await, ledger, application }
    }

    fn cluster(&self) -> &Cluster {
        &self.watched.cluster
    }

    fn job(&self) -> &str {
        &self.watched.job
    }

    /// Waits until the time is over in which nothing is collected, and until ended jobs are collected again.
    async fn wait_for_collection(&self, since: Instant) {
        let mut states: Vec<String> = Vec::new();
        while since.elapsed() < SETTLING + seconds(15) {
            let state = ledger(self.cluster()).await.ha_data.state;
            if states.last() != Some(&state) {
                states.push(state);
            }
            tokio::time::sleep(seconds(1)).await;
        }
        say(format!("{}: the HA data was {}", self.cluster().name, states.join(", then ")));
        let collectable = async || (ledger(self.cluster()).await.ha_data.state == "Collectable").then_some(());
        eventually("what ended jobs leave is collected again", seconds(30), collectable).await;
        self.assert_ledger_went_on(&ledger(self.cluster()).await);
    }

    /// Who owns the directory, the job that runs, and the jobs that had ended, are as the former version wrote them.
    fn assert_ledger_went_on(&self, now: &Ledger) {
        assert!(self.ledger.ha_data.owner.is_some());
        assert_eq!(now.ha_data.owner, self.ledger.ha_data.owner);
        for before in &self.ledger.jobs {
            let now = now.job(before.id.as_ref()).expect("a job that the former version has written down");
            assert_eq!((&now.name, &now.started), (&before.name, &before.started));
            if before.has_ended() {
                assert_eq!(&now, before);
            }
        }
    }

    /// For the operators it is the same run: nothing was upgraded.
    async fn assert_application_went_on(&self) {
        if self.application.job_id.is_empty() {
            return;
        }
        let now = self.cluster().wait_for_phase(Phase::Running).await;
        assert_eq!((&now.job_id, &now.upgrades), (&self.application.job_id, &self.application.upgrades));
    }
}

async fn ledger(cluster: &Cluster) -> Ledger {
    let data = cluster.config_map(&names::ledger(&cluster.name)).await.and_then(|one| one.data).unwrap_or_default();
    let text = |key: &str| data.get(key).map(String::as_str);
    let jobs = read(text(JOBS_KEY)).expect("the jobs of the ledger");
    let ha_data = serde_json::from_str(text(HA_DATA_KEY).unwrap_or("{}")).expect("what the ledger says of HA data");
    Ledger { jobs, ha_data }
}
