//! The cluster that most tests share: the example, started once per test program. A test finds it whole, without jobs.

use std::sync::LazyLock;

use flinkha::api::names;
use kube::ResourceExt;
use tokio::sync::{Mutex, MutexGuard};

use super::cluster::{Cluster, restarts};
use super::namespace::Namespace;
use super::operator;
use super::ours;
use crate::support::eventually;
use crate::support::machine;
use crate::support::machine::Share;
use crate::support::say;
use crate::support::seconds;

const NAMESPACE: &str = "kind-session";

pub struct Session {
    pub cluster: Cluster,
    /// Tests that kill things take turns.
    _turn: MutexGuard<'static, ()>,
    _share: Share,
}

impl Session {
    pub async fn start() -> Self {
        static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);
        static STARTED: LazyLock<Mutex<bool>> = LazyLock::new(Mutex::default);
        let turn = TURN.lock().await;
        let share = machine::share().await;
        let mut started = STARTED.lock().await;
        let cluster = if *started {
            operator::scale(1);
            ours::apply(Namespace(NAMESPACE.to_owned()), &ours::example()).await
        } else {
            let begin = std::time::Instant::now();
            let cluster = ours::apply(Namespace::fresh(NAMESPACE), &ours::example()).await;
            cluster.wait_until_ready().await;
            say(format!("the cluster is up after {:.0} s", begin.elapsed().as_secs_f32()));
            cluster
        };
        *started = true;
        cluster.wait_until_ready().await;
        cluster.cancel_all().await;
        cluster.replace_restarted().await;
        Self { cluster, _turn: turn, _share: share }
    }
}

impl Cluster {
    /// Cancels what an earlier test has left.
    async fn cancel_all(&self) {
        let rest = self.leading_rest().await;
        for job in rest.jobs().await.expect("the jobs of the cluster") {
            // A JVM that led before still shows its jobs of that time as SUSPENDED; they run elsewhere since.
            if !job.has_ended() && job.state != "SUSPENDED" {
                rest.cancel(&job.id).await.expect("failed to cancel a job");
                self.wait_for_end(&job.id, "CANCELED").await;
            }
        }
    }

    /// Replaces JobManagers whose gateway has ended before. The kubelet delays the next start of such a container by
    /// ten seconds and more, and a leader that waits for its gateway that long loses the leadership.
    async fn replace_restarted(&self) {
        for pod in self.pods(names::JOB_MANAGER).await {
            if restarts(&pod, names::GATEWAY_CONTAINER) > 0 {
                self.replace(&pod.name_any()).await;
            }
        }
    }

    pub async fn cancel(&self, job: &str) {
        self.leading_rest().await.cancel(job).await.expect("failed to cancel the job");
        self.wait_for_end(job, "CANCELED").await;
    }

    pub async fn wait_for_end(&self, job: &str, state: &str) {
        let rest = self.leading_rest().await;
        let ended = async || rest.job(job).await.ok().filter(|job| job.state == state);
        eventually(&format!("job state {state}"), seconds(60), ended).await;
    }
}
