//! Labels and annotations that a user wants on the objects of a cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FlinkHaCluster, schema};

/// The ServiceAccounts that the operator makes for the cluster: one of JobManagers, one of TaskManagers.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccounts {
    /// Annotations of both ServiceAccounts, for example `eks.amazonaws.com/role-arn`, by which a cloud gives pods an
    /// identity, so that object storage needs no keys. Clouds read them when a pod is created: change `restartNonce`
    /// too for pods that run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// Labels and annotations of the objects that the operator makes for the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommonMetadata {
    /// Labels, for example `team: payments`. Pods have those of their podTemplate instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations. Pods have those of their podTemplate instead.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// Whether the user says nothing of it. Then it is not written, so that the JSON of a spec stays what it was.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl FlinkHaCluster {
    /// Returns the value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}
