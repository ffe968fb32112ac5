//! Reading what the API server sends. Anybody may label an object as ours, of any kind and up to the largest size, so
//! nothing is parsed that no decision needs: what a megabyte of JSON says takes up to twenty in memory. An object that
//! cannot be read does not hide the others of its list.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference, Time};
use kube::Resource;
use kube::core::ObjectMeta;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::fingerprint::{OwnEntry, kept, own};
use super::kinds::Observable;
use crate::ha_data::foreign;

/// Domains of the labels and annotations that decisions use, beside ours and those below it.
const DOMAINS: [&str; 3] = [
    "app.kubernetes.io",
    "controller.kubernetes.io",
    // Flink's leader lock.
    "control-plane.alpha.kubernetes.io",
];

/// Whether decisions may use the label or annotation with this key.
fn is_used(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_ours = domain.strip_suffix("flinkha.dev").is_some_and(|below| below.is_empty() || below.ends_with('.'));
    is_ours || DOMAINS.contains(&domain)
}

/// Labels, annotations or owners of one object that are kept at most. Ours have some dozens, and whoever adds so many
/// may also remove ours.
const MOST: usize = 1000;

/// An object as it came.
#[derive(Clone)]
pub enum Received<K> {
    Read(K),
    Unread(Box<ObjectMeta>, Unread),
}

/// Why an object was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    TooLarge { bytes: usize, limit: usize },
    TooManyValues { values: usize, limit: usize },
    Unreadable(String),
}

impl Unread {
    /// Of an object with this text, which is too large.
    fn of(text: &str, (bytes, values): (usize, usize)) -> Option<Self> {
        if text.len() > bytes {
            return Some(Self::TooLarge { bytes: text.len(), limit: bytes });
        }
        let commas = text.bytes().filter(|byte| *byte == b',').count();
        (commas > values).then_some(Self::TooManyValues { values: commas, limit: values })
    }
}

impl<'de, K: Observable> Deserialize<'de> for Received<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let Head { metadata } = serde_json::from_str(text).map_err(D::Error::custom)?;
        let metadata = ObjectMeta::from(metadata);
        if let Some(unread) = Unread::of(text, K::LIMITS) {
            return Ok(Self::Unread(Box::new(metadata), unread));
        }
        Ok(match serde_json::from_str(text) {
            Ok(body) => Self::Read(K::assemble(metadata, body)),
            Err(error) => Self::Unread(Box::new(metadata), Unread::Unreadable(error.to_string())),
        })
    }
}

impl<K: Resource> Debug for Received<K> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.meta().name)
    }
}

impl<K: Resource> Resource for Received<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unread(metadata, _) => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(object) => object.meta_mut(),
            Self::Unread(metadata, _) => metadata,
        }
    }
}

/// The metadata of an object, and nothing else.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: ReadMetadata<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadMetadata<'a> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Ours,
    annotations: Ours,
    owner_references: OwnerClusters,
    #[serde(borrow)]
    managed_fields: OwnFields<'a>,
}

impl From<ReadMetadata<'_>> for ObjectMeta {
    fn from(metadata: ReadMetadata<'_>) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels.0,
            annotations: metadata.annotations.0,
            owner_references: metadata.owner_references.0,
            managed_fields: metadata.managed_fields.kept(),
            ..Self::default()
        }
    }
}

/// Labels or annotations, of which only those that decisions use are kept.
#[derive(Default)]
struct Ours(Option<BTreeMap<String, String>>);

impl<'de> Deserialize<'de> for Ours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OursVisitor)
    }
}

struct OursVisitor;

impl<'de> Visitor<'de> for OursVisitor {
    type Value = Ours;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("labels or annotations")
    }

    fn visit_unit<E>(self) -> Result<Ours, E> {
        Ok(Ours(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ours, A::Error> {
        let mut ours = BTreeMap::new();
        while let Some(Text(key)) = map.next_key()? {
            if ours.len() < MOST && is_used(&key) {
                ours.insert(key.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Ours(Some(ours)))
    }
}

/// A string, without a copy where its JSON has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The owners, of which only the FlinkHaClusters are kept, and what identifies them.
#[derive(Default)]
struct OwnerClusters(Option<Vec<OwnerReference>>);

#[derive(Deserialize)]
struct OwnerEntry<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

impl<'de> Deserialize<'de> for OwnerClusters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OwnerClustersVisitor)
    }
}

struct OwnerClustersVisitor;

impl<'de> Visitor<'de> for OwnerClustersVisitor {
    type Value = OwnerClusters;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("owners")
    }

    fn visit_unit<E>(self) -> Result<OwnerClusters, E> {
        Ok(OwnerClusters(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<OwnerClusters, A::Error> {
        let mut owners = Vec::new();
        while let Some(OwnerEntry { kind, name, uid }) = entries.next_element()? {
            if kind == foreign::OWNER && owners.len() < MOST {
                let [kind, name, uid] = [kind, name, uid].map(Cow::into_owned);
                owners.push(OwnerReference { kind, name, uid, ..OwnerReference::default() });
            }
        }
        owners.shrink_to_fit();
        Ok(OwnerClusters(Some(owners)))
    }
}

/// The fields that the operator has applied, and those of its other writes, as JSON, of the long list of who owns what.
#[derive(Default)]
struct OwnFields<'a> {
    applied: Option<&'a RawValue>,
    created: Option<&'a RawValue>,
}

impl OwnFields<'_> {
    fn kept(self) -> Option<Vec<ManagedFieldsEntry>> {
        let all = [(OwnEntry::Applied, self.applied), (OwnEntry::Created, self.created)];
        let all: Vec<_> = all.into_iter().filter_map(|(own, fields)| Some(kept(own, fields?.get()))).collect();
        (!all.is_empty()).then_some(all)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagerEntry<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, default)]
    fields_v1: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for OwnFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OwnFieldsVisitor)
    }
}

struct OwnFieldsVisitor;

impl<'de> Visitor<'de> for OwnFieldsVisitor {
    type Value = OwnFields<'de>;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("fields and their owners")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(OwnFields::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields = OwnFields::default();
        while let Some(entry) = entries.next_element::<ManagerEntry>()? {
            let of = match own(&entry.manager, &entry.operation, &entry.subresource) {
                Some(OwnEntry::Applied) => &mut fields.applied,
                Some(OwnEntry::Created) => &mut fields.created,
                None => continue,
            };
            *of = of.or(entry.fields_v1);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use kube::api::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{FlinkHaCluster, names};
    use crate::cluster::observed::{ObservedConfigMap, ObservedPod};
    use crate::flink::lock::LOCK_ANNOTATION;
    use crate::ledger::unready;

    fn managed(manager: &str) -> Value {
        let fields = json!({ "f:data": { "f:a": {} } });
        json!({ "manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields })
    }

    fn config_map() -> Value {
        json!({
            "metadata": {
                "name": "demo-ledger", "namespace": "flink", "uid": "4b1d", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app.kubernetes.io/instance": "demo", "tiny": "x" },
                "annotations": { "flinkha.dev/refusal": "{}", "kubectl.kubernetes.io/last-applied": "{}" },
                "ownerReferences": [
                    { "apiVersion": "v1", "kind": "A", "name": "a", "uid": "b" },
                    { "apiVersion": "flinkha.dev/v1alpha1", "kind": "FlinkHaCluster", "name": "demo", "uid": "c" },
                ],
                "finalizers": ["a/b"],
                "managedFields": [managed("kubectl"), managed("flinkha-operator")],
            },
            "data": { "jobs": "[]", "a": "b" },
        })
    }

    #[test]
    fn labels_and_annotations_of_all_our_domains_are_kept() {
        let used = [names::ROLE_LABEL, names::LEFT_ANNOTATION, LOCK_ANNOTATION, &unready::annotation("4b1d")];
        assert!(used.into_iter().chain(["app.kubernetes.io/instance"]).all(is_used), "{used:?}");
        let others = ["instance", "notflinkha.dev/a", "flinkha.dev", "kubectl.kubernetes.io/last-applied", "/"];
        assert!(!others.into_iter().any(is_used));
    }

    fn read<K: Observable>(text: &str) -> Option<Received<K>> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn of_an_object_only_that_is_kept_which_decisions_use() {
        let Some(Received::Read(ledger)) = read::<ObservedConfigMap>(&config_map().to_string()) else {
            panic!("not read");
        };
        let metadata = &ledger.metadata;
        assert_eq!((metadata.name.as_deref(), metadata.uid.as_deref()), (Some("demo-ledger"), Some("4b1d")));
        assert_eq!(metadata.labels.iter().flatten().count(), 1);
        assert_eq!(metadata.annotations.iter().flatten().count(), 1);
        assert!(metadata.creation_timestamp.is_some());
        let owners = metadata.owner_references.iter().flatten();
        assert_eq!(owners.map(|owner| owner.uid.as_str()).collect::<Vec<_>>(), ["c"]);
        assert!(metadata.finalizers.is_none());
        let managed = metadata.managed_fields.iter().flatten();
        assert_eq!(managed.filter_map(|entry| entry.manager.as_deref()).collect::<Vec<_>>(), ["flinkha-operator"]);
        assert!(ledger.data.unreadable.is_empty());
    }

    #[test]
    fn no_object_makes_us_keep_as_much_as_it_says() {
        let labels = (0..5000).map(|key| (format!("flinkha.dev/k{key}"), json!("")));
        let owners = (0..5000).map(|uid| json!({ "kind": "FlinkHaCluster", "name": "a", "uid": uid.to_string() }));
        let (labels, owners) = (Value::Object(labels.collect()), owners.collect::<Value>());
        let large = json!({ "metadata": { "labels": labels, "annotations": labels, "ownerReferences": owners } });
        let Some(Received::Read(read)) = read::<ObservedConfigMap>(&large.to_string()) else { panic!("not read") };
        let ObjectMeta { labels, annotations, owner_references, .. } = read.metadata;
        let kept =
            [labels.map(|all| all.len()), annotations.map(|all| all.len()), owner_references.map(|all| all.len())];
        assert_eq!(kept, [Some(MOST); 3]);
    }

    #[test]
    fn what_cannot_be_read_does_not_hide_the_rest_of_a_list_or_a_watch() {
        let good = json!({ "metadata": { "name": "good" }, "status": { "phase": "Running" } });
        let bad = json!({ "metadata": { "name": "bad", "resourceVersion": "8" }, "status": { "phase": 7 } });
        let metadata = json!({ "resourceVersion": "9" });
        let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": [bad, good] });
        let list: Result<ObjectList<Received<ObservedPod>>, _> = serde_json::from_str(&list.to_string());
        let items = list.map(|list| list.items).unwrap_or_default();
        let Some([Received::Unread(metadata, Unread::Unreadable(_)), Received::Read(pod)]) = items.get(..2) else {
            panic!("{items:?}");
        };
        assert_eq!((metadata.name.as_deref(), pod.status.phase.as_str()), (Some("bad"), "Running"));
        // As the API server writes it.
        let event = format!(r#"{{"type":"MODIFIED","object":{bad}}}"#);
        let event = serde_json::from_str::<WatchEvent<Received<ObservedPod>>>(&event);
        let Ok(WatchEvent::Modified(Received::Unread(metadata, _))) = event else { panic!("{event:?}") };
        assert_eq!(metadata.resource_version.as_deref(), Some("8"));
    }

    #[test]
    fn a_resource_that_is_too_large_is_not_read_and_its_finalizers_are_kept_else() {
        let mut resource = json!({
            "metadata": { "name": "demo", "finalizers": ["flinkha.dev/ha-data"] },
            "spec": { "image": "flink:2.3.0", "highAvailability": { "storageDir": "file:///flink/ha" } },
        });
        let Some(Received::Read(read_one)) = read::<FlinkHaCluster>(&resource.to_string()) else { panic!("not read") };
        assert_eq!(read_one.metadata.finalizers, Some(vec!["flinkha.dev/ha-data".to_owned()]));
        let tiny = (0..50_001).map(|key| (format!("k{key}"), Value::from(0)));
        resource["spec"]["flinkConfiguration"] = Value::Object(tiny.collect());
        let many = read::<FlinkHaCluster>(&resource.to_string());
        assert!(matches!(many, Some(Received::Unread(_, Unread::TooManyValues { .. }))), "{many:?}");
        resource["spec"]["flinkConfiguration"] = json!({ "a": "x".repeat(1 << 20) });
        let large = read::<FlinkHaCluster>(&resource.to_string());
        assert!(matches!(large, Some(Received::Unread(_, Unread::TooLarge { .. }))), "{large:?}");
    }
}
