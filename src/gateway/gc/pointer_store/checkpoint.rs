//! What a pointer to a checkpoint says, with either provider.

/// The last pointer of a job to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheckpoint {
    /// URI of the checkpoint's metadata; `None` when the pointer is not understood.
    pub metadata: Option<String>,
}
