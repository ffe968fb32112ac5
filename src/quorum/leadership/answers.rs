//! What the answer to a request changes.

use super::{Intent, LatchHolder, Leadership, Tenure};
use crate::ha_data::handover::StoredState;
use crate::lease::elector::Time;
use crate::lease::term::Term;
use crate::quorum::messages::{Action, Finding, Request, RequestOutcome};

impl Leadership {
    pub(super) fn finish(&mut self, now: Time, request: Request, outcome: RequestOutcome, actions: &mut Vec<Action>) {
        match (request, outcome) {
            (Request::TakeTerm { latch, .. }, RequestOutcome::Term(term)) => self.note_term(&latch, term),
            // One that is not written is told by the next leader.
            (Request::Release { .. }, _) => {}
            (Request::Withdraw, RequestOutcome::Done) => {
                self.standing = false;
                if self.tenure.as_ref().is_some_and(|tenure| tenure.by == LatchHolder::Gateway) {
                    // The intent goes on.
                    (self.tenure, self.finding) = (None, None);
                }
            }
            (request, _) if !self.is_about_now(&request) => {}
            (Request::Examine { term }, RequestOutcome::Found(finding)) => {
                self.note_finding(now, term, finding, actions)
            }
            (Request::NoteGrant { .. }, RequestOutcome::Done) => {
                if let Some(tenure) = &mut self.tenure {
                    tenure.noted = true;
                }
            }
            (Request::Stand, RequestOutcome::Done) if self.tenure.is_some() => {}
            (Request::Stand | Request::TakeOver { .. }, RequestOutcome::Done) => {
                self.pause(now, self.settings.poll_interval);
            }
            (Request::CleanUp { .. }, RequestOutcome::Done) => self.pause(now, self.settings.ended_interval),
            (Request::Raise { .. }, RequestOutcome::Done) => {}
            (Request::Refuse { .. }, _) => self.intent = Intent::GiveUp,
            (Request::Withdraw, _) => self.pause(now, self.settings.retry_interval),
            (_, _) => self.fail(now, actions),
        }
    }

    /// What was asked for is still to be known or done (Q7).
    fn is_about_now(&self, request: &Request) -> bool {
        let term = self.tenure.as_ref().and_then(|tenure| tenure.term.as_ref());
        let of_jvm = matches!(&self.tenure, Some(Tenure { by: LatchHolder::Jvm(_), .. }));
        match request {
            Request::TakeTerm { latch, .. } | Request::TakeOver { latch, .. } => self.latch() == Some(latch),
            Request::Examine { term: None } => self.tenure.is_none(),
            Request::Examine { term: of } => of.as_ref() == term,
            Request::NoteGrant { term: of, .. } | Request::CleanUp { term: of, .. } => Some(of) == term,
            Request::Raise { .. } | Request::Stand | Request::Withdraw | Request::Refuse { .. } => !of_jvm,
            Request::Release { .. } => true,
        }
    }

    /// It is tried again for a JVM that leads. Of one that waits, others may reach what this gateway does not: our own
    /// latch goes first.
    fn fail(&mut self, now: Time, actions: &mut Vec<Action>) {
        if matches!(&self.tenure, Some(Tenure { by: LatchHolder::Jvm(_), .. })) || self.waiting.is_none() {
            return self.pause(now, self.settings.retry_interval);
        }
        if self.is_alone() {
            actions.push(Action::ExplainFailure);
        }
        (self.intent, self.finding) = (Intent::GiveUp, None);
    }

    fn note_term(&mut self, latch: &str, term: Term) {
        match (&mut self.tenure, &mut self.parting) {
            (Some(tenure), _) if tenure.latch.path == latch => tenure.term = Some(term),
            (_, Some(parting)) if parting.latch == latch => parting.term = Some(term),
            _ => {}
        }
    }

    fn note_finding(&mut self, now: Time, term: Option<Term>, finding: Finding, actions: &mut Vec<Action>) {
        let Some(Tenure { by: LatchHolder::Jvm(jvm), .. }) = self.tenure else {
            self.finding = Some(finding);
            return;
        };
        if !finding.opens() {
            actions.push(Action::ShutOut { jvm });
            actions.push(Action::EndJvm { jvm, why: "it leads where it must not" });
            return self.pause(now, self.settings.retry_interval);
        }
        if let Some(tenure) = &mut self.tenure {
            (tenure.examined, tenure.stores) = (true, finding.state == StoredState::Ours);
        }
        if let (Some(term), false) = (term, finding.state == StoredState::Ours) {
            actions.push(Action::NoteEnding { term });
        }
    }
}
