//! Our cluster in kind: the example of the repository, applied as a user would.

use std::time::Instant;

use flinkha::api::FlinkHaCluster;
use flinkha::api::names;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::machine::client;
use super::machine::flink_image;
use super::machine::kubectl_with;
use super::namespace::Namespace;
use super::operator;
use crate::JAVA_OPTIONS;
use crate::support::answered;
use crate::support::eventually;
use crate::support::say;
use crate::support::seconds;

/// The FlinkHaCluster of `examples/session.yaml`, with the version of Flink under test.
pub fn example() -> Value {
    read(include_str!("../../../examples/session.yaml"))
}

/// The FlinkHaCluster of an example.
pub fn read(text: &str) -> Value {
    let documents = serde_yaml::Deserializer::from_str(text);
    let documents =
        documents.map(|document| <Value as serde::Deserialize>::deserialize(document).expect("the example in YAML"));
    let mut example = documents
        .into_iter()
        .find(|document| document["kind"] == "FlinkHaCluster")
        .expect("a FlinkHaCluster in the example");
    example["spec"]["image"] = flink_image().into();
    // REST answers come from a cache; the example's are too old to measure with.
    let configuration = &mut example["spec"]["flinkConfiguration"];
    configuration["web.refresh-interval"] = "50 ms".into();
    for (key, options) in ["env.java.opts.jobmanager", "env.java.opts.taskmanager"].into_iter().zip(JAVA_OPTIONS) {
        if !options.is_empty() {
            configuration[key] = options.into();
        }
    }
    example
}

/// Applies a FlinkHaCluster; returns at once.
pub async fn apply(namespace: Namespace, resource: &Value) -> Cluster {
    operator::install();
    kubectl_with(&["--namespace", &namespace.0, "apply", "--filename", "-"], &resource.to_string());
    let count =
        |component: &str| resource["spec"][component]["replicas"].as_u64().expect("replicas in the resource") as usize;
    let name = resource["metadata"]["name"].as_str().expect("a name").to_owned();
    Cluster {
        namespace,
        name,
        job_managers: count("jobManager"),
        task_managers: count("taskManager"),
        client: client().await,
        encrypted: !resource["spec"]["tls"]["rest"].is_null(),
    }
}

/// Applies the example; returns when it is ready.
pub async fn start(namespace: Namespace) -> Cluster {
    let cluster = apply(namespace, &example()).await;
    cluster.wait_until_ready().await;
    cluster
}

impl Cluster {
    pub async fn resource(&self) -> FlinkHaCluster {
        let resources: Api<FlinkHaCluster> = Api::namespaced(self.client.clone(), &self.namespace.0);
        answered("the FlinkHaCluster", async || resources.get(&self.name).await).await
    }

    /// Reason and message of the condition Degraded, while it holds.
    pub async fn degraded(&self) -> Option<(String, String)> {
        let conditions = self.resource().await.status?.conditions;
        let degraded =
            conditions.into_iter().find(|condition| condition.type_ == "Degraded" && condition.status == "True")?;
        Some((degraded.reason, degraded.message))
    }

    /// Waits until the condition Degraded has this reason and names all this.
    pub async fn wait_for_degraded(&self, reason: &str, words: &[&str]) {
        let begin = Instant::now();
        let told = async || {
            let (found, message) = self.degraded().await?;
            (found == reason && words.iter().all(|word| message.contains(word))).then_some(message)
        };
        let message = eventually(&format!("{reason} with {words:?}"), seconds(120), told).await;
        say(format!("{reason} after {:.1} s: {message}", begin.elapsed().as_secs_f32()));
    }

    pub async fn lease(&self) -> Lease {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace.0);
        let name = names::lease(&self.name);
        answered("the Lease", async || leases.get(&name).await).await
    }

    /// The pod that holds the Lease; empty when nobody does.
    pub async fn holder(&self) -> String {
        self.lease().await.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
    }

    /// The leading gateway's word on the last change of leader.
    pub async fn last_change(&self) -> Value {
        let lease = self.lease().await;
        lease
            .annotations()
            .get(names::CHANGE_ANNOTATION)
            .map_or(json!({}), |text| serde_json::from_str(text).expect("JSON"))
    }
}
