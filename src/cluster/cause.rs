//! Why a cluster does not do what it should: one cause, as conditions and events name it.

use crate::ledger::refusal::Refusal;

/// A cause: one word for machines and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// CamelCase, as in a condition.
    pub reason: &'static str,
    pub message: String,
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        Self { reason: refusal.condition_reason(), message: refusal.message }
    }
}
