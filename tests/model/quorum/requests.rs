//! What becomes of a request: each access to the quorum, the ledger or the storage is a step of its own.

use pure::flink::job_state::End;
use pure::flink::result::{Entry, Outcome as Result, Store};
use pure::ha_data::handover::{Stored, judge};
use pure::lease::term::{Relation, Term};
use pure::ledger::application::Progress;
use pure::ledger::jobs::Job;
use pure::quorum::{Finding, Request, RequestOutcome};

use jiff::Timestamp;

use super::model::Model;
use super::mutants::Mutant;
use super::properties::{S3, S6, S7};
use super::world::{InFlight, Stage, World, job, run};

impl Model {
    /// The next access. Changes nothing once it is answered.
    pub fn advance(&self, world: &mut World, g: usize, flight: &mut InFlight) {
        // Each access goes by the session of its time.
        if world.gateways[g].process == flight.process && world.gateways[g].machine.is_some() {
            flight.session = world.gateways[g].own;
        }
        let stage = std::mem::replace(&mut flight.stage, Stage::Sent);
        flight.stage = match (flight.request.clone(), stage) {
            (_, answered @ Stage::Answered(_)) => answered,
            (Request::TakeTerm { jvm: None, .. }, _) => {
                let claimant = world.claimant(g, flight.process, None);
                Stage::Answered(RequestOutcome::Term(world.ledger.notes.next_term(&claimant)))
            }
            (Request::TakeTerm { latch, jvm }, stage) => {
                self.take_term(world, (g, flight.process), &latch, jvm, (flight.session, stage))
            }
            (Request::Examine { .. }, Stage::Read { mark, version, plan, .. }) => {
                Stage::Answered(RequestOutcome::Found(self.examine(world, flight.run, mark, version, plan)))
            }
            (Request::Examine { .. }, _) => {
                let (zk, latch) = (&world.zk, world.gateways[g].machine.as_ref().and_then(|machine| machine.latch()));
                if !zk.lives(flight.session) {
                    Stage::Answered(RequestOutcome::Failed)
                } else {
                    let in_place = latch.is_some_and(|latch| zk.is_lowest(latch));
                    Stage::Read { mark: zk.mark, version: zk.version, plan: zk.plan.is_some(), in_place }
                }
            }
            (Request::NoteGrant { term, .. }, _) => {
                let notes = &world.ledger.notes;
                if notes.term.as_ref() == Some(&term) {
                    world.ledger.notes = notes.granted(0, Timestamp::UNIX_EPOCH);
                    world.ledger.version += 1;
                } else if notes.term.as_ref().is_some_and(|now| now.number > term.number) {
                    Self::overtake(world, g, flight.process);
                }
                Stage::Answered(RequestOutcome::Done)
            }
            (Request::Release { term, why }, _) => {
                let pod = world.claimant(g, flight.process, None).pod;
                if let Some(ended) = world.ledger.notes.ended(&term, &pod, why) {
                    world.ledger.notes = ended;
                    world.ledger.version += 1;
                }
                Stage::Answered(RequestOutcome::Done)
            }
            (Request::Raise { version }, _) => {
                let raised = world.zk.lives(flight.session) && world.zk.version == version;
                if raised {
                    (world.zk.mark, world.zk.version) = (flight.run, version + 1);
                }
                done_if(raised)
            }
            (Request::Stand, _) => {
                let session = flight.session.filter(|session| world.zk.lives(Some(*session)));
                if let Some(session) = session
                    && world.zk.latches.iter().all(|(_, of)| *of != session)
                {
                    world.zk.stand(session);
                }
                done_if(session.is_some())
            }
            (Request::Withdraw, _) => {
                let lives = world.zk.lives(flight.session);
                world.zk.change(|zk| zk.latches.retain(|(_, of)| !lives || Some(*of) != flight.session));
                done_if(lives)
            }
            (Request::TakeOver { latch, version, .. }, Stage::Written) => {
                let checked = world.zk.lives(flight.session)
                    && (world.zk.has_latch(&latch) || self.mutant == Some(Mutant::TakeOverWithoutLatch))
                    && world.zk.version == version;
                if checked {
                    if !world.zk.is_lowest(&latch) {
                        world.offend(S7);
                    }
                    let next = world.zk.version + 1;
                    (world.zk.mark, world.zk.plan, world.zk.version) = (flight.run, None, next);
                }
                done_if(checked)
            }
            (Request::TakeOver { term, .. }, _) => {
                if world.ledger.begun > flight.run || !self.may_write(world, g, flight.process, &term) {
                    Stage::Answered(RequestOutcome::Failed)
                } else {
                    if world.ledger.begun != flight.run {
                        world.ledger.begun = flight.run;
                        Self::write(world, &term);
                    }
                    Stage::Written
                }
            }
            (Request::CleanUp { .. }, Stage::Written) => {
                let latch = world.gateways[g].machine.as_ref().and_then(|machine| machine.latch()).map(str::to_owned);
                let checked = latch.as_ref().is_some_and(|latch| world.zk.has_latch(latch)) && world.zk.plan.is_none();
                if checked && world.ledger.result {
                    if !world.zk.is_lowest(&latch.unwrap_or_default()) {
                        world.offend(S7);
                    }
                    world.ledger.result = false;
                }
                done_if(checked)
            }
            (Request::CleanUp { term, outcome }, _) => {
                if !self.may_write(world, g, flight.process, &term) {
                    Stage::Answered(RequestOutcome::Failed)
                } else {
                    if outcome.is_some() && world.ledger.job != Some(true) {
                        world.ledger.job = Some(true);
                        Self::write(world, &term);
                    }
                    Stage::Written
                }
            }
            (Request::Refuse { .. }, _) => Stage::Answered(RequestOutcome::Done),
        };
    }

    fn take_term(
        &self,
        world: &mut World,
        (g, process): (usize, u8),
        latch: &str,
        jvm: Option<pure::lease::term::Incarnation>,
        (session, stage): (Option<i64>, Stage),
    ) -> Stage {
        match stage {
            Stage::Noted { notes, version } => {
                let is_there = world.zk.lives(session) && world.zk.has_latch(latch);
                if is_there || self.mutant == Some(Mutant::TermWithoutLatch) {
                    Stage::Checked { notes, version }
                } else {
                    Stage::Answered(RequestOutcome::Failed)
                }
            }
            Stage::Checked { notes, version } => {
                if version != world.ledger.version && self.mutant != Some(Mutant::TermWithoutVersion) {
                    return Stage::Noted { notes: world.ledger.notes.clone(), version: world.ledger.version };
                }
                let taken = notes.taken(&world.claimant(g, process, jvm), Timestamp::UNIX_EPOCH);
                let Some(term) = taken.term.clone() else { return Stage::Answered(RequestOutcome::Failed) };
                let number: u32 = latch.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
                if number < world.ghost.last_latch {
                    world.offend(S6);
                }
                if term.number <= world.ghost.last_term {
                    world.offend(S3);
                }
                world.ghost.last_latch = number.max(world.ghost.last_latch);
                world.ghost.last_term = term.number.max(world.ghost.last_term);
                world.ledger.notes = taken;
                world.ledger.version += 1;
                Stage::Answered(RequestOutcome::Term(term))
            }
            _ => Stage::Noted { notes: world.ledger.notes.clone(), version: world.ledger.version },
        }
    }

    fn examine(&self, world: &World, index: usize, mark: usize, version: i32, plan: bool) -> Finding {
        if !self.application || self.mutant == Some(Mutant::NotExamined) {
            return Finding::of_session_cluster();
        }
        let (us, stored_by, begun) = (run(index), run(mark), run(world.ledger.begun));
        let mark = format!("{}/{}", stored_by.job_id, stored_by.version);
        let plans = plan.then(|| job().to_string()).into_iter().collect();
        let stored = Stored::in_znodes(Some(mark), Some(stored_by.start), &plans);
        let progress =
            Progress { job: Some(begun.job_id), version: begun.version, start: begun.start, ..Progress::default() };
        let ended = |ended: bool| ended.then(|| "then".to_owned());
        let jobs: Vec<Job> = world.ledger.job.iter().map(|e| Job { ended: ended(*e), ..Job::of(job()) }).collect();
        let outcome = || Some(Result::of(End::Finished));
        let entry = || Entry { store: Store::Job, id: job(), dirty: false, outcome: outcome(), torn: false };
        let entries: Vec<Entry> = world.ledger.result.then(entry).into_iter().collect();
        let state = judge(&us, &stored, &progress, &jobs, &entries);
        let is_to_be_raised = state == pure::ha_data::handover::StoredState::Ours && stored_by.start < us.start;
        Finding { state, is_being_stopped: false, is_to_be_raised, version }
    }

    /// Writes of a gateway that leads are refused when a newer term stands in the ledger.
    pub fn may_write(&self, world: &mut World, g: usize, process: u8, term: &Term) -> bool {
        let stands = world.ledger.notes.term.clone();
        let is_newer = stands.is_some_and(|stands| term.relation_of(&stands) == Relation::Higher);
        if is_newer {
            Self::overtake(world, g, process);
        }
        !is_newer
    }

    pub fn write(world: &mut World, term: &Term) {
        world.ledger.notes.term = Some(term.clone());
        world.ledger.version += 1;
        world.ghost.last_term = world.ghost.last_term.max(term.number);
    }

    fn overtake(world: &mut World, g: usize, process: u8) {
        if world.gateways[g].process == process && world.gateways[g].machine.is_some() {
            world.gateways[g].overtaken = true;
        }
    }
}

fn done_if(done: bool) -> Stage {
    Stage::Answered(if done { RequestOutcome::Done } else { RequestOutcome::Failed })
}
