//! The version of an application's definition, and the names of its runs.

use serde_json::json;

use crate::api::FlinkHaClusterSpec;
use crate::api::application::JobSpec;
use crate::api::tls::Tls;
use crate::cluster::build::{digest, hash};
use crate::flink::job_id::JobId;

/// Digest of all that needs a new graph or plan when it changes. What concerns one kind of pod alone does not.
pub fn version(spec: &FlinkHaClusterSpec) -> String {
    let job = spec.job.as_ref().map(|job| {
        let JobSpec { jar_uri, sha256, entry_class, args, parallelism, allow_non_restored_state, .. } = job;
        json!([jar_uri, sha256, entry_class, args, parallelism, allow_non_restored_state])
    });
    let shared = spec.flink_configuration.iter().filter(|(key, _)| !is_of_one_component(key));
    let configuration: Vec<_> = shared.map(|(key, value)| (key, value.to_string())).collect();
    let mut parts = vec![json!(spec.image), json!(job), json!(configuration)];
    // Pods with TLS and pods without do not understand each other, so all of one kind end before those of the other
    // start. Versions from before this field existed keep their digests.
    parts.extend(spec.tls.as_ref().filter(|tls| **tls != Tls::default()).map(|tls| json!(tls)));
    digest(&json!(parts).to_string())
}

/// Keys of Flink's configuration that only one kind of pod reads.
pub(super) fn is_of_one_component(key: &str) -> bool {
    ["jobmanager.", "taskmanager."].iter().any(|prefix| key.starts_with(prefix))
}

/// The id of a resource's n-th run. Repeating a step that was not written down makes the same one.
pub fn job_id(uid: &str, run: i64) -> JobId {
    let (high, low) = (hash(&format!("{uid}/{run}")), hash(&format!("{run}/{uid}")));
    JobId::from_number(u128::from(high) << 64 | u128::from(low))
}

/// The directory of a request for a savepoint, in the user's directory for savepoints; `None` if there is none.
/// `own_directory`: that of the resource.
pub fn request_directory(spec: &FlinkHaClusterSpec, own_directory: &str, id: &str) -> Option<String> {
    Some(format!("{}/{own_directory}/{id}", savepoint_directory(spec)?.trim_end_matches('/')))
}

/// The user's directory for savepoints, by Flink's own keys.
pub fn savepoint_directory(spec: &FlinkHaClusterSpec) -> Option<String> {
    let keys = ["execution.checkpointing.savepoint-dir", "state.savepoints.dir", "state.backend.fs.savepointdir"];
    keys.iter().find_map(|key| spec.flink_configuration.get(*key)).map(ToString::to_string)
}
