//! What of the objects under a cluster's names is this cluster's own, and what is another's.
//!
//! Flink's `kubernetes.cluster-id` and our names are plain names inside a namespace: another Flink, or anybody, may use
//! the same. Whatever does not carry a mark of ours is another's: it is not stamped, not applied over, not deleted.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::api::names::{
    self, APPLICATION_ANNOTATION, CLUSTER_LABEL, FIELD_MANAGER, LEADER_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL,
    TERM_ANNOTATION,
};
use crate::flink::lock;
use crate::ledger::jobs::{HA_DATA_KEY, JOBS_KEY};
use crate::ledger::refusal::{FOREIGN_HA_DATA, NAME_TAKEN, Refusal};

/// Names in one sentence.
const NAMED: usize = 5;

/// Whether an HA ConfigMap carries a mark of this cluster's gateways. A stamp that cannot be read counts: somebody has
/// edited it.
pub fn is_marked(config_map: &Value) -> bool {
    let annotations = &config_map["metadata"]["annotations"];
    [TERM_ANNOTATION, APPLICATION_ANNOTATION].into_iter().any(|key| annotations.get(key).is_some())
}

/// Whether a JobManager of this cluster has led before, by the ledger.
pub fn has_history(ledger: &Value) -> bool {
    let (annotations, data) = (&ledger["metadata"]["annotations"], &ledger["data"]);
    [TERM_ANNOTATION, LEADER_ANNOTATION].into_iter().any(|key| annotations.get(key).is_some())
        || [JOBS_KEY, HA_DATA_KEY, crate::ledger::application::LEDGER_KEY]
            .into_iter()
            .any(|key| data.get(key).is_some())
}

/// The HA ConfigMaps of one cluster id, as read before the first stamp of a term.
#[derive(Clone, Copy, Debug)]
pub struct HaConfigMaps<'a> {
    pub cluster_id: &'a str,
    pub cluster: Option<&'a Value>,
    /// ConfigMaps of jobs, by name.
    pub jobs: &'a BTreeMap<String, Value>,
}

impl HaConfigMaps<'_> {
    /// Whether the cluster ConfigMap carries a mark of ours. ConfigMaps of jobs that carry none are ours then too:
    /// somebody has edited them.
    pub fn is_ours(&self) -> bool {
        self.cluster.is_some_and(is_marked)
    }

    /// Names of the ConfigMaps without a mark.
    pub fn unmarked(&self) -> Vec<String> {
        let cluster =
            self.cluster.filter(|cluster| !is_marked(cluster)).map(|_| names::cluster_config_map(self.cluster_id));
        let jobs = self.jobs.iter().filter(|(_, job)| !is_marked(job)).map(|(name, _)| name.clone());
        cluster.into_iter().chain(jobs).collect()
    }

    /// The refusal of HA data without a mark in a cluster without a history.
    pub fn refusal(&self) -> Option<Refusal> {
        let unmarked = self.unmarked();
        let first = unmarked.first()?;
        let message = format!(
            "ConfigMap {first} was not written by this cluster{}; nothing is touched, and no JobManager of this cluster leads: give the \
             FlinkHaCluster another name, or end the Flink whose kubernetes.cluster-id is {} and, if its HA data is not needed, delete \
             ConfigMaps {}",
            self.holder(),
            self.cluster_id,
            listed(&unmarked)
        );
        Some(Refusal::new(FOREIGN_HA_DATA, message))
    }

    /// The refusal of HA data whose lock another Flink renews, whatever its marks are.
    pub fn refusal_of_living(&self) -> Refusal {
        let name = names::cluster_config_map(self.cluster_id);
        let message = format!(
            "ConfigMap {name} is in use by a Flink that is not of this cluster{}; nothing is touched, and no JobManager of this cluster \
             leads: give the FlinkHaCluster another name, or end the Flink whose kubernetes.cluster-id is {}: this cluster then goes on by itself",
            self.holder(),
            self.cluster_id
        );
        Refusal::new(FOREIGN_HA_DATA, message)
    }

    /// Who holds the lock and since when, as a clause; empty when nobody does.
    fn holder(&self) -> String {
        let lock = self.cluster.and_then(lock::of_object).and_then(lock::HeldLock::of);
        lock.map(|lock| format!(": its leader lock is held by {} since {}", lock.holder, lock.acquired))
            .unwrap_or_default()
    }
}

/// A lock that is renewed in the store is renewed there at least this often, whatever the clocks of two machines say.
/// In seconds.
const RECENT: i64 = 15;

/// Whether the lock may be one that another Flink renews in the store, so that it is worth a second look. The gateways
/// store a lock when it is taken and answer later renewals from memory, except the first one after their own restart.
pub fn may_be_renewed_elsewhere(cluster: &Value, now: jiff::Timestamp) -> bool {
    let Some(lock) = lock::of_object(cluster).and_then(lock::HeldLock::of).filter(lock::HeldLock::was_renewed) else {
        return false;
    };
    let age = lock.renewed.parse::<jiff::Timestamp>().map(|renewed| now.duration_since(renewed).abs().as_secs());
    // A stamped one is only looked at twice if it is recent: a failover shortly after a restart of the gateway would
    // wait in vain.
    !is_marked(cluster) || age.is_ok_and(|age| age <= RECENT)
}

/// Kind of the resource that owns a cluster's objects.
pub const OWNER: &str = "FlinkHaCluster";

/// Whether an object of the API server is this cluster's: by our labels, by an owner reference to a FlinkHaCluster of
/// this name, or because we have written it and somebody has removed the labels.
pub fn is_own(metadata: &ObjectMeta, cluster: &str) -> bool {
    let owned = metadata.owner_references.iter().flatten().any(|owner| owner.kind == OWNER && owner.name == cluster);
    let unlabelled = label(metadata, CLUSTER_LABEL).is_none();
    is_labelled(metadata, cluster) || owned || (unlabelled && was_written(metadata))
}

/// The merge patch that gives an object of this cluster the labels and the owner that it is to have, in the place of
/// another resource of that name, such as the one of a backup; `None` if it has them.
pub fn owning(metadata: &ObjectMeta, wanted: &Value) -> Option<Value> {
    let empty = Map::new();
    let (wanted_labels, owner) = (&wanted["metadata"]["labels"], &wanted["metadata"]["ownerReferences"][0]);
    let labels = wanted_labels.as_object().unwrap_or(&empty).iter();
    let labels: Map<String, Value> = labels
        .filter(|(key, value)| {
            [MANAGED_BY_LABEL, CLUSTER_LABEL].contains(&key.as_str()) && label(metadata, key) != value.as_str()
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let found: Vec<Value> = metadata.owner_references.iter().flatten().map(|owner| json!(owner)).collect();
    let is_former =
        |found: &Value| found["kind"] == OWNER && found["name"] == owner["name"] && found["uid"] != owner["uid"];
    let mut owners: Vec<Value> = found.iter().filter(|found| owner.is_null() || !is_former(found)).cloned().collect();
    if !owner.is_null() && owners.iter().all(|found| found["uid"] != owner["uid"]) {
        owners.push(owner.clone());
    }
    if labels.is_empty() && owners == found {
        return None;
    }
    Some(json!({
        "metadata": { "resourceVersion": metadata.resource_version, "labels": labels, "ownerReferences": owners },
    }))
}

/// Whether an object carries this cluster's labels, by which the operator's watches find it.
pub fn is_labelled(metadata: &ObjectMeta, cluster: &str) -> bool {
    label(metadata, MANAGED_BY_LABEL) == Some(MANAGED_BY) && label(metadata, CLUSTER_LABEL) == Some(cluster)
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// By annotations that only gateways and the operator write, or because the operator has applied it: somebody has
/// removed the labels.
fn was_written(metadata: &ObjectMeta) -> bool {
    let ours = metadata.annotations.iter().flatten().any(|(key, _)| key.starts_with("flinkha.dev/"));
    ours || metadata.managed_fields.iter().flatten().any(|one| one.manager.as_deref() == Some(FIELD_MANAGER))
}

/// The refusal that names the objects that are in the way, as `<Kind> <name>`; `None` when there are none.
pub fn name_taken(cluster: &str, taken: &[String]) -> Option<Refusal> {
    let first = taken.first()?;
    let others = if taken.len() > 1 { format!(" (and {})", listed(&taken[1..])) } else { String::new() };
    let message = format!(
        "{first} exists and does not belong to this FlinkHaCluster{others}; nothing is changed: give the FlinkHaCluster another name, or, if \
         the object is not needed, delete it, and {cluster} is created within a minute"
    );
    Some(Refusal::new(NAME_TAKEN, message))
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIVING: &str = r#"{"holderIdentity":"7f","leaseDuration":"PT15S","acquireTime":"2026-01-01T00:00:00Z","renewTime":"2026-01-01T00:05:00Z","leaderTransitions":0}"#;
    const JOB: &str = "demo-0123456789abcdef0123456789abcdef-config-map";

    fn cluster(annotations: Value) -> Value {
        json!({ "metadata": { "name": "demo-cluster-config-map", "annotations": annotations } })
    }

    fn refusal(cluster: Option<&Value>, jobs: &[(&str, Value)]) -> Option<String> {
        let jobs = jobs.iter().map(|(name, job)| ((*name).to_owned(), job.clone())).collect();
        HaConfigMaps { cluster_id: "demo", cluster, jobs: &jobs }.refusal().map(|refusal| refusal.message)
    }

    #[test]
    fn ha_data_without_a_mark_is_anothers_and_the_sentence_names_it_its_holder_and_two_ways_out() {
        let foreign = cluster(json!({ lock::LOCK_ANNOTATION: LIVING }));
        let message = refusal(Some(&foreign), &[(JOB, json!({ "metadata": { "name": JOB } }))]).unwrap_or_default();
        for part in [
            "ConfigMap demo-cluster-config-map was not written by this cluster",
            "held by 7f since 2026-01-01T00:00:00Z",
            "give the FlinkHaCluster another name",
            "end the Flink whose kubernetes.cluster-id is demo",
            "delete ConfigMaps demo-cluster-config-map, demo-0123456789abcdef0123456789abcdef-config-map",
        ] {
            assert!(message.contains(part), "{part:?} in {message:?}");
        }
        let job_alone = refusal(None, &[(JOB, json!({}))]).unwrap_or_default();
        assert!(job_alone.starts_with(&format!("ConfigMap {JOB} was not written")), "{job_alone}");
        assert_eq!(refusal(None, &[]), None);
        for stamp in ["3.uid.process.1-1", "edited"] {
            assert_eq!(refusal(Some(&cluster(json!({ TERM_ANNOTATION: stamp }))), &[]), None);
        }
    }

    #[test]
    fn a_ledger_tells_of_a_leader_by_its_term_or_by_what_a_leader_has_written() {
        let empty =
            json!({ "metadata": { "annotations": { "flinkha.dev/probed": "x", "flinkha.dev/refusal": "{}" } } });
        assert!(!has_history(&json!({})) && !has_history(&empty));
        assert!(has_history(&json!({ "metadata": { "annotations": { TERM_ANNOTATION: "1.a.b.1-1" } } })));
        assert!(has_history(&json!({ "data": { "jobs": "[]" } })));
    }

    #[test]
    fn a_lock_that_was_renewed_in_the_store_is_looked_at_twice() {
        let at = |time: &str| time.parse::<jiff::Timestamp>().unwrap_or_default();
        let marked = cluster(json!({ lock::LOCK_ANNOTATION: LIVING, TERM_ANNOTATION: "1.a.b.1-1" }));
        assert!(may_be_renewed_elsewhere(&marked, at("2026-01-01T00:05:10Z")));
        assert!(
            !may_be_renewed_elsewhere(&marked, at("2026-01-01T00:06:00Z")),
            "a failover does not wait for an old one"
        );
        let unmarked = cluster(json!({ lock::LOCK_ANNOTATION: LIVING }));
        assert!(may_be_renewed_elsewhere(&unmarked, at("2026-01-01T00:06:00Z")));
        for lock in [lock::free(at("2026-01-01T00:00:00Z")), lock::held("7f", at("2026-01-01T00:00:00Z"))] {
            assert!(!may_be_renewed_elsewhere(
                &cluster(json!({ lock::LOCK_ANNOTATION: lock })),
                at("2026-01-01T00:00:01Z")
            ));
        }
    }

    #[test]
    fn an_object_is_ours_by_labels_by_its_owner_or_by_what_only_we_write() {
        let own = |metadata: Value| is_own(&serde_json::from_value(metadata).unwrap_or_default(), "demo");
        let labelled = |metadata: Value| is_labelled(&serde_json::from_value(metadata).unwrap_or_default(), "demo");
        assert!(own(json!({ "labels": { MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: "demo" } })));
        assert!(own(
            json!({ "ownerReferences": [{ "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "name": "demo", "uid": "u" }] })
        ));
        let unlabelled = json!({ "annotations": { TERM_ANNOTATION: "1.a.b.1-1" } });
        assert!(own(unlabelled.clone()) && !labelled(unlabelled), "a ledger without its labels");
        assert!(labelled(json!({ "labels": { MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: "demo" } })));
        assert!(!labelled(json!({ "labels": { CLUSTER_LABEL: "demo" } })));
        assert!(!own(json!({ "labels": { MANAGED_BY_LABEL: "Helm", CLUSTER_LABEL: "demo" } })));
        assert!(!own(json!({ "labels": { MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: "other" } })));
        assert!(!own(json!({})));
    }

    #[test]
    fn an_object_of_ours_gets_its_labels_and_its_owner_in_the_place_of_a_former_one() {
        let owner = |name: &str, uid: &str| json!({ "apiVersion": "flinkha.dev/v1alpha1", "kind": OWNER, "name": name, "uid": uid });
        let labels = json!({ MANAGED_BY_LABEL: MANAGED_BY, CLUSTER_LABEL: "demo" });
        let wanted = json!({ "metadata": { "labels": labels, "ownerReferences": [owner("demo", "now")] } });
        let owning = |labels: &Value, owners: Value, wanted: &Value| {
            let found = json!({ "resourceVersion": "7", "labels": labels, "ownerReferences": owners });
            owning(&serde_json::from_value(found).unwrap_or_default(), wanted).map(|patch| patch["metadata"].clone())
        };
        assert_eq!(owning(&labels, json!([owner("demo", "now")]), &wanted), None);
        let other = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "o" });
        let patch = owning(&json!({}), json!([other, owner("demo", "then")]), &wanted).unwrap_or_default();
        assert_eq!(patch["ownerReferences"], json!([other, owner("demo", "now")]), "what others have added stays");
        assert_eq!((&patch["labels"], &patch["resourceVersion"]), (&labels, &json!("7")));
        let ledger = json!({ "metadata": { "labels": labels } });
        assert_eq!(owning(&labels, json!([]), &ledger), None, "the ledger has no owner");
    }

    #[test]
    fn what_is_in_the_way_is_named_with_two_ways_out() {
        assert_eq!(name_taken("demo", &[]), None);
        let taken = ["Service demo-rest".to_owned(), "Deployment demo-jobmanager".to_owned()];
        let cause = name_taken("demo", &taken).map(|refusal| (refusal.reason, refusal.message));
        let message = "Service demo-rest exists and does not belong to this FlinkHaCluster (and Deployment demo-jobmanager); nothing is changed: \
                       give the FlinkHaCluster another name, or, if the object is not needed, delete it, and demo is created within a minute";
        assert_eq!(cause, Some((NAME_TAKEN.to_owned(), message.to_owned())));
    }
}
