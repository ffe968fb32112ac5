//! Builds what differs in the pods of a cluster with ZooKeeper: how Flink and its sidecar find the quorum, and the
//! credentials with which the sidecar authenticates.
//!
//! TaskManagers only look up the leader and connect to the quorum themselves. If the quorum requires TLS or
//! authentication, they connect through a sidecar of their own. Flink's client could use TLS only with a Java key store
//! and JVM options, which no Secret of Kubernetes has, and would log its password
//! (`high-availability.zookeeper.client.authorization`).

use serde_json::{Value, json};

use super::role_rule::{RoleRule, rest_endpoint};
use super::{Environment, pod};
use crate::api::names::{self, DEFAULT_GATEWAY_LOG, GATEWAY_CONTAINER, ZOOKEEPER_USER_VOLUME};
use crate::api::zookeeper::{Acl, Scheme, ZooKeeper};
use crate::cluster::Cluster;
use crate::flink::config::{SIMULATED_EXPIRATION, TASK_MANAGERS_EXPIRATION};

const TLS_VOLUME: &str = "flinkha-zookeeper-tls";
const TLS_DIRECTORY: &str = "/etc/flinkha/zookeeper";
const USER_DIRECTORY: &str = "/etc/flinkha/zookeeper-user";

/// Returns the gateway's options; none without ZooKeeper.
pub fn options(cluster: &Cluster) -> Vec<String> {
    let Some(zookeeper) = cluster.zookeeper() else { return Vec::new() };
    let mut options = vec![
        "--zookeeper-quorum".to_owned(),
        zookeeper.quorum.clone(),
        "--zookeeper-root".to_owned(),
        zookeeper.root_path.clone(),
    ];
    if zookeeper.tls.is_some() {
        options.extend(["--zookeeper-tls".to_owned(), TLS_DIRECTORY.to_owned()]);
    }
    if zookeeper.authentication.is_some() {
        options.extend(["--zookeeper-credentials".to_owned(), USER_DIRECTORY.to_owned()]);
    }
    if zookeeper.acl == Acl::Creator {
        options.push("--zookeeper-creator-only".to_owned());
    }
    // The sidecar's default is omitted, so that pods from before this option existed do not change.
    if zookeeper.authentication.as_ref().is_some_and(|authentication| authentication.scheme == Scheme::Sasl) {
        options.extend(["--zookeeper-scheme".to_owned(), "sasl".to_owned()]);
    }
    options
}

/// Returns Flink's options for a JobManager: its gateway is its quorum.
pub fn flink_arguments(cluster: &Cluster) -> Vec<String> {
    let Some(_) = cluster.zookeeper() else { return Vec::new() };
    vec!["-D".to_owned(), format!("high-availability.zookeeper.quorum={}", names::jvm_address())]
}

/// Returns Flink's options for a TaskManager, which tolerates a lost connection for longer than a JobManager may.
pub fn task_manager_arguments(cluster: &Cluster) -> Vec<String> {
    let Some(_) = cluster.zookeeper() else { return Vec::new() };
    vec!["-D".to_owned(), format!("{SIMULATED_EXPIRATION}={TASK_MANAGERS_EXPIRATION}")]
}

/// Returns the volume with name and password for the quorum, and its mount in a gateway. Only sidecars get them,
/// because Flink would show them in its log and in its web interface; and as files, because a process of the same user
/// can read an environment.
pub fn user(cluster: &Cluster) -> Option<(Value, Value)> {
    let secret = cluster.zookeeper()?.authentication.as_ref()?;
    let items = ["username", "password"].map(|key| json!({ "key": key, "path": key }));
    let volume = json!({ "name": ZOOKEEPER_USER_VOLUME, "secret": { "secretName": secret.name, "items": items } });
    Some((volume, json!({ "name": ZOOKEEPER_USER_VOLUME, "mountPath": USER_DIRECTORY, "readOnly": true })))
}

/// Returns the volume with the certificates, and its mount in a gateway.
pub fn tls(cluster: &Cluster) -> Option<(Value, Value)> {
    let secret = cluster.zookeeper()?.tls.as_ref()?;
    let volume = json!({ "name": TLS_VOLUME, "secret": { "secretName": secret.name } });
    Some((volume, json!({ "name": TLS_VOLUME, "mountPath": TLS_DIRECTORY, "readOnly": true })))
}

/// Does a TaskManager need a sidecar?
pub fn needs_sidecar(zookeeper: &ZooKeeper) -> bool {
    zookeeper.tls.is_some() || zookeeper.authentication.is_some()
}

/// Adds the sidecar of a TaskManager, if it needs one. The sidecar only forwards connections to the quorum.
pub fn add_sidecar(template: &mut Value, cluster: &Cluster, environment: &Environment) {
    if !cluster.zookeeper().is_some_and(needs_sidecar) {
        return;
    }
    let (volumes, mounts): (Vec<Value>, Vec<Value>) = tls(cluster).into_iter().chain(user(cluster)).unzip();
    let mut security = pod::container_security();
    security["readOnlyRootFilesystem"] = true.into();
    let arguments: Vec<String> = std::iter::once("pass-through".to_owned()).chain(options(cluster)).collect();
    let sidecar = json!({
        "name": GATEWAY_CONTAINER,
        "image": environment.gateway_image,
        "restartPolicy": "Always",
        "args": arguments,
        "env": [{ "name": "RUST_LOG", "value": DEFAULT_GATEWAY_LOG }],
        "resources": pod::resources(&cluster.spec().gateway.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": security,
        "volumeMounts": mounts,
    });
    let spec = &mut template["spec"];
    if let Some(all) = spec["volumes"].as_array_mut() {
        all.extend(volumes);
    }
    match spec["initContainers"].as_array_mut() {
        Some(containers) => containers.insert(0, sidecar),
        None => spec["initContainers"] = json!([sidecar]),
    }
}

/// Returns the JobManagers' rights on the API server. The gateway needs them for the ledger and the address of the
/// leader; Flink sends it no requests.
pub fn rules(cluster: &Cluster) -> Vec<RoleRule> {
    vec![
        RoleRule {
            why: "The gateway: the certificate that its mark of the storage directory carries",
            rule: json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kube-root-ca.crt"], "verbs": ["get"] }),
        },
        RoleRule {
            why: "The gateway: the ledger. It is watched, because it carries requests for savepoints, and because the leader's gateway puts back \
                what is lost",
            rule: json!({
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": [names::ledger(cluster.name())],
                "verbs": ["get", "list", "watch", "patch"],
            }),
        },
        rest_endpoint(cluster),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::FLINK_CONTAINER;
    use crate::api::secret::SecretReference;
    use crate::api::zookeeper::Authentication;
    use crate::cluster::build::{Objects, build};
    use crate::cluster::tests as fixture;

    fn objects(change: impl FnOnce(&mut ZooKeeper)) -> Objects {
        let cluster = fixture::on_zookeeper_with(|spec| {
            if let Some(zookeeper) = &mut spec.high_availability.zookeeper {
                change(zookeeper);
            }
        });
        build(
            &cluster,
            &Environment {
                gateway_image: "flinkha:1".to_owned(),
                gateway_log: "info".to_owned(),
                ..Environment::default()
            },
        )
    }

    fn words(list: &Value) -> Vec<&str> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    #[test]
    fn flink_is_led_to_its_gateway_and_makes_no_request_of_kubernetes() {
        let objects = objects(|_| ());
        let pod = &objects.job_managers["spec"]["template"]["spec"];
        let flink = &pod["containers"][0];
        assert!(words(&flink["args"]).contains(&"high-availability.zookeeper.quorum=127.0.0.1:6180"));
        assert!(!flink["env"].to_string().contains("KUBERNETES"), "{}", flink["env"]);
        assert!(
            words(&pod["initContainers"][0]["args"])
                .windows(2)
                .any(|pair| pair == ["--zookeeper-quorum", "zk-0:2181,zk-1:2181,zk-2:2181"])
        );
        let task_manager = &objects.task_managers["spec"]["template"]["spec"];
        assert!(task_manager["initContainers"].is_null(), "it goes to the quorum itself");
        let patient =
            words(&task_manager["containers"][0]["args"]).iter().any(|word| word.ends_with("expiration-percent=100"));
        assert!(
            patient && !words(&flink["args"]).iter().any(|word| word.contains("expiration")),
            "only a JobManager must step down"
        );
        let kinds: Vec<&str> = objects.created.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["ConfigMap", "EndpointSlice"], "there is no Lease");
        assert!(objects.peers.is_null());
        let roles: Vec<&Value> = objects.applied.iter().filter(|object| object["kind"] == "Role").collect();
        assert!(!roles.iter().any(|role| role.to_string().contains("leases")) && roles[1]["rules"] == json!([]));
    }

    #[test]
    fn by_tls_all_go_through_a_sidecar_and_only_it_has_the_password() {
        let tls = SecretReference { name: "zk-tls".to_owned() };
        let user = |scheme| Some(Authentication { name: "zk-user".to_owned(), scheme });
        let objects = objects(|zookeeper| {
            (zookeeper.tls, zookeeper.authentication, zookeeper.acl) = (Some(tls), user(Scheme::Digest), Acl::Creator);
        });
        for deployment in [&objects.job_managers, &objects.task_managers] {
            let pod = &deployment["spec"]["template"]["spec"];
            let gateway = &pod["initContainers"][0];
            assert!(
                words(&gateway["args"]).windows(2).any(|pair| pair == ["--zookeeper-tls", "/etc/flinkha/zookeeper"])
            );
            assert!(!words(&gateway["args"]).contains(&"--zookeeper-scheme"));
            assert!(
                gateway["volumeMounts"].to_string().contains(TLS_VOLUME)
                    && pod["volumes"].to_string().contains("zk-tls")
            );
            let flink = pod["containers"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|container| container["name"] == FLINK_CONTAINER);
            let mounts = |container: &Value| container["volumeMounts"].to_string().contains(ZOOKEEPER_USER_VOLUME);
            assert!(pod["volumes"].to_string().contains("\"zk-user\"") && mounts(gateway), "{pod:#}");
            assert!(!flink.is_some_and(mounts), "Flink has the password");
            assert!(!gateway["env"].to_string().contains("ZOOKEEPER"), "{}", gateway["env"]);
            let pair = ["--zookeeper-credentials", "/etc/flinkha/zookeeper-user"];
            assert!(words(&gateway["args"]).windows(2).any(|words| words == pair));
        }
    }

    #[test]
    fn by_sasl_each_sidecar_knows_the_scheme() {
        let user = Authentication { name: "zk-user".to_owned(), scheme: Scheme::Sasl };
        let objects = objects(|zookeeper| zookeeper.authentication = Some(user));
        for deployment in [&objects.job_managers, &objects.task_managers] {
            let gateway = &deployment["spec"]["template"]["spec"]["initContainers"][0];
            assert!(words(&gateway["args"]).windows(2).any(|pair| pair == ["--zookeeper-scheme", "sasl"]));
        }
    }
}
