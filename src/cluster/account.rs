//! What counts of a ServiceAccount.

use jiff::Timestamp;
use kube::core::ObjectMeta;

/// A ServiceAccount, as it exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: String,
    pub created: Timestamp,
}

impl Account {
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self { uid: metadata.uid.clone()?, created: metadata.creation_timestamp.as_ref()?.0 })
    }
}
