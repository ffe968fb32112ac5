//! A Secret that a field names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Secret of the resource's own namespace.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1))]
    pub name: String,
}
