//! Builds the objects of a cluster. Building cannot fail: [`super::validate`] has found every error before.
//!
//! Objects are JSON, created as they are and changed by server-side apply, so the operator owns exactly the fields that
//! are written here. A field of the user's pod template that is newer than this program is passed on.

pub mod application;
pub mod config;
pub mod configuration_secrets;
pub mod ingress;
pub mod job_manager;
pub mod jvm_options;
pub mod network_policy;
pub mod pod;
pub mod purge;
pub mod rbac;
pub mod role_rule;
pub mod service;
pub mod task_manager;
pub mod tls;
pub mod zookeeper;

use serde_json::{Map, Value, json};

use crate::api::FlinkHaClusterSpec;
use crate::api::log_format::LogFormat;
use crate::api::metadata::CommonMetadata;
use crate::api::names::{CLUSTER_LABEL, COMPONENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
use crate::api::rest::IpFamily;
use crate::api::v1alpha1::{Gateway, Resources};
use crate::cluster::Cluster;

/// Settings of the operator that the resource does not have.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Image of the gateway.
    pub gateway_image: String,
    /// Log filter of gateways whose resource says no other one. It is no part of a pod template.
    pub gateway_log: String,
    /// Secrets for pulling images, after those of the resource.
    pub image_pull_secrets: Vec<String>,
    /// Format of the gateways' logs. It is no part of a pod template either.
    pub log_format: LogFormat,
    /// First family of addresses of the Kubernetes cluster's pods; `None` if the operator does not know it.
    pub ip_family: Option<IpFamily>,
}

/// All objects of a cluster.
#[derive(Clone, Debug)]
pub struct Objects {
    /// Objects that the operator applies in this order, and repairs when somebody changes them.
    pub applied: Vec<Value>,
    /// Objects that the operator creates if they are absent. Afterwards the leading gateway owns their contents.
    pub created: Vec<Value>,
    /// Objects that the resource does not want, with nothing but what identifies them: the operator removes those that
    /// it has made for this resource.
    pub unwanted: Vec<Value>,
    /// Secret for the gateways' key, created if absent. The operator cannot read it, so only the API server knows.
    pub peers: Value,
    /// The Deployment of the JobManagers. Deployments are applied last, so that the pods find all other objects.
    pub job_managers: Value,
    /// The Deployment of the TaskManagers.
    pub task_managers: Value,
    /// Whether something in the pods of each comes from the user as it is, so that only the API server can tell whether
    /// it is right.
    pub is_of_user: OfUser,
}

/// Parts of pods that come from the user as they are.
#[derive(Clone, Copy, Debug)]
pub struct OfUser {
    pub job_managers: bool,
    pub task_managers: bool,
}

impl OfUser {
    fn of(spec: &FlinkHaClusterSpec) -> Self {
        let says = |template: &Value, resources: &Resources| !template.is_null() || *resources != Resources::default();
        let FlinkHaClusterSpec { job_manager, task_manager, gateway, .. } = spec;
        let gateway = gateway.resources != Gateway::default().resources;
        Self {
            job_managers: gateway || says(&job_manager.pod_template, &job_manager.resources),
            task_managers: gateway || says(&task_manager.pod_template, &task_manager.resources),
        }
    }
}

impl Objects {
    /// The NetworkPolicy, if the resource wants one.
    pub fn network_policy(&self) -> Option<&Value> {
        self.applied.iter().find(|object| object["kind"] == network_policy::KIND)
    }
}

/// Builds all objects of a cluster.
pub fn build(cluster: &Cluster, environment: &Environment) -> Objects {
    Objects {
        applied: [
            rbac::build(cluster),
            service::applied(cluster),
            vec![config::config_map(cluster, environment)],
            network_policy::wanted(cluster).into_iter().chain(ingress::wanted(cluster)).collect(),
        ]
        .concat(),
        created: service::created(cluster, environment),
        unwanted: [network_policy::unwanted(cluster), ingress::unwanted(cluster)]
            .into_iter()
            .flatten()
            .chain(service::unwanted(cluster, environment))
            .collect(),
        peers: if job_manager::has_key(cluster) { job_manager::peers_secret(cluster) } else { Value::Null },
        job_managers: job_manager::deployment(cluster, environment, &config::digest(cluster, "taskmanager.")),
        task_managers: task_manager::deployment(cluster, environment, &config::digest(cluster, "jobmanager.")),
        is_of_user: OfUser::of(cluster.spec()),
    }
}

/// Returns the labels that select the pods of a component.
pub fn selector(cluster: &str, component: &str) -> Map<String, Value> {
    let label = |key: &str, value: &str| (key.to_owned(), Value::from(value));
    [label(CLUSTER_LABEL, cluster), label(COMPONENT_LABEL, component), label(MANAGED_BY_LABEL, MANAGED_BY)]
        .into_iter()
        .collect()
}

/// Returns an object of a cluster with its labels, by which the operator recognizes it, and with an owner reference, by
/// which Kubernetes removes it with the resource.
fn object(cluster: &Cluster, api_version: &str, kind: &str, name: &str, body: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": cluster.namespace(),
            "labels": { MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: cluster.name() },
            "ownerReferences": [{
                "apiVersion": "flinkha.dev/v1alpha1",
                "kind": "FlinkHaCluster",
                "name": cluster.name(),
                "uid": cluster.uid(),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
    });
    super::merge::merge(&mut object, body);
    // What the user wants on all objects, unless we need that key ourselves.
    let CommonMetadata { labels, annotations } = &cluster.spec().common_metadata;
    for (field, wanted) in [("labels", labels), ("annotations", annotations)] {
        for (key, value) in wanted {
            let there = &mut object["metadata"][field][key];
            if there.is_null() {
                *there = value.as_str().into();
            }
        }
    }
    object
}

/// Returns FNV-1a of a text in hex. It distinguishes two versions of a text and is not for secrets.
pub fn digest(text: &str) -> String {
    format!("{:016x}", hash(text))
}

/// The same as a number (FNV-1a).
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps, coordination, core, discovery, networking, policy, rbac};
    use serde::{Serialize, de::DeserializeOwned};

    use super::*;
    use crate::cluster::tests as fixture;

    fn objects() -> Objects {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        build(&fixture::cluster(), &environment)
    }

    /// Deserializing drops fields that the struct does not know, so a misspelt field shows.
    fn typed<T: Serialize + DeserializeOwned>(value: &Value) -> Value {
        let typed: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"));
        serde_json::to_value(typed).unwrap_or_default()
    }

    #[test]
    fn every_object_consists_of_fields_that_kubernetes_knows() {
        let objects = objects();
        let all = objects.applied.iter().chain(&objects.created).chain([
            &objects.peers,
            &objects.job_managers,
            &objects.task_managers,
        ]);
        let mut kinds = Vec::new();
        for object in all {
            let kind = object["kind"].as_str().unwrap_or_default();
            let read = match kind {
                "ConfigMap" => typed::<core::v1::ConfigMap>(object),
                "Service" => typed::<core::v1::Service>(object),
                "ServiceAccount" => typed::<core::v1::ServiceAccount>(object),
                "Role" => typed::<rbac::v1::Role>(object),
                "RoleBinding" => typed::<rbac::v1::RoleBinding>(object),
                "PodDisruptionBudget" => typed::<policy::v1::PodDisruptionBudget>(object),
                "NetworkPolicy" => typed::<networking::v1::NetworkPolicy>(object),
                "Secret" => typed::<core::v1::Secret>(object),
                "Lease" => typed::<coordination::v1::Lease>(object),
                "EndpointSlice" => typed::<discovery::v1::EndpointSlice>(object),
                "Deployment" => typed::<apps::v1::Deployment>(object),
                other => panic!("unexpected kind {other}"),
            };
            assert_eq!(&read, object, "{kind}");
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            assert!(crate::api::names::is_of_cluster(kind, name, "demo"), "the watches would ignore {kind} {name}");
            kinds.push(format!("{kind}/{name}"));
        }
        assert_eq!(
            kinds,
            [
                "ServiceAccount/demo-jobmanager",
                "Role/demo-jobmanager",
                "RoleBinding/demo-jobmanager",
                "ServiceAccount/demo-taskmanager",
                "Role/demo-taskmanager",
                "RoleBinding/demo-taskmanager",
                "Service/demo-rest",
                "Service/demo-jobmanagers",
                "PodDisruptionBudget/demo-jobmanager",
                "ConfigMap/demo-flink-config",
                "NetworkPolicy/demo-flinkha",
                "Lease/demo",
                "ConfigMap/demo-ledger",
                "EndpointSlice/demo-rest",
                "Secret/demo-peers",
                "Deployment/demo-jobmanager",
                "Deployment/demo-taskmanager",
            ]
        );
    }

    #[test]
    fn a_drain_takes_one_job_manager_at_a_time_and_as_many_task_managers_as_the_user_says() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let budgets = |objects: &[Value]| {
            let budgets = objects.iter().filter(|object| object["kind"] == "PodDisruptionBudget");
            budgets.map(|budget| (budget["metadata"]["name"].clone(), budget["spec"].clone())).collect::<Vec<_>>()
        };
        let spec = |max: Value, component: &str| {
            let selector = json!({ "matchLabels": selector("demo", component) });
            json!({ "maxUnavailable": max, "selector": selector, "unhealthyPodEvictionPolicy": "AlwaysAllow" })
        };
        let (job_managers, task_managers) = ("demo-jobmanager", "demo-taskmanager");
        let of_job_managers = (json!(job_managers), spec(json!(1), "jobmanager"));
        let without = objects();
        assert_eq!(budgets(&without.applied), std::slice::from_ref(&of_job_managers));
        assert_eq!(budgets(&without.unwanted), [(json!(task_managers), Value::Null)], "it goes when the field goes");
        let share = Some(crate::api::v1alpha1::Scalar::Text("25%".to_owned()));
        let with = build(&fixture::cluster_with(|spec| spec.task_manager.max_unavailable = share), &environment);
        let of_task_managers = (json!(task_managers), spec(json!("25%"), "taskmanager"));
        assert_eq!(budgets(&with.applied), [of_job_managers, of_task_managers]);
        assert_eq!(budgets(&with.unwanted), []);
        assert_eq!(with.task_managers, without.task_managers, "it restarts nothing");
    }

    #[test]
    fn pods_name_the_secrets_of_the_resource_and_then_those_of_the_operator() {
        let secrets = |own: &[&str], of_operator: &[&str]| {
            let of_operator = of_operator.iter().map(|name| (*name).to_owned()).collect();
            let environment = Environment { image_pull_secrets: of_operator, ..Environment::default() };
            let own: Vec<Value> = own.iter().map(|name| json!({ "name": name })).collect();
            let set = |spec: &mut FlinkHaClusterSpec| {
                spec.image_pull_secrets = serde_json::from_value(json!(own)).unwrap_or_default();
            };
            let objects = build(&fixture::cluster_with(set), &environment);
            let of = |deployment: &Value| deployment["spec"]["template"]["spec"]["imagePullSecrets"].clone();
            assert_eq!(of(&objects.job_managers), of(&objects.task_managers));
            of(&objects.job_managers)
        };
        assert_eq!(secrets(&[], &[]), Value::Null, "no pod template changes without them");
        assert_eq!(secrets(&["a"], &[]), json!([{ "name": "a" }]));
        assert_eq!(secrets(&["b", "a"], &["a", "c"]), json!([{ "name": "b" }, { "name": "a" }, { "name": "c" }]));
    }

    #[test]
    fn what_the_user_wants_on_all_objects_is_there_and_in_no_pod() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let cluster = fixture::cluster_with(|spec| {
            let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            spec.common_metadata.labels = [text("team", "a"), text(MANAGED_BY_LABEL, "somebody")].into();
            spec.common_metadata.annotations = [text("example.org/cost", "7")].into();
            spec.service_account.annotations = [text("example.org/role", "reader")].into();
        });
        let (wanted, before) = (build(&cluster, &environment), objects());
        for object in wanted.applied.iter().chain(&wanted.created).chain([&wanted.peers, &wanted.job_managers]) {
            let metadata = &object["metadata"];
            assert_eq!(metadata["labels"]["team"], "a", "{object:#}");
            assert_eq!(metadata["labels"][MANAGED_BY_LABEL], MANAGED_BY);
            assert_eq!(metadata["annotations"]["example.org/cost"], "7");
            let is_account = object["kind"] == "ServiceAccount";
            assert_eq!(metadata["annotations"]["example.org/role"] == "reader", is_account);
        }
        for (now, then) in
            [(&wanted.job_managers, &before.job_managers), (&wanted.task_managers, &before.task_managers)]
        {
            assert_eq!(now["spec"], then["spec"], "a change of them restarts nothing");
        }
    }

    #[test]
    fn a_job_manager_pod_keeps_the_contract_with_its_gateway() {
        let pod = &objects().job_managers["spec"]["template"]["spec"];
        assert_eq!(pod["shareProcessNamespace"], true);
        assert_eq!(pod["priorityClassName"], "high");
        let gateway = &pod["initContainers"][0];
        assert_eq!(gateway["restartPolicy"], "Always");
        assert_eq!(gateway["image"], "flinkha:1");
        let arguments: Vec<&str> = gateway["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for pair in [
            ["--cluster", "demo"],
            ["--ha-cluster-id", "flink.demo"],
            ["--lease-duration", "15s"],
            ["--storage-dir", "file:///flink/ha"],
        ] {
            assert!(arguments.windows(2).any(|window| window == pair), "{pair:?} in {arguments:?}");
        }
        assert_eq!(
            gateway["volumeMounts"],
            json!([
                { "name": "ha", "mountPath": "/flink/ha" },
                { "name": "flinkha-configuration", "mountPath": "/etc/flinkha/flink", "readOnly": true },
                { "name": "flinkha-peers", "mountPath": "/etc/flinkha/peers", "readOnly": true },
                { "name": "flinkha-hand-over", "mountPath": "/run/flinkha" },
            ])
        );
        let hook = json!({ "exec": { "command": ["/flinkha", "hand-over", "--socket", "/run/flinkha/gateway.sock"] } });
        assert_eq!(gateway["lifecycle"]["preStop"], hook);
        for pair in [["--hand-over-socket", "/run/flinkha/gateway.sock"], ["--termination-grace-period", "30s"]] {
            assert!(arguments.windows(2).any(|window| window == pair), "{pair:?} in {arguments:?}");
        }
        assert!(!pod["containers"].to_string().contains("flinkha-hand-over"), "only the gateway mounts it");
        let flink = &pod["containers"][0];
        assert_eq!(flink["name"], "flink-main-container");
        let environment = |name: &str| {
            flink["env"].as_array().into_iter().flatten().find(|variable| variable["name"] == name).cloned()
        };
        assert_eq!(environment("KUBERNETES_MASTER").unwrap_or_default()["value"], "http://127.0.0.1:6180");
        assert_eq!(environment("NO_PROXY").unwrap_or_default()["value"], "example.org,127.0.0.1,localhost");
        assert_eq!(environment("no_proxy").unwrap_or_default()["value"], "127.0.0.1,localhost");
        for container in [gateway, flink] {
            assert_eq!(container["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        }
    }

    #[test]
    fn the_gateway_knows_the_grace_period_that_the_users_template_says() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        for (said, told) in [(json!(300), "300s"), (Value::Null, "30s")] {
            let template = json!({ "spec": { "terminationGracePeriodSeconds": said } });
            let cluster = fixture::cluster_with(|spec| spec.job_manager.pod_template = template);
            let pod = build(&cluster, &environment).job_managers["spec"]["template"]["spec"].clone();
            let arguments = pod["initContainers"][0]["args"].to_string();
            assert!(arguments.contains(&format!("\"--termination-grace-period\",\"{told}\"")), "{arguments}");
        }
    }

    #[test]
    fn a_change_of_configuration_replaces_the_pods_and_a_change_of_scale_does_not() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let before = build(&fixture::cluster(), &environment);
        let scaled = fixture::cluster_with(|spec| spec.task_manager.replicas = 9);
        assert_eq!(
            build(&scaled, &environment).task_managers["spec"]["template"],
            before.task_managers["spec"]["template"]
        );
        let key = ("a".to_owned(), crate::api::v1alpha1::Scalar::Number(1));
        let changed = fixture::cluster_with(|spec| spec.flink_configuration.extend([key]));
        assert_ne!(
            build(&changed, &environment).task_managers["spec"]["template"],
            before.task_managers["spec"]["template"]
        );
        assert_ne!(
            build(&changed, &environment).job_managers["spec"]["template"],
            before.job_managers["spec"]["template"]
        );
    }
}
