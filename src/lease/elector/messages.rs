//! Defines the elector's input (events), its output (actions), and its view of the lock for the JVM.

use std::time::Duration;

use crate::lease::elector::Time;
use crate::lease::record::{Member, Record};
use crate::lease::term::{Incarnation, Term};

/// Input of the elector. A result of I/O carries the time at which the request *started*, where that matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A quorum read of the Lease ended.
    LeaseRead { started: Time, outcome: Read },
    /// A watch showed the Lease. It may be stale, so it triggers actions and proves nothing.
    LeaseSeen { version: String, record: Record },
    /// A write of the Lease ended.
    LeaseWritten { attempt: u64, outcome: Write },
    /// The stamping of a term ended.
    Stamped { term: Term, outcome: Stamping },
    /// The proxy found a stamp that is neither lower than ours nor ours.
    StampSeen { stamp: Term },
    /// A Flink JVM asked for the lock. It becomes ours unless another JVM is ours and is not known to have ended.
    JvmHeard { jvm: Incarnation },
    /// The process is alive, though it may not have asked for the lock yet. Answers [`Action::FindJvm`].
    JvmFound { jvm: Incarnation },
    /// The kernel says that the process has ended. A process that cannot be examined is not reported.
    JvmDied { jvm: Incarnation },
    /// The JVM's own lock write of this term is stored, so the JVM leads. `at`: wall clock, for display; `lock`: the
    /// holder identity that Flink wrote.
    JvmTookLock { term: Term, at: String, lock: String },
    /// The JVM wrote an empty holder: it gives up the leadership by itself.
    JvmResigned,
    /// The gateway answered the JVM with a foreign holder.
    JvmTold { jvm: Incarnation },
    /// The pod begins to terminate. A repeated event restarts the time limit.
    PodTerminating,
    /// No job is ending, or waiting for it took too long. Answers [`Action::AwaitJobs`].
    JobsSettled { term: Term },
    /// A candidate asks to be listed as a member of our term.
    PeerJoined { member: Member },
    /// A peer promises, for the duration that was asked for, counted from `asked`. `leaving`: its pod terminates.
    PeerPromised { term: Term, pod_uid: String, asked: Time, leaving: bool },
    /// A peer refuses: it takes the Lease, it knows a later term, or it can write while the holder cannot.
    PeerRefused { term: Term },
    /// The holder of this term asks this candidate for a promise.
    PromiseAsked { ask: u64, term: Term, duration: Duration },
    /// Answers [`Action::Ping`]. `answered`: the holder's machine accepted or refused the connection.
    Pinged { answered: bool },
    /// Answers [`Action::ProbeWrite`].
    Probed { written: bool },
}

/// Result of a quorum read of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // one at a time, never stored
pub enum Read {
    Found { version: String, record: Record },
    Absent,
    Failed,
}

/// Result of a write of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Done {
        version: String,
    },
    /// Conflict, error or time-out: the write may have been applied (I7).
    Unknown,
}

/// Result of the stamping of all HA ConfigMaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stamping {
    Done,
    /// An object carries this stamp, which is not lower than the term.
    Higher(Term),
    Failed,
}

/// Output of the elector: what its caller must do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // few at a time, never stored
pub enum Action {
    /// Read the Lease by quorum.
    ReadLease,
    /// Write the Lease if its resourceVersion is still `version`. The client must not retry.
    WriteLease { attempt: u64, version: String, record: Record },
    /// Stamp the cluster ConfigMap, then all job ConfigMaps. `keep_holder`: leave Flink's lock annotation as it is.
    Stamp { term: Term, keep_holder: bool },
    /// Find out whether this process is alive.
    FindJvm { jvm: Incarnation },
    /// End this process.
    EndJvm { jvm: Incarnation, why: &'static str },
    /// Publish the leader's address.
    Publish { term: Term },
    /// Before a planned switchover: wait until no job is ending.
    AwaitJobs { term: Term },
    /// Ask these peers for their promises.
    AskPromises { term: Term, duration: Duration, members: Vec<Member> },
    /// Answer [`Event::PromiseAsked`].
    AnswerPromise { ask: u64, answer: Answer },
    /// Ask the holder to list this candidate as a member.
    Join { holder: String, member: Member },
    /// Find out whether the holder's machine answers at all.
    Ping { holder: String },
    /// Find out whether the API server stores a write of this candidate.
    ProbeWrite,
}

/// A peer's answer to a request not to take the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Promised,
    /// Promised, but the pod terminates: the holder should not rest on this promise.
    Leaving,
    Refused,
}

/// The state of the lock that the gateway shows its JVM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockView {
    /// Not known yet (the gateway has just started): the JVM's request waits.
    Undecided,
    /// A foreign holder. `acknowledged`: the JVM has seen it already, so the gateway may hold its request until
    /// something changes.
    Standby { acknowledged: bool },
    /// A free lock, or after a restart of the gateway the stored one, until the given time.
    Free { term: Term, until: Time },
    /// The JVM's own lock, until the given time.
    Leader { term: Term, until: Time },
}
