//! Reads and writes stamps. A stamp is the annotation of an HA ConfigMap that names the term that may write it.

use serde_json::{Value, json};

use super::term::{Relation, Term};
use crate::api::names::TERM_ANNOTATION;

/// Compares the stamp of an object with `term`; returns the stamp too. An absent stamp, or one that no gateway wrote,
/// is lower than any term.
pub fn relation(object: &Value, term: &Term) -> (Relation, Option<Term>) {
    match stamp(object) {
        Some(Ok(found)) => (term.relation_of(&found), Some(found)),
        None | Some(Err(_)) => (Relation::Lower, None),
    }
}

/// Returns the merge patch that stamps an object if it still has resourceVersion `version`.
pub fn stamp_patch(version: &str, term: &Term) -> Value {
    json!({ "metadata": { "resourceVersion": version, "annotations": { TERM_ANNOTATION: term.to_string() } } })
}

/// Returns the stamp of an object; `Some(Err)` if the annotation is not a term.
pub fn stamp(object: &Value) -> Option<Result<Term, crate::lease::term::NotATerm>> {
    Some(object.get("metadata")?.get("annotations")?.get(TERM_ANNOTATION)?.as_str()?.parse())
}

/// Returns `metadata.resourceVersion`.
pub fn version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str()
}
