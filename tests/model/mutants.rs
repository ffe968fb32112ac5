//! Rules switched off one at a time, between the elector and the world: production code knows nothing of it. For each the search must
//! find a counterexample, or the rule is not needed.

use std::time::Duration;

use super::configurations::base;
use super::faults::Fault::{self, *};
use super::model::{Model, settings};
use super::properties::{L1, L2, L3, L4, S1, S1_EMPTY, S2, S3, S4, S5};
use super::world::Operation::{self, *};

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
    /// A leader is one even after its validity has ended, if its gateway stands still.
    ValidityIgnored,
    /// Lock requests of a hung JVM are made up.
    HungJvmRenews,
}

impl Mutant {
    /// The invariant of [`pure::lease`] that it breaks, or what else.
    pub fn rule(self) -> &'static str {
        match self {
            Self::LeaseWithoutCas => "I1",
            Self::StampsLowered => "I2",
            Self::SameTermForNewJvm | Self::NoStampAfterRestart => "I3",
            Self::ShownBeforeStamped | Self::JobsNotStamped | Self::JobsListedFirst | Self::MissingNotCreated => "I4",
            Self::LateAnswersExtend | Self::ValidityIgnored => "I5",
            Self::WallClocks | Self::OutageIsSilence | Self::EmptiedIsFree => "I6",
            Self::UnknownIsFailed | Self::UnknownIsApplied | Self::OvertakenReadsCount => "I7",
            Self::HungJvmRenews => "I8",
            Self::NotToldBeforeCampaign => "I9",
            Self::StampingUnbounded => "I10",
            Self::PutWithoutVersion | Self::StampNotReturned | Self::DeleteWithoutPrecondition | Self::PostWithData => "form of writes",
        }
    }
}

/// A mutant, where to look for it, and the properties of which it must break one.
pub struct Case {
    pub mutant: Mutant,
    pub breaks: &'static [&'static str],
    pub leading: bool,
    pub done: &'static [Operation],
    pub operations: &'static [Operation],
    pub writes: u8,
    pub faults: &'static [Fault],
    pub budget: u8,
}

const RUNNING: &[Operation] = &[Register(0), Create(0), Checkpoint(0)];

const CASE: Case = Case {
    mutant: Mutant::PutWithoutVersion,
    breaks: &[],
    leading: true,
    done: RUNNING,
    operations: &[],
    writes: 0,
    faults: &[],
    budget: 1,
};

pub const CASES: [Case; 23] = [
    Case { mutant: Mutant::PutWithoutVersion, breaks: &[S1, S3], operations: &[Checkpoint(0)], writes: 1, faults: &[CrashGateway], ..CASE },
    Case { mutant: Mutant::StampNotReturned, breaks: &[S1, S3], operations: &[Checkpoint(0)], writes: 2, faults: &[FreezeMachine], ..CASE },
    Case {
        mutant: Mutant::DeleteWithoutPrecondition,
        breaks: &[S1, S3],
        operations: &[Delete(0)],
        writes: 1,
        faults: &[CrashGateway],
        ..CASE
    },
    Case {
        mutant: Mutant::PostWithData,
        breaks: &[S1],
        done: &[Register(0)],
        operations: &[Create(0), Delete(0)],
        writes: 2,
        faults: &[CrashGateway],
        ..CASE
    },
    Case { mutant: Mutant::LeaseWithoutCas, breaks: &[S2, S4], leading: false, done: &[], budget: 0, ..CASE },
    Case { mutant: Mutant::JobsNotStamped, breaks: &[S1, S2], operations: &[Checkpoint(0)], writes: 1, faults: &[CrashGateway], ..CASE },
    Case {
        mutant: Mutant::JobsListedFirst,
        breaks: &[S1, S2],
        done: &[],
        operations: RUNNING,
        writes: 3,
        faults: &[FreezeMachine],
        ..CASE
    },
    Case {
        mutant: Mutant::MissingNotCreated,
        breaks: &[S1_EMPTY],
        done: &[Register(0)],
        operations: &[Create(0)],
        writes: 1,
        faults: &[CrashGateway],
        ..CASE
    },
    Case { mutant: Mutant::ShownBeforeStamped, breaks: &[S2], faults: &[KillJvm], ..CASE },
    Case {
        mutant: Mutant::NoStampAfterRestart,
        breaks: &[S1, S2],
        operations: &[Checkpoint(0)],
        writes: 1,
        faults: &[CrashGateway],
        ..CASE
    },
    Case {
        mutant: Mutant::SameTermForNewJvm,
        breaks: &[S1, S3],
        operations: &[Checkpoint(0)],
        writes: 1,
        faults: &[KillJvm, HoldRequest],
        budget: 2,
        ..CASE
    },
    Case { mutant: Mutant::StampsLowered, breaks: &[S2], faults: &[CrashGateway, DeleteLease], budget: 2, ..CASE },
    Case { mutant: Mutant::NotToldBeforeCampaign, breaks: &[S5], faults: &[CrashGateway, KillJvm], budget: 2, ..CASE },
    Case { mutant: Mutant::WallClocks, breaks: &[S4, L2], budget: 0, ..CASE },
    Case { mutant: Mutant::OutageIsSilence, breaks: &[L3], faults: &[Outage], ..CASE },
    Case { mutant: Mutant::LateAnswersExtend, breaks: &[S4], faults: &[KillJvm, HoldAnswer], budget: 2, ..CASE },
    Case { mutant: Mutant::UnknownIsFailed, breaks: &[L4], faults: &[HoldAnswer], ..CASE },
    Case { mutant: Mutant::UnknownIsApplied, breaks: &[S4], faults: &[Partition], ..CASE },
    Case { mutant: Mutant::OvertakenReadsCount, breaks: &[L4], faults: &[KillJvm, HoldAnswer], budget: 2, ..CASE },
    Case { mutant: Mutant::EmptiedIsFree, breaks: &[S4], faults: &[ClearHolder], ..CASE },
    Case { mutant: Mutant::StampingUnbounded, breaks: &[L1], faults: &[KillJvm, HoldRequest], budget: 2, ..CASE },
    Case { mutant: Mutant::ValidityIgnored, breaks: &[S4], faults: &[PauseGateway], ..CASE },
    Case { mutant: Mutant::HungJvmRenews, breaks: &[L1], faults: &[HangJvm], ..CASE },
];

impl Case {
    /// What is searched with the rule.
    pub fn with_rule(&self) -> Model {
        Model {
            leading: self.leading,
            done: self.done.to_vec(),
            operations: self.operations.to_vec(),
            writes: self.writes,
            faults: self.faults.to_vec(),
            budget: self.budget,
            checks: self.breaks.to_vec(),
            // L4 is about a leader that can do without one renewal.
            settings: if self.breaks.contains(&L4) { settings(6, 5) } else { settings(3, 2) },
            deadline: 10,
            ..base()
        }
    }

    pub fn without_rule(&self) -> Model {
        let mut model = Model { mutant: Some(self.mutant), ..self.with_rule() };
        if self.mutant == Mutant::StampingUnbounded {
            model.settings.stamp_deadline = Duration::from_secs(1000);
        }
        model
    }
}
