//! Fields of the status that the installed CustomResourceDefinition does not declare. Helm does not upgrade
//! definitions, and server-side apply rejects a patch with an undeclared field as a whole. The operator then writes
//! everything else.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What server-side apply says of such a field, after its path.
const UNDECLARED: &str = ": field not declared in schema";
/// After this time the fields are tried again: somebody may have applied the new definition.
const FORGET: Duration = Duration::from_secs(600);

/// The fields, as the API server has named them.
#[derive(Default)]
pub struct Undeclared(Mutex<Option<(Instant, Vec<String>)>>);

impl Undeclared {
    /// Learns from a rejection of the API server. Returns whether it names fields.
    pub fn learn(&self, message: &str) -> bool {
        let found = fields(message);
        if found.is_empty() {
            return false;
        }
        tracing::warn!(
            fields = found.join(", "),
            "the installed CustomResourceDefinition is of an earlier version and does not declare these fields, which \
             are not written: apply the definition that belongs to this version (charts/flinkha/crds)"
        );
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, all) = known.get_or_insert_with(|| (Instant::now(), Vec::new()));
        all.extend(found);
        true
    }

    /// Removes the fields from a patch.
    pub fn remove_from(&self, patch: &mut Value) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|(since, _)| since.elapsed() > FORGET) {
            *known = None;
        }
        for field in known.iter().flat_map(|(_, fields)| fields) {
            remove(patch, field);
        }
    }
}

/// The paths in a message such as `failed to create typed patch object (…): .status.applied: field not declared in
/// schema`, each like `/status/applied`.
fn fields(message: &str) -> Vec<String> {
    let parts: Vec<&str> = message.split(UNDECLARED).collect();
    let named = parts.iter().take(parts.len().saturating_sub(1));
    // An item of a list is named by its key, which says nothing about the definition: `.status.jobs[id="…"].name`.
    let paths = named.filter_map(|part| part.rsplit([' ', '\n']).next()).map(without_keys);
    let mut fields: Vec<String> =
        paths.filter(|path| path.starts_with(".status.")).map(|path| path.replace('.', "/")).collect();
    fields.dedup();
    fields
}

/// The path with `[]` for each item of a list.
fn without_keys(path: &str) -> String {
    let (mut kept, mut depth) = (String::new(), 0);
    for character in path.chars() {
        match character {
            '[' => depth += 1,
            ']' if depth == 1 => {
                kept.push_str("[]");
                depth = 0;
            }
            ']' => depth -= 1,
            character if depth == 0 => kept.push(character),
            _ => {}
        }
    }
    kept
}

fn remove(patch: &mut Value, field: &str) {
    if let Some((list, rest)) = field.split_once("[]") {
        let items = patch.pointer_mut(list).and_then(Value::as_array_mut);
        return items.into_iter().flatten().for_each(|item| remove(item, rest));
    }
    let Some((parent, name)) = field.rsplit_once('/') else { return };
    if let Some(Value::Object(parent)) = patch.pointer_mut(parent) {
        parent.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_definition_does_not_declare_is_left_out_and_the_rest_is_written() {
        let undeclared = Undeclared::default();
        let patch = json!({ "status": { "applied": {}, "application": { "replaces": [], "phase": "Running" } } });
        let mut written = patch.clone();
        assert!(!undeclared.learn("admission webhook denied the request"));
        undeclared.remove_from(&mut written);
        assert_eq!(written, patch);
        let one = "failed to create typed patch object (/demo; flinkha.dev/v1alpha1, Kind=FlinkHaCluster): .status.applied: field not declared in schema";
        assert!(undeclared.learn(one));
        undeclared.remove_from(&mut written);
        assert_eq!(written, json!({ "status": { "application": { "replaces": [], "phase": "Running" } } }));
        let two = "failed to create typed patch object (/demo; x): errors:\n  .status.application.replaces: field not declared in schema\n  .status.applied: field not declared in schema";
        assert_eq!(fields(two), ["/status/application/replaces", "/status/applied"]);
        assert!(undeclared.learn(two));
        undeclared.remove_from(&mut written);
        assert_eq!(written, json!({ "status": { "application": { "phase": "Running" } } }));
    }

    #[test]
    fn a_field_of_a_lists_items_is_left_out_of_all_of_them() {
        let undeclared = Undeclared::default();
        let message = "failed to create typed patch object (/demo; x): errors:\n  \
            .status.jobs[id=\"a\"].lastCheckpoint: field not declared in schema\n  \
            .status.jobs[id=\"b\"].lastCheckpoint: field not declared in schema\n  \
            .status.failovers: field not declared in schema";
        assert_eq!(fields(message), ["/status/jobs[]/lastCheckpoint", "/status/failovers"]);
        assert!(undeclared.learn(message));
        let job = |id: &str| json!({ "id": id, "lastCheckpoint": { "id": 1 } });
        let mut patch = json!({ "status": { "jobs": [job("a"), job("b"), job("c")], "failovers": [] } });
        undeclared.remove_from(&mut patch);
        assert_eq!(patch, json!({ "status": { "jobs": [{ "id": "a" }, { "id": "b" }, { "id": "c" }] } }));
    }
}
