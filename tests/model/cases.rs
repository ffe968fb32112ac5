//! Where each rule is missed.

use std::time::Duration;

use pure::lease::elector::Settings;

use super::configurations::SLOW_AND_FAST;
use super::configurations::base;
use super::faults::Fault;
use super::faults::Fault::*;
use super::model::Model;
use super::model::peer_settings;
use super::model::settings;
use super::mutants::Mutant;
use super::properties::L1;
use super::properties::L2;
use super::properties::L3;
use super::properties::L4;
use super::properties::L5;
use super::properties::S1;
use super::properties::S1_EMPTY;
use super::properties::S2;
use super::properties::S3;
use super::properties::S4;
use super::properties::S5;
use super::world::Operation;
use super::world::Operation::*;
use super::world::TICK;

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
    pub candidates: usize,
    /// With peers: how long a promise lasts, the renew deadline, and the duration, in ticks.
    pub promises: Option<(u64, u64, u64)>,
    /// Pairs without a way between them from the start.
    pub cut: u8,
    /// Clocks of the first candidate and of the others.
    pub rates: [u64; 2],
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
    candidates: 2,
    promises: None,
    cut: 0,
    rates: [TICK; 2],
};

/// A leader whose peer promises.
const PEERS: Case = Case { promises: Some((2, 3, 4)), done: &[], ..CASE };

pub const CASES: [Case; 33] = [
    Case {
        mutant: Mutant::PutWithoutVersion,
        breaks: &[S1, S3],
        operations: &[Checkpoint(0)],
        writes: 1,
        faults: &[CrashGateway],
        ..CASE
    },
    Case {
        mutant: Mutant::StampNotReturned,
        breaks: &[S1, S3],
        operations: &[Checkpoint(0)],
        writes: 2,
        faults: &[FreezeMachine],
        ..CASE
    },
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
    Case {
        mutant: Mutant::JobsNotStamped,
        breaks: &[S1, S2],
        operations: &[Checkpoint(0)],
        writes: 1,
        faults: &[CrashGateway],
        ..CASE
    },
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
    Case { mutant: Mutant::StrangerCounts, breaks: &[L4], faults: &[StrangerAsks], ..CASE },
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
    Case { mutant: Mutant::HandOverForGood, breaks: &[L1], faults: &[TerminatePod], budget: 2, ..CASE },
    Case { mutant: Mutant::ValidityIgnored, breaks: &[S4], faults: &[PauseGateway], ..CASE },
    Case { mutant: Mutant::HungJvmRenews, breaks: &[L1], faults: &[HangJvm], ..CASE },
    Case { mutant: Mutant::ProbesIgnored, breaks: &[L5], faults: &[RefuseWrites], ..PEERS },
    Case { mutant: Mutant::PromiseForgotten, breaks: &[S4], faults: &[Partition], ..PEERS },
    Case { mutant: Mutant::PromiseNotKept, breaks: &[S4], faults: &[Partition], ..PEERS },
    Case {
        mutant: Mutant::PromiseWithoutDrift,
        breaks: &[S4],
        faults: &[Partition, CutPair],
        budget: 2,
        promises: Some((3, 4, 5)),
        rates: SLOW_AND_FAST,
        ..PEERS
    },
    Case { mutant: Mutant::PromiseFromAnswer, breaks: &[S4], faults: &[PauseGateway], ..PEERS },
    Case {
        mutant: Mutant::OnePromiseSuffices,
        breaks: &[S4],
        faults: &[CutPair],
        candidates: 3,
        promises: Some((2, 5, 6)),
        ..PEERS
    },
    Case {
        mutant: Mutant::MembersNotCounted,
        breaks: &[S4],
        faults: &[Partition],
        promises: Some((2, 5, 6)),
        cut: 1,
        ..PEERS
    },
    Case { mutant: Mutant::RefusalIsPromise, breaks: &[S4], faults: &[Partition], ..PEERS },
];

impl Case {
    /// What is searched with the rule.
    pub fn with_rule(&self) -> Model {
        let model = Model {
            leading: self.leading,
            done: self.done.to_vec(),
            operations: self.operations.to_vec(),
            writes: self.writes,
            faults: self.faults.to_vec(),
            budget: self.budget,
            checks: self.breaks.to_vec(),
            settings: match self.promises {
                Some((promise, renew_deadline, duration)) => peer_settings(promise, renew_deadline, duration),
                // L4 is about a leader that can do without one renewal.
                None if self.breaks.contains(&L4) => settings(6, 5),
                None => settings(3, 2),
            },
            candidates: self.candidates,
            peers: self.promises.is_some(),
            prompt: self.promises.is_some(),
            cut: self.cut,
            rates: vec![(0..self.candidates).map(|c| self.rates[c.min(1)]).collect()],
            deadline: 10,
            ..base()
        };
        // So that a gateway that stands still does not take its JVM for hung first.
        if self.mutant == Mutant::PromiseFromAnswer { Self::patient(model) } else { model }
    }

    fn patient(model: Model) -> Model {
        let jvm_timeout = Duration::from_secs(7);
        Model { settings: Settings { jvm_timeout, ..model.settings }, ..model }
    }

    pub fn without_rule(&self) -> Model {
        let mut model = Model { mutant: Some(self.mutant), ..self.with_rule() };
        if self.mutant == Mutant::StampingUnbounded {
            model.settings.stamp_deadline = Duration::from_secs(1000);
        }
        if self.mutant == Mutant::HandOverForGood {
            model.settings.hand_over = Duration::from_secs(1000);
        }
        model
    }
}
