//! Reads pointers, which Flink stores in ConfigMaps (base64) and znodes instead of the data itself. A pointer is a
//! Java-serialized state handle (`KubernetesStateHandleStore.StateHandleWithDeleteMarker`,
//! `RetrievableStreamStateHandle`, `FileStateHandle`, `Path`; 1.15 to 2.3) that names one file by its URI.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::serialized::{Unreadable, numbers, strings};

const FILE_STATE_HANDLE: &str = "org.apache.flink.runtime.state.filesystem.FileStateHandle";

/// All that a pointer in a ConfigMap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerDetails {
    /// URI of its file.
    pub uri: String,
    /// Bytes of the file (`FileStateHandle.stateSize`).
    pub size: Option<u64>,
    /// Flink removes what it points to (`StateHandleWithDeleteMarker.markedForDeletion`).
    pub is_marked: bool,
}

/// Reads all that a pointer in a ConfigMap says.
///
/// # Errors
/// As [`file`].
pub fn details(value: &str) -> Result<PointerDetails, Unreadable> {
    let bytes = BASE64_STANDARD.decode(value.trim()).map_err(|_| Unreadable::NoStream)?;
    let uri = file_of(&bytes)?;
    let only = |numbers: Vec<u64>| numbers.first().copied().filter(|_| numbers.len() == 1);
    let size = numbers(&bytes, FILE_STATE_HANDLE, "stateSize").ok().and_then(only);
    Ok(PointerDetails { uri, size, is_marked: is_marked_for_deletion(value) })
}

/// Returns the URI of the file that a pointer in a ConfigMap names.
///
/// # Errors
/// When the pointer is not what Flink writes; nothing is known about its file then.
pub fn file(value: &str) -> Result<String, Unreadable> {
    let bytes = BASE64_STANDARD.decode(value.trim()).map_err(|_| Unreadable::NoStream)?;
    file_of(&bytes)
}

/// Returns the URI of the file that a pointer in a znode names.
///
/// # Errors
/// As [`file`].
pub fn file_of(bytes: &[u8]) -> Result<String, Unreadable> {
    let mut uris = strings(bytes, "java.net.URI", "string")?;
    match (uris.pop(), uris.is_empty()) {
        (Some(uri), true) => Ok(uri),
        _ => Err(Unreadable::Unknown),
    }
}

/// The wrapper of a pointer in a ConfigMap. Znodes hold the handle alone.
const WRAPPER: &str =
    "org.apache.flink.kubernetes.highavailability.KubernetesStateHandleStore$StateHandleWithDeleteMarker";

/// Does Flink recover nothing from this pointer in a ConfigMap? Flink marks a pointer, removes its file, and then
/// removes the pointer (`KubernetesStateHandleStore.releaseAndTryRemove`); it skips marked ones when it recovers.
pub fn is_marked_for_deletion(value: &str) -> bool {
    let bytes = BASE64_STANDARD.decode(value.trim()).unwrap_or_default();
    strings(&bytes, WRAPPER, "markedForDeletion").is_ok_and(|marks| marks == ["true"])
}

/// Returns the last segment of a URI's path. Names of HA files end in twelve random hex digits, so a name identifies a
/// file as well as the whole path does.
pub fn name(uri: &str) -> &str {
    uri.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// As Flink 2.3.0 wrote it; 1.20 and 2.2 write the same classes.
    const WRITTEN: &str = concat!(
        "rO0ABXNyAGNvcmcuYXBhY2hlLmZsaW5rLmt1YmVybmV0ZXMuaGlnaGF2YWlsYWJpbGl0eS5LdWJlcm5ldGVzU3RhdGVIYW5kbGVTdG9yZSRTdGF0ZUhhbmRsZVdpdGhE",
        "ZWxldGVNYXJrZXIbrUSA74YNfAIAAloAEW1hcmtlZEZvckRlbGV0aW9uTAAFaW5uZXJ0ADdMb3JnL2FwYWNoZS9mbGluay9ydW50aW1lL3N0YXRlL1JldHJpZXZhYmxl",
        "U3RhdGVIYW5kbGU7eHAAc3IAO29yZy5hcGFjaGUuZmxpbmsucnVudGltZS5zdGF0ZS5SZXRyaWV2YWJsZVN0cmVhbVN0YXRlSGFuZGxlAAEeGPFVlysCAAFMABh3cmFw",
        "cGVkU3RyZWFtU3RhdGVIYW5kbGV0ADJMb3JnL2FwYWNoZS9mbGluay9ydW50aW1lL3N0YXRlL1N0cmVhbVN0YXRlSGFuZGxlO3hwc3IAOW9yZy5hcGFjaGUuZmxpbmsu",
        "cnVudGltZS5zdGF0ZS5maWxlc3lzdGVtLkZpbGVTdGF0ZUhhbmRsZQTcddhivRuzAgACSgAJc3RhdGVTaXplTAAIZmlsZVBhdGh0AB9Mb3JnL2FwYWNoZS9mbGluay9j",
        "b3JlL2ZzL1BhdGg7eHAAAAAAAACShHNyAB1vcmcuYXBhY2hlLmZsaW5rLmNvcmUuZnMuUGF0aAAAAAAAAAABAgABTAADdXJpdAAOTGphdmEvbmV0L1VSSTt4cHNyAAxq",
        "YXZhLm5ldC5VUkmsAXguQ55JqwMAAUwABnN0cmluZ3QAEkxqYXZhL2xhbmcvU3RyaW5nO3hwdAA5ZmlsZTovZmxpbmsvaGEvZmxpbmsuZGVtby9jb21wbGV0ZWRDaGVj",
        "a3BvaW50NzJjMDBlNWNiNjVheA==",
    );

    /// The same pointer, as Flink marks it before it removes the file.
    pub fn marked(pointer: &str) -> String {
        let mut bytes = BASE64_STANDARD.decode(pointer).expect("base64");
        let at = bytes.windows(2).position(|window| window == b"xp").expect("the end of a class") + 2;
        bytes[at] = 1;
        BASE64_STANDARD.encode(bytes)
    }

    #[test]
    fn a_pointer_that_flink_is_about_to_remove_is_told_from_others() {
        assert!(!is_marked_for_deletion(WRITTEN) && is_marked_for_deletion(&marked(WRITTEN)));
        assert_eq!(file(&marked(WRITTEN)), file(WRITTEN));
        assert!(!is_marked_for_deletion("?") && !is_marked_for_deletion(""));
    }

    /// A pointer to another file, otherwise as Flink wrote it.
    pub fn pointer_to(name: &str) -> String {
        let bytes = BASE64_STANDARD.decode(WRITTEN).expect("base64");
        let at = bytes.windows(5).position(|window| window == b"file:").expect("a URI") - 2;
        let uri = format!("file:/flink/ha/flink.demo/{name}");
        let length = u16::try_from(uri.len()).expect("a short name").to_be_bytes();
        BASE64_STANDARD.encode([&bytes[..at], &length, uri.as_bytes(), b"x"].concat())
    }

    #[test]
    fn a_pointer_names_its_file() {
        let uri = file(WRITTEN).expect("a pointer");
        assert_eq!(uri, "file:/flink/ha/flink.demo/completedCheckpoint72c00e5cb65a");
        assert_eq!(name(&uri), "completedCheckpoint72c00e5cb65a");
    }

    #[test]
    fn a_pointer_says_how_large_its_file_is_and_whether_it_is_being_removed() {
        let uri = "file:/flink/ha/flink.demo/completedCheckpoint72c00e5cb65a".to_owned();
        let expected = PointerDetails { uri, size: Some(0x9284), is_marked: false };
        assert_eq!(details(WRITTEN).expect("a pointer"), expected);
        let mut bytes = BASE64_STANDARD.decode(WRITTEN).expect("base64");
        let inner = b"Lorg/apache/flink/runtime/state/RetrievableStateHandle;xp";
        let at = bytes.windows(inner.len()).position(|window| window == inner).expect("the class") + inner.len();
        assert_eq!(std::mem::replace(&mut bytes[at], 1), 0, "the marker");
        assert!(details(&BASE64_STANDARD.encode(&bytes)).expect("a pointer").is_marked);
        assert!(details("?").is_err());
    }

    #[test]
    fn a_pointer_that_is_cut_off_or_longer_names_nothing() {
        let bytes = BASE64_STANDARD.decode(WRITTEN).expect("base64");
        for length in 0..bytes.len() {
            assert!(file_of(&bytes[..length]).is_err(), "{length}");
        }
        assert_eq!(file_of(&[&bytes[..], b"x"].concat()), Err(Unreadable::Unknown));
        assert_eq!(file_of(&[&bytes[..], &bytes[4..]].concat()), Err(Unreadable::Unknown), "two handles");
        assert_eq!(file("not base64!"), Err(Unreadable::NoStream));
    }

    /// With any bit flipped, the reader reads or refuses the pointer and never panics.
    #[test]
    fn a_damaged_pointer_is_read_or_refused() {
        let bytes = BASE64_STANDARD.decode(WRITTEN).expect("base64");
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = file_of(&damaged);
            }
        }
    }
}
