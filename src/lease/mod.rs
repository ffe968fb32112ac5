//! Elects the leading JobManager of one cluster: the data ([`term`], [`record`], [`stamp`]) and the state machine
//! ([`elector`]).
//!
//! This room has no I/O, no clock and no async. Each event carries the time, and the state machine returns
//! [`elector::Action`]s for its caller to carry out. The gateway and the model checker run the same code.
//!
//! The invariants have numbers. A test names the number that it checks.
//!
//! * **I1 compare-and-swap.** Every write of the Lease carries the resourceVersion of the record on which the decision
//!   was made.
//! * **I2 terms rise.** A tenure begins with a term number above the Lease's and above every stamp seen, so a deleted
//!   or edited Lease cannot rewind it.
//! * **I3 a term is one JVM under one gateway process.** A new JVM process or a new gateway process takes a new term.
//! * **I4 stamped before shown.** The gateway shows the JVM a free lock only when every HA ConfigMap carries the stamp
//!   of the current term.
//! * **I5 validity.** The gateway shows the JVM its leadership only before
//!   `start of the last successful write + renew deadline`, or, with members, before the first of their promises ends
//!   (I11). A write whose result arrives later does not revive a tenure.
//! * **I6 silence is measured here.** A foreign record counts as silent only over intervals between consecutive
//!   successful quorum reads that show the same resourceVersion, on the local monotonic clock. Timestamps of other
//!   machines decide nothing. An unreachable API server is not silence. A candidate waits for the silence of a free
//!   record too, unless its holder released it or nobody ever held it.
//! * **I7 unknown is read.** A write that failed, conflicted or timed out may have been applied. The candidate does not
//!   retry it; a quorum read decides.
//! * **I8 only a living JVM campaigns or renews.** The JVM's lock requests are its heartbeat.
//! * **I9 a former leader is told.** A JVM that was shown the lock and lost it sees a foreign holder at its next
//!   request. Its gateway does not campaign before that. The gateway ends a JVM that does not ask in time.
//! * **I10 grants are bounded.** A gateway releases the Lease if it cannot stamp, or if its JVM does not take the lock
//!   in time, and then lets others campaign first. A hand-over is bounded too: a pod that still runs after its grace
//!   period campaigns again.
//! * **I11 promises bind.** A holder with members is valid while all of them promise, each from the moment at which it
//!   was asked. The Lease lists the members. A member takes a held Lease only after its promise has ended; a candidate
//!   that is not listed waits for the duration of the Lease and of a promise. A member does not promise while it takes
//!   the Lease, nor after it has refused.

pub mod elector;
pub mod record;
pub mod stamp;
pub mod term;
pub mod unchanged;
