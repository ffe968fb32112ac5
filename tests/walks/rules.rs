//! Rules switched off one at a time, between the product's functions and the world: the product knows nothing of it.
//! For each the walks must find a violation, or the rule is not needed.

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The operator does not wait for the pods of the former version.
    PodsNotAwaited,
    /// Pods of a first start that is not written down are not waited for.
    FirstStartForgotten,
    /// Pods without the labels of the cluster count as gone.
    LabelsProvePresence,
    /// A deletion does not wait for pods in phase `Failed`.
    FailedPodsAreGone,
    /// The Lease of a process without a pod is not looked at.
    LeaseNotAwaited,
    /// The number of the start stays when pods are started anew.
    StartNotRaised,
    /// A gateway does not look for a later start.
    LaterStartNotChecked,
    /// A gateway does not compare the mark with its own version.
    MarkNotCompared,
    /// A gateway supersedes runs that the operator does not name.
    UnnamedSuperseded,
    /// The operator names no runs to replace.
    NoRunNamed,
    /// A gateway looks neither for tombstones nor for results.
    EndsNotChecked,
    /// The mark is written before the ledger.
    MarkFirst,
    /// The end of a job that is being stopped is noted before the savepoint's answer.
    EndBeforeAnswer,
    /// A version that begins once more forgets what it found at first.
    FoundForgotten,
    /// A lost ledger is an empty one: the mark beside the data is not read.
    MarkNotRead,
    /// The ledger is read from a cache only.
    LedgerFromCache,
    /// The status is read from a cache only.
    StatusFromCache,
    /// A key that cannot be read is empty.
    TornIsEmpty,
    /// Data of jobs that have not ended goes although it is to be retained.
    NothingRetained,
    /// The API server takes writes of a former term.
    NotFenced,
    /// The operator does not look for an end.
    EndsNotSeen,
    /// The status says that a run has ended before what it has left is removed.
    RemovalAfterStatus,
    /// The operator decides by what a late watch shows of a Deployment that it has just written.
    WritesForgotten,
}

/// The rules that hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules(pub Option<Mutant>);

impl Rules {
    pub fn lack(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }
}
