//! The jobs of a cluster of processes: they are run, followed and ended.

use std::time::{Duration, Instant};

use flinkha::api::names;

use super::cluster::Cluster;
use super::cluster::NAME;
use super::cluster::PATIENCE;
use super::eventually;
use super::flink::jobs_jar;
use super::rest::Checkpoints;
use super::rest::Job;
use super::rest::Rest;
use super::seconds;
use super::verify;
use super::zookeeper;

impl Cluster {
    /// Runs one of the example jobs at the leader; returns its id.
    pub async fn submit(&self, class: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.submit_as(class, arguments, None).await
    }

    /// The same under an id of the user's own.
    pub async fn submit_as(&self, class: &str, arguments: &[&str], id: Option<&str>) -> anyhow::Result<String> {
        let rest = self.leader_rest().await;
        let jar = rest.upload(&jobs_jar(&self.version)).await?;
        rest.run_as(&jar, &format!("dev.flinkha.jobs.{class}"), arguments, id).await
    }

    /// The job whose output proves exactly-once, with two checkpoints a second; 0 lines are without end. Returns when
    /// all its tasks run.
    pub async fn run_sequence(&self, lines: u32, rate: u32) -> String {
        let (output, lines, rate) = (self.output().display().to_string(), lines.to_string(), rate.to_string());
        let arguments =
            ["--output", &output, "--lines", &lines, "--rate", &rate, "--checkpoint-interval-millis", "500"];
        let job = self.submit("KeyedSequence", &arguments).await.expect("failed to run the job");
        let rest = self.leader_rest().await;
        eventually("all tasks RUNNING", PATIENCE, async || rest.job(&job).await.ok().filter(Job::runs)).await;
        job
    }

    /// Cancels a job; returns when its leader has heard of it.
    pub async fn cancel(&self, job: &str) {
        let heard = async || {
            let rest = self.leader_rest().await;
            let asked = rest.cancel(job).await.is_ok();
            (asked || rest.job(job).await.is_ok_and(|now| now.state.starts_with("CANCEL"))).then_some(())
        };
        eventually(&format!("{job} cancelled"), seconds(60), heard).await;
    }

    /// Waits until the job is in a state; panics when it has ended in another one.
    pub async fn wait_for_state(&self, job: &str, state: &str, limit: Duration) {
        eventually(&format!("the job {state}"), limit, async || {
            let now = self.leader_rest().await.job(job).await.ok()?.state;
            let ended = ["FINISHED", "CANCELED", "FAILED"].contains(&now.as_str());
            assert!(now == state || !ended, "the job ended {now}, not {state}");
            (now == state).then_some(())
        })
        .await;
    }

    /// `checkpoints` of the job at its leader, as soon as so many are complete.
    pub async fn wait_for_checkpoints(&self, job: &str, completed: u64) -> Checkpoints {
        let mut rest = self.leader_rest().await;
        let enough = async || match rest.checkpoints(job).await {
            Ok(now) => Some(now).filter(|now| now.completed >= completed),
            Err(_) => {
                rest = self.leader_rest().await;
                None
            }
        };
        eventually(&format!("{completed} checkpoints"), PATIENCE, enough).await
    }

    /// The number that Flink will give to the next checkpoint of the job.
    pub async fn checkpoint_counter(&self, job: &str) -> u64 {
        if let Some(quorum) = &self.quorum {
            let client = quorum.client().await.expect("a session");
            return zookeeper::checkpoint_counter(&client, job).await.expect("a checkpoint counter in the job's znode");
        }
        let name = names::job_config_map(&names::kubernetes_cluster_id(NAME), job);
        let data = self.config_map(&name).await.and_then(|one| one.data).unwrap_or_default();
        data.get("counter")
            .and_then(|counter| counter.parse().ok())
            .expect("a checkpoint counter in the job's ConfigMap")
    }

    /// Proves that what the job has written is exactly-once: so many lines, or "any".
    pub fn verify(&self, lines: &str) {
        verify(lines, || ((), self.output()));
    }
}

/// Watches the job at its leader for so many seconds: all its tasks run all the while. Returns the longest time without
/// a new checkpoint, in seconds.
pub async fn watch(rest: &Rest, job: &str, duration: u64) -> f64 {
    let (begin, mut answered, mut last, mut number, mut longest) =
        (Instant::now(), Instant::now(), Instant::now(), 0, 0_f64);
    while begin.elapsed() < seconds(duration) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // A busy machine may keep one answer waiting.
        let (Ok(now), Ok(checkpoints)) = (rest.job(job).await, rest.checkpoints(job).await) else {
            assert!(answered.elapsed() < seconds(15), "the leader does not answer");
            continue;
        };
        answered = Instant::now();
        assert!(now.runs(), "after {:.1} s: {now:?}", begin.elapsed().as_secs_f64());
        if checkpoints.completed != number {
            (last, number) = (Instant::now(), checkpoints.completed);
        }
        longest = longest.max(last.elapsed().as_secs_f64());
    }
    longest
}
