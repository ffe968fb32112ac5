//! The stamp: the term that may write an HA ConfigMap, as an annotation on it.

use serde_json::{Value, json};

use super::term::{Relation, Term};
use crate::api::names::TERM_ANNOTATION;

/// How the stamp of an object relates to our term. No stamp, or one that we did not write, is lower than any.
pub fn relation(object: &Value, term: &Term) -> (Relation, Option<Term>) {
    match stamp(object) {
        Some(Ok(found)) => (term.relation_of(&found), Some(found)),
        None | Some(Err(_)) => (Relation::Lower, None),
    }
}

/// Merge patch that stamps an object if it still is what was read.
pub fn stamp_patch(version: &str, term: &Term) -> Value {
    json!({ "metadata": { "resourceVersion": version, "annotations": { TERM_ANNOTATION: term.to_string() } } })
}

/// The stamp of an object; `Some(Err)` when the annotation is not a term.
pub fn stamp(object: &Value) -> Option<Result<Term, crate::lease::term::NotATerm>> {
    Some(object.get("metadata")?.get("annotations")?.get(TERM_ANNOTATION)?.as_str()?.parse())
}

/// `metadata.resourceVersion`.
pub fn version(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("resourceVersion")?.as_str()
}
