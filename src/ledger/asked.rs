//! What people ask a gateway, and what it answers: `flinkha ask` in the gateway's own container reads a question as a
//! line of JSON and prints the answer as another. `kubectl flinkha` does so by the API server's `pods/exec`.
//!
//! A gateway answers with what it reaches itself: the storage directory, the pointers, its peers. It decides by itself
//! what a sweep removes; a question only says when.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::jobs::OrphanCounts;

/// Longest question, in bytes.
pub const LONGEST_QUESTION: usize = 256 << 10;
/// Number of files in one question.
pub const FILES: usize = 500;
/// Number of addresses in one question.
pub const ADDRESSES: usize = 64;
/// Number of files that the answer about a sweep lists.
pub const LISTED: usize = 200;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GatewayQuestion {
    /// What does this gateway reach, and how fast? The addresses are those of its peers.
    Examine { addresses: Vec<SocketAddr> },
    /// What does the storage say of these files of the cluster's directory, of the result stores and the marks?
    LookUp { files: Vec<String> },
    /// Sweep now, if this JobManager leads.
    Sweep {
        /// Remove orphans, also with `spec.haData.orphans: Report`, and not only count them.
        removes: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GatewayAnswer {
    Examined(ExaminedGateway),
    Found(StoredFiles),
    Swept(SweepAnswer),
    /// A sentence that says why there is no other answer.
    Refused(String),
}

/// What a gateway says of itself and of what it reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExaminedGateway {
    /// Version of the program.
    pub version: String,
    /// The pod's clock, RFC 3339 with milliseconds.
    pub at: String,
    /// Its JobManager leads.
    pub leads: bool,
    /// The mark of the storage directory was written and read again; without the leadership it was only read.
    pub storage: TimedResult,
    /// All pointers were read: by the API server, or by the quorum.
    pub pointers: TimedResult,
    /// The ledger was read by the API server.
    pub ledger: TimedResult,
    /// Connections to the addresses of the question.
    pub addresses: Vec<ReachedAddress>,
}

/// How long something took, and why it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TimedResult {
    pub milliseconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// A connection to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReachedAddress {
    pub address: SocketAddr,
    #[serde(flatten)]
    pub result: TimedResult,
}

/// What the storage says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredFiles {
    pub files: Vec<StoredFile>,
    /// Entries of Flink's result stores.
    pub results: Vec<StoredResult>,
    /// Clusters that have signed the directory.
    pub marks: Vec<StoredMark>,
    /// What could not be read beside the files, each a sentence.
    pub failed: Vec<String>,
}

/// A file that a question names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredFile {
    pub file: String,
    /// Absent for a missing file, and for one of which the storage says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it was written, RFC 3339, by the storage's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Why nothing is known of it. Without this and without `bytes` the file is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// An entry of a result store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredResult {
    /// `job-result-store` or `application-result-store`.
    pub store: String,
    pub id: String,
    /// Flink is still cleaning up.
    pub is_dirty: bool,
    /// `Finished`, `Canceled` or `Failed`; absent if the entry cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A mark of the storage directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoredMark {
    pub owner: String,
    /// When it was last written, RFC 3339, by the storage's clock.
    pub written: String,
}

/// The result of a sweep that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SweepAnswer {
    /// What is left of orphans, and what this sweep removed.
    pub orphans: OrphanCounts,
    /// Orphans that were found, removed or not; not all if there are many.
    pub files: Vec<OrphanFile>,
    /// Seconds for which a file must be unchanged to count.
    pub age_limit_seconds: u64,
    /// Why nothing was removed although it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

/// A file that nothing needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OrphanFile {
    /// Path below the cluster's directory.
    pub path: String,
    pub bytes: u64,
    pub age_seconds: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn questions_and_answers_are_one_line_of_json() {
        for (question, text) in [
            (GatewayQuestion::Sweep { removes: true }, json!({ "sweep": { "removes": true } })),
            (GatewayQuestion::LookUp { files: vec!["a".to_owned()] }, json!({ "lookUp": { "files": ["a"] } })),
            (GatewayQuestion::Examine { addresses: Vec::new() }, json!({ "examine": { "addresses": [] } })),
        ] {
            assert_eq!(serde_json::to_value(&question).ok(), Some(text.clone()));
            assert_eq!(serde_json::from_value::<GatewayQuestion>(text).ok(), Some(question));
        }
        // What another version says beside, or does not say, is no reason to hide the rest.
        let answer = json!({ "examined": { "version": "9", "new": 1 } });
        let GatewayAnswer::Examined(examined) = serde_json::from_value(answer).expect("an answer") else {
            panic!("another answer");
        };
        assert_eq!((examined.version.as_str(), examined.leads), ("9", false));
        let refused = GatewayAnswer::Refused("a\nb".to_owned());
        assert!(!serde_json::to_string(&refused).expect("JSON").contains('\n'));
    }
}
