//! Reads files `completedCheckpoint*` of the HA storage directory, which are Java-serialized `CompletedCheckpoint`
//! objects. It reads only the job and the location of the checkpoint, and only where they stand exactly as Java's
//! serialization writes them.

use super::job_id::JobId;

/// Prefix of such a file's name (`DefaultCompletedCheckpointStoreUtils`,
/// `ZooKeeperUtils.HA_STORAGE_COMPLETED_CHECKPOINT`; 1.15 to 2.3).
pub const FILE_PREFIX: &str = "completedCheckpoint";

const JOB_ID: &[u8] = b"org.apache.flink.api.common.JobID";
/// Class descriptor of `AbstractID` after its serialVersionUID: serializable, two long fields, end of annotations, no
/// super class.
const FIELDS: &[u8] = b"\x02\x00\x02J\x00\tlowerPartJ\x00\tupperPartxp";
/// Bytes between the class names: `\x02\x00\x00xr\x00 ` and `org.apache.flink.util.AbstractID`, with a serialVersionUID
/// of 8 bytes before and after.
const BETWEEN: usize = 8 + 7 + 32 + 8;

/// Returns the job of a completed checkpoint. `None` if the file is not what Flink writes; nothing is known about it
/// then.
pub fn job(bytes: &[u8]) -> Option<JobId> {
    // The job is the first object field, so the first JobID is the checkpoint's own.
    let start = bytes.windows(JOB_ID.len()).position(|window| window == JOB_ID)? + JOB_ID.len() + BETWEEN;
    let id = bytes.get(start..)?.strip_prefix(FIELDS)?.get(..16)?;
    Some(JobId::from_number(u128::from_be_bytes(id.try_into().ok()?)))
}

/// Suffix of the metadata file of a checkpoint in the user's own directory
/// (`AbstractFsCheckpointStorageAccess.METADATA_FILE_NAME`).
const METADATA: &[u8] = b"/_metadata";
/// Longest path that is recognized, in bytes.
const PATH: usize = 4096;
/// A file in which such a path ends more often is not what Flink writes.
const OCCURRENCES: usize = 64;

/// Returns the location of the checkpoint: the directory of its metadata, from which Flink can restore a job without HA
/// data. `None` if the job stores its checkpoints only in HA data, or if the file does not name exactly one location.
pub fn location(bytes: &[u8]) -> Option<String> {
    let ends: Vec<usize> = bytes
        .windows(METADATA.len())
        .enumerate()
        .filter(|(_, window)| *window == METADATA)
        .map(|(at, _)| at + METADATA.len())
        .take(OCCURRENCES + 1)
        .collect();
    if ends.len() > OCCURRENCES {
        return None;
    }
    let mut found: Vec<String> = ends.into_iter().filter_map(|end| string_to(bytes, end)).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [only] => only.strip_suffix("/_metadata").map(str::to_owned),
        _ => None,
    }
}

/// Returns the string that ends at `end`, as Java writes it: `t`, its length in two bytes, its bytes.
fn string_to(bytes: &[u8], end: usize) -> Option<String> {
    (METADATA.len()..PATH.min(end.saturating_sub(2))).find_map(|length| {
        let start = end - length;
        let header = [b't', (length >> 8) as u8, length as u8];
        let is_string = bytes.get(start.checked_sub(3)?..start)? == header;
        is_string.then(|| String::from_utf8(bytes[start..end].to_vec()).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_own_directory_is_that_of_its_metadata() {
        let path = b"t\x00\x1cfile:/checkpoints/chk-7/_meta";
        let whole = [&b"xx"[..], b"t\x00\x21file:/checkpoints/chk-7/_metadata", b"yy"].concat();
        assert_eq!(location(&whole).as_deref(), Some("file:/checkpoints/chk-7"));
        assert_eq!(
            location(&[whole.clone(), whole.clone()].concat()).as_deref(),
            Some("file:/checkpoints/chk-7"),
            "the same twice"
        );
        let other = [&whole[..], b"t\x00\x21file:/checkpoints/chk-8/_metadata"].concat();
        assert_eq!(location(&other), None, "which one is not known");
        assert_eq!(location(path), None);
        assert_eq!(location(&whole.repeat(65)), None, "no file has it so often, and looking for all takes time");
    }

    /// As Flink 2.3.0 wrote it.
    const WRITTEN: &[u8] =
        b"\xac\xed\x00\x05sr\x00!org.apache.flink.api.common.JobID\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00xr\x00 \
        org.apache.flink.util.AbstractID\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x02J\x00\tlowerPartJ\x00\tupperPartxp\
        \x0eE\x19\xcf\xf0\x1b<\xb1\xd4l\xee\xfb\xba1\xd9\xaesr\x00\x1f";

    #[test]
    fn the_job_of_a_checkpoint_is_read_where_java_wrote_it() {
        assert_eq!(job(WRITTEN), JobId::of("0e4519cff01b3cb1d46ceefbba31d9ae"));
    }

    #[test]
    fn nothing_is_known_of_other_bytes() {
        assert_eq!(job(b""), None);
        for length in 0..WRITTEN.len() - 5 {
            assert_eq!(job(&WRITTEN[..length]), None, "{length}");
        }
    }
}
