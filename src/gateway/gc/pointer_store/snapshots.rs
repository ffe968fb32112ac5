//! Remembers the HA ConfigMaps as they were last stored in the current term, so that the gateway can restore what
//! somebody deletes by hand.
//!
//! A restore is a create and is fenced like one: a successor has created or stamped the ConfigMap of every registered
//! job before it leads, so a late create conflicts. The gateway forgets an object before Flink deletes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use crate::ha_data::inventory;
use crate::lease::stamp::stamp;
use crate::lease::term::Term;
use crate::ledger::jobs::Size;

/// Bytes of all copies together. A gateway has 128 MiB of memory by default (`spec.gateway.resources`), of which it
/// needs some 20 for itself.
const MOST: usize = 64 << 20;

/// End of the name of the ConfigMap that tells which jobs there are. Its copy is always kept.
const OF_CLUSTER: &str = "-cluster-config-map";

/// Objects by the names of the ConfigMaps.
#[derive(Default)]
pub struct Snapshots(Mutex<Copies>);

#[derive(Default)]
struct Copies {
    by_name: BTreeMap<String, StoredCopy>,
    /// Bytes of all copies together.
    bytes: usize,
}

struct StoredCopy {
    /// `None` if there was no room for it.
    object: Option<Bytes>,
    /// Size of its data, once somebody has asked for it.
    size: Option<usize>,
}

impl Copies {
    fn remove(&mut self, name: &str) {
        let object = self.by_name.remove(name).and_then(|copy| copy.object);
        self.bytes -= object.map_or(0, |object| object.len());
    }
}

impl Snapshots {
    /// Remembers an object, or its size alone if there is no room for it. `object`: the answer of the API server.
    pub fn keep(&self, name: &str, object: Bytes) {
        let mut copies = self.copies();
        copies.remove(name);
        let copy = if copies.bytes + object.len() <= MOST || name.ends_with(OF_CLUSTER) {
            copies.bytes += object.len();
            StoredCopy { object: Some(object), size: None }
        } else {
            StoredCopy { object: None, size: Some(size(&object)) }
        };
        copies.by_name.insert(name.to_owned(), copy);
    }

    pub fn forget(&self, name: &str) {
        self.copies().remove(name);
    }

    pub fn forget_all(&self) {
        *self.copies() = Copies::default();
    }

    /// Returns the size of every HA ConfigMap that was read or written in this term.
    pub fn sizes(&self) -> Vec<Size> {
        let mut copies = self.copies();
        let sizes = copies.by_name.iter_mut().map(|(name, copy)| {
            let bytes = copy.size.unwrap_or_else(|| copy.object.as_ref().map_or(0, size));
            copy.size = Some(bytes);
            Size { name: name.clone(), bytes }
        });
        sizes.collect()
    }

    /// Returns the number of ConfigMaps for whose copies there is no room.
    pub fn without_copy(&self) -> usize {
        self.copies().by_name.values().filter(|copy| copy.object.is_none()).count()
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the object to create, if there is a copy from this term.
    pub fn to_create(&self, name: &str, term: &Term) -> Option<Value> {
        let bytes = self.copies().by_name.get(name)?.object.clone()?;
        let mut object: Value = serde_json::from_slice(&bytes).ok()?;
        if stamp(&object) != Some(Ok(term.clone())) {
            return None;
        }
        let metadata = object.get_mut("metadata")?.as_object_mut()?;
        metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
        Some(object)
    }
}

/// Returns the size of an object's data.
fn size(object: &Bytes) -> usize {
    let object: Value = serde_json::from_slice(object).unwrap_or_default();
    inventory::bytes(&object)
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

    #[test]
    fn copies_do_not_fill_the_memory_and_the_clusters_own_is_always_kept() {
        let object = |bytes: usize| Bytes::from(json!({ "data": { "a": "x".repeat(bytes - 1) } }).to_string());
        let (snapshots, mebibyte) = (Snapshots::default(), 1 << 20);
        for number in 0..70 {
            snapshots.keep(&format!("job-{number}"), object(mebibyte));
        }
        snapshots.keep("demo-cluster-config-map", object(mebibyte));
        assert_eq!((snapshots.without_copy(), snapshots.sizes().len()), (7, 71));
        assert!(snapshots.sizes().iter().all(|size| size.bytes == mebibyte), "sizes are known of all");
        assert!(snapshots.copies().bytes <= MOST + 2 * mebibyte);
        // What becomes smaller makes room, and what grows beyond the room has no copy of its former self.
        for number in 0..10 {
            snapshots.keep(&format!("job-{number}"), object(10));
        }
        (63..70).for_each(|number| snapshots.keep(&format!("job-{number}"), object(mebibyte)));
        assert_eq!(snapshots.without_copy(), 0);
        (0..10).for_each(|number| snapshots.keep(&format!("job-{number}"), object(mebibyte)));
        assert_eq!(snapshots.without_copy(), 8);
        (0..70).for_each(|number| snapshots.forget(&format!("job-{number}")));
        assert_eq!((snapshots.without_copy(), snapshots.sizes().len()), (0, 1));
        snapshots.forget_all();
        assert_eq!(snapshots.copies().bytes, 0);
    }
}
