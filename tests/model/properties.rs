//! What must hold, and what of the past must be remembered to judge it.

use pure::lease::elector::LockView;
use pure::lease::record::Record;
use pure::lease::term::Term;
use stateright::Property;

use super::model::Model;
use super::mutants::Mutant;
use super::requests::Writer;
use super::world::Candidate;
use super::world::Pointer;
use super::world::World;

/// A JVM was granted: shown a free lock, or its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    pub number: u64,
    pub candidate: usize,
    pub process: String,
    pub jvm: u64,
}

/// A JVM believed to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub candidate: usize,
    /// Its gateway held the term when the JVM began to believe. If not, it is told so when it asks next.
    pub valid: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    pub grants: Vec<Grant>,
    /// Each session in which a JVM believed to lead, in order.
    pub sessions: Vec<Session>,
    /// Terms that the Lease ever held.
    pub held: Vec<Term>,
    /// Properties that a step broke.
    pub broken: Vec<&'static str>,
    /// Ticks without a leader while at least one candidate was healthy and nothing happened to it.
    pub leaderless: u8,
    /// Faults so far: late or lost messages, and others.
    pub late_messages: u8,
    pub others: u8,
    /// The Lease went to another pod while there had been no other fault than one outage.
    pub moved: bool,
    /// No fault so far but one outage of the API server.
    pub only_outage: bool,
}

pub const S1: &str = "S1 no write of an older term changes or removes HA data once a newer term is granted";
pub const S1_EMPTY: &str = "S1e no older term creates the ConfigMap of a living job once a newer term is granted";
pub const S2: &str =
    "S2 a JVM is granted only in a term that its gateway held and has stamped, and later grants have higher terms";
pub const S3: &str = "S3 no checkpoint pointer is replaced or removed by an older term or session";
pub const S4: &str = "S4 no two gateways at a time take their JVM's leadership for valid";
pub const S5: &str = "S5 a JVM that goes on leading was not succeeded meanwhile";
pub const L1: &str = "L1 with a healthy candidate and a reachable API server, somebody leads in time";
pub const L2: &str = "L2 no new term without a fault";
pub const L4: &str = "L4 one late or lost message brings no further change of leader";
pub const L5: &str =
    "L5 among peers that are all alive, an outage of the API server ends no leadership, not even for a moment";
pub const L3: &str = "L3 an outage of the API server moves no Lease";

impl Ghost {
    /// Is the first grant older than the second?
    pub fn older(&self, first: u8, second: u8) -> bool {
        let age = |index: u8| (self.grants[index as usize].number, index);
        age(first) < age(second)
    }

    fn newest(&self) -> Option<u8> {
        (0..self.grants.len() as u8).max_by_key(|index| (self.grants[*index as usize].number, *index))
    }

    pub fn breaks(&mut self, property: &'static str) {
        if !self.broken.contains(&property) {
            self.broken.push(property);
            self.broken.sort_unstable();
        }
    }
}

type Check = fn(&Model, &World) -> bool;

fn leads(candidate: &Candidate) -> bool {
    matches!(candidate.shown(), Some(LockView::Leader { .. })) && candidate.valid_term().is_some()
}

impl Model {
    pub fn properties_checked(&self) -> Vec<Property<Self>> {
        let all: [(&'static str, Check); 11] = [
            (S1, |_, world| !world.ghost.broken.contains(&S1)),
            (S1_EMPTY, |_, world| !world.ghost.broken.contains(&S1_EMPTY)),
            (S2, |_, world| !world.ghost.broken.contains(&S2)),
            (S3, |_, world| !world.ghost.broken.contains(&S3)),
            (S4, |model, world| {
                world.candidates.iter().filter(|candidate| model.takes_itself_for_valid(candidate)).count() <= 1
            }),
            (S5, |_, world| !world.ghost.broken.contains(&S5)),
            (L1, |model, world| world.ghost.leaderless <= model.deadline),
            (L2, |model, world| world.faults < model.budget || world.ghost.grants.len() <= 1),
            (L4, |_, world| {
                world.ghost.late_messages > 1 || world.ghost.grants.len() <= 1 + usize::from(world.ghost.others)
            }),
            (L3, |_, world| !world.ghost.moved),
            (L5, |_, world| !world.ghost.only_outage || leads(&world.candidates[0])),
        ];
        all.into_iter()
            .filter(|(name, _)| self.checks.contains(name))
            .map(|(name, check)| Property::always(name, check))
            .collect()
    }

    fn takes_itself_for_valid(&self, candidate: &Candidate) -> bool {
        let shown = matches!(candidate.shown(), Some(LockView::Free { .. } | LockView::Leader { .. }));
        candidate.valid_term().is_some() || (shown && self.mutant == Some(Mutant::ValidityIgnored))
    }

    /// The grant under which this candidate's gateway forwards writes of a term.
    pub fn grant_of(&self, world: &World, c: usize, term: &Term) -> Option<u8> {
        let grant = self.as_grant(world, c, term);
        world.ghost.grants.iter().position(|known| *known == grant).map(|index| index as u8)
    }

    fn as_grant(&self, world: &World, c: usize, term: &Term) -> Grant {
        // A gateway that takes every JVM for the same one does not see when another is granted.
        let jvm = if self.mutant == Some(Mutant::SameTermForNewJvm) {
            u64::from(world.candidates[c].jvm.incarnation)
        } else {
            term.jvm.started
        };
        Grant { number: term.number, candidate: c, process: term.process.clone(), jvm }
    }

    /// After every step of an elector: is there a new grant, and was it due?
    pub fn watch_grants(&self, world: &mut World, c: usize) {
        let Some(LockView::Free { term, .. } | LockView::Leader { term, .. }) = world.candidates[c].shown() else {
            return;
        };
        let grant = self.as_grant(world, c, &term);
        if world.ghost.grants.contains(&grant) {
            return;
        }
        let held = world.ghost.held.contains(&term);
        let stamped = |stamp: &Option<Term>| stamp.as_ref().is_some_and(|stamp| stamp.number >= term.number);
        let cluster = world.api.cluster.as_ref();
        let jobs = world.api.jobs.iter().filter_map(|slot| slot.object.as_ref());
        let all_stamped = cluster.is_some_and(|cluster| stamped(&cluster.stamp))
            && jobs.filter(|object| object.pointer.is_some()).all(|object| stamped(&object.stamp));
        let unique = world.ghost.grants.iter().all(|before| before.number != grant.number)
            || self.mutant == Some(Mutant::SameTermForNewJvm);
        world.ghost.change(|ghost| {
            ghost.grants.push(grant);
            if !held || !unique || !all_stamped {
                ghost.breaks(S2);
            }
        });
    }

    pub fn lease_written(&self, world: &mut World, record: &Record) {
        let Some(term) = record.term.clone().filter(|_| !record.holder.is_empty()) else { return };
        if !world.ghost.held.contains(&term) {
            world.ghost.change(|ghost| {
                let moved = ghost.held.last().is_some_and(|last| last.pod_uid != term.pod_uid);
                ghost.moved |= moved && ghost.only_outage;
                ghost.held.push(term);
            });
        }
    }

    /// A JVM's write was stored.
    pub fn wrote_ha_data(&self, world: &mut World, write: Writer) {
        if world.ghost.newest().is_some_and(|newest| world.ghost.older(write.grant, newest)) {
            world.ghost.change(|ghost| ghost.breaks(S1));
        }
    }

    /// An empty ConfigMap of a living job, created late. One that the same JVM still wants, under a newer term, is
    /// none.
    pub fn created_empty(&self, world: &mut World, write: Writer) {
        let ghost = &world.ghost;
        let jvm = |grant: u8| (ghost.grants[grant as usize].candidate, ghost.grants[grant as usize].jvm);
        if ghost.newest().is_some_and(|newest| ghost.older(write.grant, newest) && jvm(newest) != jvm(write.grant)) {
            world.ghost.change(|ghost| ghost.breaks(S1_EMPTY));
        }
    }

    pub fn replaced(&self, world: &mut World, write: Writer, pointer: Option<Pointer>) {
        let Some(pointer) = pointer else { return };
        if world.ghost.older(write.grant, pointer.grant) || write.session < pointer.session {
            world.ghost.change(|ghost| ghost.breaks(S3));
        }
    }

    /// A JVM that believes to lead is told so again, in the same or another term.
    pub fn goes_on_leading(&self, world: &mut World, c: usize, session: u8) {
        let succeeded =
            world.ghost.sessions[session as usize + 1..].iter().any(|other| other.valid && other.candidate != c);
        if succeeded && world.candidates[c].valid_term().is_some() {
            world.ghost.change(|ghost| ghost.breaks(S5));
        }
    }

    /// L1 counts from the last fault and the end of the last fault.
    pub fn end_of_fault(&self, world: &mut World) {
        if world.ghost.leaderless > 0 {
            world.ghost.change(|ghost| ghost.leaderless = 0);
        }
    }

    pub fn count_leaderless(&self, world: &mut World) {
        let led = world
            .candidates
            .iter()
            .any(|candidate| leads(candidate) && candidate.jvm_runs() && candidate.jvm.leads.is_some());
        let hope = world.api.up
            && world.api.writable
            && world.api.lease.is_some()
            && world.candidates.iter().any(|candidate| candidate.healthy());
        let leaderless = if led || !hope { 0 } else { world.ghost.leaderless + 1 };
        if leaderless != world.ghost.leaderless {
            world.ghost.change(|ghost| ghost.leaderless = leaderless);
        }
    }
}
