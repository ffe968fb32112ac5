//! The election of one cluster's leading JobManager: its words ([`term`], [`record`]) and its state machine
//! ([`elector`]).
//!
//! No I/O, no clock, no async here: time comes in with every event, and what is to be done goes out as
//! [`elector::Action`]s. The gateway and the model checker run this same code.
//!
//! Invariants, by number; tests name the number that they check.
//!
//! * **I1 compare-and-swap.** Every write of the Lease carries the resourceVersion of the record that the decision was
//!   made on.
//! * **I2 terms rise.** A tenure begins with a term number above the Lease's and above every stamp seen, so that a
//!   deleted or edited Lease cannot rewind it.
//! * **I3 a term is one JVM under one gateway process.** A new JVM process or a new gateway process takes a new term.
//! * **I4 stamped before shown.** The JVM is shown a free lock only when every HA ConfigMap carries the stamp of the
//!   term held now.
//! * **I5 validity.** The JVM is shown that it leads only before `start of the last successful write + renew deadline`,
//!   or with members before the first of their promises ends (I11). An answer that comes later than that does not
//!   revive a tenure.
//! * **I6 silence is measured here.** A foreign record counts as silent only over intervals between consecutive
//!   successful quorum reads that show the same resourceVersion, on the local monotonic clock. Timestamps of other
//!   machines decide nothing; an unreachable API server is not silence. A free record is waited for as well, unless it
//!   was given back, or never held.
//! * **I7 unknown is read.** A write that failed, conflicted or timed out may have been applied: a quorum read decides,
//!   no retry.
//! * **I8 only a living JVM campaigns or renews.** Its lock requests are its heartbeat.
//! * **I9 a former leader is told.** A JVM that was shown the lock and lost it sees a foreign holder at its next
//!   request; until then its gateway does not campaign; one that does not ask in time is ended.
//! * **I10 grants are bounded.** A tenure that cannot stamp, or whose JVM does not take the lock in time, is given
//!   back, and its gateway lets others go first. So is a hand-over: a pod that has not ended within its grace period
//!   after it was told to hand over stands for election again.
//! * **I11 promises bind.** A holder with members is valid while all of them promise, each from the moment at which it
//!   was asked. Who is a member stands in the Lease. A member takes a held Lease only after its promise has ended; who
//!   is not listed waits for the duration of the Lease and of a promise. While a member takes the Lease, or once it
//!   refuses, it does not promise.

pub mod elector;
pub mod record;
pub mod stamp;
pub mod term;
