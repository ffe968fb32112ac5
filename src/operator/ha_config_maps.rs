//! Flink's HA ConfigMaps of one cluster, as far as decisions need them: anybody may label others so, of the largest
//! size and as many as a namespace holds.

use std::collections::BTreeMap;
use std::fmt::Formatter;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::core::ObjectMeta;
use kube::{Api, Client, Resource};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::kinds::Observable;
use super::pages::for_each;
use crate::flink::ha_data;

/// An HA ConfigMap.
#[derive(Clone, Debug, Default, Serialize, Resource)]
#[resource(inherit = "ConfigMap")]
pub struct HaConfigMap {
    pub metadata: ObjectMeta,
    /// Keys, without their values.
    pub data: BTreeMap<String, &'static str>,
}

/// What is read of an HA ConfigMap.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct HaConfigMapBody {
    data: Keys,
}

impl Observable for HaConfigMap {
    type Body = HaConfigMapBody;

    fn assemble(metadata: ObjectMeta, HaConfigMapBody { data }: HaConfigMapBody) -> Self {
        Self { metadata, data: data.0 }
    }
}

#[derive(Default)]
struct Keys(BTreeMap<String, &'static str>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the data of a ConfigMap")
    }

    fn visit_unit<E>(self) -> Result<Keys, E> {
        Ok(Keys::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
        let mut keys = BTreeMap::new();
        while let Some((key, IgnoredAny)) = map.next_entry()? {
            keys.insert(key, "");
        }
        Ok(Keys(keys))
    }
}

/// Returns all ConfigMaps that are labelled as HA data of the cluster id, whoever has made them. It keeps the data of
/// those only that `is_needed` names.
///
/// # Errors
/// When a request fails, or an object cannot be read: nothing is known then.
pub async fn labelled(
    client: &Client,
    namespace: &str,
    cluster_id: &str,
    is_needed: impl Fn(&str) -> bool,
) -> kube::Result<Vec<HaConfigMap>> {
    let mut found = Vec::new();
    let selected = ListParams::default().labels(&ha_data::selector(cluster_id));
    for_each(&Api::namespaced(client.clone(), namespace), selected, |mut one: HaConfigMap| {
        if !is_needed(one.metadata.name.as_deref().unwrap_or_default()) {
            one.data = BTreeMap::new();
        }
        found.push(one);
    })
    .await?;
    Ok(found)
}
