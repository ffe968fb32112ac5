//! Fingerprints of objects: whether somebody has changed what the operator applied, told by an object's metadata alone.
//! Watches of most kinds show nothing else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::core::ObjectMeta;
use serde_json::Value;

use crate::api::names::FIELD_MANAGER;
use crate::cluster::build::digest;

/// Operation of server-side apply in `metadata.managedFields`.
const APPLY: &str = "Apply";
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
    format!("{uid}/{version}/{}", own_entry(metadata).map(own_fields).unwrap_or_default())
}

/// Is this the entry of `managedFields` that says what the operator has applied?
pub fn is_own(manager: &str, operation: &str, subresource: &str) -> bool {
    manager == FIELD_MANAGER && operation == APPLY && subresource.is_empty()
}

/// What a cache keeps of the fields that the operator has applied, of which this is the JSON: a digest.
pub fn kept(fields: &str) -> Vec<ManagedFieldsEntry> {
    let parsed =
        Some(fields).filter(|fields| fields.len() <= LONGEST).and_then(|fields| serde_json::from_str(fields).ok());
    let digest = parsed.map_or_else(|| digest(fields), |fields: Value| digest(&fields.to_string()));
    vec![ManagedFieldsEntry {
        manager: Some(FIELD_MANAGER.to_owned()),
        operation: Some(APPLY.to_owned()),
        fields_v1: Some(FieldsV1(Value::String(digest))),
        ..ManagedFieldsEntry::default()
    }]
}

fn own_entry(metadata: &ObjectMeta) -> Option<&ManagedFieldsEntry> {
    metadata.managed_fields.iter().flatten().find(|entry| {
        let [manager, operation, subresource] =
            [&entry.manager, &entry.operation, &entry.subresource].map(|text| text.as_deref().unwrap_or_default());
        is_own(manager, operation, subresource)
    })
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
    use serde_json::json;

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
        let cached = ObjectMeta { managed_fields: Some(kept(text)), ..whole.clone() };
        assert_eq!(fingerprint(&cached), fingerprint(&whole));
        let many: String = (0..20_000).map(|field| format!(r#""f:{field}":{{}},"#)).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        let long = ObjectMeta { managed_fields: Some(kept(&many)), ..whole.clone() };
        assert_ne!(fingerprint(&long), fingerprint(&whole), "too long to be parsed");
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
