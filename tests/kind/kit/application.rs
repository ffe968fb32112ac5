//! The example application in kind, with a job that proves exactly-once, and what a user sees of it.

use std::time::Duration;

use flinkha::api::application::{Application, Phase, Upgrade};
use flinkha::api::names;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::machine::flink_version;
use super::machine::kubectl_with;
use super::namespace::Namespace;
use super::node;
use super::ours;
use crate::support::eventually;
use crate::support::flink::jobs_jar;
use crate::support::rest::Job;
use crate::support::seconds;

/// Pods go, images are looked up, JVMs start, on two cores.
pub const PATIENCE: Duration = seconds(180);

/// The FlinkHaCluster of `examples/application.yaml` with one of the example jobs, whose jar lies on the volume.
pub fn resource(namespace: &Namespace, class: &str, arguments: &[&str]) -> Value {
    let mut resource = ours::read(include_str!("../../../examples/application.yaml"));
    let jar = jobs_jar(&flink_version());
    namespace.put(&jar, "jobs.jar");
    let sha256 =
        ring::digest::digest(&ring::digest::SHA256, &std::fs::read(&jar).expect("the jar of the example jobs"));
    let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    resource["spec"]["job"]["jarURI"] = "file:///flink/jobs.jar".into();
    resource["spec"]["job"]["sha256"] = sha256.into();
    resource["spec"]["job"]["entryClass"] = format!("dev.flinkha.jobs.{class}").into();
    resource["spec"]["job"]["args"] = json!(arguments);
    resource["spec"]["job"]["upgradeDeadline"] = "300s".into();
    resource
}

/// Applies a changed resource, as a user does.
pub fn change(cluster: &Cluster, resource: &Value) {
    kubectl_with(&["--namespace", &cluster.namespace.0, "apply", "--filename", "-"], &resource.to_string());
}

impl Cluster {
    pub async fn application(&self) -> Application {
        self.resource().await.status.and_then(|status| status.application).unwrap_or_default()
    }

    /// Waits until the operator says so of this generation's resource; returns what it says.
    pub async fn wait_for_phase(&self, phase: Phase) -> Application {
        let reached = async || {
            let resource = self.resource().await;
            let status = resource.status?;
            let application = status.application?;
            (status.observed_generation == resource.metadata.generation && application.phase == phase)
                .then_some(application)
        };
        eventually(&format!("{} in phase {phase:?}", self.name), PATIENCE, reached).await
    }

    /// Waits until the last upgrade has come to this, and the application runs.
    pub async fn wait_for_upgrade(&self, result: &str) -> (Application, Upgrade) {
        let concluded = async || {
            let application = self.application().await;
            let last = application.upgrades.last().cloned()?;
            (last.result == result && application.phase == Phase::Running).then_some((application, last))
        };
        eventually(&format!("an upgrade that {result}"), PATIENCE * 2, concluded).await
    }

    /// The same of an upgrade in this mode, that succeeded.
    pub async fn wait_for_upgrade_of(&self, mode: &str) -> (Application, Upgrade) {
        let concluded =
            async || Some(self.wait_for_upgrade("Succeeded").await).filter(|(_, upgrade)| upgrade.mode == mode);
        eventually(&format!("an upgrade by {mode}"), PATIENCE, concluded).await
    }

    /// Waits until all tasks run and so many checkpoints are complete since the JobManager has the job.
    pub async fn wait_for_checkpoints(&self, job: &str, completed: u64) {
        let enough = async || {
            let rest = self.rest(&self.leader().await?.name_any());
            rest.job(job).await.ok().filter(Job::runs)?;
            rest.checkpoints(job).await.ok().filter(|now| now.completed >= completed)
        };
        eventually(&format!("{completed} checkpoints of {job}"), PATIENCE, enough).await;
    }

    /// So many more checkpoints than now. The count goes on when only the tasks are restarted.
    pub async fn wait_for_more_checkpoints(&self, job: &str, more: u64) {
        let now = async || self.rest(&self.leader().await?.name_any()).checkpoints(job).await.ok();
        let now = eventually("the checkpoints", PATIENCE, now).await.completed;
        self.wait_for_checkpoints(job, now + more).await;
    }

    /// How often the tasks were restarted since the JobManager has the job.
    pub async fn restarts(&self, job: &str) -> String {
        let rest = self.leading_rest().await;
        let metrics = rest.get(&format!("/jobs/{job}/metrics?get=numRestarts")).await.expect("metrics");
        metrics[0]["value"].as_str().unwrap_or("0").to_owned()
    }

    pub async fn condition(&self, kind: &str) -> (String, String, String) {
        let conditions = self.resource().await.status.map(|status| status.conditions).unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition.type_ == kind).expect("the condition");
        (found.status, found.reason, found.message)
    }

    /// Waits until nothing is left of an application that has ended. Its end does not wait for a pod whose containers
    /// have ended: the kubelet removes that a moment later.
    pub async fn assert_nothing_remains(&self) {
        let what = format!("nothing of {}; there was {:?}", self.name, self.remains().await);
        eventually(&what, seconds(30), async || self.remains().await.is_empty().then_some(())).await;
    }

    /// Pods, HA ConfigMaps and HA files, marks apart: what should be gone when the job has ended.
    pub async fn remains(&self) -> Vec<String> {
        let mut remains: Vec<String> = Vec::new();
        for component in [names::JOB_MANAGER, names::TASK_MANAGER] {
            let labels = format!("{}={},{}={component}", names::CLUSTER_LABEL, self.name, names::COMPONENT_LABEL);
            let pods = self.pods_api().list(&ListParams::default().labels(&labels)).await.expect("failed to list pods");
            remains.extend(pods.iter().map(ResourceExt::name_any));
        }
        let own = [names::ledger(&self.name), names::flink_config(&self.name), "kube-root-ca.crt".to_owned()];
        let config_maps = self.config_maps().list(&ListParams::default()).await.expect("failed to list ConfigMaps");
        remains.extend(config_maps.iter().map(ResourceExt::name_any).filter(|name| !own.contains(name)));
        remains.extend(self.namespace.files("ha").into_iter().filter(|file| !file.contains("/.flinkha/")));
        remains
    }
}

impl Namespace {
    /// Puts a file of this machine onto the volume, readable for all.
    pub fn put(&self, from: &std::path::Path, to: &str) {
        let path = format!("{}/{to}", self.directory());
        node::put(&node::any(), from, &path);
        node::run(&node::any(), &["chmod", "644", &path]);
    }
}
