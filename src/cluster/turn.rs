//! Roll-outs that nobody has asked for: a new version of the operator builds the pods of all clusters in another way,
//! or a Secret has changed that many clusters read. They take turns, so that not all jobs of a Kubernetes cluster are
//! interrupted at once, and each can be held. A change of the resource never waits.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::names::ROLL_OUT_ANNOTATION;
use crate::api::status::FlinkHaClusterStatus;

/// Type of the condition that is there while the operator has to replace pods that nobody has asked it to replace. It
/// holds when the turn of the cluster has come.
pub const OPERATOR_ROLL_OUT: &str = "OperatorRollOut";
/// The reason of a cluster that has its turn; it keeps the turn until it is ready again.
pub const REPLACING: &str = "Replacing";
/// The same for a cluster that was not ready before: others do not wait until it is.
pub const REPLACING_UNREADY: &str = "ReplacingUnready";

/// A cluster that keeps its turn for longer than this is named to those that wait.
const OVERDUE: SignedDuration = SignedDuration::from_secs(600);
/// Clusters whose turn does not end that a message names.
const NAMED: usize = 3;
/// A cluster that waits looks again after this time, if nobody has woken it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How many clusters are replaced by the operator at once.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// Number of clusters; 0 for any number.
    pub max_concurrent: usize,
    /// Time between the beginnings of two roll-outs.
    pub delay: Duration,
}

/// A cluster that has its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Namespace and name.
    pub name: String,
    pub since: Timestamp,
}

/// What the operator may do with pods that only it wants to replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The turn has come: to be announced, and then carried out.
    Begins,
    /// It was announced before.
    Continues,
    Waits(Waits),
}

/// A roll-out that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    pub reason: &'static str,
    pub message: String,
    pub look_again: Duration,
}

/// Decides about one cluster. `wish` is the value of the annotation on the resource, and `why` says why its pods are to
/// be replaced. `moving` are the other clusters that have their turn, and `last` is the time at which the last turn
/// began.
pub fn turn(
    (wish, why): (Option<&str>, &str),
    has_turn: bool,
    moving: &[Moving],
    last: Option<Timestamp>,
    limits: &TurnLimits,
    now: Timestamp,
) -> Turn {
    let wish = wish.map(str::trim).filter(|wish| !wish.is_empty());
    if let Some(wish) = wish.filter(|wish| *wish != NOW) {
        let unknown = if wish == HOLD { String::new() } else { format!(" (its value {wish:?} counts as {HOLD})") };
        let message = format!(
            "{why}; the pods stay as they are, because the annotation {ROLL_OUT_ANNOTATION} holds them{unknown}. To let them be replaced, remove the annotation, or set it to \
             {NOW}; a change of the spec replaces them, too"
        );
        return Turn::Waits(Waits { reason: "Held", message, look_again: LOOK_AGAIN });
    }
    if has_turn {
        return Turn::Continues;
    }
    let pause = last.map(|last| pause(last, limits, now)).unwrap_or_default();
    let is_full = limits.max_concurrent > 0 && moving.len() >= limits.max_concurrent;
    if wish == Some(NOW) || !is_full && pause.is_zero() {
        return Turn::Begins;
    }
    let look_again = if is_full { LOOK_AGAIN } else { pause };
    Turn::Waits(Waits { reason: "WaitsForTurn", message: waits(why, moving, limits, now), look_again })
}

/// Values of the annotation.
const HOLD: &str = "hold";
const NOW: &str = "now";

/// How long no roll-out may begin.
pub fn pause(last: Timestamp, limits: &TurnLimits, now: Timestamp) -> Duration {
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    limits.delay.saturating_sub(passed)
}

/// It names no cluster that is replaced as it should be: the status of all that wait would change with each.
fn waits(why: &str, moving: &[Moving], limits: &TurnLimits, now: Timestamp) -> String {
    let number = match limits.max_concurrent {
        0 => String::new(),
        1 => "one cluster at a time (rollout.maxConcurrent)".to_owned(),
        many => format!("at most {many} clusters at a time (rollout.maxConcurrent)"),
    };
    let delay = if limits.delay.is_zero() {
        String::new()
    } else {
        format!("{} s after one another (rollout.delay)", limits.delay.as_secs())
    };
    let rule = [number, delay].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let mut overdue: Vec<&str> =
        moving.iter().filter(|one| now.duration_since(one.since) > OVERDUE).map(|one| one.name.as_str()).collect();
    overdue.sort_unstable();
    let more = overdue.len().saturating_sub(NAMED);
    overdue.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let stuck = if overdue.is_empty() {
        String::new()
    } else {
        format!(
            " Not ready again for 10 min: FlinkHaCluster {}{more}; see their conditions, since nothing more is replaced \
             until they are ready, changed or deleted.",
            overdue.join(", ")
        )
    };
    format!(
        "{why}, and clusters take turns: {rule}.{stuck} To replace \
         these pods now, set the annotation {ROLL_OUT_ANNOTATION} to {NOW}; to keep them, set it to {HOLD}"
    )
}

/// The cluster has its turn, as its status says. A later generation is rolled out for its own sake.
pub fn has_turn(status: &FlinkHaClusterStatus, generation: Option<i64>) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| {
        condition.type_ == OPERATOR_ROLL_OUT
            && [REPLACING, REPLACING_UNREADY].contains(&condition.reason.as_str())
            && condition.observed_generation == generation
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn moving(count: usize) -> Vec<Moving> {
        (0..count).map(|index| Moving { name: format!("flink/c{index}"), since: at(0) }).collect()
    }

    fn limits(max_concurrent: usize, delay: u64) -> TurnLimits {
        TurnLimits { max_concurrent, delay: Duration::from_secs(delay) }
    }

    fn reason(turn: &Turn) -> &'static str {
        match turn {
            Turn::Begins => "begins",
            Turn::Continues => "continues",
            Turn::Waits(waits) => waits.reason,
        }
    }

    #[test]
    fn clusters_take_turns() {
        let decide = |wish, has_turn, others, limits: TurnLimits| {
            reason(&turn((wish, "why"), has_turn, &moving(others), Some(at(0)), &limits, at(20)))
        };
        for (wish, has_turn, others, limits, expected) in [
            (None, false, 4, limits(5, 0), "begins"),
            (None, false, 5, limits(5, 0), "WaitsForTurn"),
            (None, true, 5, limits(5, 0), "continues"),
            (None, false, 500, limits(0, 0), "begins"),
            (None, false, 0, limits(5, 30), "WaitsForTurn"),
            (None, false, 0, limits(5, 20), "begins"),
            (None, false, 0, limits(0, 30), "WaitsForTurn"),
            (Some("now"), false, 5, limits(5, 30), "begins"),
            (Some("hold"), false, 0, limits(0, 0), "Held"),
            (Some("hold"), true, 0, limits(0, 0), "Held"),
            (Some("Hold!"), false, 0, limits(5, 0), "Held"),
            (Some(""), false, 0, limits(5, 0), "begins"),
        ] {
            assert_eq!(decide(wish, has_turn, others, limits), expected, "{wish:?} {has_turn} {others} {limits:?}");
        }
    }

    #[test]
    fn what_waits_says_for_what_and_how_to_let_it_go_and_does_not_change_with_each_turn() {
        let told = |moving: &[Moving], limits, now| match turn(
            (None, "a Secret has changed"),
            false,
            moving,
            Some(at(0)),
            &limits,
            at(now),
        ) {
            Turn::Waits(waits) => waits,
            other => panic!("{other:?}"),
        };
        let waits = told(&moving(5), limits(5, 0), 20);
        assert!(waits.message.starts_with("a Secret has changed, and clusters take turns"), "{}", waits.message);
        assert!(waits.message.contains("at most 5 clusters at a time (rollout.maxConcurrent)"), "{}", waits.message);
        assert!(waits.message.contains("set the annotation flinkha.dev/rollout to now"), "{}", waits.message);
        let others: Vec<Moving> = moving(10).split_off(5);
        assert_eq!(told(&others, limits(5, 0), 40), waits);
        let stuck = told(&moving(5), limits(5, 0), 601).message;
        assert!(stuck.contains("FlinkHaCluster flink/c0, flink/c1, flink/c2 and 2 more; see"), "{stuck}");
        let delayed = told(&[], limits(0, 30), 20);
        assert_eq!(delayed.look_again, Duration::from_secs(10));
        assert!(delayed.message.contains("30 s after one another (rollout.delay)"), "{}", delayed.message);
    }
}
