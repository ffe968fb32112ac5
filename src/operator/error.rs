//! Why a step of a reconciliation failed.

use kube::ResourceExt;

use crate::api::FlinkHaCluster;

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
}

impl Error {
    /// The API server said no and will say so again: a quota, a right, a range that is used up. Conflicts and overload
    /// are not of this kind.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Request { source: kube::Error::Api(status), .. } => {
                (400..500).contains(&status.code) && ![409, 429].contains(&status.code)
            }
            Self::Request { .. } => false,
            Self::Random { .. } => false,
            Self::Malformed { .. } => true,
        }
    }

    /// For requests about a resource.
    pub fn request(action: &'static str, resource: &FlinkHaCluster) -> impl FnOnce(kube::Error) -> Self + use<> {
        let object = format!("FlinkHaCluster {}", resource.name_any());
        move |source| Self::Request { action, object, source }
    }
}
