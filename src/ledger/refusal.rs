//! Defines why a gateway does not let its JobManager lead although it could. The gateway writes the refusal on the
//! ledger, and the operator shows it in the condition `Degraded`. The next JobManager that is granted leadership
//! removes it.

use std::fmt::{Display, Formatter};

use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::names::{self, REFUSAL_ANNOTATION};

/// HA data under the cluster's name was not written by this cluster.
pub const FOREIGN_HA_DATA: &str = "ForeignHaData";
/// The ledger, or its entry about the application, cannot be read.
pub const LEDGER_UNREADABLE: &str = "LedgerUnreadable";
/// Pods of a later start wrote the HA data, or a run other than the one that should be replaced.
pub const STORED_BY_ANOTHER: &str = "StoredByAnother";

/// A JVM that the gateway does not recognize as a JobManager asks for leadership.
pub const JOB_MANAGER_UNKNOWN: &str = "JobManagerUnknown";

/// An object of the API server has a name that this cluster needs, and does not belong to this cluster.
pub const NAME_TAKEN: &str = "NameTaken";

const REASONS: [&str; 5] = [FOREIGN_HA_DATA, LEDGER_UNREADABLE, STORED_BY_ANOTHER, JOB_MANAGER_UNKNOWN, NAME_TAKEN];

/// Why a gateway lets no JobManager lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// One of this module's reasons.
    pub reason: String,
    /// A sentence that names the object and the remedy.
    pub message: String,
}

impl Refusal {
    pub fn new(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message }
    }

    /// A key of this cluster's ledger holds text that does not parse.
    pub fn unreadable(cluster: &str, key: &str) -> Self {
        let ledger = names::ledger(cluster);
        let message = format!(
            "the key '{key}' of ConfigMap {ledger} cannot be read, so the stored state is unknown; nothing starts and nothing is removed: restore \
             its value or, if that is lost, remove the key: kubectl patch configmap {ledger} --type merge -p '{{\"data\":{{\"{key}\":null}}}}'"
        );
        Self::new(LEDGER_UNREADABLE, message)
    }

    /// Reads the refusal of a ledger. Text that does not parse counts as none.
    pub fn of(ledger: &ObjectMeta) -> Option<Self> {
        serde_json::from_str(ledger.annotations.as_ref()?.get(REFUSAL_ANNOTATION)?).ok()
    }

    /// Returns the reason for a condition. The reason of a newer gateway may be unknown here; its message is shown all
    /// the same.
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
        assert_eq!(Refusal::new("New", String::new()).condition_reason(), "LeadershipRefused");
        assert_eq!(Refusal::of(&ObjectMeta::default()), None);
    }
}
