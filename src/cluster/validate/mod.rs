//! Decides whether a resource is valid. It finds what the CRD's schema and rules cannot express; a condition reports
//! it. The objects are built from a [`Cluster`] only, and only [`validate`] makes one.

mod java_options;
mod own_pod;
mod pod_template;
mod sizes;
mod timings;

use crate::api::application::UpgradeMode;
use crate::api::owned;
use crate::api::v1alpha1::{Provider, Resources};
use crate::api::zookeeper::ZooKeeper;
use crate::api::{FlinkHaCluster, FlinkHaClusterSpec, names};
use crate::flink::version::FlinkVersion;
use crate::ledger::application::Run;
use crate::ledger::certificates::CertificateNotes;

use self::own_pod::{JOB_MANAGER_POD, TASK_MANAGER_POD};
use super::application::{deployed, savepoint_directory};
use super::quantity;
use super::rejection::Rejection;
use super::{tls, uri_credentials};

/// A cluster whose resource [`validate`] has found valid.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: String,
    namespace: String,
    uid: String,
    spec: FlinkHaClusterSpec,
    run: Option<Run>,
    /// How often the contents of the Secrets of `spec.flinkConfigurationFrom` have changed, by the ledger.
    secret_changes: u64,
    /// What the ledger says of the certificates of `spec.tls`.
    certificates: CertificateNotes,
}

impl Cluster {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// UID of the resource; for owner references only, never for names.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn spec(&self) -> &FlinkHaClusterSpec {
        &self.spec
    }

    /// The run of the application; `None` for a session cluster.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// The same cluster with the spec that its pods are made from. It was found sound when it was asked for: before it
    /// is deployed, nothing is written down of it.
    pub fn deployed(self, spec: FlinkHaClusterSpec, run: Option<Run>) -> Self {
        Self { spec, run, ..self }
    }

    pub fn secret_changes(&self) -> u64 {
        self.secret_changes
    }

    /// The same cluster after so many changes of its Secrets.
    pub fn with_secret_changes(self, secret_changes: u64) -> Self {
        Self { secret_changes, ..self }
    }

    pub fn certificates(&self) -> &CertificateNotes {
        &self.certificates
    }

    /// The same cluster with these certificates.
    pub fn with_certificates(self, certificates: CertificateNotes) -> Self {
        Self { certificates, ..self }
    }

    /// The same cluster with its HA files in another directory.
    pub fn stored_in(mut self, storage_dir: &str) -> Self {
        storage_dir.clone_into(&mut self.spec.high_availability.storage_dir);
        self
    }

    /// Pods that are to be there.
    pub fn replicas(&self, asked: i32) -> i32 {
        if self.run.as_ref().is_some_and(|run| run.stopped) { 0 } else { asked }
    }

    /// Flink's `kubernetes.cluster-id`.
    pub fn kubernetes_cluster_id(&self) -> String {
        names::kubernetes_cluster_id(&self.name)
    }

    /// The quorum in which Flink elects, if it does.
    pub fn zookeeper(&self) -> Option<&ZooKeeper> {
        self.spec.high_availability.zookeeper.as_ref()
    }

    /// Flink's `high-availability.cluster-id`.
    pub fn high_availability_cluster_id(&self) -> String {
        names::high_availability_cluster_id(&self.namespace, &self.name)
    }
}

/// A problem with a field, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Problem {
    /// Path of the field, from `spec`.
    pub field: String,
    /// The problem and the remedy.
    pub problem: String,
}

/// Makes a cluster of a sound resource.
///
/// # Errors
/// With everything that is wrong with the resource, so that a user sees all of it at once.
pub fn validate(resource: &FlinkHaCluster) -> Result<Cluster, Rejection> {
    let problems = problems(resource);
    let metadata = &resource.metadata;
    match (&metadata.name, &metadata.namespace, &metadata.uid) {
        (Some(name), Some(namespace), Some(uid)) if problems.is_empty() => Ok(Cluster {
            name: name.clone(),
            namespace: namespace.clone(),
            uid: uid.clone(),
            spec: resource.spec.clone(),
            run: None,
            secret_changes: 0,
            certificates: CertificateNotes::new(),
        }),
        _ => Err(Rejection::invalid_spec(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))),
    }
}

/// Less is not enough for a gateway at rest (`make bench-gateway`).
const GATEWAY_MEMORY: u64 = 16 << 20;

/// Everything that is wrong with a resource.
pub fn problems(resource: &FlinkHaCluster) -> Vec<Problem> {
    let spec = &resource.spec;
    let mut problems = Problems::default();
    for key in spec.flink_configuration.keys() {
        for group in owned::FLINK_CONFIGURATION.iter().filter(|group| group.contains(key)) {
            problems.add("spec.flinkConfiguration".to_owned(), format!("the key {key} {}", group.reason));
        }
    }
    for (key, value) in spec.flink_configuration.iter().filter(|(key, _)| key.starts_with(java_options::KEYS)) {
        problems.java_options(&format!("spec.flinkConfiguration[{key}]"), &value.to_string());
    }
    if let Some(version) = spec.flink_version.as_ref().filter(|version| FlinkVersion::of(version).is_none()) {
        let problem = format!("{version:?} is no version of Flink, such as 2.3.0 or 2.3");
        problems.add("spec.flinkVersion".to_owned(), problem);
    }
    for (field, resources, template, component) in [
        ("spec.jobManager", &spec.job_manager.resources, &spec.job_manager.pod_template, &JOB_MANAGER_POD),
        ("spec.taskManager", &spec.task_manager.resources, &spec.task_manager.pod_template, &TASK_MANAGER_POD),
    ] {
        if let Some(memory) =
            quantity::memory(resources).filter(|memory| quantity::bytes(memory).is_none_or(|bytes| bytes == 0))
        {
            problems.add(format!("{field}.resources"), format!("memory {memory} is not a quantity such as 2Gi"));
        }
        problems.pod_template(&format!("{field}.podTemplate"), template, component);
    }
    problems.gateway(&spec.gateway.resources);
    problems.timings(spec);
    problems.application(spec);
    problems.sizes(resource);
    problems.jar_credentials(resource);
    problems.0.extend(tls::problems(spec).into_iter().map(|(field, problem)| Problem { field, problem }));
    let high_availability = &spec.high_availability;
    if (high_availability.provider == Provider::ZooKeeper) != high_availability.zookeeper.is_some() {
        problems.add(
            "spec.highAvailability.zookeeper".to_owned(),
            "it is required with provider ZooKeeper and not allowed without it".to_owned(),
        );
    }
    let metadata = &resource.metadata;
    if metadata.name.is_none() || metadata.namespace.is_none() || metadata.uid.is_none() {
        problems.add("metadata".to_owned(), "name, namespace and uid are set by the API server".to_owned());
    }
    problems.0
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: String, problem: String) {
        self.0.push(Problem { field, problem });
    }

    fn java_options(&mut self, field: &str, options: &str) {
        for problem in java_options::problems(options) {
            self.add(field.to_owned(), problem);
        }
    }

    fn gateway(&mut self, resources: &Resources) {
        let Some(memory) = resources.limits.get("memory").map(ToString::to_string) else { return };
        if quantity::bytes(&memory).is_none_or(|bytes| bytes < GATEWAY_MEMORY) {
            let problem = format!("{memory} is less than a gateway needs to start; give it 128Mi, the default");
            self.add("spec.gateway.resources.limits.memory".to_owned(), problem);
        }
    }

    fn application(&mut self, spec: &FlinkHaClusterSpec) {
        let Some(job) = &spec.job else { return };
        let needs_savepoints = job.upgrade_mode == UpgradeMode::Savepoint
            || job.savepoint_trigger_nonce.is_some_and(|nonce| nonce != 0)
            || job.savepoints.interval.is_some()
            || job.savepoints.on_delete;
        if needs_savepoints && savepoint_directory(spec).is_none() {
            self.add(
                "spec.job".to_owned(),
                "upgradeMode savepoint, savepointTriggerNonce, savepoints.interval and savepoints.onDelete need a directory for savepoints; \
                 set the key execution.checkpointing.savepoint-dir in spec.flinkConfiguration"
                    .to_owned(),
            );
        }
        if job.sha256.is_some() && job.jar_uri.starts_with("local:") {
            self.add(
                "spec.job.sha256".to_owned(),
                "is for a jar that is fetched; a local:// jar is what the image holds, so remove it".to_owned(),
            );
        }
    }

    /// An application that runs from such a URI goes on.
    fn jar_credentials(&mut self, resource: &FlinkHaCluster) {
        let Some(job) = &resource.spec.job else { return };
        let Some(credential) = uri_credentials::credential(&job.jar_uri) else { return };
        let deployed = resource.status.as_ref().and_then(|status| deployed(status, &resource.spec));
        if deployed.and_then(|spec| spec.job).is_some_and(|deployed| deployed.jar_uri == job.jar_uri) {
            return;
        }
        let problem = format!(
            "{credential} is a credential, which stands in the resource, in its events and in the pods' arguments; remove \
             it, and put the jar into the image (local:) or into a storage (s3:, gs:, abfss:) that the pods reach by \
             their identity or by keys of spec.flinkConfigurationFrom"
        );
        self.add("spec.job.jarURI".to_owned(), problem);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::tests as fixture;

    fn problems(change: impl FnOnce(&mut FlinkHaCluster)) -> Vec<String> {
        let mut resource = fixture::resource();
        change(&mut resource);
        let problems = super::problems(&resource);
        assert_eq!(validate(&resource).is_ok(), problems.is_empty());
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_resource_has_no_problems() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn a_credential_in_a_jars_uri_is_refused_unless_the_application_runs_with_it() {
        let uri = "https://b.s3.amazonaws.com/app.jar?X-Amz-Signature=hidden";
        let change = |resource: &mut FlinkHaCluster| {
            *resource = fixture::application_resource();
            resource.spec.job.iter_mut().for_each(|job| job.jar_uri = uri.to_owned());
        };
        let found = problems(change);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with("spec.job.jarURI: the query parameter X-Amz-Signature is a credential"),
            "{found:?}"
        );
        assert!(!found[0].contains("hidden") && found[0].contains("spec.flinkConfigurationFrom"), "{found:?}");
        let running = problems(|resource| {
            change(resource);
            let deployed = crate::cluster::application::definitions::text(&resource.spec);
            let status = json!({ "application": { "deployed": deployed } });
            resource.status = serde_json::from_value(status).unwrap_or_else(|error| panic!("{error}"));
        });
        assert_eq!(running, Vec::<String>::new());
    }

    #[test]
    fn savepoints_need_a_directory() {
        let of = |more: serde_json::Value| {
            let mut job = json!({ "jarURI": "local:///a.jar" });
            crate::cluster::merge::merge(&mut job, more);
            let job = serde_json::from_value(job).unwrap_or_else(|error| panic!("{error}"));
            problems(|resource| resource.spec.job = Some(job))
        };
        for savepoints in [json!({ "interval": "24h" }), json!({ "onDelete": true })] {
            let found = of(json!({ "savepoints": savepoints }));
            assert!(found.len() == 1 && found[0].contains("execution.checkpointing.savepoint-dir"), "{found:#?}");
        }
        assert!(of(json!({ "savepoints": { "retain": {} } })).is_empty(), "none are taken");
        let found = of(json!({ "upgradeMode": "savepoint", "sha256": "x" }));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(
            found[0].contains("execution.checkpointing.savepoint-dir") && found[1].starts_with("spec.job.sha256"),
            "{found:#?}"
        );
    }

    #[test]
    fn an_owned_key_and_a_wrong_amount_of_memory_are_refused() {
        let found = problems(|resource| {
            resource.spec.flink_configuration.insert("rest.port".to_owned(), crate::api::v1alpha1::Scalar::Number(1));
            resource
                .spec
                .task_manager
                .resources
                .limits
                .insert("memory".to_owned(), crate::api::v1alpha1::Scalar::Text("much".to_owned()));
        });
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("spec.flinkConfiguration: the key rest.port is an address or port"), "{found:#?}");
        assert!(found[1].starts_with("spec.taskManager.resources: memory much is not a quantity"), "{found:#?}");
        for (bytes, sound) in [("0", false), ("15Mi", false), ("16Mi", true)] {
            let found = problems(|resource| {
                let memory = crate::api::v1alpha1::Scalar::Text(bytes.to_owned());
                resource.spec.gateway.resources.limits.insert("memory".to_owned(), memory);
            });
            assert_eq!(found.is_empty(), sound, "{bytes}: {found:?}");
        }
    }

    #[test]
    fn options_of_a_jvm_do_not_set_what_the_operator_owns() {
        let found = problems(|resource| {
            for (key, value) in [("env.java.opts.all", "-Dkubernetes.master=x"), ("env.log.dir", "-Drest.port=1")] {
                let value = crate::api::v1alpha1::Scalar::Text(value.to_owned());
                resource.spec.flink_configuration.insert(key.to_owned(), value);
            }
        });
        let expected = "spec.flinkConfiguration[env.java.opts.all]: the property kubernetes.master is owned by";
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
    }
}
