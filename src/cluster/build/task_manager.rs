//! Builds the Deployment of the TaskManagers. They need no gateway: they use Kubernetes only to watch for the leader.

use serde_json::{Value, json};

use super::job_manager::{TEMPLATE_ANNOTATION, template_digest};
use super::pod::{self, Component};
use super::{Environment, configuration_secrets, object, selector, tls, zookeeper};
use crate::api::names::{self, TASK_MANAGER};
use crate::cluster::Cluster;

/// Returns the Deployment of the TaskManagers.
pub fn deployment(cluster: &Cluster, environment: &Environment, configuration_digest: &str) -> Value {
    let name = names::task_manager(cluster.name());
    let spec = &cluster.spec().task_manager;
    let component = Component {
        name: TASK_MANAGER,
        command: TASK_MANAGER,
        service_account: name.clone(),
        arguments: [
            ["-D", "taskmanager.host=$(POD_IP)"].map(str::to_owned).to_vec(),
            zookeeper::task_manager_arguments(cluster),
        ]
        .concat(),
        environment: Vec::new(),
        ports: vec![("rpc", names::TASK_MANAGER_RPC_PORT), ("data", names::TASK_MANAGER_DATA_PORT)],
        ready_port: names::TASK_MANAGER_RPC_PORT,
        resources: &spec.resources,
        template: &spec.pod_template,
    };
    let mut template = pod::template(cluster, environment, &component, configuration_digest);
    if let Some(prepare) = tls::prepare_container(cluster, environment) {
        tls::mount_stores(&mut template, cluster);
        match template["spec"]["initContainers"].as_array_mut() {
            Some(containers) => containers.insert(0, prepare),
            None => template["spec"]["initContainers"] = json!([prepare]),
        }
    }
    configuration_secrets::add(&mut template, cluster);
    tls::annotate(&mut template, cluster, TASK_MANAGER);
    zookeeper::add_sidecar(&mut template, cluster, environment);
    let mut body = json!({
        "metadata": { "annotations": { TEMPLATE_ANNOTATION: template_digest(&template) } },
        "spec": {
            "replicas": cluster.replicas(spec.replicas),
            "selector": { "matchLabels": selector(cluster.name(), TASK_MANAGER) },
            "template": template,
        },
    });
    configuration_secrets::annotate(&mut body, cluster);
    tls::annotate(&mut body, cluster, TASK_MANAGER);
    object(cluster, "apps/v1", "Deployment", &name, body)
}
