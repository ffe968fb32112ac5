//! Builds the Job that removes a deleted cluster's files and znodes. It has the JobManagers' volumes and identity,
//! because only those reach the storage.

use serde_json::{Value, json};

use super::{Environment, configuration_secrets, job_manager, object, pod, selector, tls, zookeeper};
use crate::api::names::{self, HAND_OVER_VOLUME, PEERS_VOLUME, PURGE};
use crate::api::v1alpha1::OnDelete;
use crate::cluster::Cluster;

/// Limit of the whole Job in seconds, including the pull of the image. After it the files stay, and an event says so.
pub const PATIENCE_SECONDS: u32 = 240;

/// The mark of the cluster's directory; the Job leaves any other directory alone.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    pub owner: String,
    /// Digests of this Kubernetes cluster's certificates.
    pub certificates: Vec<String>,
    /// Gateway processes that wrote the mark last.
    pub signers: Vec<String>,
}

/// Returns the Job.
pub fn job(cluster: &Cluster, environment: &Environment, signature: &Signature) -> Value {
    let deployment = job_manager::deployment(cluster, environment, "");
    let mut template = deployment["spec"]["template"].clone();
    let gateway = &deployment["spec"]["template"]["spec"]["initContainers"][0];
    let mut container = json!({ "name": PURGE, "args": arguments(cluster, signature) });
    for key in ["image", "env", "envFrom", "resources", "volumeMounts", "securityContext", "terminationMessagePolicy"] {
        if !gateway[key].is_null() {
            container[key] = gateway[key].clone();
        }
    }
    // It takes no part in an election, and Flink's own TLS is not its.
    let is_needed =
        |one: &Value| one["name"] != HAND_OVER_VOLUME && one["name"] != PEERS_VOLUME && !tls::is_volume(&one["name"]);
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.retain(is_needed);
    }
    template["metadata"]["labels"] = selector(cluster.name(), PURGE).into();
    let spec = &mut template["spec"];
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        // The Job must not wait for Secrets that are gone already.
        volumes.retain(is_needed);
    }
    spec["containers"] = json!([container]);
    spec["restartPolicy"] = "OnFailure".into();
    // It asks nothing of the API server. An identity for the storage comes as a volume of its own.
    spec["automountServiceAccountToken"] = false.into();
    if let Some(spec) = spec.as_object_mut() {
        // These fields are for Flink's pods and do not fit this one.
        for key in ["initContainers", "shareProcessNamespace", "topologySpreadConstraints", "affinity"] {
            spec.remove(key);
        }
    }
    let body =
        json!({ "spec": { "backoffLimit": 3, "activeDeadlineSeconds": PATIENCE_SECONDS, "template": template } });
    object(cluster, "batch/v1", "Job", &names::purge(cluster.name()), body)
}

fn arguments(cluster: &Cluster, signature: &Signature) -> Vec<String> {
    let configuration = format!("{}/{}", pod::GATEWAY_CONFIGURATION_DIRECTORY, crate::flink::config::FILE);
    let options = [
        ("--storage-dir", cluster.spec().high_availability.storage_dir.clone()),
        ("--ha-cluster-id", cluster.high_availability_cluster_id()),
        ("--flink-configuration", configuration),
        ("--owner", signature.owner.clone()),
    ];
    let lists = [("--certificates", &signature.certificates), ("--signers", &signature.signers)];
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, list.join(",")));
    let retain = (cluster.spec().ha_data.on_delete == OnDelete::Retain).then(|| "--retain".to_owned());
    let options = options.into_iter().chain(lists).flat_map(|(name, value)| [name.to_owned(), value]);
    let options = options.chain(configuration_secrets::options(cluster));
    std::iter::once("purge".to_owned()).chain(options).chain(zookeeper::options(cluster)).chain(retain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests as fixture;

    #[test]
    fn it_has_the_volumes_and_the_identity_of_a_job_manager_and_none_of_its_containers() {
        let environment = Environment {
            gateway_image: "flinkha:1".to_owned(),
            gateway_log: "info".to_owned(),
            ..Environment::default()
        };
        let signature =
            Signature { owner: "us".to_owned(), signers: vec!["a".to_owned(), "b".to_owned()], ..Signature::default() };
        let job = job(&fixture::cluster(), &environment, &signature);
        let words = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().cloned().unwrap_or_default();
        assert!(words.contains(&"a,b".into()) && !words.contains(&"--certificates".into()), "{words:?}");
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], "demo-jobmanager");
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["containers"][0]["volumeMounts"][0], json!({ "name": "ha", "mountPath": "/flink/ha" }));
        for own in [HAND_OVER_VOLUME, PEERS_VOLUME] {
            assert!(!pod["containers"][0]["volumeMounts"].to_string().contains(own), "{own} is the gateway's");
        }
        assert!(
            pod["initContainers"].is_null()
                && pod["containers"][0]["args"].as_array().is_some_and(|words| words.contains(&"us".into()))
        );
        let typed: k8s_openapi::api::batch::v1::Job =
            serde_json::from_value(job.clone()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(json!(typed)["spec"], job["spec"]);
    }
}
