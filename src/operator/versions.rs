//! Versions of resources that this operator has written and that its cache may not show yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube_runtime::reflector::{ObjectRef, Store};

use crate::api::FlinkHaCluster;

/// Remembers what was written last.
pub struct Versions {
    cache: Store<FlinkHaCluster>,
    memory: Mutex<Written>,
}

/// By UID.
#[derive(Default)]
struct Written {
    /// The last version that was written.
    newer: HashMap<String, Arc<FlinkHaCluster>>,
    /// Resources of which somebody may hold a version from before a write.
    held: HashSet<String>,
}

impl Versions {
    pub fn new(cache: Store<FlinkHaCluster>) -> Self {
        Self { cache, memory: Mutex::default() }
    }

    /// Returns a version that was written after `resource` was read.
    pub fn after(&self, resource: &FlinkHaCluster) -> Option<Arc<FlinkHaCluster>> {
        let memory = self.memory();
        let known = memory.newer.get(uid(resource))?;
        is_older(resource, known).then(|| Arc::clone(known))
    }

    /// Keeps what is written until this is dropped, also once the cache shows it: a reconciliation goes on with the
    /// version that it began with, and its writes rest on each other.
    pub fn hold(&self, resource: &FlinkHaCluster) -> Hold<'_> {
        let uid = uid(resource).to_owned();
        self.memory().held.insert(uid.clone());
        Hold { versions: self, uid }
    }

    /// Takes note of a write. The cache shows a write a moment later, so few are remembered at a time.
    pub fn remember(&self, mut written: FlinkHaCluster) {
        written.metadata.managed_fields = None;
        let mut memory = self.memory();
        let Written { newer, held } = &mut *memory;
        newer.retain(|uid, known| {
            let cached = self.cache.get(&ObjectRef::from_obj(known));
            let is_late =
                cached.is_some_and(|cached| cached.metadata.uid == known.metadata.uid && is_older(&cached, known));
            is_late || held.contains(uid)
        });
        newer.insert(uid(&written).to_owned(), Arc::new(written));
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, resource: &FlinkHaCluster) {
        self.memory().newer.remove(uid(resource));
    }

    fn memory(&self) -> MutexGuard<'_, Written> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody works with a version of this resource.
pub struct Hold<'a> {
    versions: &'a Versions,
    uid: String,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.versions.memory().held.remove(&self.uid);
    }
}

fn uid(resource: &FlinkHaCluster) -> &str {
    resource.metadata.uid.as_deref().unwrap_or_default()
}

/// Is `one` an older version than `other`? Kubernetes orders the versions of one kind by number. What is not a number
/// is not compared: then the cache is believed.
fn is_older(one: &FlinkHaCluster, other: &FlinkHaCluster) -> bool {
    let number = |resource: &FlinkHaCluster| resource.metadata.resource_version.as_deref()?.parse::<u128>().ok();
    matches!((number(one), number(other)), (Some(one), Some(other)) if one < other)
}

#[cfg(test)]
mod tests {
    use kube_runtime::watcher::Event;

    use super::*;
    use crate::cluster::tests as fixture;

    fn version(version: &str) -> FlinkHaCluster {
        let mut resource = fixture::resource();
        resource.metadata.resource_version = Some(version.to_owned());
        resource
    }

    fn other() -> FlinkHaCluster {
        let mut other = version("1");
        (other.metadata.name, other.metadata.uid) = (Some("other".to_owned()), Some("other".to_owned()));
        other
    }

    #[test]
    fn versions_are_compared_as_numbers_and_not_as_text() {
        assert!(is_older(&version("99"), &version("100")));
        assert!(!is_older(&version("100"), &version("99")));
        assert!(!is_older(&version("7"), &version("7")));
        assert!(!is_older(&version("x"), &version("7")) && !is_older(&version("7"), &version("x")));
    }

    /// A write of another resource makes room, and the cache shows ours already.
    #[test]
    fn a_reconciliation_knows_its_own_writes_to_its_end() {
        let (cache, mut writer) = kube_runtime::reflector::store();
        let versions = Versions::new(cache);
        let began = version("7");
        let held = versions.hold(&began);
        versions.remember(version("8"));
        writer.apply_watcher_event(&Event::Apply(version("8")));
        versions.remember(other());
        let known = |resource: &FlinkHaCluster| versions.after(resource)?.metadata.resource_version.clone();
        assert_eq!(known(&began).as_deref(), Some("8"), "the next write rests on it");
        assert_eq!(known(&version("8")), None, "it is not newer than itself");
        drop(held);
        versions.remember(other());
        assert_eq!(known(&began), None, "the cache has it");
        versions.remember(version("9"));
        versions.remember(other());
        assert_eq!(known(&began).as_deref(), Some("9"), "the cache is late");
        versions.forget(&began);
        assert_eq!(known(&began), None);
    }
}
