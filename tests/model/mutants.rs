//! Rules switched off one at a time, between the elector and the world: production code knows nothing of it. For each
//! the search must find a counterexample, or the rule is not needed.

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The API server takes a PUT whatever its resourceVersion.
    PutWithoutVersion,
    /// Flink does not write back the stamp that it read, and the gateway does not refuse it.
    StampNotReturned,
    DeleteWithoutPrecondition,
    PostWithData,
    LeaseWithoutCas,
    JobsNotStamped,
    /// What had been looked up before the cluster ConfigMap was stamped is all that is stamped.
    JobsListedFirst,
    MissingNotCreated,
    ShownBeforeStamped,
    NoStampAfterRestart,
    SameTermForNewJvm,
    /// A process that asks for the lock takes the place of the JVM, though that lives.
    StrangerCounts,
    /// A stamp that is not lower is written over. After the Lease was deleted, term numbers begin anew.
    StampsLowered,
    NotToldBeforeCampaign,
    /// A holder is taken for gone when the time it wrote is older than the duration.
    WallClocks,
    /// A failed quorum read counts as one that shows no change.
    OutageIsSilence,
    /// Validity counts from a write's answer, however late it comes.
    LateAnswersExtend,
    /// A write without an answer is taken for not applied, so that a conflict means that somebody else wrote.
    UnknownIsFailed,
    /// A write without an answer is taken for applied.
    UnknownIsApplied,
    /// A quorum read counts although a write ended since it began.
    OvertakenReadsCount,
    /// A Lease without a holder is free, whoever emptied it.
    EmptiedIsFree,
    /// Stamping has no deadline.
    StampingUnbounded,
    /// Whoever was told to hand over stands back for ever.
    HandOverForGood,
    /// A leader is one even after its validity has ended, if its gateway stands still.
    ValidityIgnored,
    /// Lock requests of a hung JVM are made up.
    HungJvmRenews,
    /// A member does not remember that it promised.
    PromiseForgotten,
    /// A member takes the Lease although its promise has not ended.
    PromiseNotKept,
    /// A member does not allow for clocks that drift.
    PromiseWithoutDrift,
    /// A promise counts from its answer.
    PromiseFromAnswer,
    /// The promise of one member counts for all.
    OnePromiseSuffices,
    /// Members are listed that the holder does not know of.
    MembersNotCounted,
    /// A member that takes the Lease, or refuses the holder, promises all the same.
    RefusalIsPromise,
    /// A holder is taken for silent although nobody could write.
    ProbesIgnored,
}

impl Mutant {
    /// The invariant of [`pure::lease`] that it breaks, or what else.
    pub fn rule(self) -> &'static str {
        match self {
            Self::LeaseWithoutCas => "I1",
            Self::StampsLowered => "I2",
            Self::SameTermForNewJvm | Self::NoStampAfterRestart | Self::StrangerCounts => "I3",
            Self::ShownBeforeStamped | Self::JobsNotStamped | Self::JobsListedFirst | Self::MissingNotCreated => "I4",
            Self::LateAnswersExtend | Self::ValidityIgnored => "I5",
            Self::WallClocks | Self::OutageIsSilence | Self::EmptiedIsFree | Self::ProbesIgnored => "I6",
            Self::UnknownIsFailed | Self::UnknownIsApplied | Self::OvertakenReadsCount => "I7",
            Self::HungJvmRenews => "I8",
            Self::NotToldBeforeCampaign => "I9",
            Self::StampingUnbounded | Self::HandOverForGood => "I10",
            Self::PromiseForgotten
            | Self::PromiseNotKept
            | Self::PromiseWithoutDrift
            | Self::PromiseFromAnswer
            | Self::OnePromiseSuffices
            | Self::MembersNotCounted
            | Self::RefusalIsPromise => "I11",
            Self::PutWithoutVersion | Self::StampNotReturned | Self::DeleteWithoutPrecondition | Self::PostWithData => {
                "form of writes"
            }
        }
    }
}
