//! Defines the content of a pointer to a checkpoint, for either provider.

/// The last pointer of a job to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheckpoint {
    /// URI of the checkpoint's metadata; `None` if the pointer cannot be parsed.
    pub metadata: Option<String>,
}
