//! Flink's states of a job.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

/// The state of a job as REST tells it and as the ledger has it of an application
/// (`org.apache.flink.api.common.JobStatus`, 1.15 to 2.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FlinkState {
    Initializing,
    Created,
    Running,
    Failing,
    Failed,
    Cancelling,
    Canceled,
    Finished,
    Restarting,
    Suspended,
    Reconciling,
    /// One of a version of Flink that is not known.
    Other(String),
}

impl FlinkState {
    const KNOWN: [Self; 11] = [
        Self::Initializing,
        Self::Created,
        Self::Running,
        Self::Failing,
        Self::Failed,
        Self::Cancelling,
        Self::Canceled,
        Self::Finished,
        Self::Restarting,
        Self::Suspended,
        Self::Reconciling,
    ];

    pub fn as_str(&self) -> &str {
        match self {
            Self::Initializing => "INITIALIZING",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
            Self::Suspended => "SUSPENDED",
            Self::Reconciling => "RECONCILING",
            Self::Other(text) => text,
        }
    }

    /// How the job ended; `None` while it may run on, here or under another JobManager.
    pub fn end(&self) -> Option<End> {
        match self {
            Self::Finished => Some(End::Finished),
            Self::Canceled => Some(End::Canceled),
            Self::Failed => Some(End::Failed),
            _ => None,
        }
    }

    /// The job never runs again (`JobStatus.isGloballyTerminalState`). A state that is not known is no end.
    pub fn is_globally_terminal(&self) -> bool {
        self.end().is_some()
    }
}

impl From<&str> for FlinkState {
    fn from(text: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == text);
        known.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl From<String> for FlinkState {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<FlinkState> for String {
    fn from(status: FlinkState) -> Self {
        status.to_string()
    }
}

impl Display for FlinkState {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// How a job or an application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    Canceled,
    Failed,
}

impl End {
    pub const ALL: [Self; 3] = [Self::Finished, Self::Canceled, Self::Failed];

    /// The word for it in ledger and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "Finished",
            Self::Canceled => "Canceled",
            Self::Failed => "Failed",
        }
    }
}

impl Display for End {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_keeps_its_text_whether_it_is_known_or_not() {
        for text in FlinkState::KNOWN.iter().map(FlinkState::as_str).chain(["", "HIBERNATING", "running"]) {
            let status: FlinkState = serde_json::from_value(json!(text)).expect("a state");
            assert_eq!((json!(status), status.to_string().as_str()), (json!(text), text));
        }
        assert_eq!(FlinkState::from("running"), FlinkState::Other("running".to_owned()));
    }

    #[test]
    fn only_three_states_are_the_end_and_one_that_is_not_known_is_none() {
        let ends: Vec<&str> =
            FlinkState::KNOWN.iter().filter(|status| status.is_globally_terminal()).map(FlinkState::as_str).collect();
        assert_eq!(ends, ["FAILED", "CANCELED", "FINISHED"]);
        assert!(!FlinkState::from("OVER").is_globally_terminal());
        for end in End::ALL {
            assert_eq!(FlinkState::from(end.as_str().to_uppercase().as_str()).end(), Some(end));
        }
    }
}
