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

/// Number of bytes of the hash in a blob's key (`BlobKey.SIZE`).
const HASH: usize = 20;

/// Does a graph or plan name this blob, so that Flink needs it to run the job? Beside jars and other files of the user,
/// Flink stores parts of its own messages as blobs, which it writes again for each run of the job.
///
/// A blob's file is `blob_p-<hash>-<random>` in hex digits (`BlobUtils.getStorageLocationPath`, `BlobKey.toString`),
/// and a key is serialized with the bytes of its hash in one piece (`BlobKey.key`, a `byte[]`; 1.20 to 2.3).
pub fn is_named_in(plan: &[u8], path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let hash = name.strip_prefix("blob_p-").and_then(|key| key.split('-').next()).and_then(bytes_of);
    hash.is_some_and(|hash| hash.len() == HASH && plan.windows(HASH).any(|window| window == hash))
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Is the name a prefix and random hex digits (`FileSystemStateStorageHelper.getNewFilePath`)?
fn random(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && hexadecimal(rest))
}

fn hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_the_blobs_that_it_needs() {
        let hash: Vec<u8> = (0x10..0x24).collect();
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let plan = [b"before", &hash[..], b"after"].concat();
        let path = format!("blob/job_0e4519cff01b3cb1d46ceefbba31d9ae/blob_p-{hex}-00ff");
        assert!(is_named_in(&plan, &path));
        assert!(!is_named_in(&plan[..20], &path), "it ends too early");
        let others = [path.replace("blob_p-10", "blob_p-11"), path.replace("blob_p-10", "blob_p-"), "blob_p-".into()];
        for other in others.iter().map(String::as_str).chain(["", "blob_p", "blob_p-x\u{fc}", "blob_t-1-2"]) {
            assert!(!is_named_in(&plan, other), "{other}");
        }
    }
}
