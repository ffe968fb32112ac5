//! When two worlds are the same world: times count from each candidate's now, of versions of the Lease it only counts
//! which are equal, and what is only reported does not count. So a leader that renews for ever is one world and not one
//! per tick, and the search needs no horizon.

use std::hash::{DefaultHasher, Hash, Hasher};

use pure::lease::elector::Event;
use pure::lease::elector::Read as LeaseRead;
use pure::lease::elector::Time;

use super::requests::Answer;
use super::requests::Call;
use super::requests::Phase;
use super::requests::Request;
use super::shared::Print;
use super::text;
use super::text::ago;
use super::world::Api;
use super::world::Candidate;
use super::world::Cluster;
use super::world::Job;
use super::world::Read;
use super::world::World;

/// What versions of ConfigMaps count from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bases {
    cluster: u32,
    jobs: [u32; 2],
}

impl Bases {
    fn of(api: &Api) -> Self {
        let job = |index: usize| api.jobs.get(index).map_or(0, |slot| slot.version);
        Self { cluster: api.cluster_version, jobs: [job(0), job(1)] }
    }

    fn cluster(&self, cluster: &mut Cluster) {
        cluster.version = self.cluster.wrapping_sub(cluster.version);
    }

    fn job(&self, job: usize, object: &mut Job) {
        object.version = self.jobs[job].wrapping_sub(object.version);
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint());
    }
}

impl World {
    fn fingerprint(&self) -> u64 {
        let bases = Bases::of(&self.api);
        let mut hasher = DefaultHasher::new();
        (self.faults, self.writes, self.cut).hash(&mut hasher);
        self.api.print((), |api| plain(of_api(api, &bases, self.candidates[0].clock))).hash.hash(&mut hasher);
        for c in 0..self.candidates.len() {
            self.of_machine(c, &bases).hash(&mut hasher);
        }
        self.ghost.print((), |ghost| plain(hash_of(ghost))).hash.hash(&mut hasher);
        hasher.finish()
    }

    /// A candidate and its requests.
    fn of_machine(&self, c: usize, bases: &Bases) -> u64 {
        let requests = || self.requests.iter().filter(|request| request.from == c);
        let read_since = requests().find_map(|request| match request.call {
            Call::ReadLease { started } if request.awaited => Some(started),
            _ => None,
        });
        let candidate =
            self.candidates[c].print((bases, read_since), |candidate| of_candidate(candidate, bases, read_since));
        let up_to_date = self.candidates[c].seen == self.api.lease_version;
        let clock = self.candidates[c].time();
        let prints: Vec<_> = requests()
            .map(|request| {
                request.print((bases, self.now, clock), |request| of_request(request, bases, self.now, clock))
            })
            .collect();
        // Versions are only ever compared with each other and with the newest: what counts is which of them are equal.
        let mut versions: Vec<u32> =
            prints.iter().flat_map(|print| &print.versions).chain(&candidate.versions).copied().collect();
        versions.push(self.api.lease_version);
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        let rank = |version: &u32| versions.iter().position(|known| known == version).unwrap_or_default();
        let ranked = |print: &Print| hash_of(&(print.hash, print.versions.iter().map(rank).collect::<Vec<_>>()));
        let mut requests: Vec<u64> = prints.iter().map(|print| ranked(print)).collect();
        requests.sort_unstable();
        hash_of(&(ranked(&candidate), up_to_date, requests))
    }
}

fn plain(hash: u64) -> Print {
    Print { hash, versions: Vec::new() }
}

fn of_request(request: &Request, bases: &Bases, now: u16, clock: Time) -> Print {
    let mut request = request.clone();
    let mut versions = Vec::new();
    request.sent = (now - request.sent).min(8);
    match &mut request.call {
        Call::ReadLease { started: time } | Call::Ask { asked: time, .. } => *time = Time(ago(clock, *time) as u64),
        Call::WriteLease { attempt, version, record, .. } => {
            *attempt = 0;
            record.change.iter_mut().for_each(|change| change.leaderless_millis = 0);
            versions.push(std::mem::take(version));
        }
        Call::Lock { version, .. } => *version = bases.cluster.wrapping_sub(*version),
        Call::PutCluster { read, .. } => bases.cluster(read),
        Call::PutJob { job, read, .. } => bases.job(*job, read),
        Call::Delete { job, version, .. } => *version = bases.jobs[*job].wrapping_sub(*version),
        Call::StampCluster { .. }
        | Call::List { .. }
        | Call::StampJob { .. }
        | Call::Post { .. }
        | Call::Probe
        | Call::Ping { .. } => {}
    }
    if let Phase::Answered { answer, .. } = &mut request.phase {
        match answer {
            Answer::Read(LeaseRead::Found { version, .. }) => {
                versions.push(std::mem::take(version).parse().unwrap_or_default())
            }
            Answer::Wrote(Some(version)) => versions.push(std::mem::take(version)),
            Answer::Stamped(Ok(Some(cluster))) | Answer::Cluster(Some(cluster)) => bases.cluster(cluster),
            _ => {}
        }
    }
    Print { hash: hash_of(&request), versions }
}

fn hash_of(value: &impl Hash) -> u64 {
    // Fixed keys, so that runs are repeatable.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn of_api(api: &Api, bases: &Bases, clock: u64) -> u64 {
    let mut api = api.clone();
    api.lease_version = 0;
    api.cluster_version = 0;
    if api.renew_time > 0 {
        api.renew_time = clock.wrapping_sub(api.renew_time);
    }
    api.cluster.iter_mut().for_each(|cluster| bases.cluster(cluster));
    for (job, slot) in api.jobs.iter_mut().enumerate() {
        slot.object.iter_mut().for_each(|object| bases.job(job, object));
        slot.version = 0;
    }
    hash_of(&api)
}

fn of_candidate(candidate: &Candidate, bases: &Bases, read_since: Option<Time>) -> Print {
    let now = candidate.time();
    let mut hasher = DefaultHasher::new();
    (candidate.rate, candidate.slow, candidate.frozen, candidate.reachable, candidate.terminated).hash(&mut hasher);
    candidate.processes.hash(&mut hasher);
    let mut versions = Vec::new();
    if let Some((version, record)) = &candidate.late_event {
        versions.push(*version);
        record.hash(&mut hasher);
    }
    let mut jvm = candidate.jvm.clone();
    match &mut jvm.operation {
        Some((_, Read::Cluster(cluster), _)) => bases.cluster(cluster),
        Some((super::world::Operation::Checkpoint(job), Read::Job(object), _)) => bases.job(*job, object),
        _ => {}
    }
    jvm.hash(&mut hasher);
    let Some(gateway) = &candidate.gateway else { return Print { hash: hasher.finish(), versions } };
    text::print(&gateway.elector, now, read_since, gateway.has_peers, &mut versions).hash(&mut hasher);
    gateway.paused.hash(&mut hasher);
    for event in &gateway.inbox {
        debug_assert!(matches!(event, Event::JvmDied { .. } | Event::PodTerminating), "no times in it: {event:?}");
        event.hash(&mut hasher);
    }
    let cluster = |cluster: &Option<Cluster>| {
        cluster.clone().map(|mut cluster| {
            bases.cluster(&mut cluster);
            cluster
        })
    };
    cluster(&gateway.stored).hash(&mut hasher);
    if let Some(stamper) = &gateway.stamper {
        (
            &stamper.term,
            stamper.keep_holder,
            ago(now, Time(stamper.started)),
            cluster(&stamper.cluster),
            &stamper.jobs,
            stamper.listed,
        )
            .hash(&mut hasher);
    }
    Print { hash: hasher.finish(), versions }
}
