//! The conditions' types, and what a condition says before it has its times.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::status::AppliedObjects;
use crate::api::time::seconds;
use crate::cluster::turn::Turn;

/// Who leads is elected on a Lease, and there is somebody.
pub const LEADER_ELECTED: &str = "LeaderElected";
/// The cluster does its work and survives the loss of its leader.
pub const READY: &str = "Ready";
/// The operator or Kubernetes is on the way to what the resource asks for.
pub const PROGRESSING: &str = "Progressing";
/// Something is wrong that will not go by itself; the message says what.
pub const DEGRADED: &str = "Degraded";
/// The latest generation of the resource is being rolled out.
pub const RECONCILING: &str = "Reconciling";
/// The latest generation of the resource is not rolled out, and nothing more is tried until somebody does something.
pub const STALLED: &str = "Stalled";
/// The operator changes nothing of the cluster, because somebody asks for that. Only a paused resource has it.
pub const PAUSED: &str = "Paused";

/// Jobs of a session are set aside, because files without which Flink cannot recover them are gone. There is none while
/// no file is missing.
pub const JOBS_QUARANTINED: &str = "JobsQuarantined";

/// Another operator watches the resource too, and leaves it alone. That one writes it, and not the one that reconciles
/// the resource.
pub const CONTESTED: &str = "Contested";

/// The reason of `Ready` while it keeps its value during a roll-out.
pub const ROLLING_OUT: &str = "RollingOut";

/// All objects are as the resource asks for.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The gateway's image that was chosen.
    pub gateway_image: String,
    /// By what an operator that starts sees that nothing is to be applied; `None` if that cannot be told.
    pub objects: Option<AppliedObjects>,
    /// Pods that only the operator wants to replace: whether it does. `None` if there are none.
    pub turn: Option<Turn>,
}

/// A condition without its times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub kind: &'static str,
    pub holds: bool,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    pub fn new(kind: &'static str, holds: bool, reason: &str, message: String) -> Self {
        Self { kind, holds, reason: reason.to_owned(), message }
    }

    /// `generation`: the one that the verdict is about.
    pub fn condition(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let unchanged = find(before, self.kind).filter(|condition| condition.status == status);
        Condition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason,
            message: shortened(self.message),
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or_else(|| seconds(now), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// Characters of a message. All conditions stand in one object, which has a limit.
const LONGEST: usize = 8000;

fn shortened(message: String) -> String {
    match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &message[..end]),
        None => message,
    }
}

/// The condition of this type.
pub(super) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_length_has_an_end() {
        let long = "\u{e9}".repeat(LONGEST + 1);
        let said = |message: &str| {
            Verdict::new(READY, true, "A", message.to_owned()).condition(&[], None, Timestamp::UNIX_EPOCH).message
        };
        assert_eq!(said(&long).chars().count(), LONGEST + 2);
        assert_eq!(said(&long[..2 * LONGEST]), long[..2 * LONGEST]);
    }
}
