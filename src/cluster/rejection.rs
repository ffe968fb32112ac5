//! Why a resource is not applied. Whoever finds a reason makes a [`Rejection`] of it, and all of them reach the status
//! the same way: nothing that was decided is carried out, the cluster runs on as it was, and `Degraded` says why.

use std::time::Duration;

use super::cause::{Cause, refused_template};

/// Between looks at what no watch tells of: objects of others, and a ledger without our label.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Why a resource is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .cause.reason, .cause.message)]
pub struct Rejection {
    pub cause: Cause,
    /// Look again after this time at the latest; `None` when a watch tells that the cause has gone.
    pub look_again: Option<Duration>,
}

impl Rejection {
    /// The user has to change the resource.
    pub fn of(cause: Cause) -> Self {
        Self { cause, look_again: None }
    }

    /// The cause may go without a change that is watched.
    pub fn unwatched(cause: impl Into<Cause>) -> Self {
        Self { cause: cause.into(), look_again: Some(LOOK_INTERVAL) }
    }

    /// Fields of the resource are wrong.
    pub fn invalid_spec(message: String) -> Self {
        Self::of(Cause { reason: "InvalidSpec", message })
    }

    /// The API server does not take the pod template in this field, and said this.
    pub fn invalid_template(field: &str, said: &str) -> Self {
        Self::of(refused_template(field, said))
    }

    /// The API server does not take an object, for a reason that does not go by itself.
    pub fn apply_failed(said: String) -> Self {
        Self::of(Cause { reason: "ApplyFailed", message: said })
    }

    /// A deleted cluster is not removed yet.
    pub fn deletion_waits(message: String) -> Self {
        Self::of(Cause { reason: "DeletionWaits", message })
    }
}
