//! Builds the Deployment of the JobManagers: pods with Flink and its gateway.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Value, json};

use super::pod::{self, Component};
use super::{Environment, application, configuration_secrets, jvm_options, object, selector, tls, zookeeper};
use crate::api::names::{
    self, DEFAULT_GATEWAY_LOG, FLINK_CONTAINER, GATEWAY_CONTAINER, HAND_OVER_VOLUME, JOB_MANAGER, JVM_PORT,
    PEERS_VOLUME, PROBE_PORT,
};
use crate::api::rest::IpFamily;
use crate::cluster::Cluster;
use crate::flink::config;
use crate::ledger::application::Run;

/// Annotation on both Deployments: digest of the pod template without the gateway's image. See
/// [`crate::cluster::gateway_image`] and [`crate::cluster::turn`].
pub const TEMPLATE_ANNOTATION: &str = "flinkha.dev/template";

/// Init containers with the gateway's image.
pub const OURS: [&str; 3] = [GATEWAY_CONTAINER, tls::PREPARE_CONTAINER, application::FETCH_CONTAINER];

/// Mount path of the peers' key in the gateway.
const PEERS_DIRECTORY: &str = "/etc/flinkha/peers";
/// Key of the Secret, and so the name of the file.
const PEERS_KEY: &str = "key";

/// Directory and path of the socket that the gateway's preStop hook and `flinkha ask` use.
const HAND_OVER_DIRECTORY: &str = "/run/flinkha";
pub const HAND_OVER_SOCKET: &str = "/run/flinkha/gateway.sock";
/// The program in the gateway's image.
pub const PROGRAM: &str = "/flinkha";

/// Kubernetes' own default, for a template that removes ours.
const GRACE_SECONDS: u64 = 30;

/// Hosts that Flink must reach without a proxy: its gateway.
const LOOPBACK: &str = "127.0.0.1,localhost";

/// Shell script that goes before [`pod::START_FLINK`].
pub const RESTART_TURN: &str = include_str!("restart-turn.sh");

/// Returns the Deployment of the JobManagers.
pub fn deployment(cluster: &Cluster, environment: &Environment, configuration_digest: &str) -> Value {
    let name = names::job_manager(cluster.name());
    let spec = &cluster.spec().job_manager;
    let component = Component {
        name: JOB_MANAGER,
        command: if cluster.run().is_some() { application::COMMAND } else { JOB_MANAGER },
        service_account: name.clone(),
        // A leader publishes its pod's address.
        arguments: [
            ["-D", "jobmanager.rpc.address=$(POD_IP)", "-D", "rest.address=$(POD_IP)"].map(str::to_owned).into(),
            zookeeper::flink_arguments(cluster),
            application::arguments(cluster),
        ]
        .concat(),
        environment: [
            vec![json!({ "name": "JOB_MANAGER_RPC_ADDRESS", "value": "$(POD_IP)" })],
            api_server_of_flink(cluster),
        ]
        .concat(),
        ports: vec![("rpc", names::RPC_PORT), ("blob", names::BLOB_PORT), ("rest", names::REST_PORT)],
        ready_port: names::REST_PORT,
        resources: &spec.resources,
        template: &spec.pod_template,
    };
    let mut template = pod::template(cluster, environment, &component, configuration_digest);
    configuration_secrets::add(&mut template, cluster);
    tls::annotate(&mut template, cluster, JOB_MANAGER);
    let (mut mounts, mut storage_environment) = (Value::Null, StorageEnvironment::default());
    if let Some(flink) = pod::container_mut(&mut template, FLINK_CONTAINER) {
        keep_loopback_out_of_proxies(flink);
        wait_for_recovery(flink, cluster);
        jvm_options::add(flink, cluster);
        mounts = shared_mounts(flink);
        storage_environment = StorageEnvironment::of(flink);
    }
    template["spec"]["shareProcessNamespace"] = true.into();
    // The user's template may set another value.
    let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(GRACE_SECONDS);
    let mut gateway = gateway_container(cluster, environment, grace);
    if let Some(mounts) = mounts.as_array_mut() {
        // The gateway needs the settings and credentials of Flink's file systems.
        mounts
            .push(json!({ "name": pod::CONFIGURATION_VOLUME, "mountPath": pod::GATEWAY_CONFIGURATION_DIRECTORY, "readOnly": true }));
        mounts.extend(configuration_secrets::mounts(cluster, configuration_secrets::GATEWAY_DIRECTORY));
    }
    let mut volumes = vec![json!({ "name": HAND_OVER_VOLUME, "emptyDir": {} })];
    let mut own_mounts = Vec::new();
    if has_key(cluster) {
        own_mounts.push(json!({ "name": PEERS_VOLUME, "mountPath": PEERS_DIRECTORY, "readOnly": true }));
        // The Secret is optional: without it the election rests on the Lease alone, which is better than no JobManager.
        volumes.push(
            json!({ "name": PEERS_VOLUME, "secret": { "secretName": names::peers(cluster.name()), "optional": true } }),
        );
    }
    if let Some((volume, mount)) = zookeeper::tls(cluster) {
        volumes.push(volume);
        own_mounts.push(mount);
    }
    gateway["volumeMounts"] = mounts;
    storage_environment.add_to(&mut gateway);
    // Other containers are copies of the gateway's. The copies are made before the gateways' key, the socket, and the
    // certificate and password for a quorum are mounted, so they do not get them.
    let fetch = application::fetch_container(cluster, &gateway);
    let user = zookeeper::user(cluster);
    if let Some(mounts) = gateway["volumeMounts"].as_array_mut() {
        mounts.extend(own_mounts.into_iter().chain(user.iter().map(|(_, mount)| mount.clone())));
        mounts.push(json!({ "name": HAND_OVER_VOLUME, "mountPath": HAND_OVER_DIRECTORY }));
        mounts.extend(tls::gateway_mounts(cluster));
    }
    let prepare = tls::prepare_container(cluster, environment);
    tls::mount_stores(&mut template, cluster);
    if fetch.is_some() {
        application::mount_jar(&mut template);
    }
    if let Some(all) = template["spec"]["volumes"].as_array_mut() {
        all.extend(volumes.into_iter().chain(user.map(|(volume, _)| volume)));
    }
    // The gateway is the first one, so it runs before the user's own init containers and before Flink.
    match template["spec"]["initContainers"].as_array_mut() {
        Some(containers) => drop(containers.splice(0..0, [gateway].into_iter().chain(prepare).chain(fetch))),
        None => template["spec"]["initContainers"] = [gateway].into_iter().chain(prepare).chain(fetch).collect(),
    }
    let digest = template_digest(&template);
    let mut body = json!({
        "metadata": { "annotations": { TEMPLATE_ANNOTATION: digest } },
        "spec": {
            "replicas": cluster.replicas(spec.replicas),
            "selector": { "matchLabels": selector(cluster.name(), JOB_MANAGER) },
            // A new candidate is ready before an old pod is removed. The pods' deletion cost selects the old pod: the
            // leader is the last.
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": template,
        },
    });
    configuration_secrets::annotate(&mut body, cluster);
    tls::annotate(&mut body, cluster, JOB_MANAGER);
    object(cluster, "apps/v1", "Deployment", &name, body)
}

/// Whether the gateways share a key: for their promises, or to say that a Secret has changed without saying to what.
pub fn has_key(cluster: &Cluster) -> bool {
    cluster.zookeeper().is_none() || configuration_secrets::is_used(cluster)
}

/// Returns the environment by which Flink finds its gateway as an API server. With ZooKeeper the gateway is a server of
/// the quorum instead.
fn api_server_of_flink(cluster: &Cluster) -> Vec<Value> {
    if cluster.zookeeper().is_some() {
        return Vec::new();
    }
    vec![
        json!({ "name": "KUBERNETES_MASTER", "value": format!("http://127.0.0.1:{JVM_PORT}") }),
        json!({ "name": "KUBERNETES_NAMESPACE", "value": cluster.namespace() }),
    ]
}

/// Returns the digest of a pod template without the gateway's image.
pub fn template_digest(template: &Value) -> String {
    let mut template = template.clone();
    for container in template["spec"]["initContainers"].as_array_mut().into_iter().flatten() {
        if OURS.iter().any(|name| container["name"] == *name) {
            container["image"] = Value::Null;
        }
    }
    super::digest(&template.to_string())
}

/// Makes Flink's container ask the gateway, when it starts again, whether another JobManager's recovery goes first. A
/// gateway beside a quorum does not see when another one is elected.
fn wait_for_recovery(flink: &mut Value, cluster: &Cluster) {
    if cluster.zookeeper().is_none() {
        let start = flink["command"][2].as_str().unwrap_or_default();
        flink["command"][2] = format!("{RESTART_TURN}{start}").into();
    }
}

/// Returns the user's own mounts, so that the gateway finds the storage directory at the same path as Flink.
fn shared_mounts(flink: &Value) -> Value {
    let mounts = flink["volumeMounts"].as_array().into_iter().flatten();
    mounts.filter(|mount| !mount["name"].as_str().unwrap_or_default().starts_with("flinkha-")).cloned().collect()
}

/// The part of the user's environment of Flink's container by which Flink reaches the storage. The gateway gets it too.
#[derive(Default)]
struct StorageEnvironment {
    variables: Vec<Value>,
    /// Secrets and ConfigMaps that are included as a whole.
    from: Value,
}

impl StorageEnvironment {
    const PREFIXES: [&str; 4] = ["AWS_", "GOOGLE_", "AZURE_", "SSL_CERT_"];
    /// Proxies between the pods and the storage, in either case of letters. What they are not for follows.
    const PROXIES: [&str; 3] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    const NO_PROXY: &str = "NO_PROXY";

    fn of(flink: &Value) -> Self {
        let all = || flink["env"].as_array().into_iter().flatten();
        let name = |variable: &Value| variable["name"].as_str().unwrap_or_default().to_owned();
        let is_proxy = |name: &str| Self::PROXIES.contains(&name.to_uppercase().as_str());
        // Without a proxy the list is ours alone, and means nothing to the gateway.
        let has_proxy = all().any(|variable| is_proxy(&name(variable)));
        let is_storages = |variable: &&Value| {
            let name = name(variable);
            Self::PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                || has_proxy && (is_proxy(&name) || name.to_uppercase() == Self::NO_PROXY)
        };
        let variables = all().filter(is_storages).cloned().collect();
        Self { variables, from: flink["envFrom"].clone() }
    }

    fn add_to(self, gateway: &mut Value) {
        if let Some(environment) = gateway["env"].as_array_mut() {
            environment.extend(self.variables);
        }
        if self.from.is_array() {
            gateway["envFrom"] = self.from;
        }
    }
}

/// Excludes the gateway from proxies, which Flink's client would use for it too. A user's list of exceptions is
/// extended and not replaced.
fn keep_loopback_out_of_proxies(flink: &mut Value) {
    let Some(environment) = flink["env"].as_array_mut() else { return };
    for name in ["NO_PROXY", "no_proxy"] {
        match environment.iter_mut().find(|variable| variable["name"] == name) {
            Some(variable) => {
                if let Some(value) = variable["value"].as_str() {
                    variable["value"] = format!("{value},{LOOPBACK}").into();
                }
            }
            None => environment.push(json!({ "name": name, "value": LOOPBACK })),
        }
    }
}

/// Returns the gateway's container: a native sidecar, so that it starts before Flink and ends after it.
fn gateway_container(cluster: &Cluster, environment: &Environment, grace: u64) -> Value {
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": PROBE_PORT },
            "periodSeconds": period,
            "failureThreshold": failures,
        })
    };
    // Under a flood of connections responses are late, which must not restart the gateway.
    let mut lives = probe("/livez", 5, 3);
    lives["timeoutSeconds"] = 5.into();
    let mut own = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        // The same in all pods: a change of the filter reaches running gateways through a file ([`super::config`]).
        json!({ "name": "RUST_LOG", "value": DEFAULT_GATEWAY_LOG }),
    ];
    // Pods without it are as they were before the families could be named.
    if !cluster.spec().rest.named_families().is_empty() {
        own.push(field("POD_IPS", "status.podIPs"));
    }
    let mut security = pod::container_security();
    security["readOnlyRootFilesystem"] = true.into();
    json!({
        "name": GATEWAY_CONTAINER,
        "image": environment.gateway_image,
        "restartPolicy": "Always",
        "args": gateway_arguments(cluster, grace),
        "env": own,
        "ports": [{ "name": "metrics", "containerPort": PROBE_PORT, "protocol": "TCP" }],
        "resources": pod::resources(&cluster.spec().gateway.resources),
        "startupProbe": probe("/livez", 1, 60),
        "livenessProbe": lives,
        // Ready means that this candidate can take over.
        "readinessProbe": probe("/readyz", 1, 1),
        // A leader hands over as soon as its pod begins to terminate; SIGTERM would arrive only after Flink's end. The
        // hook does not use the port, which is open to everybody who reaches the pod.
        "lifecycle": { "preStop": { "exec": { "command": [PROGRAM, "hand-over", "--socket", HAND_OVER_SOCKET] } } },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": security,
    })
}

fn gateway_arguments(cluster: &Cluster, grace: u64) -> Vec<String> {
    let high_availability = &cluster.spec().high_availability;
    let mut options = vec![
        ("--cluster", cluster.name().to_owned()),
        ("--namespace", cluster.namespace().to_owned()),
        ("--cluster-id", cluster.kubernetes_cluster_id()),
        ("--ha-cluster-id", cluster.high_availability_cluster_id()),
        ("--pod-name", "$(POD_NAME)".to_owned()),
        ("--pod-uid", "$(POD_UID)".to_owned()),
        ("--pod-ip", "$(POD_IP)".to_owned()),
        ("--storage-dir", high_availability.storage_dir.clone()),
        ("--flink-configuration", format!("{}/{}", pod::GATEWAY_CONFIGURATION_DIRECTORY, config::FILE)),
        ("--orphans", format!("{:?}", cluster.spec().ha_data.orphans).to_lowercase()),
        ("--orphan-age", cluster.spec().ha_data.orphan_age.clone()),
        ("--hand-over-socket", HAND_OVER_SOCKET.to_owned()),
        ("--termination-grace-period", format!("{grace}s")),
    ];
    if cluster.zookeeper().is_none() {
        options.extend([
            ("--lease-duration", high_availability.lease.duration.clone()),
            ("--renew-deadline", high_availability.lease.renew_deadline.clone()),
            ("--retry-period", high_availability.lease.retry_period.clone()),
            ("--jvm-timeout", high_availability.jvm_timeout.clone()),
        ]);
    }
    if has_key(cluster) {
        options.push(("--peer-key", format!("{PEERS_DIRECTORY}/{PEERS_KEY}")));
    }
    let families: Vec<&str> = cluster.spec().rest.named_families().into_iter().map(IpFamily::as_str).collect();
    if !families.is_empty() {
        options.extend([("--pod-ips", "$(POD_IPS)".to_owned()), ("--rest-families", families.join(","))]);
    }
    options.extend(cluster.spec().flink_version.iter().map(|version| ("--flink-version", version.clone())));
    options.extend(cluster.run().into_iter().flat_map(Run::gateway_options));
    let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    let options = std::iter::once("gateway".to_owned()).chain(options).chain(configuration_secrets::options(cluster));
    options.chain(tls::options(cluster)).chain(zookeeper::options(cluster)).collect()
}

/// Returns the Secret for the gateways' key. The operator creates it and never reads it, so it needs no right to read
/// Secrets. [`with_key`] inserts the random key at its creation. It is not immutable: a kubelet would never deliver
/// another key to a pod that has seen one.
pub fn peers_secret(cluster: &Cluster) -> Value {
    object(cluster, "v1", "Secret", &names::peers(cluster.name()), json!({ "type": "Opaque" }))
}

/// Returns a Secret of [`peers_secret`] with this key.
pub fn with_key(mut secret: Value, key: &[u8]) -> Value {
    secret["data"][PEERS_KEY] = STANDARD.encode(key).into();
    secret
}

/// Returns the digest that [`deployment`] wrote on a Deployment.
pub fn digest_of(deployment: &Value) -> &str {
    deployment["metadata"]["annotations"][TEMPLATE_ANNOTATION].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::build::build;
    use crate::cluster::tests as fixture;

    #[test]
    fn a_gateway_gets_all_addresses_of_its_pod_only_where_families_are_named() {
        let gateway = |fields: Value| {
            let cluster = fixture::cluster_with(|spec| spec.rest = serde_json::from_value(fields).expect("spec.rest"));
            let objects = build(&cluster, &Environment::default());
            objects.job_managers["spec"]["template"]["spec"]["initContainers"][0].clone()
        };
        let (without, both) = (gateway(json!({})), gateway(json!({ "ipFamilyPolicy": "PreferDualStack" })));
        assert!(!without.to_string().contains("POD_IPS") && !without.to_string().contains("--rest-families"));
        let arguments = both["args"].to_string();
        assert!(arguments.contains(r#""--pod-ips","$(POD_IPS)","--rest-families","IPv4,IPv6""#), "{arguments}");
        let field = json!({ "name": "POD_IPS", "valueFrom": { "fieldRef": { "fieldPath": "status.podIPs" } } });
        assert!(both["env"].as_array().is_some_and(|all| all.contains(&field)), "{}", both["env"]);
        assert!(gateway(json!({ "ipFamilies": ["IPv6"] }))["args"].to_string().contains(r#""--rest-families","IPv6""#));
    }

    /// The container that fetches a jar and the Job that removes files are copies of the gateway.
    #[test]
    fn a_proxy_of_flinks_container_is_that_of_the_gateway() {
        let variables = |environment: Value| {
            let container = json!({ "name": FLINK_CONTAINER, "env": environment });
            let template = json!({ "spec": { "containers": [container] } });
            let cluster = fixture::cluster_with(|spec| spec.job_manager.pod_template = template);
            let pod = build(&cluster, &Environment::default()).job_managers["spec"]["template"]["spec"].clone();
            let of = |container: &Value| {
                let all = container["env"].as_array().into_iter().flatten();
                let proxies =
                    all.filter(|one| one["name"].as_str().is_some_and(|name| name.to_uppercase().ends_with("PROXY")));
                proxies.map(|one| format!("{}={}", one["name"], one["value"]).replace('"', "")).collect::<Vec<_>>()
            };
            of(&pod["initContainers"][0])
        };
        let proxy = json!({ "name": "https_proxy", "value": "http://proxy:3128" });
        let both = ["https_proxy=http://proxy:3128", "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost"];
        assert_eq!(variables(json!([proxy])), both);
        assert!(variables(json!([{ "name": "A", "value": "b" }])).is_empty(), "no pod changes that has no proxy");
    }
}
