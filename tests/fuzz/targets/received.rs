//! Objects as the watches read them: what is kept of one is what it says, and its fingerprint is that of the whole.

use kube::Resource;
use kube::core::ObjectMeta;
use serde_json::Value;

use crate::api::FlinkHaCluster;
use crate::cluster::observed::{ObservedConfigMap, ObservedDeployment, ObservedEndpointSlice, ObservedPod};
use crate::input::Input;
use crate::operator::fingerprint::fingerprint;
use crate::operator::kinds::{Metadata, Observable, PodOwners};
use crate::operator::received::Received;
use k8s_openapi::api::coordination::v1::Lease;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let text = input.rest();
    match kind % 8 {
        0 => read::<FlinkHaCluster>(text),
        1 => read::<ObservedConfigMap>(text),
        2 => read::<ObservedDeployment>(text),
        3 => read::<ObservedEndpointSlice>(text),
        4 => read::<ObservedPod>(text),
        5 => read::<PodOwners>(text),
        6 => read::<Lease>(text),
        _ => read::<Metadata>(text),
    }
}

fn read<K: Observable>(text: &[u8]) {
    let _ = serde_json::from_slice::<Received<K>>(text);
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    // No key stands there twice.
    let Ok(received) = serde_json::from_str::<Received<K>>(&value.to_string()) else { return };
    let Ok(whole) = serde_json::from_value::<ObjectMeta>(value["metadata"].clone()) else { return };
    let kept = received.meta();
    assert_eq!((&kept.name, &kept.namespace, &kept.uid), (&whole.name, &whole.namespace, &whole.uid));
    assert_eq!((&kept.resource_version, kept.generation), (&whole.resource_version, whole.generation));
    assert_eq!(kept.deletion_timestamp, whole.deletion_timestamp);
    for (kept, whole) in [(&kept.labels, &whole.labels), (&kept.annotations, &whole.annotations)] {
        let says = |key| whole.as_ref().and_then(|whole| whole.get(key));
        assert!(kept.iter().flatten().all(|(key, value)| says(key) == Some(value)));
        let is_ours = |key: &str| key.starts_with("flinkha.dev/");
        let ours = whole.iter().flatten().filter(|(key, _)| is_ours(key)).count();
        assert!(ours > 1000 || kept.iter().flatten().filter(|(key, _)| is_ours(key)).count() == ours);
    }
    let fields = value["metadata"]["managedFields"].as_array();
    // As the API server writes them.
    if fields.into_iter().flatten().all(|entry| entry["fieldsV1"].is_object()) {
        assert_eq!(fingerprint(kept), fingerprint(&whole));
    }
}
