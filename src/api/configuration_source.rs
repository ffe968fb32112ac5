//! Where keys of Flink's configuration come from that do not stand in the resource.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretReference;

/// A source of keys of Flink's configuration, as in `envFrom` of a container.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationSource {
    /// A Secret whose keys are keys of Flink's configuration, for example `s3.secret-key`. It must exist, or no pod
    /// starts.
    pub secret_ref: SecretReference,
}
