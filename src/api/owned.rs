//! Keys and fields that a user may not set because high availability depends on them, each with the reason and the
//! alternative.
//!
//! These tables produce both the CRD's CEL rules and the operator's own check, so that the two cannot disagree.

/// Keys of `spec.flinkConfiguration` that we own, with the reason.
#[derive(Debug)]
pub struct OwnedKeys {
    /// Whole keys.
    pub keys: &'static [&'static str],
    /// Beginnings of keys.
    pub prefixes: &'static [&'static str],
    /// Endings of keys.
    pub suffixes: &'static [&'static str],
    /// Why we own them, and what to do instead. A clause that follows "the key … ".
    pub reason: &'static str,
}

impl OwnedKeys {
    /// Whether the key is one of these.
    pub fn contains(&self, key: &str) -> bool {
        self.keys.contains(&key)
            || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
            || self.suffixes.iter().any(|suffix| key.ends_with(suffix))
    }
}

/// Keys of Flink's configuration that we own.
pub const FLINK_CONFIGURATION: &[OwnedKeys] = &[
    OwnedKeys {
        keys: &[],
        prefixes: &["high-availability"],
        suffixes: &[],
        reason: "is owned by high availability; use spec.highAvailability instead",
    },
    OwnedKeys {
        keys: &[
            "kubernetes.cluster-id",
            "kubernetes.namespace",
            "kubernetes.context",
            "kubernetes.config.file",
            "kubernetes.client.user-agent",
        ],
        prefixes: &[],
        suffixes: &[],
        reason: "is owned by high availability: it is derived from the resource's namespace and name and leads Flink to its gateway; remove it",
    },
    OwnedKeys {
        keys: &[
            "execution.shutdown-on-application-finish",
            "execution.submit-failed-job-on-application-error",
            "$internal.pipeline.job-id",
            "$internal.application.id",
            "cluster.id",
        ],
        prefixes: &[],
        suffixes: &[],
        reason: "is owned by high availability: the operator decides when the pods of an application end, and under which id it runs; use spec.job instead",
    },
    OwnedKeys {
        keys: &["zookeeper.sasl.disable"],
        prefixes: &[],
        suffixes: &[],
        reason: "is owned by high availability; use spec.highAvailability.zookeeper instead",
    },
    OwnedKeys {
        keys: &[],
        prefixes: &["job-result-store.", "application-result-store."],
        suffixes: &[],
        reason: "is owned by high availability: the results prove that a job has ended, and they are removed together with its HA data; remove it",
    },
    OwnedKeys {
        keys: &[
            "jobmanager.rpc.address",
            "jobmanager.rpc.port",
            "jobmanager.rpc.bind-port",
            "jobmanager.bind-host",
            "rest.address",
            "rest.port",
            "rest.bind-address",
            "rest.bind-port",
            "blob.server.port",
            "taskmanager.host",
            "taskmanager.bind-host",
            "taskmanager.rpc.port",
            "taskmanager.rpc.bind-port",
            "taskmanager.data.port",
            "taskmanager.data.bind-port",
        ],
        prefixes: &[],
        suffixes: &[],
        reason: "is an address or port that follows the pods and Services of the cluster; remove it",
    },
    OwnedKeys {
        keys: &[],
        prefixes: &[],
        suffixes: &[".memory.process.size"],
        reason: "follows spec.jobManager.resources and spec.taskManager.resources; set limits.memory there instead",
    },
];

/// A field that we own, with the reason.
#[derive(Debug)]
pub struct OwnedField {
    /// The field's name inside its parent.
    pub field: &'static str,
    /// The field's type in OpenAPI.
    pub kind: &'static str,
    /// Why we own it, and what to do instead. A clause that follows the field's name.
    pub reason: &'static str,
}

/// Fields of `podTemplate.spec` that we own.
pub const POD_SPEC: &[OwnedField] = &[
    OwnedField {
        field: "hostNetwork",
        kind: "boolean",
        reason: "is not possible: the gateway and Flink listen on fixed ports, and the gateway's port for Flink is safe only on the pod's own loopback; remove it",
    },
    OwnedField {
        field: "hostPID",
        kind: "boolean",
        reason: "is not possible: the gateway watches Flink's process in the pod's own process namespace; remove it",
    },
    OwnedField {
        field: "shareProcessNamespace",
        kind: "boolean",
        reason: "is owned by high availability: the gateway watches Flink's process; remove it",
    },
    OwnedField { field: "restartPolicy", kind: "string", reason: "is always Always in a Deployment; remove it" },
    OwnedField {
        field: "serviceAccountName",
        kind: "string",
        reason: "is owned by the operator, which gives JobManagers and TaskManagers the least rights they need; bind your own roles to the ServiceAccounts <name>-jobmanager and <name>-taskmanager instead",
    },
    OwnedField {
        field: "serviceAccount",
        kind: "string",
        reason: "is owned by the operator; bind your own roles to the ServiceAccounts <name>-jobmanager and <name>-taskmanager instead",
    },
    OwnedField {
        field: "automountServiceAccountToken",
        kind: "boolean",
        reason: "is owned by high availability: Flink and its gateway talk to the API server; remove it",
    },
];

/// Fields of the container `flink-main-container` in `podTemplate.spec.containers` that we own. The operator checks
/// them and reports violations in a condition.
pub const FLINK_CONTAINER: &[OwnedField] = &[
    OwnedField {
        field: "image",
        kind: "string",
        reason: "is owned by the operator, so that all pods run the same Flink; use spec.image instead",
    },
    OwnedField {
        field: "command",
        kind: "array",
        reason: "is owned by the operator, which starts Flink through the image's own entrypoint; remove it",
    },
    OwnedField {
        field: "args",
        kind: "array",
        reason: "is owned by the operator, which starts Flink through the image's own entrypoint; use spec.flinkConfiguration instead",
    },
    OwnedField {
        field: "resources",
        kind: "object",
        reason: "is owned by the operator, because Flink's memory follows it; use spec.jobManager.resources or spec.taskManager.resources instead",
    },
];

/// Environment variables of the container `flink-main-container` that we own.
pub const FLINK_ENVIRONMENT: &[&str] = &[
    "KUBERNETES_MASTER",
    "KUBERNETES_NAMESPACE",
    "FLINKHA_CONFIGURATION",
    "FLINKHA_JVM_OPTIONS",
    "FLINKHA_OWNED_KEYS",
    "FLINKHA_SECRETS",
    "FLINK_CONF_DIR",
    "FLINK_LOG_DIR",
    "JOB_MANAGER_RPC_ADDRESS",
    "POD_IP",
    "POD_NAME",
];

/// Beginning of the names of volumes, annotations and labels that we own.
pub const RESERVED_PREFIX: &str = "flinkha";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_owned_whole_by_their_beginning_or_by_their_end() {
        let owned = |key: &str| FLINK_CONFIGURATION.iter().any(|group| group.contains(key));
        for key in [
            "high-availability",
            "high-availability.storageDir",
            "rest.port",
            "taskmanager.memory.process.size",
            "job-result-store.storage-path",
        ] {
            assert!(owned(key), "{key}");
        }
        for key in [
            "parallelism.default",
            "rest.flamegraph.enabled",
            "taskmanager.memory.managed.fraction",
            "kubernetes.client.io-pool.size",
        ] {
            assert!(!owned(key), "{key}");
        }
    }
}
