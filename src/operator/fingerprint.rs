//! Fingerprints of objects: whether somebody has changed what the operator applied, told by an object's metadata alone.
//! Watches of most kinds show nothing else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use crate::api::names::FIELD_MANAGER;
use crate::cluster::build::digest;

/// Operations in `metadata.managedFields`: of server-side apply, and of all other writes.
const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
/// End of the fingerprint of an object with fields that the operator owns by creating it.
const CREATED: &str = "/created";
/// Bytes of fields that are parsed. What the operator applies has some thousand.
const LONGEST: usize = 128 * 1024;

/// Changes when somebody changes what an object asks for. It consists of
/// - the UID,
/// - the generation, where the API server counts one, else the resourceVersion,
/// - the fields that the operator owns: whoever changes or removes one of them takes it from the operator. This finds
///   changes of the metadata of an object with a generation, which counts changes of its spec only.
pub fn fingerprint(metadata: &ObjectMeta) -> String {
    let generation = metadata.generation.map(|generation| generation.to_string());
    let version = generation.or_else(|| metadata.resource_version.clone()).unwrap_or_default();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let (applied, created) = (own_entry(metadata, OwnEntry::Applied), own_entry(metadata, OwnEntry::Created));
    let (fields, end) = (applied.or(created).map(own_fields), created.map_or("", |_| CREATED));
    format!("{uid}/{version}/{}{end}", fields.unwrap_or_default())
}

/// Whether the object of this fingerprint has fields that the operator owns by creating it. Server-side apply does not
/// remove them when they are not wanted any more, until [`counted_as_applied`].
pub fn was_created(fingerprint: &str) -> bool {
    fingerprint.ends_with(CREATED)
}

/// By what the operator owns fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnEntry {
    Applied,
    Created,
}

/// Does this entry of `managedFields` name fields that the operator owns?
pub fn own(manager: &str, operation: &str, subresource: &str) -> Option<OwnEntry> {
    match operation {
        _ if manager != FIELD_MANAGER || !subresource.is_empty() => None,
        APPLY => Some(OwnEntry::Applied),
        UPDATE => Some(OwnEntry::Created),
        _ => None,
    }
}

/// What a cache keeps of the fields that the operator owns, of which this is the JSON: a digest.
pub fn kept(own: OwnEntry, fields: &str) -> ManagedFieldsEntry {
    let parsed =
        Some(fields).filter(|fields| fields.len() <= LONGEST).and_then(|fields| serde_json::from_str(fields).ok());
    let digest = parsed.map_or_else(|| digest(fields), |fields: Value| digest(&fields.to_string()));
    let operation = if own == OwnEntry::Applied { APPLY } else { UPDATE };
    ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.to_owned()),
        operation: Some(operation.to_owned()),
        fields_v1: Some(FieldsV1(Value::String(digest))),
        ..ManagedFieldsEntry::default()
    }
}

fn own_of(entry: &ManagedFieldsEntry) -> Option<OwnEntry> {
    let [manager, operation, subresource] =
        [&entry.manager, &entry.operation, &entry.subresource].map(|text| text.as_deref().unwrap_or_default());
    own(manager, operation, subresource)
}

fn own_entry(metadata: &ObjectMeta, own: OwnEntry) -> Option<&ManagedFieldsEntry> {
    metadata.managed_fields.iter().flatten().find(|entry| own_of(entry) == Some(own))
}

/// The merge patch after which the fields that the operator owns by creating an object count as applied; `None` if
/// there are none. The same is what `kubectl apply --server-side` does with fields of former client-side applies
/// (`csaupgrade.UpgradeManagedFields`, client-go from 0.26 on). Fields that another one has taken since stay that
/// one's.
pub fn counted_as_applied(metadata: &ObjectMeta) -> Option<Value> {
    let mut own = own_entry(metadata, OwnEntry::Created)?.clone();
    own.operation = Some(APPLY.to_owned());
    if let (Some(FieldsV1(fields)), Some(applied)) = (&mut own.fields_v1, own_entry(metadata, OwnEntry::Applied)) {
        add(fields, applied.fields_v1.as_ref().map_or(&Value::Null, |fields| &fields.0));
    }
    let others = metadata.managed_fields.iter().flatten().filter(|entry| own_of(entry).is_none());
    let entries: Vec<&ManagedFieldsEntry> = others.chain([&own]).collect();
    Some(json!({
        "metadata": { "uid": metadata.uid, "resourceVersion": metadata.resource_version, "managedFields": entries },
    }))
}

/// Adds a set of fields to another one: both are trees of their names.
fn add(fields: &mut Value, more: &Value) {
    let (Some(fields), Some(more)) = (fields.as_object_mut(), more.as_object()) else { return };
    for (name, below) in more {
        match fields.get_mut(name) {
            Some(known) => add(known, below),
            None => drop(fields.insert(name.clone(), below.clone())),
        }
    }
}

/// The digest of the fields of an entry; a string is one already.
fn own_fields(entry: &ManagedFieldsEntry) -> String {
    match &entry.fields_v1 {
        Some(FieldsV1(Value::String(digest))) => digest.clone(),
        Some(FieldsV1(fields)) => digest(&fields.to_string()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(generation: Option<i64>, version: &str, fields: &Value) -> ObjectMeta {
        let status = json!({ "f:status": {} });
        let entry = |manager, operation, subresource, fields| {
            json!({
                "manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": fields,
                "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "time": "2026-01-02T03:04:05Z",
            })
        };
        serde_json::from_value(json!({
            "uid": "4b1d", "generation": generation, "resourceVersion": version,
            "managedFields": [
                entry("kubectl", "Update", json!(null), &json!({ "f:metadata": {} })),
                entry(FIELD_MANAGER, "Apply", json!("status"), &status),
                entry(FIELD_MANAGER, "Apply", json!(null), fields),
            ],
        }))
        .unwrap_or_default()
    }

    #[test]
    fn it_is_the_same_for_the_answer_to_an_apply_and_for_what_a_cache_keeps() {
        let fields = json!({ "f:spec": { "f:replicas": {}, "k:{\"name\":\"a\"}": { ".": {}, "f:image": {} } } });
        let whole = metadata(Some(2), "7", &fields);
        // As the API server writes it: not in our order.
        let text = r#"{"f:spec":{"k:{\"name\":\"a\"}":{".":{},"f:image":{}},"f:replicas":{}}}"#;
        let cached = ObjectMeta { managed_fields: Some(vec![kept(OwnEntry::Applied, text)]), ..whole.clone() };
        assert_eq!(fingerprint(&cached), fingerprint(&whole));
        let many: String = (0..20_000).map(|field| format!(r#""f:{field}":{{}},"#)).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        let long = ObjectMeta { managed_fields: Some(vec![kept(OwnEntry::Applied, &many)]), ..whole.clone() };
        assert_ne!(fingerprint(&long), fingerprint(&whole), "too long to be parsed");
    }

    /// An object that the operator has created, as the API server notes it.
    fn created() -> ObjectMeta {
        let fields = json!({ "f:metadata": { "f:labels": { ".": {}, "f:a": {} } }, "f:data": { "f:gone": {} } });
        let mut created = metadata(None, "7", &fields);
        for entry in created.managed_fields.iter_mut().flatten().filter(|entry| entry.subresource.is_none()) {
            entry.operation = Some(UPDATE.to_owned());
        }
        created
    }

    #[test]
    fn what_was_created_is_told_apart_from_what_was_applied() {
        let whole = created();
        assert!(was_created(&fingerprint(&whole)));
        assert!(!was_created(&fingerprint(&metadata(None, "7", &json!({ "f:data": {} })))));
        let fields =
            own_entry(&whole, OwnEntry::Created).and_then(|entry| entry.fields_v1.as_ref()).map(|fields| &fields.0);
        let text = fields.map(ToString::to_string).unwrap_or_default();
        let cached = ObjectMeta { managed_fields: Some(vec![kept(OwnEntry::Created, &text)]), ..whole.clone() };
        assert_eq!(fingerprint(&cached), fingerprint(&whole), "a cache keeps it");
    }

    #[test]
    fn what_was_created_counts_as_applied_with_all_its_fields_and_others_keep_theirs() {
        let mut both = created();
        let applied = json!({ "f:metadata": { "f:labels": { "f:b": {} } } });
        let applied = metadata(None, "7", &applied).managed_fields.into_iter().flatten();
        let applied = applied.filter(|entry| own_of(entry) == Some(OwnEntry::Applied));
        both.managed_fields.get_or_insert_default().extend(applied);
        let patch = counted_as_applied(&both).expect("a patch");
        assert_eq!((&patch["metadata"]["resourceVersion"], &patch["metadata"]["uid"]), (&json!("7"), &json!("4b1d")));
        let entries = serde_json::from_value(patch["metadata"]["managedFields"].clone()).expect("entries");
        let after = ObjectMeta { managed_fields: Some(entries), ..both.clone() };
        let count = |one: &ObjectMeta| one.managed_fields.iter().flatten().count();
        assert_eq!((count(&both), count(&after)), (4, 3), "kubectl's, that of the status, and ours");
        let fields =
            own_entry(&after, OwnEntry::Applied).and_then(|entry| entry.fields_v1.as_ref()).map(|fields| &fields.0);
        let expected =
            json!({ "f:metadata": { "f:labels": { ".": {}, "f:a": {}, "f:b": {} } }, "f:data": { "f:gone": {} } });
        assert_eq!(fields, Some(&expected));
        assert_eq!(counted_as_applied(&after), None, "it was done");
    }

    #[test]
    fn it_changes_with_what_is_asked_for_and_not_with_a_status() {
        let owned = json!({ "f:metadata": { "f:labels": { "f:a": {} } } });
        let before = fingerprint(&metadata(Some(2), "7", &owned));
        assert_eq!(fingerprint(&metadata(Some(2), "8", &owned)), before, "a status was written");
        assert_ne!(fingerprint(&metadata(Some(3), "8", &owned)), before, "the spec was changed");
        assert_ne!(fingerprint(&metadata(Some(2), "8", &json!({}))), before, "a label of ours was changed");
        assert_ne!(fingerprint(&metadata(None, "8", &owned)), fingerprint(&metadata(None, "7", &owned)));
    }
}
