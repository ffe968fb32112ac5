//! Why a gateway does not let its JobManager lead although it could: written by the gateway on the ledger, shown by the
//! operator in the condition `Degraded`. The next JobManager that is granted leadership removes it.

use std::fmt::{Display, Formatter};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::names::{self, REFUSAL_ANNOTATION};

/// HA data is stored under the cluster's name that this cluster has not written.
pub const FOREIGN_HA_DATA: &str = "ForeignHaData";
/// The ledger, or what it says of the application, cannot be read.
pub const LEDGER_UNREADABLE: &str = "LedgerUnreadable";
/// What is stored was written by pods of a later start, or by another run than the one that is to be replaced.
pub const STORED_BY_ANOTHER: &str = "StoredByAnother";

/// A JVM that is not known as a JobManager asks for leadership.
pub const JOB_MANAGER_UNKNOWN: &str = "JobManagerUnknown";

/// An object of the API server has a name that this cluster needs, and is not this cluster's.
pub const NAME_TAKEN: &str = "NameTaken";

/// Jobs are stored in a form that the JVM's version of Flink does not see.
pub const JOBS_OF_ANOTHER_FLINK: &str = "JobsOfAnotherFlink";

/// The JVM's version of Flink is not known to go on from the HA data of the one that ran the application last.
pub const LAST_STATE_REFUSED: &str = "UpgradeRefused";

/// The JVM's version of Flink is not the one that the resource declares.
pub const FLINK_VERSION_MISMATCH: &str = "FlinkVersionMismatch";

const REASONS: [&str; 8] = [
    FOREIGN_HA_DATA,
    LEDGER_UNREADABLE,
    STORED_BY_ANOTHER,
    JOB_MANAGER_UNKNOWN,
    NAME_TAKEN,
    JOBS_OF_ANOTHER_FLINK,
    LAST_STATE_REFUSED,
    FLINK_VERSION_MISMATCH,
];

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// One of this module's reasons.
    pub reason: String,
    /// A sentence that names the object and the way out.
    pub message: String,
    /// UID of the pod whose JobManager is refused while others may lead: without this pod there is no refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

impl Refusal {
    pub fn new(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message, pod: None }
    }

    /// The same of the JobManager of this pod alone.
    pub fn of_pod(self, uid: &str) -> Self {
        Self { pod: Some(uid.to_owned()), ..self }
    }

    /// A key of the ledger of this cluster holds something that is not understood.
    pub fn unreadable(cluster: &str, key: &str) -> Self {
        let ledger = names::ledger(cluster);
        let message = format!(
            "the key '{key}' of ConfigMap {ledger} cannot be read, so the stored state is unknown; nothing starts and nothing is removed: restore \
             its value or, if that is lost, remove the key: kubectl patch configmap {ledger} --type merge -p '{{\"data\":{{\"{key}\":null}}}}'"
        );
        Self::new(LEDGER_UNREADABLE, message)
    }

    /// Reads the refusal that a ledger carries. Text that is not understood counts as none.
    pub fn of(ledger: &ObjectMeta) -> Option<Self> {
        serde_json::from_str(ledger.annotations.as_ref()?.get(REFUSAL_ANNOTATION)?).ok()
    }

    /// The reason of a condition. One of a newer gateway is not known here; its message still is.
    pub fn condition_reason(&self) -> &'static str {
        REASONS.into_iter().find(|known| *known == self.reason).unwrap_or("LeadershipRefused")
    }
}

impl Display for Refusal {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_read_back_and_has_a_reason() {
        let refusal = Refusal::new(FOREIGN_HA_DATA, "ConfigMap x is not ours".to_owned());
        let ledger = json!({ "annotations": { REFUSAL_ANNOTATION: json!(refusal).to_string() } });
        let ledger: ObjectMeta = serde_json::from_value(ledger).expect("metadata");
        assert_eq!(Refusal::of(&ledger), Some(refusal.clone()));
        assert_eq!(refusal.condition_reason(), FOREIGN_HA_DATA);
        assert!(!json!(refusal).to_string().contains("pod"), "as earlier versions write it");
        let of_one = Refusal::of_pod(refusal, "7");
        assert_eq!(serde_json::from_value::<Refusal>(json!(of_one)).ok(), Some(of_one));
        assert_eq!(Refusal::new("New", String::new()).condition_reason(), "LeadershipRefused");
        assert_eq!(Refusal::of(&ObjectMeta::default()), None);
    }
}
