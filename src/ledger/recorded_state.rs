//! Defines the state of a job as the ledger records it.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::flink::job_state::End;

/// The recorded state of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum RecordedState {
    /// It has not ended.
    Running,
    /// It has not ended, and is set aside: a file without which Flink cannot recover it is gone.
    Quarantined,
    Ended(End),
    /// Another run of the application has replaced it.
    Superseded,
    /// Somebody has asked by name to remove it from quarantine.
    Dropped,
    /// It is no longer stored and has no record of its end.
    #[default]
    Unknown,
    /// A later version wrote it.
    Other(String),
}

impl RecordedState {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Running => "Running",
            Self::Ended(end) => end.as_str(),
            Self::Quarantined => "Quarantined",
            Self::Superseded => "Superseded",
            Self::Dropped => "Dropped",
            Self::Unknown => "Unknown",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for RecordedState {
    fn from(text: &str) -> Self {
        let own = [Self::Running, Self::Quarantined, Self::Superseded, Self::Dropped, Self::Unknown];
        let known = End::ALL.into_iter().map(Self::Ended).chain(own).find(|known| known.as_str() == text);
        known.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl From<String> for RecordedState {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<RecordedState> for String {
    fn from(state: RecordedState) -> Self {
        state.to_string()
    }
}

impl Display for RecordedState {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_keeps_its_text_whether_it_is_known_or_not() {
        let known = ["Running", "Quarantined", "Finished", "Canceled", "Failed", "Superseded", "Dropped", "Unknown"];
        for text in known.into_iter().chain(["", "New"]) {
            let state: RecordedState = serde_json::from_value(text.into()).expect("a state");
            assert_eq!((state.as_str(), serde_json::to_value(&state).expect("JSON")), (text, text.into()));
            let is_other = matches!(state, RecordedState::Other(_));
            assert_eq!(is_other, text.is_empty() || text == "New", "{text}");
        }
    }
}
