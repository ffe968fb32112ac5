//! What one step in the life of a release does to a cluster: pods that come and go, containers that are restarted,
//! changes of leader, restarts of the job, and the events that tell of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flinkha::api::names;
use flinkha::lease::record::Record as Election;
use kube::ResourceExt;

use crate::kit::cluster::Cluster;
use crate::kit::record::{Entry, Record, What};
use crate::support::eventually;
use crate::support::say;
use crate::support::seconds;

/// JobManagers of two clusters are replaced one by one, on two cores.
const ROLLED: Duration = seconds(420);
/// The event that announces that JobManagers are replaced.
const ANNOUNCEMENT: &str = "JobManagersReplaced";
/// The clocks of two observers differ a little.
const SOON: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// A cluster with a job that writes to `output/<name of the cluster>`, and all that happens to its pods.
pub struct Watched {
    pub cluster: Cluster,
    pub job: String,
    record: Record,
}

/// How a cluster and its job are at a moment.
#[derive(Clone, Debug)]
struct Standing {
    leader: String,
    job_managers: Vec<String>,
    term: u64,
    /// The number of the next checkpoint.
    counter: u64,
    /// How often the leading JobManager has restored the job, and how often it has restarted its tasks.
    restores: u64,
    restarts: u64,
}

/// A step, from its begin on.
pub struct Step<'a> {
    of: &'a Watched,
    name: &'static str,
    begin: Instant,
    /// Length of the record at that time.
    recorded: usize,
    before: Standing,
}

impl Watched {
    pub async fn new(cluster: Cluster, job: String) -> Self {
        let record = Record::begin(&cluster).await;
        Self { cluster, job, record }
    }

    pub async fn step(&self, name: &'static str) -> Step<'_> {
        // What the step before has done is told a moment later.
        tokio::time::sleep(seconds(1)).await;
        let (recorded, before) = (self.record.entries().len(), self.standing().await);
        Step { of: self, name, begin: Instant::now(), recorded, before }
    }

    pub fn verify(&self) {
        self.cluster.namespace.verify(&format!("output/{}", self.cluster.name), "any");
    }

    async fn standing(&self) -> Standing {
        let (cluster, job) = (&self.cluster, &self.job);
        let pods = cluster.pods(names::JOB_MANAGER).await;
        let mut job_managers: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        job_managers.sort();
        let checkpoints = cluster.leading_rest().await.checkpoints(job).await.expect("the job's checkpoints");
        Standing {
            leader: cluster.leader().await.expect("a leader").name_any(),
            job_managers,
            // Not of the status, which nobody writes while there is no operator.
            term: Election::of(&cluster.lease().await).term.expect("a term").number,
            counter: cluster.checkpoint_counter(job).await,
            restores: checkpoints.restores,
            restarts: cluster.restarts(job).await.parse().expect("a number"),
        }
    }
}

impl Step<'_> {
    fn entries(&self) -> Vec<Entry> {
        self.of.record.entries().split_off(self.recorded)
    }

    fn matching(&self, select: impl Fn(&What) -> bool) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| select(&entry.what)).collect()
    }

    /// Waits until the JobManagers that were there before are gone and others are ready; returns the last checkpoint
    /// that was complete under the former leader.
    pub async fn replaced(&self) -> u64 {
        let (cluster, before) = (&self.of.cluster, &self.before);
        let rest = cluster.rest_with_timeout(&before.leader, seconds(1));
        let mut latest = 0;
        let replaced = async || {
            let seen = rest.checkpoints(&self.of.job).await.ok().and_then(|checkpoints| checkpoints.latest);
            // One that leads no more answers with what the next one knows.
            if cluster.holder().await == before.leader {
                latest = latest.max(seen.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let pods = cluster.pods_api().list(&Default::default()).await.ok()?;
            let old = pods.iter().any(|pod| before.job_managers.contains(&pod.name_any()));
            (!old && cluster.leader().await.is_some()).then_some(())
        };
        eventually(&format!("{}: other JobManagers in {}", self.name, cluster.name), ROLLED, replaced).await;
        cluster.wait_until_ready().await;
        latest
    }

    /// JobManagers were replaced, each once, the leader last, and nothing else moved. The job was restored once, from
    /// the `latest` checkpoint or a later one, and goes on.
    pub async fn assert_job_managers_replaced(&self, latest: u64, announcements: usize) {
        let (cluster, job, before) = (&self.of.cluster, &self.of.job, &self.before);
        cluster.wait_for_checkpoints(job, 3).await;
        self.tell();
        self.assert_only_job_managers_move(announcements);

        let rest = cluster.leading_rest().await;
        let restored = rest.checkpoints(job).await.expect("the job's checkpoints").restored;
        let restored = restored.expect("the job was not restored from a checkpoint");
        say(format!("{}: checkpoint {latest} was complete, the job was restored from {restored}", cluster.name));
        assert!(restored >= latest && latest > 0, "restored from {restored}, but {latest} was complete");
        let now = self.of.standing().await;
        assert_eq!((now.restores, now.restarts), (1, 0), "{now:?}");
        assert!(now.counter > before.counter, "the checkpoint counter does not rise");
        assert_eq!(now.term - before.term, 1, "one planned switchover");
        self.assert_job_alone().await;
    }

    /// The gateways are of this image, as the operator says.
    pub async fn assert_gateways(&self, image: &str) {
        let told = self.of.cluster.resource().await.status.and_then(|status| status.gateway_image);
        assert_eq!(told.as_deref(), Some(image), "{}", self.name);
    }

    /// No pod came, went or was restarted, and the same JobManager leads. The job goes on without a restart.
    pub async fn assert_nothing_moved(&self) {
        self.tell();
        self.of.cluster.wait_for_more_checkpoints(&self.of.job, 2).await;
        let moved = self.matching(|what| what.moved().is_some());
        assert!(moved.is_empty(), "{}: {moved:?}", self.name);
        let (before, now) = (&self.before, self.of.standing().await);
        let same = |one: &Standing| (one.leader.clone(), one.term, one.restores, one.restarts);
        assert_eq!(same(before), same(&now), "{}", self.name);
        self.assert_job_alone().await;
    }

    /// The killed JVM was started again in its pod, no pod came or went, and the job goes on under another JobManager.
    pub async fn assert_one_container_restarted(&self) {
        self.tell();
        let moved = self.matching(|what| what.moved().is_some());
        let is_it = |what: &What| matches!(what, What::Restarted { pod, .. } if *pod == self.before.leader);
        assert!(moved.len() == 1 && is_it(&moved[0].what), "{}: {moved:?}", self.name);
        let now = self.of.standing().await;
        assert_eq!((now.term - self.before.term, now.restores, now.restarts), (1, 1, 0), "{now:?}");
        self.assert_job_alone().await;
    }

    /// The job is the only one that runs, and its output is exactly-once.
    async fn assert_job_alone(&self) {
        let jobs = self.of.cluster.leading_rest().await.jobs().await.expect("the jobs of the cluster");
        let running: Vec<&str> = jobs.iter().filter(|one| one.runs()).map(|one| one.id.as_str()).collect();
        assert_eq!(running, [self.of.job.as_str()], "a job was lost or doubled");
        self.of.verify();
    }

    pub fn assert_no_warning(&self) {
        let warnings = self.matching(|what| matches!(what, What::Event { warning: true, .. }));
        assert!(warnings.is_empty(), "{}: {warnings:?}", self.name);
    }

    fn assert_only_job_managers_move(&self, announcements: usize) {
        let announced = self.matching(|what| matches!(what, What::Event { reason, .. } if reason == ANNOUNCEMENT));
        let moved = self.matching(|what| what.moved().is_some());
        assert_eq!(announced.len(), announcements, "announcements");
        if let Some(announced) = announced.first() {
            // The event comes before the change of the Deployment.
            assert!(moved[0].at + SOON > announced.at, "{} before {announced}", moved[0]);
        }
        self.assert_no_warning();
        let created = self.matching(|what| matches!(what, What::Created(_)));
        assert_eq!(created.len(), self.before.job_managers.len(), "one new JobManager for each old one");
        let entries = self.entries();
        let leave = entries.iter().filter_map(|entry| match &entry.what {
            What::Terminating(pod) => Some(pod.as_str()),
            _ => None,
        });
        let mut leave: Vec<&str> = leave.collect();
        assert_eq!(leave.last(), Some(&self.before.leader.as_str()), "the leader goes last");
        leave.sort_unstable();
        assert_eq!(leave, self.before.job_managers, "the JobManagers that were there before, and nothing else");
        let restarted = self.matching(|what| matches!(what, What::Restarted { .. }));
        assert!(restarted.is_empty(), "{restarted:?}");
    }

    /// Prints what has happened, as it happened.
    fn tell(&self) {
        say(format!("{}, {}:", self.of.cluster.name, self.name));
        self.entries().iter().for_each(say);
    }

    /// A row of the table.
    pub async fn row(&self) -> String {
        let (entries, before, now) = (self.entries(), &self.before, self.of.standing().await);
        let created = |name: String| {
            let came = |entry: &&Entry| matches!(&entry.what, What::Created(pod) if pod.starts_with(&name));
            entries.iter().filter(came).count()
        };
        let (cluster, count) = (&self.of.cluster.name, before.job_managers.len());
        let job_managers = created(names::job_manager(cluster));
        let task_managers = created(names::task_manager(cluster));
        let restarted = self.matching(|what| matches!(what, What::Restarted { .. })).len();
        let changes = now.term - before.term;
        // A JobManager that leads anew counts from zero.
        let since = |before: u64, now: u64| if changes > 0 { now } else { now - before };
        let (restores, restarts) = (since(before.restores, now.restores), since(before.restarts, now.restarts));
        let mut events: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &entries {
            if let What::Event { reason, .. } = &entry.what {
                *events.entry(reason.as_str()).or_default() += 1;
            }
        }
        let events: Vec<String> = events.into_iter().map(|(reason, count)| format!("{reason} × {count}")).collect();
        let seconds = self.begin.elapsed().as_secs();
        format!(
            "| {} | {cluster} | {job_managers} of {count} | {task_managers} | {restarted} | {changes} | {restores} | \
             {restarts} | {} | {seconds} s |",
            self.name,
            events.join(", "),
        )
    }
}

/// Prints the rows of a run.
pub fn print(rows: &[String]) {
    println!(
        "\n| step | cluster | JobManagers replaced | TaskManagers replaced | containers restarted | changes of leader | \
         job restored | restarts of its tasks | events | until checked |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    rows.iter().for_each(|row| println!("{row}"));
}
