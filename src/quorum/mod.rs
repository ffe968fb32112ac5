//! Who leads by ZooKeeper's latch: the state machine of one gateway, `step(now, event) → actions`.
//!
//! Flink elects by itself: the lowest latch node leads. A gateway takes a term for the latch of its JVM, examines what
//! is stored, lets the JVM store jobs, and makes known that it leads. Of an application it also decides when a JVM is
//! let in to the quorum, and holds the leader's place by a latch node of its own while it takes over what another
//! version stored. [`crate::gateway::quorum`] carries the actions out.
//!
//! The rules. `tests/model/quorum` switches each off and shows what breaks.
//!
//! | | rule |
//! |---|---|
//! | Q1 | A latch is ours if its session is that of a process of our JVM that has not ended, or of our own client. |
//! | Q2 | Each latch gets a term of its own: above the ledger's, by compare-and-swap, if the latch is there after the ledger was read. So terms rise in the order of latches. |
//! | Q3 | Nothing is stored and nothing is granted before the HA data was examined in the latch's term. It is examined again after another latch, another term, or another session of our own. A JVM stores by the latch that was examined, not by one for which it has stood since. |
//! | Q4 | The grant waits until Flink has published its address by the session of the latch. |
//! | Q5 | A gateway takes over and cleans up only by a latch of its own that is the lowest, in its term; each transaction checks that latch. |
//! | Q6 | A JVM that leads where it must not is shut out and ended; so is one that is frozen when its latch is gone. |
//! | Q7 | Of what was asked for a latch or a term that is not ours any more, no answer counts. |
//! | Q8 | With the latch everything ends that rests on it: the right to store, the grant, our own transactions. The ledger is told why. |
//! | Q9 | A JVM of an application is let in when what is stored is its version's own, and our own latch is gone. |

mod leadership;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::lease::term::Incarnation;
pub use leadership::Leadership;
pub use messages::{Action, Event, Finding, Request, RequestOutcome, View};

/// Timings; none decides about safety.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Before what failed is tried again.
    pub retry_interval: Duration,
    /// Between looks at what others do.
    pub poll_interval: Duration,
    /// Between looks at an application that has ended.
    pub ended_interval: Duration,
    /// A JVM whose pod terminates ends its session itself within this time; the gateway ends it otherwise.
    pub session_end_timeout: Duration,
    /// A pod that has not ended this long after it was said to terminate does not terminate.
    pub hand_over: Duration,
}

impl Settings {
    pub fn new(hand_over: Duration) -> Self {
        Self {
            retry_interval: Duration::from_secs(1),
            poll_interval: Duration::from_millis(200),
            ended_interval: Duration::from_secs(2),
            session_end_timeout: Duration::from_secs(3),
            hand_over,
        }
    }
}

/// A candidate in the election, by its latch node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    pub path: String,
    /// Session that holds it.
    pub session: i64,
}

/// A session that went through this gateway, and the process that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// `None` when the process could not be looked at.
    pub jvm: Option<Incarnation>,
    /// As negotiated.
    pub timeout: Duration,
}

/// What is known of the JVM and its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sessions {
    /// Sessions that may still live, by id.
    pub by_id: BTreeMap<i64, Held>,
    /// The Flink JVM that connected last.
    pub jvm: Option<Incarnation>,
    /// Processes that have ended and whose sessions may still live, and the one that ended last.
    pub ended: BTreeSet<Incarnation>,
}

impl Sessions {
    /// The process that holds this session, if it is our JVM and has not ended. A dead one's session lives until it is
    /// closed (Q1).
    pub fn holder(&self, session: i64) -> Option<Incarnation> {
        self.by_id.get(&session)?.jvm.filter(|jvm| !self.ended.contains(jvm))
    }
}
