//! Defines why a step of a reconciliation failed.

use kube::ResourceExt;

use crate::api::FlinkHaCluster;
use crate::cluster::rejection::Rejection;
use crate::world::error_text::chain;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {action} {object}")]
    Request {
        action: &'static str,
        object: String,
        #[source]
        source: kube::Error,
    },
    #[error("failed to build an object that Kubernetes can read")]
    Malformed {
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to read random bytes for a key: {source}")]
    Random { source: getrandom::Error },
    /// Nothing has failed: a decision rests on a version that is no longer the latest, so it must be made again.
    #[error("{object} has changed since it was read")]
    Outdated { object: String },
    /// The resource shows it already; the step is tried again.
    #[error(transparent)]
    Shown(Box<Error>),
    /// Nothing has failed: the resource must not be applied.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl Error {
    /// Returns why the resource is not applied, for its status; `None` for a temporary failure.
    pub fn rejection(&self) -> Option<Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection.clone()),
            failed => failed.is_lasting().then(|| Rejection::apply_failed(chain(failed))),
        }
    }

    /// Will the API server refuse again, because of a quota, a missing right, or an exhausted range? Conflicts and
    /// overload are temporary.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Request { source: kube::Error::Api(status), .. } => {
                (400..500).contains(&status.code) && ![409, 429].contains(&status.code)
            }
            Self::Request { .. } | Self::Random { .. } | Self::Outdated { .. } | Self::Shown(_) => false,
            Self::Malformed { .. } | Self::Rejected(_) => true,
        }
    }

    /// Returns a conversion for errors of requests about a resource.
    pub fn request(action: &'static str, resource: &FlinkHaCluster) -> impl FnOnce(kube::Error) -> Self + use<> {
        let object = format!("FlinkHaCluster {}", resource.name_any());
        move |source| Self::Request { action, object, source }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_the_api_server_will_refuse_again_is_told_on_the_resource_and_what_passes_is_not() {
        let answered = |code| {
            let status = Status::failure("exceeded quota", "Forbidden").with_code(code);
            let source = kube::Error::Api(status.boxed());
            Error::Request { action: "apply", object: "Service demo-rest".to_owned(), source }.rejection()
        };
        for code in [409, 429, 500, 503, 504] {
            assert_eq!(answered(code), None, "{code}");
        }
        let told = answered(403).expect("a lasting one");
        assert_eq!((told.cause.reason, told.look_again), ("ApplyFailed", None));
        assert!(told.cause.message.starts_with("failed to apply Service demo-rest: "), "{}", told.cause.message);
        assert_eq!(Error::from(told.clone()).rejection(), Some(told), "what was found before is passed on as it is");
    }
}
