//! Why a candidate could not take over: an annotation of the ledger for each pod that has been unready for a while. Its
//! gateway writes and removes it, whether it leads or not; the operator shows it in the condition `Degraded`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

/// Prefix of the annotations' names; the pod's UID follows.
const PREFIX: &str = "unready.flinkha.dev/";
/// Of pods that never came back nothing is kept for longer.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// What an annotation says.
#[derive(Serialize, Deserialize)]
struct Unready {
    why: String,
    /// When it was written.
    at: Timestamp,
}

/// Name of a pod's annotation.
pub fn annotation(pod_uid: &str) -> String {
    format!("{PREFIX}{pod_uid}")
}

/// Whether this is a pod's annotation.
pub fn is_annotation(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Text of an annotation.
pub fn text(why: &str, at: Timestamp) -> String {
    serde_json::json!(Unready { why: why.to_owned(), at }).to_string()
}

/// Why this pod's candidate could not take over. Text that is not understood counts as none.
pub fn of(ledger: &ObjectMeta, pod_uid: &str) -> Option<String> {
    let text = ledger.annotations.as_ref()?.get(&annotation(pod_uid))?;
    serde_json::from_str::<Unready>(text).ok().map(|unready| unready.why)
}

/// Annotations of pods that have not renewed them: they went away without a word.
pub fn outdated(ledger: &ObjectMeta, now: Timestamp) -> Vec<String> {
    let empty = BTreeMap::new();
    let annotations = ledger.annotations.as_ref().unwrap_or(&empty).iter();
    let ours = annotations.filter(|(key, _)| key.starts_with(PREFIX));
    let is_old = |text: &str| {
        serde_json::from_str::<Unready>(text).map_or(true, |unready| now.duration_since(unready.at) > KEPT)
    };
    ours.filter(|(_, text)| is_old(text)).map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_candidate_lacks_is_read_by_its_pod_and_kept_for_an_hour() {
        let (begin, later) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_mins(61));
        let annotations = [
            (annotation("a"), text("the pod is terminating", begin)),
            (annotation("b"), text("the Lease has not been read yet", later)),
            (annotation("c"), "torn".to_owned()),
            ("flinkha.dev/refusal".to_owned(), "of another kind".to_owned()),
        ];
        let ledger = ObjectMeta { annotations: Some(annotations.into_iter().collect()), ..ObjectMeta::default() };
        assert_eq!(of(&ledger, "a").as_deref(), Some("the pod is terminating"));
        assert_eq!((of(&ledger, "c"), of(&ledger, "d")), (None, None));
        assert_eq!(outdated(&ledger, begin), [annotation("c")]);
        assert_eq!(outdated(&ledger, later), [annotation("a"), annotation("c")]);
        assert!(outdated(&ObjectMeta::default(), later).is_empty());
    }
}
