//! Remembers the HA ConfigMaps as they were last stored in the current term, so that the gateway can restore what
//! somebody deletes by hand.
//!
//! A restore is a create and is fenced like one: a successor has created or stamped the ConfigMap of every registered
//! job before it leads, so a late create conflicts. The gateway forgets an object before Flink deletes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use crate::ha_data::inventory;
use crate::lease::stamp::stamp;
use crate::lease::term::Term;
use crate::ledger::jobs::Size;

/// Objects by the names of the ConfigMaps.
#[derive(Default)]
pub struct Snapshots(Mutex<BTreeMap<String, Bytes>>);

impl Snapshots {
    /// Remembers an object. `object`: the answer of the API server.
    pub fn keep(&self, name: &str, object: Bytes) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), object);
    }

    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the size of every HA ConfigMap that was written in this term.
    pub fn sizes(&self) -> Vec<Size> {
        let snapshots = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let size = |(name, object): (String, Bytes)| {
            let object: Value = serde_json::from_slice(&object).unwrap_or_default();
            Size { name, bytes: inventory::bytes(&object) }
        };
        snapshots.into_iter().map(size).collect()
    }

    /// Returns the object to create, if there is a copy from this term.
    pub fn to_create(&self, name: &str, term: &Term) -> Option<Value> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
        let mut object: Value = serde_json::from_slice(&bytes).ok()?;
        if stamp(&object) != Some(Ok(term.clone())) {
            return None;
        }
        let metadata = object.get_mut("metadata")?.as_object_mut()?;
        metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::TERM_ANNOTATION;
    use crate::lease::term::Incarnation;
    use serde_json::json;

    #[test]
    fn only_a_copy_of_the_term_that_is_held_is_put_back_and_without_what_the_api_server_adds() {
        let term =
            |number| Term { number, pod_uid: "u".into(), process: "p".into(), jvm: Incarnation { pid: 1, started: 2 } };
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "counter": "7" }, "metadata": {
            "name": "job", "uid": "x", "resourceVersion": "5", "annotations": { TERM_ANNOTATION: term(3).to_string() } } });
        let snapshots = Snapshots::default();
        snapshots.keep("job", object.to_string().into());
        assert_eq!(snapshots.to_create("job", &term(4)), None);
        let found = snapshots.to_create("job", &term(3)).expect("a copy");
        assert_eq!(found["data"]["counter"], "7");
        assert!(found["metadata"].get("uid").is_none() && found["metadata"].get("resourceVersion").is_none());
        snapshots.forget("job");
        assert_eq!(snapshots.to_create("job", &term(3)), None);
    }
}
