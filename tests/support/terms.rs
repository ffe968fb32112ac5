//! What became of terms, by the audit logs of the API servers: nobody's word but etcd's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flinkha::api::names::TERM_ANNOTATION;
use flinkha::lease::record::Record;
use flinkha::lease::term::Term;

use super::audit::Request;
use super::control_plane::ControlPlane;

/// The ServiceAccounts of `objects.yaml`, as the API server names them.
pub const JVM: &str = "system:serviceaccount:flink:demo-jobmanager";
pub const GATEWAY: &str = "system:serviceaccount:flink:demo-gateway";

/// Every request for one kind of object in a namespace, to whichever server.
pub fn requests(plane: &ControlPlane, namespace: &str, resource: &str) -> Vec<Request> {
    plane.servers.iter().flat_map(|server| server.audit().of(namespace, resource)).collect()
}

/// How often an object was stored with an older term than before, in the order of the stored versions, which is that of
/// etcd; and how often a JVM stored one without any term.
pub fn older_after_newer(writes: &[&Request]) -> usize {
    let mut stored: HashMap<&str, Vec<(u64, Option<u64>)>> = HashMap::new();
    for write in writes.iter().filter(|write| write.is_write() && write.succeeded() && write.verb != "delete") {
        let term = write.response["metadata"]["annotations"][TERM_ANNOTATION]
            .as_str()
            .and_then(|text| text.parse::<Term>().ok());
        // Somebody's own hand may remove a stamp; then nobody but the gateway writes before it is there again.
        if write.user == JVM || term.is_some() {
            let version = write.stored_version().expect("a stored version");
            stored.entry(&write.name).or_default().push((version, term.map(|term| term.number)));
        }
    }
    let mut back = 0;
    for versions in stored.values_mut() {
        versions.sort_unstable();
        back += versions.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
        back += versions.iter().filter(|(_, term)| term.is_none()).count();
    }
    back
}

/// Terms that more than one process held, by what was stored in the Lease.
pub fn held_twice(leases: &[Request]) -> Vec<u64> {
    let mut holders: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for write in leases.iter().filter(|one| one.is_write() && one.succeeded()) {
        let Ok(lease) = serde_json::from_value(write.response.clone()) else { continue };
        let Record { holder, term: Some(term), .. } = Record::of(&lease) else { continue };
        if !holder.is_empty() {
            holders.entry(term.number).or_default().insert(term.to_string());
        }
    }
    holders.into_iter().filter(|(_, holders)| holders.len() > 1).map(|(number, _)| number).collect()
}
