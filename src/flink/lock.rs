//! Reads and writes Flink's leader lock: a JSON record in an annotation of the cluster ConfigMap, which the fabric8
//! client in the JVM writes (`io.fabric8.kubernetes.client.extended.leaderelection.resourcelock.LeaderElectionRecord`).

use jiff::Timestamp;
use serde_json::{Value, json};

/// The annotation that holds the record.
pub const LOCK_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";

/// A holder identity that no Flink JVM has; theirs are random UUIDs.
const FOREIGN_HOLDER: &str = "another-job-manager";

/// Returns the lock annotation of a ConfigMap or of a merge patch for one; `None` if it is absent.
pub fn of_object(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LOCK_ANNOTATION)?.as_str()
}

/// Returns `holderIdentity` of a lock annotation; empty if the lock is free. `None` if the text is not a lock record.
pub fn holder(annotation: &str) -> Option<String> {
    let record: Value = serde_json::from_str(annotation).ok()?;
    match record.as_object()?.get("holderIdentity") {
        None | Some(Value::Null) => Some(String::new()),
        Some(holder) => holder.as_str().map(str::to_owned),
    }
}

/// A lock with a holder, and its times as they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLock {
    pub holder: String,
    pub acquired: String,
    pub renewed: String,
}

impl HeldLock {
    /// Reads a lock annotation. `None` if the lock is free, or if the text is not a lock record.
    pub fn of(annotation: &str) -> Option<Self> {
        let holder = holder(annotation).filter(|holder| !holder.is_empty())?;
        let record: Value = serde_json::from_str(annotation).ok()?;
        let time = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        Some(Self { holder, acquired: time("acquireTime"), renewed: time("renewTime") })
    }

    /// Has the holder renewed the lock since it took it? fabric8's elector writes equal times when it takes a lock.
    pub fn was_renewed(&self) -> bool {
        self.acquired != self.renewed
    }
}

/// Returns a lock that any JVM may take at once: fabric8's elector takes a lock without a holder, whatever its times
/// are.
pub fn free(now: Timestamp) -> String {
    record("", now)
}

/// Returns the lock of a JVM with this identity, as if the JVM had renewed it at `now`.
pub fn held(holder: &str, now: Timestamp) -> String {
    record(holder, now)
}

/// Returns a lock that another holder has renewed at `now`. The JVM compares `renewTime` with its own wall clock, which
/// is this machine's, so the lock never looks expired.
pub fn foreign(now: Timestamp) -> String {
    record(FOREIGN_HOLDER, now)
}

/// Flink writes `leaseDuration` as a number up to 1.20, and as an ISO 8601 string from 2.0 on; every version reads
/// both.
fn record(holder: &str, now: Timestamp) -> String {
    let time = format!("{now:.6}");
    json!({ "holderIdentity": holder, "leaseDuration": "PT15S", "acquireTime": time, "renewTime": time, "leaderTransitions": 0 })
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_records_of_every_flink_version() {
        let old = r#"{"holderIdentity":"7f","leaseDuration":15.000000000,"acquireTime":"2026-01-01T00:00:00.1Z","renewTime":"2026-01-01T00:00:00.1Z","leaderTransitions":0}"#;
        let new = r#"{"holderIdentity":"7f","leaseDuration":"PT15S","acquireTime":"2026-01-01T00:00:00.1Z","renewTime":"2026-01-01T00:00:00.1Z","leaderTransitions":0}"#;
        assert_eq!(holder(old).as_deref(), Some("7f"));
        assert_eq!(holder(new).as_deref(), Some("7f"));
        assert_eq!(holder(&free(Timestamp::UNIX_EPOCH)).as_deref(), Some(""));
        assert_eq!(holder("no record"), None);
        assert_eq!(holder("[]"), None);
    }
}
