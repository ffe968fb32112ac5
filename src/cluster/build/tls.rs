//! Builds what the pods of a cluster with Flink's own TLS have more than others: an init container that makes key
//! stores from the Secrets of `spec.tls`, Flink's settings for them, and the Secrets in the gateway, which sees them
//! change.

use serde_json::{Map, Value, json};

use super::{Environment, pod};
use crate::api::names::{self, FLINK_CONTAINER, JOB_MANAGER};
use crate::api::tls::Tls;
use crate::cluster::Cluster;
use crate::flink::config::Configuration;
use crate::flink::tls;
use crate::ledger::certificates::CertificateNotes;

/// Name of the init container.
pub const PREPARE_CONTAINER: &str = "prepare-tls";

/// Where the key stores are, in every container that mounts them.
const STORES_VOLUME: &str = "flinkha-stores";
const STORES_DIRECTORY: &str = names::TLS_STORES;
/// Where each Secret is; its part's name follows.
const SECRET_VOLUME: &str = "flinkha-tls-";
const SECRET_DIRECTORY: &str = "/etc/flinkha/tls";

/// Annotation on pods and Deployments: how often the certificates that the pods use have changed since the cluster was
/// made. Absent before the first change.
pub const RENEWALS_ANNOTATION: &str = "flinkha.dev/certificate-changes";

/// A part of Flink's traffic.
struct TlsTraffic<'a> {
    /// Field of `spec.tls`, and name of its directories.
    name: &'static str,
    secret: &'a str,
    /// Beginning of Flink's keys.
    keys: &'static str,
}

fn parts(cluster: &Cluster) -> Vec<TlsTraffic<'_>> {
    cluster.spec().tls.as_ref().map(parts_of).unwrap_or_default()
}

fn parts_of(of: &Tls) -> Vec<TlsTraffic<'_>> {
    let internal = of.internal.iter().map(|of| TlsTraffic { name: "internal", secret: &of.name, keys: tls::INTERNAL });
    internal.chain(of.rest.iter().map(|of| TlsTraffic { name: "rest", secret: &of.name, keys: tls::REST })).collect()
}

/// Returns Flink's settings; none without `spec.tls`.
pub fn settings(cluster: &Cluster) -> Configuration {
    let of_parts = parts(cluster).into_iter();
    let mut settings: Configuration =
        of_parts.flat_map(|part| tls::stores(part.keys, &format!("{STORES_DIRECTORY}/{}", part.name))).collect();
    settings.extend(rest_clients(cluster).map(tls::client_authentication));
    settings
}

/// Returns a default of ours that users may override; none without `spec.tls`.
pub fn default_settings(cluster: &Cluster) -> Configuration {
    let protocol = cluster.spec().flink_configuration.get(tls::PROTOCOL).map(ToString::to_string);
    let algorithms = if protocol.as_deref() == Some(tls::TLS_1_3) { tls::FOR_TLS_1_3 } else { tls::FOR_ALL_KEYS };
    let is_used = !parts(cluster).is_empty();
    is_used.then(|| (tls::ALGORITHMS.to_owned(), algorithms.to_owned())).into_iter().collect()
}

/// Whether REST authenticates its clients; `None` without TLS.
fn rest_clients(cluster: &Cluster) -> Option<bool> {
    cluster.spec().tls.as_ref()?.rest.as_ref().map(|rest| rest.client_authentication)
}

/// Returns the options of `flinkha gateway` and `flinkha prepare-tls`; none without `spec.tls`.
pub fn options(cluster: &Cluster) -> Vec<String> {
    let of_parts = parts(cluster).into_iter();
    let options =
        of_parts.flat_map(|part| [format!("--tls-{}", part.name), format!("{SECRET_DIRECTORY}/{}", part.name)]);
    let authentication = rest_clients(cluster).filter(|required| *required);
    options.chain(authentication.map(|_| "--tls-rest-client-authentication".to_owned())).collect()
}

/// Returns the names of the Secrets by the fields of `spec.tls`, as a gateway reads them; `None` without `spec.tls`.
pub fn secrets(cluster: &Cluster) -> Option<String> {
    let names: Map<String, Value> =
        parts(cluster).iter().map(|part| (part.name.to_owned(), part.secret.into())).collect();
    (!names.is_empty()).then(|| Value::from(names).to_string())
}

/// Returns how often the certificates that the pods of a component use have changed. TaskManagers use none for REST.
pub fn renewals(of: &Tls, notes: &CertificateNotes, component: &str) -> u64 {
    let used = parts_of(of).into_iter().filter(|part| component == JOB_MANAGER || part.keys == tls::INTERNAL);
    used.filter_map(|part| notes.get(part.name)).map(|note| note.changes).sum()
}

/// Notes that number on pods of a component, or on their Deployment.
pub fn annotate(object: &mut Value, cluster: &Cluster, component: &str) {
    let of = cluster.spec().tls.as_ref();
    let renewals = of.map_or(0, |of| renewals(of, cluster.certificates(), component));
    if renewals > 0 {
        object["metadata"]["annotations"][RENEWALS_ANNOTATION] = renewals.to_string().into();
    }
}

/// Returns the volumes of a pod; none without `spec.tls`.
pub fn volumes(cluster: &Cluster) -> Vec<Value> {
    let parts = parts(cluster);
    // The stores never reach a disk.
    let stores = json!({ "name": STORES_VOLUME, "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } });
    let secret = |part: &TlsTraffic<'_>| json!({ "name": format!("{SECRET_VOLUME}{}", part.name), "secret": { "secretName": part.secret } });
    let secrets: Vec<Value> = parts.iter().map(secret).collect();
    if secrets.is_empty() { secrets } else { [vec![stores], secrets].concat() }
}

/// Returns the mounts of a gateway; none without `spec.tls`.
pub fn gateway_mounts(cluster: &Cluster) -> Vec<Value> {
    mounts(cluster, true)
}

fn mounts(cluster: &Cluster, stores_read_only: bool) -> Vec<Value> {
    let secret = |part: &TlsTraffic<'_>| {
        let (name, path) = (format!("{SECRET_VOLUME}{}", part.name), format!("{SECRET_DIRECTORY}/{}", part.name));
        json!({ "name": name, "mountPath": path, "readOnly": true })
    };
    let secrets: Vec<Value> = parts(cluster).iter().map(secret).collect();
    let mut stores = json!({ "name": STORES_VOLUME, "mountPath": STORES_DIRECTORY });
    if stores_read_only {
        stores["readOnly"] = true.into();
    }
    if secrets.is_empty() { secrets } else { [vec![stores], secrets].concat() }
}

/// Is this a volume of [`volumes`]?
pub fn is_volume(name: &Value) -> bool {
    name.as_str().is_some_and(|name| name == STORES_VOLUME || name.starts_with(SECRET_VOLUME))
}

/// Returns the init container; `None` without `spec.tls`.
pub fn prepare_container(cluster: &Cluster, environment: &Environment) -> Option<Value> {
    if parts(cluster).is_empty() {
        return None;
    }
    let mut security = pod::container_security();
    security["readOnlyRootFilesystem"] = true.into();
    let arguments: Vec<String> = std::iter::once(PREPARE_CONTAINER.to_owned()).chain(options(cluster)).collect();
    Some(json!({
        "name": PREPARE_CONTAINER,
        "image": environment.gateway_image,
        "args": arguments,
        "resources": pod::resources(&cluster.spec().gateway.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": security,
        "volumeMounts": mounts(cluster, false),
    }))
}

/// Adds the volumes, and the mount of the stores in Flink's container; nothing without `spec.tls`.
pub fn mount_stores(template: &mut Value, cluster: &Cluster) {
    let volumes = volumes(cluster);
    if volumes.is_empty() {
        return;
    }
    if let Some(all) = template["spec"]["volumes"].as_array_mut() {
        all.extend(volumes);
    }
    let flink = pod::container_mut(template, FLINK_CONTAINER);
    if let Some(mounts) = flink.and_then(|flink| flink["volumeMounts"].as_array_mut()) {
        mounts.push(json!({ "name": STORES_VOLUME, "mountPath": STORES_DIRECTORY, "readOnly": true }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::build::{Environment, build, config, purge};
    use crate::cluster::tests as fixture;

    fn environment() -> Environment {
        Environment { gateway_image: "flinkha:1".to_owned(), gateway_log: "info".to_owned(), ..Environment::default() }
    }

    fn with(tls: Value) -> Cluster {
        fixture::cluster_with(|spec| spec.tls = serde_json::from_value(tls).ok())
    }

    fn names(list: &Value) -> Vec<&str> {
        list.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
    }

    #[test]
    fn the_stores_are_made_before_flink_starts_and_only_the_gateway_and_their_maker_see_the_secrets() {
        let cluster =
            with(json!({ "internal": { "name": "a" }, "rest": { "name": "b", "clientAuthentication": true } }));
        let objects = build(&cluster, &environment());
        let secrets = ["flinkha-stores", "flinkha-tls-internal", "flinkha-tls-rest"];
        for (deployment, first) in [(&objects.job_managers, &["gateway"][..]), (&objects.task_managers, &[])] {
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(names(&pod["initContainers"]), [first, &["prepare-tls"]].concat());
            let volumes = names(&pod["volumes"]);
            assert!(secrets.iter().all(|name| volumes.contains(name)), "{volumes:?}");
            let prepare = &pod["initContainers"][first.len()];
            assert_eq!(names(&prepare["volumeMounts"]), secrets);
            let flink = names(&pod["containers"][0]["volumeMounts"]);
            let of_tls: Vec<_> = flink.into_iter().filter(|name| secrets.contains(name)).collect();
            assert_eq!(of_tls, ["flinkha-stores"]);
        }
        let gateway = &objects.job_managers["spec"]["template"]["spec"]["initContainers"][0];
        let mounted = names(&gateway["volumeMounts"]);
        assert!(secrets.iter().all(|name| mounted.contains(name)), "{mounted:?}");
        let arguments = gateway["args"].to_string();
        assert!(arguments.contains(r#""--tls-rest","/etc/flinkha/tls/rest","--tls-rest-client-authentication""#));
        let job = purge::job(&cluster, &environment(), &purge::Signature::default())["spec"]["template"].to_string();
        assert!(!job.contains("flinkha-tls") && !job.contains("flinkha-stores"), "it runs without the Secrets: {job}");
    }

    #[test]
    fn a_renewed_certificate_replaces_the_pods_that_use_it() {
        let tls = json!({ "internal": { "name": "a" }, "rest": { "name": "b" } });
        let built = |internal: u64, rest: u64| {
            let notes = json!({ "internal": { "changes": internal }, "rest": { "changes": rest } });
            let notes = serde_json::from_value(notes).expect("notes");
            let objects = build(&with(tls.clone()).with_certificates(notes), &environment());
            [objects.job_managers, objects.task_managers]
        };
        let annotations = |[job_managers, task_managers]: &[Value; 2]| {
            [job_managers, task_managers].map(|deployment| {
                let of = |metadata: &Value| metadata["annotations"][RENEWALS_ANNOTATION].clone();
                let noted = of(&deployment["metadata"]);
                assert_eq!(of(&deployment["spec"]["template"]["metadata"]), noted);
                noted.as_str().map(str::to_owned)
            })
        };
        let (before, rest, both) = (built(0, 0), built(0, 1), built(2, 1));
        let text = |number: &str| Some(number.to_owned());
        assert_eq!(annotations(&before), [None, None]);
        assert_eq!(annotations(&rest), [text("1"), None], "TaskManagers do not serve REST");
        assert_eq!(annotations(&both), [text("3"), text("2")]);
        assert_eq!(before[1], rest[1], "a job is not restarted for it");
        assert_ne!(before[0]["metadata"]["annotations"], rest[0]["metadata"]["annotations"]);
        let without = fixture::cluster()
            .with_certificates(serde_json::from_value(json!({ "rest": { "changes": 7 } })).expect("notes"));
        assert_eq!(
            build(&without, &environment()).job_managers,
            build(&fixture::cluster(), &environment()).job_managers
        );
    }

    #[test]
    fn gateways_know_the_names_of_the_secrets_without_a_change_of_their_pods() {
        let of = |tls: Value| {
            let cluster = with(tls);
            let data = config::config_map(&cluster, &environment())["data"].clone();
            (data[names::TLS_SECRETS_FILE].clone(), config::digest(&cluster, "taskmanager."))
        };
        let (first, second) = (of(json!({ "rest": { "name": "b" } })), of(json!({ "rest": { "name": "c" } })));
        assert_eq!((first.0, second.0), (r#"{"rest":"b"}"#.into(), r#"{"rest":"c"}"#.into()));
        assert_eq!(first.1, second.1);
        assert_eq!(of(Value::Null).0, Value::Null);
    }

    #[test]
    fn flink_is_told_of_the_stores_and_of_algorithms_that_a_user_may_change() {
        let yaml = |cluster: &Cluster| config::config_map(cluster, &environment())["data"]["config.yaml"].to_string();
        let rest = yaml(&with(json!({ "rest": { "name": "b" } })));
        for setting in [
            "security.ssl.rest.enabled: true",
            "security.ssl.rest.authentication-enabled: false",
            r#"security.ssl.rest.keystore: \"/etc/flinkha/stores/rest/keystore.jks\""#,
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ] {
            assert!(rest.contains(setting), "{setting} in {rest}");
        }
        assert!(!rest.contains("security.ssl.internal") && !yaml(&fixture::cluster()).contains("security.ssl"));
        let own = fixture::cluster_with(|spec| {
            spec.tls = serde_json::from_value(json!({ "internal": { "name": "a" } })).ok();
            let value = crate::api::v1alpha1::Scalar::Text("TLS_AES_128_GCM_SHA256".to_owned());
            spec.flink_configuration.insert("security.ssl.algorithms".to_owned(), value);
        });
        assert!(yaml(&own).contains(r#"security.ssl.algorithms: \"TLS_AES_128_GCM_SHA256\""#));
    }
}
