//! Why a command did not do what it was asked for. Each kind has an exit code, which `docs/plugin.md` lists.

use std::process::ExitCode;

use super::view::text::plain;
use crate::world::error_text::{brief, chain};

/// Why a command did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// A request to the API server failed.
    #[error("{0}")]
    Request(String),
    /// What was asked for does not exist.
    #[error("{0}")]
    Absent(String),
    /// The command line is not understood.
    #[error("{0}")]
    Input(String),
    /// The cluster, or its operator, refuses what was asked for. Nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// What was asked for has not happened in time. The request stands.
    #[error("{0}")]
    Late(String),
    /// `doctor` has found problems, and said which.
    #[error("{0}")]
    Problems(String),
    /// Whoever reads the output has gone away, as `head` does.
    #[error("the output is closed")]
    Closed,
}

impl Failure {
    /// Of a request to the API server that failed; `action` is what failed, such as "read Lease demo".
    pub fn request(action: &str) -> impl Fn(kube::Error) -> Self {
        let action = action.to_owned();
        move |error| Self::Request(format!("failed to {action}: {}", said(&error)))
    }

    /// Says on standard error why, and returns the exit code.
    pub fn tell(&self) -> ExitCode {
        let code = match self {
            Self::Closed => return ExitCode::SUCCESS,
            Self::Request(_) | Self::Absent(_) => 1,
            Self::Input(_) => 2,
            Self::Refused(_) => 3,
            Self::Late(_) => 4,
            Self::Problems(_) => 5,
        };
        // The text may contain what others have written.
        eprintln!("error: {}", plain(&self.to_string()));
        ExitCode::from(code)
    }
}

/// What the API server, or the way to it, says.
pub fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(_) => brief(error),
        error => chain(error),
    }
}
