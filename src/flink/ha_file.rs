//! Classifies the files in Flink's HA storage directory by their names.

use super::job_id::JobId;

/// Kind of a file, from its path in the cluster's directory (`FileSystemStateStorageHelper`,
/// `BlobUtils.getStorageLocationPath`; 1.15 to 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Graph, plan or application.
    Plan,
    /// Metadata of a completed checkpoint. Only the file's content names its job.
    Checkpoint,
    /// Jar or other artifact of this job or application.
    Blob(JobId),
    /// An object that stands for a directory, as Hadoop writes them into buckets.
    Marker,
    /// Not one of Flink's HA files.
    Foreign,
}

impl Kind {
    /// Classifies a path below the cluster's directory, for example `blob/job_<id>/blob_p-<key>`.
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

/// Is the name a prefix and random hex digits (`FileSystemStateStorageHelper.getNewFilePath`)?
fn random(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && hexadecimal(rest))
}

fn hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
