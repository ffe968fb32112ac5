//! What the API server makes of a request.

use pure::lease::elector::Read;
use pure::lease::record::Record;
use pure::lease::term::Relation;
use pure::lease::term::Term;

use super::model::Model;
use super::mutants::Mutant;
use super::requests::Answer;
use super::requests::Call;
use super::requests::Request;
use super::requests::Writer;
use super::world::Cluster;
use super::world::Job;
use super::world::Pointer;
use super::world::World;

impl Model {
    pub fn serve(&self, world: &mut World, request: &Request) -> Answer {
        match &request.call {
            Call::ReadLease { .. } => Answer::Read(match &world.api.lease {
                Some(record) => Read::Found { version: world.api.lease_version.to_string(), record: record.clone() },
                None => Read::Absent,
            }),
            Call::WriteLease { version, record, .. } => self.write_lease(world, request.from, *version, record),
            Call::StampCluster { term, keep_holder } => Answer::Stamped(self.stamp_cluster(world, term, *keep_holder)),
            Call::List { .. } => {
                let jobs = 0..world.api.jobs.len();
                Answer::Listed(jobs.filter(|job| world.api.jobs[*job].object.is_some()).collect())
            }
            Call::StampJob { term, job, create } => Answer::Stamped(self.stamp_job(world, term, *job, *create)),
            Call::Lock { version, jvm, .. } => {
                let holder = (request.from, *jvm);
                Answer::Cluster(self.replace_cluster(world, *version, |cluster| cluster.holder = Some(holder)))
            }
            Call::PutCluster { write, read } => {
                let unconditional = self.mutant == Some(Mutant::PutWithoutVersion) && world.api.cluster.is_some();
                let version = if unconditional { world.api.cluster_version } else { read.version };
                let stored = self.replace_cluster(world, version, |cluster| {
                    cluster.clone_from(read);
                });
                if stored.is_some() {
                    self.wrote_ha_data(world, *write);
                }
                Answer::Cluster(stored)
            }
            Call::PutJob { write, job, read } => self.put_job(world, *write, *job, read),
            Call::Post { write, job, stamp, with_data } => self.post_job(world, *write, *job, stamp, *with_data),
            Call::Probe | Call::Ping { .. } => Answer::Nothing,
            Call::Ask { to, term, .. } => self.answer_ask(world, *to, term),
            Call::Delete { write, job, uid, version } => self.delete_job(world, *write, *job, *uid, *version),
        }
    }

    fn write_lease(&self, world: &mut World, from: usize, version: u32, record: &Record) -> Answer {
        let conflict = world.api.lease.is_none() || world.api.lease_version != version;
        if conflict && !(self.mutant == Some(Mutant::LeaseWithoutCas) && world.api.lease.is_some()) {
            return Answer::Wrote(None);
        }
        let wall_clock = world.candidates[from].clock;
        let version = world.api.change(|api| {
            // A merge patch: what it does not name stays.
            let before = api.lease.take().unwrap_or_default();
            let mut merged = record.clone();
            merged.term = merged.term.or(before.term);
            merged.change = merged.change.or(before.change);
            if self.mutant == Some(Mutant::MembersNotCounted) && !record.holder.is_empty() {
                merged.peers.members = self.members_but(from);
            }
            // Times for people; they would only multiply states.
            if let Some(change) = &mut merged.change {
                change.leaderless_millis = 0;
            }
            api.lease = Some(merged);
            api.lease_version += 1;
            api.renew_time = if self.mutant == Some(Mutant::WallClocks) { wall_clock } else { 0 };
            api.lease_version
        });
        self.lease_written(world, record);
        Answer::Wrote(Some(version))
    }

    /// Compare-and-swap on the cluster ConfigMap.
    fn replace_cluster(&self, world: &mut World, version: u32, change: impl FnOnce(&mut Cluster)) -> Option<Cluster> {
        if world.api.cluster_version != version {
            return None;
        }
        world.api.change(|api| {
            let cluster = api.cluster.as_mut()?;
            change(cluster);
            api.cluster_version += 1;
            cluster.version = api.cluster_version;
            Some(cluster.clone())
        })
    }

    pub fn stamp_cluster(&self, world: &mut World, term: &Term, keep_holder: bool) -> Result<Option<Cluster>, Term> {
        let jobs = world.api.jobs.len();
        let ignore_higher = self.mutant == Some(Mutant::StampsLowered);
        world.api.change(|api| {
            let before = api.cluster.clone();
            let mut cluster =
                before.unwrap_or(Cluster { version: 0, stamp: None, holder: None, jobs: vec![false; jobs] });
            match cluster.stamp.as_ref().map(|stamp| (term.relation_of(stamp), stamp.clone())) {
                Some((Relation::Higher, stamp)) if !ignore_higher => return Err(stamp),
                Some((Relation::Same, _)) if keep_holder => return Ok(Some(cluster)),
                _ => {}
            }
            cluster.stamp = Some(term.clone());
            if !keep_holder {
                cluster.holder = None;
            }
            api.cluster_version += 1;
            cluster.version = api.cluster_version;
            api.cluster = Some(cluster.clone());
            Ok(Some(cluster))
        })
    }

    /// By the stamper (`create`), and by the proxy for a lower stamp on a read. The ConfigMap of a registered job is
    /// created if it is missing, so that one which an older term creates late conflicts.
    pub fn stamp_job(&self, world: &mut World, term: &Term, job: usize, create: bool) -> Result<Option<Cluster>, Term> {
        let ignore_higher = self.mutant == Some(Mutant::StampsLowered);
        let create = create && self.mutant != Some(Mutant::MissingNotCreated);
        world.api.change(|api| {
            let slot = &mut api.jobs[job];
            if slot.object.is_none() && create {
                slot.uid += 1;
                slot.object = Some(Job { version: 0, uid: slot.uid, stamp: None, pointer: None });
            }
            let Some(object) = &mut slot.object else { return Ok(None) };
            match object.stamp.as_ref().map(|stamp| (term.relation_of(stamp), stamp.clone())) {
                Some((Relation::Higher, stamp)) if !ignore_higher => return Err(stamp),
                Some((Relation::Same, _)) => return Ok(None),
                _ => {}
            }
            object.stamp = Some(term.clone());
            slot.version += 1;
            object.version = slot.version;
            Ok(None)
        })
    }

    pub fn put_job(&self, world: &mut World, write: Writer, job: usize, read: &Job) -> Answer {
        let unconditional = self.mutant == Some(Mutant::PutWithoutVersion);
        let Some(before) = world.api.jobs[job].object.clone() else { return Answer::Nothing };
        if before.version != read.version && !unconditional {
            return Answer::Nothing;
        }
        self.replaced(world, write, before.pointer);
        self.wrote_ha_data(world, write);
        world.api.change(|api| {
            let slot = &mut api.jobs[job];
            slot.version += 1;
            let pointer = Some(Pointer { grant: write.grant, session: write.session });
            slot.object = Some(Job { version: slot.version, uid: before.uid, stamp: read.stamp.clone(), pointer });
        });
        Answer::Nothing
    }

    pub fn post_job(&self, world: &mut World, write: Writer, job: usize, stamp: &Term, with_data: bool) -> Answer {
        if world.api.jobs[job].object.is_some() {
            return Answer::Nothing;
        }
        if with_data {
            self.wrote_ha_data(world, write);
        } else if world.api.cluster.as_ref().is_some_and(|cluster| cluster.jobs[job]) && !world.api.jobs[job].finished {
            self.created_empty(world, write);
        }
        world.api.change(|api| {
            let slot = &mut api.jobs[job];
            slot.version += 1;
            slot.uid += 1;
            let pointer = with_data.then_some(Pointer { grant: write.grant, session: write.session });
            slot.object = Some(Job { version: slot.version, uid: slot.uid, stamp: Some(stamp.clone()), pointer });
        });
        Answer::Nothing
    }

    pub fn delete_job(&self, world: &mut World, write: Writer, job: usize, uid: u8, version: u32) -> Answer {
        let Some(before) = world.api.jobs[job].object.clone() else { return Answer::Nothing };
        let precondition = self.mutant != Some(Mutant::DeleteWithoutPrecondition);
        if precondition && (before.uid != uid || before.version != version) {
            return Answer::Nothing;
        }
        self.replaced(world, write, before.pointer);
        self.wrote_ha_data(world, write);
        world.api.change(|api| {
            api.jobs[job].object = None;
            api.jobs[job].version += 1;
        });
        Answer::Nothing
    }
}
