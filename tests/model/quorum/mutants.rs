//! Rules switched off one at a time, between the state machine and the world: production code knows nothing of it. For
//! each the search must find a counterexample, or the rule is not needed.

use super::faults::Fault::{self, *};
use super::model::Model;
use super::properties::*;

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A process that has ended holds its session.
    DeadHolds,
    /// Only the process that ended last is known to have ended.
    OnlyLastEnded,
    /// A term is taken without a look whether the latch is still there.
    TermWithoutLatch,
    /// The ledger is written whatever has been written since it was read.
    TermWithoutVersion,
    /// What is stored is taken for one's own.
    NotExamined,
    /// A JVM that stands for election anew by the same session goes on storing.
    StoresByNewLatch,
    /// The transaction does not check the gateway's latch.
    TakeOverWithoutLatch,
    /// A JVM is let in without being asked for.
    EntersAtOnce,
    /// A JVM that leads where it must not stays.
    NobodyIsEnded,
}

/// A mutant, where to look for it, and the properties of which it must break one.
pub struct Case {
    pub mutant: Mutant,
    pub rule: &'static str,
    pub breaks: &'static [&'static str],
    pub faults: &'static [Fault],
    pub budget: u8,
    pub upgrade: bool,
    pub leading: bool,
    pub gateways: usize,
}

const CASE: Case = Case {
    mutant: Mutant::DeadHolds,
    rule: "",
    breaks: &[],
    faults: &[],
    budget: 1,
    upgrade: false,
    leading: true,
    gateways: 2,
};

pub const CASES: [Case; 9] = [
    Case { mutant: Mutant::DeadHolds, rule: "Q1", breaks: &[S8], faults: &[KillJvm], ..CASE },
    Case {
        mutant: Mutant::OnlyLastEnded,
        rule: "Q1",
        breaks: &[S8],
        faults: &[KillJvm],
        budget: 2,
        gateways: 1,
        ..CASE
    },
    Case { mutant: Mutant::TermWithoutLatch, rule: "Q2", breaks: &[S6], faults: &[KillJvm], leading: false, ..CASE },
    Case {
        mutant: Mutant::TermWithoutVersion,
        rule: "Q2",
        breaks: &[S3, S6],
        faults: &[KillJvm],
        leading: false,
        ..CASE
    },
    Case { mutant: Mutant::NotExamined, rule: "Q3", breaks: &[S2], upgrade: true, faults: &[KillJvm], ..CASE },
    Case { mutant: Mutant::StoresByNewLatch, rule: "Q3", breaks: &[S2], upgrade: true, faults: &[StandAnew], ..CASE },
    Case {
        mutant: Mutant::TakeOverWithoutLatch,
        rule: "Q5",
        breaks: &[S7],
        upgrade: true,
        faults: &[KillJvm, ExpireGateway],
        budget: 2,
        ..CASE
    },
    Case { mutant: Mutant::EntersAtOnce, rule: "Q9", breaks: &[S9], upgrade: true, faults: &[KillJvm], ..CASE },
    Case {
        mutant: Mutant::NobodyIsEnded,
        rule: "Q6",
        breaks: &[L1],
        upgrade: true,
        faults: &[FreezeJvm, ExpireJvm],
        budget: 2,
        ..CASE
    },
];

impl Case {
    /// What is searched with the rule.
    pub fn with_rule(&self) -> Model {
        let base = || Model { runs: vec![0; self.gateways], ..Model::base("") };
        let model = if self.upgrade { Model::upgrade("") } else { base() };
        let (faults, checks) = (self.faults.to_vec(), self.breaks.to_vec());
        // A JVM that waits at rest has its gateway's latch before it, whoever lets it in.
        let at_rest = self.mutant != Mutant::EntersAtOnce;
        Model { faults, checks, budget: self.budget, leading: self.leading, at_rest, prompt: true, ..model }
    }

    pub fn without_rule(&self) -> Model {
        Model { mutant: Some(self.mutant), ..self.with_rule() }
    }
}
