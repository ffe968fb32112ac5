//! How tools read a resource's state, stated again from their own rules. Only what holds for a kind that they do not
//! know.

use serde_json::Value;

/// What Flux, Argo CD's and Helm's `--wait` make of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kstatus {
    InProgress,
    Failed,
    Current,
    Terminating,
}

/// `status.Compute` of `sigs.k8s.io/cli-utils/pkg/kstatus` for a custom resource: deletion, then generations, then the
/// conditions `Reconciling` and `Stalled` in the order of the list, then `Ready`; without any of these it is current.
pub fn kstatus(object: &Value) -> Kstatus {
    if object["metadata"]["deletionTimestamp"].as_str().is_some_and(|text| !text.is_empty()) {
        return Kstatus::Terminating;
    }
    let (generation, observed) =
        (object["metadata"]["generation"].as_i64(), object["status"]["observedGeneration"].as_i64());
    if let (Some(generation), Some(observed)) = (generation, observed)
        && generation != observed
    {
        return Kstatus::InProgress;
    }
    let conditions = || object["status"]["conditions"].as_array().into_iter().flatten();
    for condition in conditions().filter(|condition| condition["status"] == "True") {
        match condition["type"].as_str() {
            Some("Reconciling") => return Kstatus::InProgress,
            Some("Stalled") => return Kstatus::Failed,
            _ => {}
        }
    }
    match conditions().find(|condition| condition["type"] == "Ready").map(|ready| ready["status"].as_str()) {
        Some(Some("False" | "Unknown")) => Kstatus::InProgress,
        _ => Kstatus::Current,
    }
}

/// Whether `kubectl wait --for=condition=<kind>` returns: the condition is true, and not about an earlier generation
/// than the resource's (`IsConditionMet` of `k8s.io/kubectl/pkg/cmd/wait`).
pub fn is_waited_for(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let Some(condition) = conditions.into_iter().flatten().find(|condition| condition["type"] == kind) else {
        return false;
    };
    let of_status = || object["status"]["observedGeneration"].as_i64();
    let observed = condition["observedGeneration"].as_i64().or_else(of_status);
    let is_late = observed.is_some_and(|observed| observed < object["metadata"]["generation"].as_i64().unwrap_or(0));
    condition["status"] == "True" && !is_late
}
