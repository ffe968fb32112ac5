//! Builds what the pods of JobManagers and TaskManagers share: how Flink starts, what it may do, and the merge with the
//! user's template.

use serde_json::{Value, json};

use super::Environment;
use crate::api::names::{self, FLINK_CONTAINER};
use crate::api::v1alpha1::Resources;
use crate::cluster::{Cluster, merge};

/// Annotation on pods: digest of Flink's configuration.
const CONFIGURATION_ANNOTATION: &str = "flinkha.dev/configuration";

/// Annotation on pods: `spec.restartNonce`. Absent without it, so that pods from before this field existed do not
/// change.
const RESTART_ANNOTATION: &str = "flinkha.dev/restart-nonce";

/// Shell script that assembles Flink's configuration and starts Flink, through the image's own entrypoint if it has
/// one.
pub const START_FLINK: &str = include_str!("start-flink.sh");

/// Name of the volume with the configuration that Flink is started with.
pub const CONF_VOLUME: &str = "flinkha-conf";

/// Name of the volume with Flink's configuration.
pub const CONFIGURATION_VOLUME: &str = "flinkha-configuration";

/// Where the gateway finds Flink's configuration. Not where Flink does: `/flinkha` is the program in the gateway's
/// image.
pub const GATEWAY_CONFIGURATION_DIRECTORY: &str = "/etc/flinkha/flink";

/// Directories in volumes. None is in the image, so its root file system may be read-only.
const CONFIGURATION_DIRECTORY: &str = "/flinkha/configuration";
const CONF_DIRECTORY: &str = "/flinkha/conf";
const LOG_DIRECTORY: &str = "/flinkha/log";

/// User and group of Flink's images. The gateway runs as the same user, because it watches Flink's process.
const FLINK_USER: u32 = 9999;

/// A component of Flink.
pub struct Component<'a> {
    /// Value of the component label.
    pub name: &'static str,
    /// First argument of Flink's entrypoint.
    pub command: &'static str,
    /// Name of its ServiceAccount.
    pub service_account: String,
    /// Further arguments. A setting has two: `-D` and `key=value`.
    pub arguments: Vec<String>,
    /// Further environment variables.
    pub environment: Vec<Value>,
    /// Name and number of its ports.
    pub ports: Vec<(&'static str, u16)>,
    /// The port that accepts connections when Flink is up.
    pub ready_port: u16,
    pub resources: &'a Resources,
    pub template: &'a Value,
}

/// Returns the pod template: ours with the user's merged into it.
pub fn template(
    cluster: &Cluster,
    environment: &Environment,
    component: &Component<'_>,
    configuration_digest: &str,
) -> Value {
    let selector = super::selector(cluster.name(), component.name);
    let spread = |topology_key: &str| {
        json!({
            "maxSkew": 1,
            "topologyKey": topology_key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": selector },
            // Old pods of a rolling update do not count, because they will be removed.
            "matchLabelKeys": ["pod-template-hash"],
        })
    };
    let mut template = json!({
        "metadata": { "labels": selector, "annotations": { CONFIGURATION_ANNOTATION: configuration_digest } },
        "spec": {
            "serviceAccountName": component.service_account,
            // Variables that Kubernetes derives from Services, such as FLINK_PORT, would confuse Flink's scripts.
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": FLINK_USER,
                "runAsGroup": FLINK_USER,
                "fsGroup": FLINK_USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "topologySpreadConstraints": [spread("kubernetes.io/hostname"), spread("topology.kubernetes.io/zone")],
            // The affinity repeats the spread: otherwise the scheduler weighs free resources of a node as high, and one
            // lost node could take all pods.
            "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 100,
                "podAffinityTerm": { "labelSelector": { "matchLabels": selector }, "topologyKey": "kubernetes.io/hostname" },
            }] } },
            "containers": [flink_container(cluster, component)],
            "volumes": [
                { "name": CONFIGURATION_VOLUME, "configMap": { "name": names::flink_config(cluster.name()) } },
                { "name": CONF_VOLUME, "emptyDir": {} },
                { "name": "flinkha-log", "emptyDir": {} },
                { "name": "flinkha-tmp", "emptyDir": {} },
            ],
        },
    });
    if let Some(nonce) = cluster.spec().restart_nonce {
        template["metadata"]["annotations"][RESTART_ANNOTATION] = nonce.to_string().into();
    }
    let secrets = pull_secrets(cluster, environment);
    if !secrets.is_empty() {
        template["spec"]["imagePullSecrets"] = secrets.into();
    }
    if !component.template.is_null() {
        merge::merge(&mut template, component.template.clone());
    }
    template
}

/// Secrets for pulling images: those of the resource, and those of the operator that it does not name.
fn pull_secrets(cluster: &Cluster, environment: &Environment) -> Vec<Value> {
    let own = &cluster.spec().image_pull_secrets;
    let others = environment.image_pull_secrets.iter().filter(|name| !own.iter().any(|one| one.name == **name));
    own.iter().map(|one| json!(one)).chain(others.map(|name| json!({ "name": name }))).collect()
}

fn flink_container(cluster: &Cluster, component: &Component<'_>) -> Value {
    let environment = [
        vec![
            json!({ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }),
            json!({ "name": "FLINKHA_CONFIGURATION", "value": CONFIGURATION_DIRECTORY }),
            json!({ "name": "FLINK_CONF_DIR", "value": CONF_DIRECTORY }),
            json!({ "name": "FLINK_LOG_DIR", "value": LOG_DIRECTORY }),
        ],
        component.environment.clone(),
    ]
    .concat();
    let arguments: Vec<String> =
        std::iter::once(component.command.to_owned()).chain(component.arguments.iter().cloned()).collect();
    let ports: Vec<Value> = component
        .ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "containerPort": port, "protocol": "TCP" }))
        .collect();
    json!({
        "name": FLINK_CONTAINER,
        "image": cluster.spec().image,
        "command": ["/bin/sh", "-c", START_FLINK, "start-flink"],
        "args": arguments,
        "env": environment,
        "ports": ports,
        "resources": resources(component.resources),
        "readinessProbe": { "tcpSocket": { "port": component.ready_port }, "periodSeconds": 2 },
        "securityContext": container_security(),
        // The last lines of a crashed JobManager's log become the cause in the resource's conditions.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            { "name": CONFIGURATION_VOLUME, "mountPath": CONFIGURATION_DIRECTORY, "readOnly": true },
            { "name": CONF_VOLUME, "mountPath": CONF_DIRECTORY },
            { "name": "flinkha-log", "mountPath": LOG_DIRECTORY },
            { "name": "flinkha-tmp", "mountPath": "/tmp" },
        ],
    })
}

/// Returns the rest of the restricted Pod Security standard, beyond the pod's own security context.
pub fn container_security() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

/// Returns a container's resources. Amounts are text, because the API server returns them as text.
pub fn resources(resources: &Resources) -> Value {
    let quantities = |amounts: &std::collections::BTreeMap<String, crate::api::v1alpha1::Scalar>| {
        amounts
            .iter()
            .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())))
            .collect::<serde_json::Map<_, _>>()
    };
    let mut written = json!({});
    for (kind, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        if !amounts.is_empty() {
            written[kind] = quantities(amounts).into();
        }
    }
    written
}

/// Returns a container of a pod template, by name.
pub fn container_mut<'a>(template: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    template["spec"]["containers"].as_array_mut()?.iter_mut().find(|container| container["name"] == name)
}
