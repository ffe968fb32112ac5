//! Decides whether a template of pods takes away or claims what the operator needs in them.

use serde_json::Value;

use super::own_pod::OwnPod;
use super::{Problems, java_options};
use crate::api::names::{
    CLUSTER_LABEL, COMPONENT_LABEL, FLINK_CONTAINER, GATEWAY_CONTAINER, HAND_OVER_VOLUME, MANAGED_BY_LABEL,
    PEERS_VOLUME, ZOOKEEPER_USER_VOLUME,
};
use crate::api::owned::{self, RESERVED_PREFIX};
use crate::cluster::build::job_manager::OURS;

/// Variable whose lines the entrypoint of Flink's image appends to Flink's configuration.
const PROPERTIES: &str = "FLINK_PROPERTIES";
/// Where the operator mounts its volumes into Flink's container.
const RESERVED_DIRECTORY: &str = "/flinkha";

impl Problems {
    pub(super) fn pod_template(&mut self, field: &str, template: &Value, own: &OwnPod) {
        let is_map = |value: &Value| value.is_null() || value.is_object();
        for (field, value) in [(field.to_owned(), template), (format!("{field}.spec"), &template["spec"])] {
            if !is_map(value) {
                return self.add(field, "must be a map of fields, as in a Deployment".to_owned());
            }
        }
        for kind in ["labels", "annotations"] {
            for key in template["metadata"][kind].as_object().into_iter().flatten().map(|(key, _)| key) {
                if key.starts_with(RESERVED_PREFIX)
                    || [MANAGED_BY_LABEL, CLUSTER_LABEL, COMPONENT_LABEL].contains(&key.as_str())
                {
                    self.add(
                        format!("{field}.metadata.{kind}"),
                        format!("{key} is owned by the operator, which finds its pods by it; remove it"),
                    );
                }
            }
        }
        for (path, of) in
            [("metadata", &["labels", "annotations"][..]), ("spec", &["containers", "volumes", "enableServiceLinks"])]
        {
            self.removals(&format!("{field}.{path}"), &template[path], of);
        }
        self.removals(field, template, &["metadata", "spec"]);
        let spec = &template["spec"];
        for owned in owned::POD_SPEC.iter().filter(|owned| spec.get(owned.field).is_some()) {
            self.add(format!("{field}.spec.{}", owned.field), owned.reason.to_owned());
        }
        for volume in named(&spec["volumes"]).filter(|volume| volume.0.starts_with(RESERVED_PREFIX)) {
            self.add(
                format!("{field}.spec.volumes"),
                format!("names that start with {RESERVED_PREFIX} are the operator's; rename {}", volume.0),
            );
        }
        for (name, _) in named(&spec["initContainers"]).filter(|container| OURS.contains(&container.0)) {
            let remedy = if name == GATEWAY_CONTAINER {
                "use spec.gateway for its resources"
            } else {
                "give yours another name"
            };
            self.add(
                format!("{field}.spec.initContainers"),
                format!("the container {name} is the operator's; {remedy}"),
            );
        }
        if own.leads && spec["terminationGracePeriodSeconds"] == 0 {
            let problem = "with 0 Kubernetes takes a pod for gone while its processes still run, so that a leader hands \
                           nothing over, and nobody sees whether it still writes; set at least 1, such as the default 30";
            self.add(format!("{field}.spec.terminationGracePeriodSeconds"), problem.to_owned());
        }
        self.ports(field, spec, own);
        for list in ["containers", "initContainers"] {
            for (container, mount) in named(&spec[list])
                .flat_map(|(name, container)| named(&container["volumeMounts"]).map(move |mount| (name, mount.0)))
            {
                if let Some(why) = why_for_the_gateway_alone(mount) {
                    self.add(
                        format!("{field}.spec.{list}[{container}].volumeMounts"),
                        format!("the volume {mount} is for the gateway alone, because {why}; remove the mount"),
                    );
                }
            }
        }
        for (_, container) in named(&spec["containers"]).filter(|container| container.0 == FLINK_CONTAINER) {
            self.flink_container(&format!("{field}.spec.containers[{FLINK_CONTAINER}]"), container);
        }
    }

    /// The containers of a pod share one address.
    fn ports(&mut self, field: &str, spec: &Value, own: &OwnPod) {
        for (name, container) in named(&spec["containers"]).filter(|container| container.0 != FLINK_CONTAINER) {
            let ports = container["ports"].as_array().into_iter().flatten();
            let tcp = ports.filter(|port| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP"));
            let numbers = tcp.filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
            for port in numbers.filter(|port| own.ports.contains(port)) {
                self.add(
                    format!("{field}.spec.containers[{name}].ports"),
                    format!("Flink or its gateway listens at port {port} in this pod; choose another port"),
                );
            }
        }
    }

    fn flink_container(&mut self, field: &str, container: &Value) {
        for owned in owned::FLINK_CONTAINER.iter().filter(|owned| container.get(owned.field).is_some()) {
            self.add(format!("{field}.{}", owned.field), owned.reason.to_owned());
        }
        self.removals(field, container, &["env", "volumeMounts", "ports", "readinessProbe"]);
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let paths = mounts.filter_map(|mount| mount["mountPath"].as_str());
        for path in
            paths.filter(|path| *path == RESERVED_DIRECTORY || path.starts_with(&format!("{RESERVED_DIRECTORY}/")))
        {
            self.add(
                format!("{field}.volumeMounts"),
                format!("{path} is in the operator's directory {RESERVED_DIRECTORY}; mount the volume elsewhere"),
            );
        }
        for (name, variable) in named(&container["env"]) {
            let field = format!("{field}.env[{name}]");
            let value = variable["value"].as_str().unwrap_or_default();
            if java_options::VARIABLES.contains(&name) {
                self.java_options(&field, value);
            } else if name == PROPERTIES {
                self.properties(&field, variable, value);
            }
        }
        for (name, _) in named(&container["env"]).filter(|variable| owned::FLINK_ENVIRONMENT.contains(&variable.0)) {
            self.add(format!("{field}.env"), format!("{name} is owned by the operator; remove it"));
        }
        for user in ["runAsUser", "runAsGroup"].iter().filter(|user| !container["securityContext"][**user].is_null()) {
            let reason =
                "must be the gateway's, which watches Flink's process; set it in the pod's securityContext instead";
            self.add(format!("{field}.securityContext.{user}"), reason.to_owned());
        }
    }

    fn properties(&mut self, field: &str, variable: &Value, value: &str) {
        if !variable["valueFrom"].is_null() {
            let problem = "must have its value here, so that the operator sees which keys it sets; use \
                           spec.flinkConfigurationFrom for a Secret";
            self.add(field.to_owned(), problem.to_owned());
        }
        for (key, value) in entries_of(value) {
            for group in owned::FLINK_CONFIGURATION.iter().filter(|group| group.contains(&key)) {
                self.add(field.to_owned(), format!("the key {key} {}", group.reason));
            }
            if key.starts_with(java_options::KEYS) {
                self.java_options(field, &value);
            }
        }
    }

    /// A `null` in a template removes what the operator has there.
    fn removals(&mut self, field: &str, parent: &Value, needed: &[&str]) {
        for name in needed.iter().filter(|name| parent.get(**name).is_some_and(Value::is_null)) {
            self.add(
                format!("{field}.{name}"),
                "null would remove what the operator needs there; leave it out".to_owned(),
            );
        }
    }
}

/// Keys and values of a configuration in YAML: flat, or nested by indentation.
fn entries_of(text: &str) -> Vec<(String, String)> {
    let (mut entries, mut parents): (Vec<_>, Vec<(usize, String)>) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '-'])) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let indent = key.len() - key.trim_start().len();
        parents.retain(|(outer, _)| *outer < indent);
        parents.push((indent, key.trim().trim_matches(['\'', '"']).to_owned()));
        let key = parents.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
        entries.push((key, value.to_owned()));
    }
    entries
}

/// Why no other container may mount a volume; `None` if it may.
fn why_for_the_gateway_alone(volume: &str) -> Option<&'static str> {
    match volume {
        PEERS_VOLUME | HAND_OVER_VOLUME => Some("whoever mounts it can take part in the election"),
        ZOOKEEPER_USER_VOLUME => Some("it holds the password for the quorum"),
        _ => None,
    }
}

/// Returns the elements of a list with their names.
fn named(list: &Value) -> impl Iterator<Item = (&str, &Value)> {
    list.as_array().into_iter().flatten().filter_map(|element| Some((element["name"].as_str()?, element)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::FlinkHaCluster;
    use crate::cluster::tests as fixture;

    fn problems(change: impl FnOnce(&mut FlinkHaCluster)) -> Vec<String> {
        let mut resource = fixture::resource();
        change(&mut resource);
        crate::cluster::validate::problems(&resource).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_of_a_pod_template_is_named_with_its_field() {
        let found = problems(|resource| {
            resource.spec.job_manager.pod_template = json!({
                "metadata": { "labels": { "app.kubernetes.io/instance": "x" } },
                "spec": {
                    "hostNetwork": true,
                    "volumes": [{ "name": "flinkha-tmp" }],
                    "initContainers": [{ "name": "gateway" }],
                    "containers": [{
                        "name": "flink-main-container",
                        "image": "mine",
                        "env": [{ "name": "KUBERNETES_MASTER", "value": "x" }],
                        "securityContext": { "runAsUser": 1 },
                    }],
                },
            });
        });
        for expected in [
            "spec.jobManager.podTemplate.metadata.labels: app.kubernetes.io/instance is owned",
            "spec.jobManager.podTemplate.spec.hostNetwork: is not possible",
            "rename flinkha-tmp",
            "spec.jobManager.podTemplate.spec.initContainers: the container gateway",
            "containers[flink-main-container].image: is owned by the operator, so that all pods run the same Flink; use spec.image",
            "containers[flink-main-container].env: KUBERNETES_MASTER",
            "securityContext.runAsUser: must be the gateway's",
        ] {
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} not in {found:#?}");
        }
        assert_eq!(found.len(), 7);
    }

    #[test]
    fn nothing_in_a_template_takes_away_what_the_operator_needs() {
        let found = |template: Value| problems(|resource| resource.spec.task_manager.pod_template = template);
        let flink = |container: Value| {
            let mut container = container;
            container["name"] = "flink-main-container".into();
            json!({ "spec": { "containers": [container] } })
        };
        let properties = |text: &str| flink(json!({ "env": [{ "name": "FLINK_PROPERTIES", "value": text }] }));
        for (template, expected) in [
            (json!({ "metadata": null }), "podTemplate.metadata: null would remove"),
            (json!({ "metadata": { "labels": null } }), "podTemplate.metadata.labels: null would remove"),
            (json!({ "spec": { "containers": null } }), "podTemplate.spec.containers: null would remove"),
            (json!({ "spec": { "serviceAccountName": null } }), "podTemplate.spec.serviceAccountName: is owned"),
            (
                json!({ "spec": { "enableServiceLinks": null } }),
                "podTemplate.spec.enableServiceLinks: null would remove",
            ),
            (flink(json!({ "ports": null })), "containers[flink-main-container].ports: null would remove"),
            (flink(json!({ "readinessProbe": null })), "[flink-main-container].readinessProbe: null would remove"),
            (flink(json!({ "env": null })), "containers[flink-main-container].env: null would remove"),
            (flink(json!({ "args": null })), "containers[flink-main-container].args: is owned"),
            (
                flink(json!({ "volumeMounts": [{ "name": "a", "mountPath": "/flinkha/conf" }] })),
                "mount the volume elsewhere",
            ),
            (properties("a: b\nrest.port: 9"), "env[FLINK_PROPERTIES]: the key rest.port is an address"),
            (properties("env.java.opts.all: '-Drest.port=9'"), "env[FLINK_PROPERTIES]: the property rest.port is"),
            (
                flink(json!({ "env": [{ "name": "FLINK_PROPERTIES", "valueFrom": { "secretKeyRef": {} } }] })),
                "env[FLINK_PROPERTIES]: must have its value here",
            ),
            (
                flink(json!({ "env": [{ "name": "JVM_ARGS", "value": "-Xms1g -Dkubernetes.master=x" }] })),
                "env[JVM_ARGS]: the property kubernetes.master is owned by high availability",
            ),
            (properties("rest:\n  flamegraph:\n    enabled: true\n  port: 9"), "the key rest.port is an address"),
        ] {
            let found = found(template);
            assert!(found.len() == 1 && found[0].contains(expected), "{expected} in {found:#?}");
        }
        for template in [
            json!({ "spec": { "affinity": null, "securityContext": { "fsGroup": null } } }),
            properties("parallelism:\n  default: 2\n# rest.port: 9\nrest:\n  flamegraph.enabled: true"),
        ] {
            assert_eq!(found(template), Vec::<String>::new());
        }
    }

    #[test]
    fn a_pod_template_that_is_no_map_is_refused() {
        for template in [json!([]), json!("x"), json!({ "spec": [] }), json!({ "spec": "x" })] {
            let found = problems(|resource| resource.spec.task_manager.pod_template = template.clone());
            assert!(found.len() == 1 && found[0].contains("must be a map"), "{template}: {found:?}");
        }
    }

    #[test]
    fn what_only_the_gateway_may_mount_is_refused_by_name() {
        let found = problems(|resource| {
            let mount = |name: &str| json!([{ "name": name, "mountPath": "/x" }]);
            resource.spec.job_manager.pod_template = json!({ "spec": {
                "initContainers": [{ "name": "first", "volumeMounts": mount("flinkha-peers") }],
                "containers": [
                    { "name": "side", "volumeMounts": mount("flinkha-hand-over") },
                    { "name": "logs", "volumeMounts": mount("flinkha-log") },
                ],
            } });
        });
        assert_eq!(
            found,
            [
                "spec.jobManager.podTemplate.spec.containers[side].volumeMounts: the volume flinkha-hand-over is for the gateway alone, because whoever \
                 mounts it can take part in the election; remove the mount",
                "spec.jobManager.podTemplate.spec.initContainers[first].volumeMounts: the volume flinkha-peers is for the gateway alone, because whoever \
                 mounts it can take part in the election; remove the mount",
            ]
        );
    }

    #[test]
    fn what_runs_beside_flink_leaves_its_ports_and_names_alone() {
        let sidecar = |port: u16, protocol: &str| {
            let port = json!([{ "containerPort": port, "protocol": protocol }]);
            json!({ "spec": { "containers": [{ "name": "side", "ports": port }] } })
        };
        let found = |job_manager: Value, task_manager: Value| {
            problems(|resource| {
                resource.spec.job_manager.pod_template = job_manager;
                resource.spec.task_manager.pod_template = task_manager;
            })
        };
        for port in [6123, 6124, 6180, 6181, 8081] {
            let expected = format!(
                "spec.jobManager.podTemplate.spec.containers[side].ports: Flink or its gateway listens at port {port} in \
                 this pod; choose another port"
            );
            assert_eq!(found(sidecar(port, "TCP"), sidecar(port, "TCP")), [expected]);
            assert_eq!(found(sidecar(port, "UDP"), Value::Null), Vec::<String>::new());
        }
        assert_eq!(found(sidecar(6122, "TCP"), sidecar(6122, "TCP")).len(), 1);
        assert_eq!(found(sidecar(9249, "TCP"), sidecar(9249, "TCP")), Vec::<String>::new());
        let init = |name: &str| json!({ "spec": { "initContainers": [{ "name": name }] } });
        for name in ["prepare-tls", "fetch-jar"] {
            let found = found(init(name), Value::Null);
            assert!(found.len() == 1 && found[0].ends_with("is the operator's; give yours another name"), "{found:?}");
        }
    }

    /// A deletion has the grace period of the pod's spec, and one of 0 removes the object at once
    /// (`podStrategy.CheckGracefulDelete`, Kubernetes 1.29 to 1.34).
    #[test]
    fn a_job_managers_pod_is_not_gone_before_its_processes_are() {
        let grace = |seconds: Value| json!({ "spec": { "terminationGracePeriodSeconds": seconds } });
        let of_job_manager = |template| problems(|resource| resource.spec.job_manager.pod_template = template);
        let found = of_job_manager(grace(json!(0)));
        assert!(found.len() == 1 && found[0].contains("while its processes still run"), "{found:?}");
        assert_eq!(of_job_manager(grace(json!(1))), Vec::<String>::new());
        let of_task_manager = problems(|resource| resource.spec.task_manager.pod_template = grace(json!(0)));
        assert_eq!(of_task_manager, Vec::<String>::new());
    }
}
