//! Candidates that talk to each other: questions pod to pod are requests like those to the API server, with the peer in
//! its place.

use pure::lease::elector::Answer as Said;
use pure::lease::elector::Event;
use pure::lease::elector::Time;
use pure::lease::record::Member;
use pure::lease::term::Term;

use super::model::Model;
use super::mutants::Mutant;
use super::requests::Answer;
use super::requests::Call;
use super::requests::Request;
use super::world::World;

/// Where a candidate is reached by its peers.
pub fn address(c: usize) -> String {
    format!("address-{c}")
}

/// Who is reached at an address.
pub fn at(address: &str) -> usize {
    address.rsplit('-').next().and_then(|digits| digits.parse().ok()).expect("an address of the model")
}

pub fn pair(a: usize, b: usize) -> usize {
    a + b - 1
}

impl World {
    /// Is there a way between these two candidates?
    pub fn joined(&self, a: usize, b: usize) -> bool {
        self.cut & (1 << pair(a, b)) == 0
    }

    /// Would this request be handled now?
    pub fn reaches(&self, request: &Request) -> bool {
        match &request.call {
            Call::Ask { to, .. } => self.joined(request.from, *to) && self.candidates[*to].gateway_runs(),
            // The kernel answers, whatever the gateway does.
            Call::Ping { to } => self.joined(request.from, *to) && !self.candidates[*to].frozen,
            call => self.connected(request.from) && (self.api.writable || !call.is_write()),
        }
    }

    /// Is there a way back for the answer?
    pub fn answer_reaches(&self, request: &Request) -> bool {
        match &request.call {
            Call::Ask { to, .. } | Call::Ping { to } => self.joined(request.from, *to),
            _ => self.candidates[request.from].reachable,
        }
    }
}

impl Model {
    /// All members that this candidate could have.
    pub fn members_but(&self, from: usize) -> Vec<Member> {
        let others = (0..self.candidates).filter(|c| *c != from);
        others.map(|c| Member { pod_uid: format!("u{c}"), address: address(c) }).collect()
    }

    pub fn ask_promises(&self, world: &mut World, c: usize, term: &Term, members: &[Member]) {
        let asked = world.candidates[c].time();
        for member in members {
            self.send(world, c, Call::Ask { to: at(&member.address), term: term.clone(), asked });
        }
    }

    /// Joining is repeated until it is done, so one that is late or lost is one that was not sent.
    pub fn join(&self, world: &mut World, c: usize, holder: usize, member: Member) {
        if world.joined(c, holder) && world.candidates[holder].gateway_runs() {
            self.tell(world, holder, Event::PeerJoined { member });
        }
    }

    /// A peer is asked for its promise.
    pub fn answer_ask(&self, world: &mut World, to: usize, term: &Term) -> Answer {
        if self.mutant == Some(Mutant::PromiseForgotten) {
            return Answer::Said(Said::Promised);
        }
        let duration = match self.mutant {
            Some(Mutant::PromiseNotKept) => std::time::Duration::ZERO,
            Some(Mutant::PromiseWithoutDrift) => self.settings.promise * 20 / 21,
            _ => self.settings.promise,
        };
        self.tell(world, to, Event::PromiseAsked { ask: 0, term: term.clone(), duration });
        match world.gateway(to, |gateway| gateway.said.take()).flatten() {
            Some(Said::Refused) if self.mutant == Some(Mutant::RefusalIsPromise) => Answer::Said(Said::Promised),
            Some(said) => Answer::Said(said),
            None => Answer::Nothing,
        }
    }

    pub fn ask_answered(&self, world: &mut World, c: usize, to: usize, term: &Term, asked: Time, said: Said) {
        let term = term.clone();
        let asked = if self.mutant == Some(Mutant::PromiseFromAnswer) { world.candidates[c].time() } else { asked };
        if said == Said::Refused {
            return self.tell(world, c, Event::PeerRefused { term });
        }
        let all = 0..world.candidates.len();
        let counts = |peer: &usize| *peer == to || self.mutant == Some(Mutant::OnePromiseSuffices);
        for peer in all.filter(counts) {
            let promised = Event::PeerPromised {
                term: term.clone(),
                pod_uid: format!("u{peer}"),
                asked,
                leaving: said == Said::Leaving,
            };
            self.tell(world, c, promised);
        }
    }
}
