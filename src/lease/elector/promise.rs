//! Keeps promises between peers (I11), so that an unavailable or slow API server changes no leader.
//!
//! The holder asks its members, pod to pod, not to take the Lease for a while. While all of them promise, nobody can
//! take it. So the holder writes it rarely, and stays valid even when it cannot write it. A promise binds only the
//! member that gave it. The Lease lists the members, so the list changes by compare-and-swap only.

use std::time::Duration;

use super::decide::drifted;
use super::{Action, Answer, Attempt, Elector, Intent, Settings, Stage, Time};
use crate::lease::record::{Member, Peers, Record};
use crate::lease::term::Term;

/// Longest promise that a member gives; it refuses a longer one.
const LONGEST: Duration = Duration::from_secs(60);

/// The holder's side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Promises {
    /// Members in the last record that is known to be stored.
    pub(super) stored: Vec<Member>,
    /// Writes on the stored version that a read did not show and that may still be applied.
    pub(super) open: Vec<Open>,
    /// Candidates that asked to be members, and what the holder knows about each.
    peers: Vec<Peer>,
    next_ask: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Open {
    members: Vec<Member>,
    started: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    member: Member,
    joined: Time,
    /// When the holder sent the request that led to its last promise.
    promised: Option<Time>,
    leaving: bool,
}

/// The member's side: a promise that it gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Given {
    number: u64,
    at: Time,
    until: Time,
}

impl Promises {
    fn promised(&self, pod_uid: &str) -> Option<Time> {
        self.peers.iter().find(|peer| peer.member.pod_uid == pod_uid)?.promised
    }

    /// Records a write that may still be applied. Of several with the same members the first counts.
    pub(super) fn may_be_stored(&mut self, members: Vec<Member>, started: Time) {
        if self.open.iter().all(|open| open.members != members) {
            self.open.push(Open { members, started });
        }
    }

    /// The members that the Lease should list: those whose promises come in time.
    fn wanted(&self, now: Time, settings: &Settings) -> Vec<Member> {
        let keeps =
            |peer: &&Peer| !peer.leaving && peer.promised.is_some_and(|promised| now.since(promised) < fresh(settings));
        let mut members: Vec<Member> = self.peers.iter().filter(keeps).map(|peer| peer.member.clone()).collect();
        members.sort_unstable();
        members
    }
}

/// Age up to which a promise keeps its member listed. It allows for one lost request, and leaves time to write the
/// Lease without the member before its last promise ends.
fn fresh(settings: &Settings) -> Duration {
    settings.promise * 5 / 8
}

impl Elector {
    /// The record's part about peers, as it should be now.
    pub(super) fn peers(&self, now: Time) -> Peers {
        let members =
            self.tenure.as_ref().map(|tenure| tenure.promises.wanted(now, &self.settings)).unwrap_or_default();
        Peers { address: self.me.address.clone(), promise_millis: self.settings.promise.as_millis() as u64, members }
    }

    /// Must the holder add or remove a member?
    pub(super) fn members_change(&self, now: Time) -> bool {
        self.tenure.as_ref().is_some_and(|tenure| tenure.promises.wanted(now, &self.settings) != tenure.promises.stored)
    }

    /// Computes until when nobody else can hold the Lease (I5, I11). A write in flight, or one that was given up, may
    /// or may not be stored, so the earliest end counts.
    pub(super) fn judge_validity(&mut self) {
        let pending = self.writing.as_ref().or(self.unknown.as_ref());
        let Some(tenure) = &mut self.tenure else { return };
        let by_members = |members: &[Member], written: Time| {
            let until = |member: &Member| {
                tenure
                    .promises
                    .promised(&member.pod_uid)
                    .map_or(written, |at| at.max(written))
                    .after(self.settings.promise)
            };
            members.iter().map(until).min().unwrap_or(written.after(self.settings.renew_deadline))
        };
        let stored = by_members(&tenure.promises.stored, tenure.renewed);
        let in_flight = pending.map(|attempt| by_members(&attempt.record.peers.members, attempt.started));
        let open = tenure.promises.open.iter().map(|open| by_members(&open.members, open.started));
        let in_flight = open.chain(in_flight).min();
        // Only a write makes a lapsed tenure valid again; a late promise does not.
        let stored = if tenure.lapsed.is_some_and(|lapsed| tenure.renewed < lapsed) {
            stored.min(tenure.valid_until)
        } else {
            stored
        };
        tenure.valid_until = in_flight.map_or(stored, |in_flight| in_flight.min(stored));
    }

    /// How many of the members that the Lease lists have promised in time, and how many have not; `None` for a
    /// candidate that does not hold it.
    pub fn promises(&self, now: Time) -> Option<(usize, usize)> {
        let promises = &self.tenure.as_ref()?.promises;
        let has_promised = |member: &&Member| {
            promises.promised(&member.pod_uid).is_some_and(|promised| now.since(promised) < self.settings.promise)
        };
        let held = promises.stored.iter().filter(has_promised).count();
        Some((held, promises.stored.len() - held))
    }

    pub(super) fn joined(&mut self, now: Time, member: Member) {
        let Some(tenure) = self.tenure.as_mut().filter(|_| member.pod_uid != self.me.pod_uid) else { return };
        let peers = &mut tenure.promises.peers;
        match peers.iter_mut().find(|peer| peer.member.pod_uid == member.pod_uid) {
            Some(peer) => (peer.member, peer.joined) = (member, now),
            None => peers.push(Peer { member, joined: now, promised: None, leaving: false }),
        }
        tenure.promises.next_ask = now;
    }

    pub(super) fn promised(&mut self, term: &Term, pod_uid: &str, asked: Time, leaving: bool) {
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| tenure.term == *term) else { return };
        if let Some(peer) = tenure.promises.peers.iter_mut().find(|peer| peer.member.pod_uid == pod_uid) {
            peer.promised = peer.promised.max(Some(asked));
            peer.leaving = leaving;
        }
    }

    /// A peer that refuses writes to the API server where this candidate cannot, or knows more. A read decides, if the
    /// API server answers it.
    pub(super) fn peer_refused(&mut self, now: Time, term: &Term) {
        let Some(tenure) = self.tenure.as_ref().filter(|tenure| tenure.term == *term) else { return };
        if now.since(tenure.renewed) >= self.settings.duration {
            self.lose(now);
        }
        self.want_read(now);
    }

    /// Answers the holder's request for a promise, and remembers the promise.
    pub(super) fn answer(&mut self, now: Time, term: &Term, duration: Duration) -> Answer {
        let taking = |attempt: &Option<Attempt>| {
            attempt.as_ref().is_some_and(|attempt| matches!(attempt.intent, Intent::Acquire { .. }))
        };
        let later = |record: &Record| record.term.as_ref().is_some_and(|known| known.number > term.number);
        let refused = self.lease.as_ref().is_some_and(|lease| lease.refused || later(&lease.record));
        let given_to_later = self.given.as_ref().is_some_and(|given| given.number > term.number);
        let takes = self.tenure.is_some() || taking(&self.writing) || taking(&self.unknown);
        if takes || refused || given_to_later || duration > LONGEST {
            return Answer::Refused;
        }
        let until = now.after(drifted(duration));
        let until = self.given.as_ref().map_or(until, |given| given.until.max(until));
        self.given = Some(Given { number: term.number, at: now, until });
        if self.terminating.is_some() { Answer::Leaving } else { Answer::Promised }
    }

    /// Records a probe write. An API server that stores no writes does not prove that the holder is silent (I6). So
    /// silence counts from the first stored probe: a holder whose writes failed has time for one.
    pub(super) fn probed(&mut self, now: Time, written: bool) {
        self.probing = false;
        let able = self.able(now);
        let Some(lease) = self.lease.as_mut().filter(|lease| !lease.record.peers.members.is_empty()) else { return };
        if !written || !lease.writable {
            (lease.silent, lease.confirmed) = (Duration::ZERO, None);
        }
        lease.writable = written;
        lease.refused |= able && written && lease.silent >= 2 * self.settings.retry_period;
    }

    /// Has this member's promise to the holder ended? The holder is no longer valid then.
    pub(super) fn promise_has_ended(&self, now: Time, record: &Record, first_seen: Time) -> bool {
        let lasts = Duration::from_millis(record.peers.promise_millis).max(self.settings.promise);
        now.since(first_seen) >= drifted(lasts) && !self.is_bound(now, record)
    }

    /// Does a promise to the holder of this record, or to a later one, still bind this candidate?
    pub(super) fn is_bound(&self, now: Time, record: &Record) -> bool {
        let number = record.term.as_ref().map_or(0, |term| term.number);
        self.given.as_ref().is_some_and(|given| given.number >= number && now < given.until)
    }

    /// When the holder was last heard: its last request for a promise, or its write.
    pub(super) fn holder_heard(&self, record: &Record, first_seen: Time) -> Time {
        let number = record.term.as_ref().map_or(0, |term| term.number);
        self.given.as_ref().filter(|given| given.number >= number).map_or(first_seen, |given| given.at.max(first_seen))
    }

    pub(super) fn ask_if_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        let pending =
            self.writing.as_ref().or(self.unknown.as_ref()).map(|attempt| attempt.record.peers.members.clone());
        let Some(tenure) = self.tenure.as_mut().filter(|tenure| !matches!(tenure.stage, Stage::Ending(_))) else {
            return;
        };
        let promises = &mut tenure.promises;
        let open = promises.open.iter().flat_map(|open| &open.members);
        let listed: Vec<Member> = open.chain(&promises.stored).chain(pending.iter().flatten()).cloned().collect();
        let counts = |peer: &Peer| listed.iter().any(|member| member.pod_uid == peer.member.pod_uid);
        let heard = |peer: &Peer| peer.promised.map_or(peer.joined, |promised| promised.max(peer.joined));
        promises.peers.retain(|peer| counts(peer) || (now.since(heard(peer)) < fresh(&self.settings) && !peer.leaving));
        if now < promises.next_ask || promises.peers.is_empty() {
            return;
        }
        promises.next_ask = now.after(self.settings.ask_period);
        let members = promises.peers.iter().map(|peer| peer.member.clone()).collect();
        actions.push(Action::AskPromises { term: tenure.term.clone(), duration: self.settings.promise, members });
    }

    /// A standby's part: it asks the holder to list it, pings a holder that is not heard, and probes whether it can
    /// write while the holder does not.
    pub(super) fn look_after_holder(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(lease) = &self.lease else { return };
        let holder = &lease.record.peers.address;
        let foreign = !lease.record.holder.is_empty() && self.own_record().is_none();
        if self.tenure.is_some() || !foreign || holder.is_empty() || self.me.address.is_empty() {
            return;
        }
        let unheard = now.since(self.holder_heard(&lease.record, lease.first_seen));
        let listed = lease.record.peers.lists(&self.me.pod_uid);
        if !listed && self.terminating.is_none() && now >= self.next_join {
            self.next_join = now.after(self.settings.retry_period);
            let member = Member { pod_uid: self.me.pod_uid.clone(), address: self.me.address.clone() };
            actions.push(Action::Join { holder: holder.clone(), member });
        }
        if listed && unheard >= fresh(&self.settings) && !self.pinging && now >= self.next_ping {
            (self.pinging, self.next_ping) = (true, now.after(self.settings.ask_period));
            actions.push(Action::Ping { holder: holder.clone() });
        }
        let suspicious = !lease.record.peers.members.is_empty() && self.is_suspicious(now, lease);
        if suspicious && !self.probing && now >= self.next_probe {
            (self.probing, self.next_probe) = (true, now.after(self.settings.retry_period));
            actions.push(Action::ProbeWrite);
        }
    }
}
