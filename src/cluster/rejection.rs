//! Defines why a resource is not applied. Every component that finds a reason makes a [`Rejection`], and all of them
//! reach the status in the same way: nothing of the decision is carried out, the cluster continues as before, and
//! `Degraded` says why.

use std::time::Duration;

use super::cause::Cause;
use super::causes::refused_template;

/// Interval of checks for changes that no watch shows: of foreign objects, and of a ledger without our label.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Why a resource is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .cause.reason, .cause.message)]
pub struct Rejection {
    pub cause: Cause,
    /// Longest time until the next check; `None` if a watch shows that the cause has disappeared.
    pub look_again: Option<Duration>,
}

impl Rejection {
    /// The user must change the resource.
    pub fn of(cause: Cause) -> Self {
        Self { cause, look_again: None }
    }

    /// The cause may disappear without a change that a watch shows.
    pub fn unwatched(cause: impl Into<Cause>) -> Self {
        Self { cause: cause.into(), look_again: Some(LOOK_INTERVAL) }
    }

    /// Fields of the resource are wrong.
    pub fn invalid_spec(message: String) -> Self {
        Self::of(Cause { reason: "InvalidSpec", message })
    }

    /// The API server refuses the pod template in this field; `said` is its message.
    pub fn invalid_template(field: &str, said: &str) -> Self {
        Self::of(refused_template(field, said))
    }

    /// The API server refuses an object, for a lasting reason.
    pub fn apply_failed(said: String) -> Self {
        Self::of(Cause { reason: "ApplyFailed", message: said })
    }

    /// A deleted cluster is not removed yet.
    pub fn deletion_waits(message: String) -> Self {
        Self::of(Cause { reason: "DeletionWaits", message })
    }
}
