//! A Flink cluster in kind, ours or with Flink's own Kubernetes HA: its pods, its leader, its jobs.

use std::cell::RefCell;
use std::time::Duration;

use flinkha::api::names;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};

use super::machine::flink_version;
use super::machine::pod_url;
use super::namespace::Namespace;
use crate::support::answered;
use crate::support::cluster::dispatcher;
use crate::support::eventually;
use crate::support::flink::jobs_jar;
use crate::support::rest::Job;
use crate::support::rest::Rest;
use crate::support::seconds;

/// Starting JVMs takes long on a small machine, with all of a cluster's at once.
const START: Duration = seconds(240);

pub struct Cluster {
    pub namespace: Namespace,
    pub name: String,
    pub job_managers: usize,
    pub task_managers: usize,
    pub client: kube::Client,
    /// Flink's REST endpoint speaks TLS.
    pub encrypted: bool,
}

impl Cluster {
    pub fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace.0)
    }

    /// Pods of a component that are not being deleted.
    pub async fn pods(&self, component: &str) -> Vec<Pod> {
        let labels = format!("{}={},{}={component}", names::CLUSTER_LABEL, self.name, names::COMPONENT_LABEL);
        let (api, params) = (self.pods_api(), ListParams::default().labels(&labels));
        let pods = answered("pods", async || api.list(&params).await).await;
        pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace.0)
    }

    pub async fn config_map(&self, name: &str) -> Option<ConfigMap> {
        let api = self.config_maps();
        answered("a ConfigMap", async || api.get_opt(name).await).await
    }

    pub fn cluster_config_map(&self) -> String {
        names::cluster_config_map(&names::kubernetes_cluster_id(&self.name))
    }

    /// The JobManager whose address Flink has published, which is the last thing that a new leader does.
    pub async fn leader(&self) -> Option<Pod> {
        let Some(config_map) = self.config_map(&self.cluster_config_map()).await else { return self.published().await };
        let published = dispatcher(&config_map)?;
        let pods = self.pods(names::JOB_MANAGER).await;
        pods.into_iter().find(|pod| ip(pod).is_some_and(|ip| published.contains(&format!("@{ip}:"))))
    }

    /// With ZooKeeper: the pod whose address stands in the EndpointSlice.
    async fn published(&self) -> Option<Pod> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace.0);
        let name = names::rest(&self.name);
        let slice = answered("an EndpointSlice", async || slices.get_opt(&name).await).await?;
        let addresses: Vec<String> = slice.endpoints.into_iter().flat_map(|endpoint| endpoint.addresses).collect();
        self.pods(names::JOB_MANAGER)
            .await
            .into_iter()
            .find(|pod| ip(pod).is_some_and(|ip| addresses.iter().any(|one| one == ip)))
    }

    pub fn rest(&self, pod: &str) -> Rest {
        self.rest_with_timeout(pod, seconds(20))
    }

    pub fn rest_with_timeout(&self, pod: &str, timeout: Duration) -> Rest {
        let scheme = if self.encrypted { "https:" } else { "" };
        Rest::at(pod_url(&self.namespace.0, &format!("{scheme}{pod}"), names::REST_PORT), timeout)
    }

    pub async fn leading_rest(&self) -> Rest {
        self.rest(&self.leader().await.expect("a leader to talk to").name_any())
    }

    /// Waits until all pods are Ready, one of them leads, and all TaskManagers are registered there.
    pub async fn wait_until_ready(&self) {
        let (components, last) =
            ([(names::JOB_MANAGER, self.job_managers), (names::TASK_MANAGER, self.task_managers)], RefCell::default());
        // All of it at one look, the TaskManagers first: pods of a node that comes back are said to be Ready before it
        // is there.
        let ready = async || {
            let overview = self.rest(&self.leader().await?.name_any()).overview().await.ok()?;
            last.replace(format!("{} TaskManagers are registered", overview["taskmanagers"]));
            (overview["taskmanagers"].as_u64() == Some(self.task_managers as u64)).then_some(())?;
            for (component, count) in components {
                let pods = self.pods(component).await;
                let ready = pods.iter().filter(|pod| is_ready(pod)).count();
                last.replace(format!("{ready} of {} {component} pods are Ready, {count} should be", pods.len()));
                (pods.len() == count && ready == count).then_some(())?;
            }
            Some(())
        };
        let what = format!("{} in {} with all its pods and a leader", self.name, self.namespace.0);
        if tokio::time::timeout(START, eventually(&what, START * 2, ready)).await.is_err() {
            panic!("waited {START:?} in vain for: {what}; {}", last.borrow());
        }
    }

    /// Deletes a pod at once and waits until another has its place: a container that died is restarted ever later.
    pub async fn replace(&self, pod: &str) {
        self.pods_api().delete(pod, &DeleteParams::default().grace_period(0)).await.expect("failed to delete a pod");
        self.wait_until_ready().await;
    }

    /// Runs one of the example jobs at the leader; returns its id.
    pub async fn submit(&self, class: &str, arguments: &[&str]) -> String {
        let rest = self.leading_rest().await;
        let jar = rest.upload(&jobs_jar(&flink_version())).await.expect("failed to upload the jar");
        rest.run(&jar, &format!("dev.flinkha.jobs.{class}"), arguments).await.expect("failed to run the job")
    }

    /// Submits a job and waits until all of it runs and so many checkpoints are complete.
    pub async fn run(&self, class: &str, arguments: &[&str], checkpoints: u64) -> String {
        let job = self.submit(class, arguments).await;
        let rest = self.leading_rest().await;
        eventually("all tasks RUNNING", seconds(60), async || rest.job(&job).await.ok().filter(Job::runs)).await;
        let enough = async || rest.checkpoints(&job).await.ok().filter(|one| one.completed >= checkpoints);
        eventually("checkpoints of the job", seconds(60), enough).await;
        job
    }

    /// The number that Flink will give to the next checkpoint of the job.
    pub async fn checkpoint_counter(&self, job: &str) -> u64 {
        let name = names::job_config_map(&names::kubernetes_cluster_id(&self.name), job);
        let data = self.config_map(&name).await.and_then(|one| one.data).unwrap_or_default();
        data.get("counter")
            .and_then(|counter| counter.parse().ok())
            .expect("a checkpoint counter in the job's ConfigMap")
    }
}

pub fn ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub fn restarts(pod: &Pod, container: &str) -> i32 {
    let status = pod.status.as_ref().unwrap();
    let mut statuses = [&status.container_statuses, &status.init_container_statuses].into_iter().flatten().flatten();
    statuses.find(|status| status.name == container).map_or(0, |status| status.restart_count)
}
