//! Defines the state that the probes report: whether this pod's JobManager can take over, and whether it leads.

/// The state for the probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why this candidate could not take over now.
    pub unready: Option<&'static str>,
    pub leads: bool,
    pub term: u64,
}
