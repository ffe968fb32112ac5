//! Files that Flink writes into its HA storage directory, told apart by their names.

use super::job_id::JobId;

/// What a file is, by its path in the cluster's directory (`FileSystemStateStorageHelper`,
/// `BlobUtils.getStorageLocationPath`; 1.15 to 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Graph, plan or application.
    Plan,
    /// Metadata of a completed checkpoint. The file itself says of which job.
    Checkpoint,
    /// Jar or other artifact of this job or application.
    Blob(JobId),
    /// An object that marks a directory, as Hadoop writes them into buckets.
    Marker,
    /// Not one of Flink's HA files.
    Foreign,
}

impl Kind {
    /// `path`: below the cluster's directory, for example `blob/job_<id>/blob_p-<key>`.
    pub fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [name]
                if ["submittedJobGraph", "submittedExecutionPlan", "submittedApplication"]
                    .iter()
                    .any(|prefix| random(name, prefix)) =>
            {
                Kind::Plan
            }
            [name] if random(name, "completedCheckpoint") => Kind::Checkpoint,
            ["blob"] | ["blob", _] => Kind::Marker,
            ["blob", directory, name] if name.starts_with("blob_") => {
                let id = directory.strip_prefix("job_").or_else(|| directory.strip_prefix("application_"));
                id.and_then(JobId::of).map_or(Kind::Foreign, Kind::Blob)
            }
            _ => Kind::Foreign,
        }
    }
}

/// `FileSystemStateStorageHelper.getNewFilePath`: a prefix and random hex digits.
fn random(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && hexadecimal(rest))
}

fn hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
