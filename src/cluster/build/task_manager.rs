//! Builds the Deployment of the TaskManagers. They need no gateway: they use Kubernetes only to watch for the leader.

use serde_json::{Value, json};

use super::job_manager::{TEMPLATE_ANNOTATION, template_digest};
use super::pod::{self, Component};
use super::{Environment, configuration_secrets, object, selector, tls, zookeeper};
use crate::api::names::{self, TASK_MANAGER};
use crate::api::rest::IpFamily;
use crate::cluster::Cluster;

/// Name of the API server's certificate in every cluster; also its Service.
const API_SERVER: &str = "https://kubernetes.default.svc";

/// Returns the environment by which Flink finds the API server where its address is of IPv6. Flink's client would not
/// accept the certificate for `KUBERNETES_SERVICE_HOST`: OkHttp 3.14.9 (`OkHostnameVerifier.verifyIpAddress`, in Flink
/// 1.20 to 2.3) compares the text of the address, which it shortens, with that of the JDK, which does not (`fd00::1`
/// with `fd00:0:0:0:0:0:0:1`).
fn api_server(cluster: &Cluster, environment: &Environment) -> Vec<Value> {
    if cluster.zookeeper().is_some() || environment.ip_family != Some(IpFamily::IPv6) {
        return Vec::new();
    }
    vec![json!({ "name": "KUBERNETES_MASTER", "value": API_SERVER })]
}

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
        environment: api_server(cluster, environment),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::build::build;
    use crate::cluster::tests as fixture;

    #[test]
    fn task_managers_ask_the_api_server_by_its_name_only_where_addresses_are_of_ipv6() {
        let master = |cluster: &Cluster, ip_family| {
            let objects = build(cluster, &Environment { ip_family, ..Environment::default() });
            let container = &objects.task_managers["spec"]["template"]["spec"]["containers"][0];
            let all = container["env"].as_array().into_iter().flatten();
            let mut masters = all.filter(|variable| variable["name"] == "KUBERNETES_MASTER");
            masters.next().map(|variable| variable["value"].clone())
        };
        let cluster = fixture::cluster();
        assert_eq!(master(&cluster, None), None);
        assert_eq!(master(&cluster, Some(IpFamily::IPv4)), None);
        assert_eq!(master(&cluster, Some(IpFamily::IPv6)), Some(json!("https://kubernetes.default.svc")));
        assert_eq!(master(&fixture::on_zookeeper(), Some(IpFamily::IPv6)), None, "they do not ask it");
    }
}
