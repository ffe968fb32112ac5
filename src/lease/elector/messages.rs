//! What an elector is told, what it says is to be done, and what its JVM is to see.

use std::time::Duration;

use crate::lease::elector::Time;
use crate::lease::record::{Member, Record};
use crate::lease::term::{Incarnation, Term};

/// What came in. Results of I/O carry the time at which the request was *started*.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A quorum read of the Lease ended.
    LeaseRead { started: Time, outcome: Read },
    /// A watch showed the Lease. May be stale: it starts actions and proves nothing.
    LeaseSeen { version: String, record: Record },
    /// A write of the Lease ended.
    LeaseWritten { attempt: u64, outcome: Write },
    /// Stamping of a term ended.
    Stamped { term: Term, outcome: Stamping },
    /// The proxy found a stamp that is not lower than ours and not ours.
    StampSeen { stamp: Term },
    /// A Flink JVM asked for the lock. It is ours, unless ours is another one that is not known to have ended.
    JvmHeard { jvm: Incarnation },
    /// The process is alive, though it may not have asked yet: answer to [`Action::FindJvm`].
    JvmFound { jvm: Incarnation },
    /// The process has ended: the kernel says so. That it cannot be looked at says nothing.
    JvmDied { jvm: Incarnation },
    /// The JVM's own lock write of this term is stored: it leads. `at`: wall clock, for people.
    JvmTookLock { term: Term, at: String, lock: String },
    /// The JVM wrote an empty holder: it gives up by itself.
    JvmResigned,
    /// The JVM was answered with a foreign holder.
    JvmTold { jvm: Incarnation },
    /// The pod begins to terminate. Told again, it counts from then.
    PodTerminating,
    /// No job is just ending, or that took too long: answer to [`Action::AwaitJobs`].
    JobsSettled { term: Term },
    /// A candidate wants to be listed as a member of our term.
    PeerJoined { member: Member },
    /// A peer promises, for as long as it was asked for, from the time at which it was asked. `leaving`: it will soon
    /// be gone.
    PeerPromised { term: Term, pod_uid: String, asked: Time, leaving: bool },
    /// A peer refuses: it is going to take the Lease, or knows of a later term.
    PeerRefused { term: Term },
    /// The holder of this term asks for a promise.
    PromiseAsked { ask: u64, term: Term, duration: Duration },
    /// Answer to [`Action::Ping`]: does the holder's machine answer, be it by refusing the connection?
    Pinged { answered: bool },
    /// Answer to [`Action::ProbeWrite`].
    Probed { written: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // one at a time, never stored
pub enum Read {
    Found { version: String, record: Record },
    Absent,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Done {
        version: String,
    },
    /// Conflict, error or time-out: it may have been applied (I7).
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stamping {
    Done,
    /// Some object carries this stamp, which is not lower than the term.
    Higher(Term),
    Failed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant)] // few at a time, never stored
pub enum Action {
    /// Quorum read of the Lease.
    ReadLease,
    /// Write the Lease if its resourceVersion is still `version`; never retried by the client.
    WriteLease { attempt: u64, version: String, record: Record },
    /// Stamp the cluster ConfigMap, then all job ConfigMaps. `keep_holder`: leave Flink's lock annotation as it is.
    Stamp { term: Term, keep_holder: bool },
    /// Look whether this process is alive.
    FindJvm { jvm: Incarnation },
    /// End this process.
    EndJvm { jvm: Incarnation, why: &'static str },
    /// Make the leader's address known.
    Publish { term: Term },
    /// Before a planned switchover: wait until no job is just ending.
    AwaitJobs { term: Term },
    /// Ask these peers for their promises.
    AskPromises { term: Term, duration: Duration, members: Vec<Member> },
    /// Answer [`Event::PromiseAsked`].
    AnswerPromise { ask: u64, answer: Answer },
    /// Ask the holder to list this candidate as a member.
    Join { holder: String, member: Member },
    /// Find out whether the holder's machine answers at all.
    Ping { holder: String },
    /// Find out whether the API server stores what this candidate writes.
    ProbeWrite,
}

/// What a peer answers when it is asked not to take the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Promised,
    /// Promised, and it will soon be gone: better not to rest on it.
    Leaving,
    Refused,
}

/// What the JVM is to see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockView {
    /// Not known yet (the gateway has just started): let the JVM wait a little.
    Undecided,
    /// A foreign holder. `told`: the JVM has seen it already, so its request may be held until something changes.
    Standby { acknowledged: bool },
    /// A free lock, or after a restart of the gateway the stored one, until the given time.
    Free { term: Term, until: Time },
    /// Its own lock, until the given time.
    Leader { term: Term, until: Time },
}
