//! When the operator makes the Secret with the gateways' key again. It may not read Secrets, so it creates the Secret,
//! which changes nothing where there is one.

use jiff::{SignedDuration, Timestamp};

use super::observed::{Observed, ObservedPod};
use crate::api::names::NO_KEY_ANNOTATION;
use crate::lease::record::Record;

/// A standby that is ready has promised the leader by then: the Lease is renewed each 10 s, and says who has.
pub const PROMISE: SignedDuration = SignedDuration::from_secs(45);

/// Since when the leading gateway finds no key; `None` if it finds one.
pub fn missing_since(observed: &Observed) -> Option<Timestamp> {
    let annotations = observed.ledger.as_ref()?.metadata.annotations.as_ref()?;
    annotations.get(NO_KEY_ANNOTATION)?.parse().ok()
}

/// Standbys that are ready, and have not promised the holder of the Lease to leave it alone.
pub fn silent<'a>(observed: &'a Observed, record: &'a Record) -> impl Iterator<Item = &'a ObservedPod> {
    let standbys = observed.job_manager_pods.iter().map(AsRef::as_ref);
    standbys.filter(|pod| pod.is_ready() && pod.name() != record.holder && !record.peers.lists(pod.uid()))
}

/// Whether the Secret may be gone: its leader says so, or a standby has long been silent.
pub fn may_be_gone(observed: &Observed, now: Timestamp) -> bool {
    let record = observed.lease.as_deref().map(Record::of).filter(|record| !record.holder.is_empty());
    let is_late = |pod: &ObservedPod| pod.ready_since().is_some_and(|ready| now.duration_since(ready) >= PROMISE);
    missing_since(observed).is_some() || record.is_some_and(|record| silent(observed, &record).any(is_late))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_leader_says_that_the_key_is_gone_or_a_standby_has_long_been_silent() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let ready = |since: &str| json!([{ "type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": since }]);
        let with = |note: Option<&str>, since: &str| Observed {
            ledger: serde_json::from_value(json!({ "metadata": { "annotations": { NO_KEY_ANNOTATION: note } } }))
                .ok()
                .map(Arc::new),
            lease: serde_json::from_value(json!({ "metadata": {}, "spec": { "holderIdentity": "a" } }))
                .ok()
                .map(Arc::new),
            job_manager_pods: ["a", "b"]
                .into_iter()
                .map(|name| {
                    let pod = json!({
                        "metadata": { "name": name, "uid": name }, "status": { "conditions": ready(since) },
                    });
                    Arc::new(serde_json::from_value(pod).expect("a pod"))
                })
                .collect(),
            ..Observed::default()
        };
        assert!(!may_be_gone(&with(None, "2026-01-01T00:00:30Z"), now), "it has just become ready");
        assert!(may_be_gone(&with(None, "2026-01-01T00:00:00Z"), now));
        assert!(may_be_gone(&with(Some("2026-01-01T00:00:59Z"), "2026-01-01T00:00:30Z"), now));
    }
}
