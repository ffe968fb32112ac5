//! An upgrade in place: operator and gateways of the former version run clusters with jobs; the new operator takes
//! over, then the new gateways lead, and nothing is lost.
//!
//! `make test-upgrade` runs it, and `make test-kind` does not: it replaces the operator for all namespaces. What the
//! former version is, says `rig/former`.

use std::time::{Duration, Instant};

use flinkha::api::application::Phase;
use flinkha::api::names;
use flinkha::ledger::jobs::{HA_DATA_KEY, HaData, JOBS_KEY, Job, read};
use kube::ResourceExt;

use crate::applications::wait_for_condition;
use crate::ended_jobs::assert_nothing_remains;
use crate::kit::application;
use crate::kit::cluster::Cluster;
use crate::kit::failover::kill_leader;
use crate::kit::namespace::Namespace;
use crate::kit::operator;
use crate::kit::ours;
use crate::kit::record::{Entry, Record, What};
use crate::support::eventually;
use crate::support::machine;
use crate::support::say;
use crate::support::seconds;

/// Marks of the former version do not say which gateway wrote them: for so long nothing is collected, once.
const SETTLING: Duration = seconds(120);
/// Two JobManagers of two clusters are replaced one by one, on two cores.
const ROLLED: Duration = seconds(420);
const OUTPUT: &str = "output/former";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "replaces the operator for all namespaces: make test-upgrade"]
async fn clusters_of_the_former_version_go_on_under_this_one_and_nothing_moves_that_was_not_announced() {
    machine::want_all();
    let _share = machine::share().await;
    let namespaces = ["kind-former-session", "kind-former-application"].map(Namespace::fresh);
    operator::install_former();
    let [session, application] = start(namespaces).await;

    operator::upgrade();
    let latest = tokio::join!(session.wait_until_replaced(), application.wait_until_replaced());
    let replaced = Instant::now();
    session.assert_job_went_on(latest.0).await;
    application.assert_job_went_on(latest.1).await;
    assert_application_went_on(&application).await;
    for one in [&session, &application] {
        one.tell();
        one.assert_only_announced_moves();
    }

    // A job that ends while nothing is collected.
    let arguments = ["--output", "/flink/output/short", "--lines", "500", "--rate", "500"];
    let short = session.cluster.submit("KeyedSequence", &arguments).await;
    session.cluster.wait_for_end(&short, "FINISHED").await;
    tokio::join!(session.wait_for_collection(replaced), application.wait_for_collection(replaced));
    let collected = async || session.ledger().await.job(&short).filter(|job| job.collected.is_some());
    eventually("the job that ended meanwhile is collected", seconds(60), collected).await;
    session.cluster.namespace.verify("output/short", "500");
    for one in [&session, &application] {
        one.assert_only_announced_moves();
        one.assert_ledger_went_on(&one.ledger().await);
        let failover = kill_leader(&one.cluster, &one.job).await;
        one.cluster.replace(&failover.from).await;
        one.cluster.namespace.verify(OUTPUT, "any");
    }

    session.cluster.cancel(&session.job).await;
    assert_nothing_remains(&session.cluster).await;
    application.cluster.leading_rest().await.cancel(&application.job).await.expect("failed to cancel the job");
    wait_for_condition(&application.cluster, "Complete");
    application.cluster.assert_nothing_remains().await;
    for one in [&session, &application] {
        let ledger = one.ledger().await;
        assert_eq!(ledger.job(&one.job).expect("a tombstone").state.to_string(), "Canceled");
        one.assert_ledger_went_on(&ledger);
        one.cluster.namespace.verify(OUTPUT, "any");
    }
    for one in [session, application] {
        one.cluster.namespace.delete();
    }
}

/// A session cluster with a job that has ended and one that runs, and an application.
async fn start([for_session, for_application]: [Namespace; 2]) -> [Upgraded; 2] {
    let mut example = ours::example();
    example["spec"]["jobManager"]["replicas"] = 2.into();
    example["spec"]["taskManager"]["replicas"] = 1.into();
    // Two jobs at a time.
    example["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"] = 4.into();
    let endless = ["--output", "/flink/output/former", "--rate", "100"];
    let resource = application::resource(&for_application, "KeyedSequence", &endless);
    let session = ours::apply(for_session, &example).await;
    let application = ours::apply(for_application, &resource).await;
    session.wait_until_ready().await;
    application.wait_until_ready().await;

    let arguments = ["--output", "/flink/output/ended", "--lines", "500", "--rate", "500"];
    let ended = session.submit("KeyedSequence", &arguments).await;
    session.wait_for_end(&ended, "FINISHED").await;
    assert_nothing_remains(&session).await;
    let run = session.run("KeyedSequence", &endless, 3).await;
    let job = application.wait_for_phase(Phase::Running).await.job_id;
    application.wait_for_checkpoints(&job, 3).await;
    let session = Upgraded::find(session, run).await;
    assert!(session.before.ledger.job(&ended).is_some_and(|job| job.collected.is_some()), "{:?}", session.before);
    [session, Upgraded::find(application, job).await]
}

/// A cluster that is upgraded under its job.
struct Upgraded {
    cluster: Cluster,
    job: String,
    before: Before,
    record: Record,
}

/// How it was under the former version.
#[derive(Debug)]
struct Before {
    leader: String,
    job_managers: Vec<String>,
    term: i64,
    counter: u64,
    ledger: Ledger,
    application: flinkha::api::application::Application,
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
        let before = Before {
            leader: cluster.leader().await.expect("a leader").name_any(),
            job_managers: job_managers(&cluster).await,
            term: term(&cluster).await,
            counter: cluster.checkpoint_counter(&job).await,
            ledger: ledger(&cluster).await,
            application: cluster.application().await,
        };
        let image = cluster.resource().await.status.and_then(|status| status.gateway_image);
        assert_eq!(image.as_deref(), Some("flinkha/flinkha:former"));
        assert!(before.ledger.job(&job).is_some_and(|job| job.is_stored()), "{before:?}");
        let record = Record::begin(&cluster).await;
        Self { cluster, job, before, record }
    }

    async fn ledger(&self) -> Ledger {
        ledger(&self.cluster).await
    }

    /// Waits until JobManagers of the new version are there and no others; returns the last checkpoint that was
    /// complete under the leader of the former version.
    async fn wait_until_replaced(&self) -> u64 {
        let rest = self.cluster.rest_with_timeout(&self.before.leader, seconds(1));
        let mut latest = 0;
        let replaced = async || {
            let seen = rest.checkpoints(&self.job).await.ok().and_then(|checkpoints| checkpoints.latest);
            // One that leads no more answers with what the next one knows.
            if self.cluster.holder().await == self.before.leader {
                latest = latest.max(seen.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let pods = self.cluster.pods_api().list(&Default::default()).await.ok()?;
            let old = pods.iter().any(|pod| self.before.job_managers.contains(&pod.name_any()));
            (!old && self.cluster.leader().await.is_some()).then_some(())
        };
        eventually(&format!("JobManagers of the new version in {}", self.cluster.name), ROLLED, replaced).await;
        self.cluster.wait_until_ready().await;
        latest
    }

    /// The job was restored once, from that checkpoint or a later one, and goes on.
    async fn assert_job_went_on(&self, latest: u64) {
        let (cluster, job) = (&self.cluster, &self.job);
        cluster.wait_for_checkpoints(job, 3).await;
        let rest = cluster.leading_rest().await;
        let checkpoints = rest.checkpoints(job).await.expect("the job's checkpoints");
        let restored = checkpoints.restored.expect("the job was not restored from a checkpoint");
        say(format!("{}: checkpoint {latest} was complete, the job was restored from {restored}", cluster.name));
        assert!(restored >= latest && latest > 0, "restored from {restored}, but {latest} was complete");
        assert_eq!((checkpoints.restores, cluster.restarts(job).await.as_str()), (1, "0"));
        assert!(cluster.checkpoint_counter(job).await > self.before.counter, "the checkpoint counter does not rise");
        let jobs = rest.jobs().await.expect("the jobs of the cluster");
        let running: Vec<&str> = jobs.iter().filter(|one| one.runs()).map(|one| one.id.as_str()).collect();
        assert_eq!(running, [job.as_str()], "a job was lost or doubled");
        assert_eq!(term(cluster).await - self.before.term, 1, "one planned switchover");
        let image = cluster.resource().await.status.and_then(|status| status.gateway_image);
        assert_eq!(image.as_deref(), Some("flinkha/flinkha:dev"));
        cluster.namespace.verify(OUTPUT, "any");
    }

    /// Prints what has happened to pods, and which events told of it.
    fn tell(&self) {
        say(format!("{}:", self.cluster.name));
        self.record.entries().iter().for_each(say);
    }

    /// One event announces that JobManagers are replaced, they are, once, the leader last, and no other pod comes, goes
    /// or is restarted.
    fn assert_only_announced_moves(&self) {
        let entries = self.record.entries();
        let of =
            |select: &dyn Fn(&What) -> bool| entries.iter().filter(|entry| select(&entry.what)).collect::<Vec<_>>();
        let announced = of(&|what| matches!(what, What::Event { reason, .. } if reason == "JobManagersReplaced"));
        let moved: Vec<&Entry> = of(&|what| what.moved().is_some());
        assert_eq!(announced.len(), 1, "announcements");
        // The event comes before the change of the Deployment; the clocks of two observers differ a little.
        assert!(moved[0].at + SOON > announced[0].at, "{} before {}", moved[0], announced[0]);
        let warnings = of(&|what| matches!(what, What::Event { warning: true, .. }));
        assert!(warnings.is_empty(), "{warnings:?}");
        let count = self.before.job_managers.len();
        let created = of(&|what| matches!(what, What::Created(_)));
        assert_eq!(created.len(), count, "one new JobManager for each old one");
        let leave: Vec<&str> = entries
            .iter()
            .filter_map(|entry| if let What::Terminating(pod) = &entry.what { Some(pod.as_str()) } else { None })
            .collect();
        assert_eq!(leave.last(), Some(&self.before.leader.as_str()), "the leader goes last");
        let mut leave: Vec<&str> = leave;
        leave.sort_unstable();
        assert_eq!(leave, self.before.job_managers, "JobManagers of the former version, and nothing else");
        let restarted = of(&|what| matches!(what, What::Restarted { .. }));
        assert!(restarted.is_empty(), "{restarted:?}");
    }

    /// Waits until the time is over in which nothing is collected, and until ended jobs are collected again.
    async fn wait_for_collection(&self, since: Instant) {
        let mut states: Vec<String> = Vec::new();
        while since.elapsed() < SETTLING + seconds(15) {
            let state = self.ledger().await.ha_data.state;
            if states.last() != Some(&state) {
                states.push(state);
            }
            tokio::time::sleep(seconds(1)).await;
        }
        say(format!("{}: the HA data was {}", self.cluster.name, states.join(", then ")));
        let collectable = async || (self.ledger().await.ha_data.state == "Collectable").then_some(());
        eventually("what ended jobs leave is collected again", seconds(30), collectable).await;
    }

    /// Who owns the directory, the job that runs, and the jobs that had ended, are as the former version wrote them.
    fn assert_ledger_went_on(&self, now: &Ledger) {
        assert!(self.before.ledger.ha_data.owner.is_some());
        assert_eq!(now.ha_data.owner, self.before.ledger.ha_data.owner);
        for before in &self.before.ledger.jobs {
            let now = now.job(before.id.as_ref()).expect("a job that the former version has written down");
            assert_eq!((&now.name, &now.started), (&before.name, &before.started));
            if before.has_ended() {
                assert_eq!(&now, before);
            }
        }
    }
}

/// For the operator it is the same run: nothing was upgraded.
async fn assert_application_went_on(one: &Upgraded) {
    let now = one.cluster.wait_for_phase(Phase::Running).await;
    let before = &one.before.application;
    assert_eq!((&now.job_id, &now.upgrades), (&before.job_id, &before.upgrades));
}

const SOON: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

async fn job_managers(cluster: &Cluster) -> Vec<String> {
    let mut names: Vec<String> = cluster.pods(names::JOB_MANAGER).await.iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

async fn term(cluster: &Cluster) -> i64 {
    cluster.resource().await.status.and_then(|status| status.leader).expect("a leader").term
}

async fn ledger(cluster: &Cluster) -> Ledger {
    let data = cluster.config_map(&names::ledger(&cluster.name)).await.and_then(|one| one.data).unwrap_or_default();
    let text = |key: &str| data.get(key).map(String::as_str);
    let jobs = read(text(JOBS_KEY)).expect("the jobs of the ledger");
    let ha_data = serde_json::from_str(text(HA_DATA_KEY).unwrap_or("{}")).expect("what the ledger says of HA data");
    Ledger { jobs, ha_data }
}
