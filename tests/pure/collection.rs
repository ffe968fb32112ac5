//! Deletion against thousands of interleavings with a writer: Flink's steps, the collector's and the sweeper's, and
//! crashes of both, in random order. What is deleted is decided by the same functions as in production; only files and
//! ConfigMaps are values here.
//!
//! After each step: no file that a pointer of a job names, and none that Flink has just written, was deleted. At the
//! end: nothing is left of a job that has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flinkha::flink::ha_file::Kind;
use flinkha::flink::job_id::JobId;
use flinkha::flink::job_state::End;
use flinkha::flink::result::{Entry, Outcome, Store};
use flinkha::ha_data::collect::{Collectable, EndedJob, collectable, is_left_over};
use flinkha::ha_data::inventory::Inventory;
use flinkha::ha_data::sweep::{Evidence, FileVerdict, of_checkpoint, verdict};
use flinkha::ledger::jobs::{self, Begun, Job};

const HOUR: Duration = Duration::from_secs(3600);
const WALKS: u64 = 4000;
const STEPS: usize = 400;

/// What Flink does next for one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flink {
    WriteBlob,
    WritePlan,
    StorePlan,
    CreateConfigMap,
    WriteCheckpoint,
    StoreCheckpoint,
    DropOldCheckpoint,
    WriteDirty,
    RemovePlan,
    RemovePlanPointer,
    RemoveConfigMap,
    RemoveCheckpoints,
    RemoveBlob,
    Commit,
    Done,
}

#[derive(Clone, Debug)]
struct OneJob {
    id: JobId,
    next: Flink,
    /// Written and not yet named.
    unnamed: Option<String>,
    /// Removed from the ConfigMap and not yet from the directory, as this process remembers it; a crash forgets.
    to_remove: Vec<String>,
}

#[derive(Clone, Debug)]
struct File {
    job: JobId,
    written: u32,
}

/// What the API server and the storage hold, and where each process is.
#[derive(Clone, Debug, Default)]
struct World {
    hour: u32,
    files: BTreeMap<String, File>,
    plans: BTreeMap<JobId, String>,
    checkpoints: BTreeMap<JobId, BTreeSet<String>>,
    entries: BTreeMap<JobId, bool>,
    ledger: Vec<Job>,
    jobs: Vec<OneJob>,
    collector: Collector,
    sweeper: Sweeper,
    names: u32,
    deleted_by_us: Vec<String>,
}

#[derive(Clone, Debug, Default)]
enum Collector {
    #[default]
    Idle,
    Read(Vec<Entry>),
    Decided(Vec<Collectable>, Inventory),
    Removing(Vec<Collectable>, Inventory, Vec<String>),
    Removed(Vec<Collectable>),
}

#[derive(Clone, Debug, Default)]
enum Sweeper {
    #[default]
    Idle,
    Knows(Inventory, BTreeSet<JobId>),
    Listed(Vec<String>),
    KnowsAgain(Vec<String>, Inventory, BTreeSet<JobId>),
}

impl World {
    fn inventory(&self) -> Inventory {
        let named = self.plans.values().chain(self.checkpoints.values().flatten()).cloned().collect();
        Inventory {
            stored: self.plans.keys().copied().collect(),
            with_config_map: self.checkpoints.keys().copied().collect(),
            with_checkpoint: self
                .checkpoints
                .iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(id, _)| *id)
                .collect(),
            named,
            plans: self.plans.clone(),
            ..Inventory::default()
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let outcome = Outcome::of(End::Finished);
        let entry = |(id, dirty): (&JobId, &bool)| Entry {
            store: Store::Job,
            id: *id,
            dirty: *dirty,
            outcome: Some(outcome.clone()),
            torn: false,
        };
        self.entries.iter().map(entry).collect()
    }

    fn dirty(&self) -> BTreeSet<JobId> {
        self.entries.iter().filter(|(_, dirty)| **dirty).map(|(id, _)| *id).collect()
    }

    fn living(&self) -> BTreeMap<JobId, Vec<String>> {
        self.ledger.iter().filter(|job| !job.has_ended()).map(|job| (job.id, job.plans.clone())).collect()
    }

    fn write(&mut self, prefix: &str, job: JobId) -> String {
        self.names += 1;
        let name = format!("{prefix}{:012x}", self.names);
        self.files.insert(name.clone(), File { job, written: self.hour });
        name
    }

    fn delete(&mut self, path: &str) {
        if self.files.remove(path).is_some() {
            self.deleted_by_us.push(path.to_owned());
        }
    }

    fn job_of(&self, path: &str) -> Option<JobId> {
        self.files.get(path).filter(|_| Kind::of(path) == Kind::Checkpoint).map(|file| file.job)
    }

    /// Flink's next step for a job. A checkpoint may follow another for ever, or the job ends.
    fn flink(&mut self, index: usize, ends: bool) {
        let OneJob { id, next, .. } = self.jobs[index].clone();
        let then = match next {
            Flink::WriteBlob => {
                let path = format!("blob/job_{id}/blob_p-1");
                self.files.insert(path, File { job: id, written: self.hour });
                Flink::WritePlan
            }
            Flink::WritePlan => {
                self.jobs[index].unnamed = Some(self.write("submittedExecutionPlan", id));
                Flink::StorePlan
            }
            Flink::StorePlan => {
                let plan = self.jobs[index].unnamed.take().expect("a written plan");
                let begun = Begun { plan: Some(plan.clone()), ..Begun::default() };
                self.plans.insert(id, plan);
                // The ledger follows at once here; a leader that dies before is covered by the one that notes all jobs
                // when it begins.
                jobs::note(
                    &mut self.ledger,
                    &BTreeMap::from([(id, begun)]),
                    &self.jobs.iter().map(|job| job.id).collect(),
                );
                Flink::CreateConfigMap
            }
            Flink::CreateConfigMap => {
                self.checkpoints.entry(id).or_default();
                Flink::WriteCheckpoint
            }
            Flink::WriteCheckpoint if ends => Flink::WriteDirty,
            Flink::WriteCheckpoint => {
                self.jobs[index].unnamed = Some(self.write("completedCheckpoint", id));
                Flink::StoreCheckpoint
            }
            Flink::StoreCheckpoint => {
                let checkpoint = self.jobs[index].unnamed.take().expect("a written checkpoint");
                let of_job = self.checkpoints.get_mut(&id).expect("the job's ConfigMap");
                self.jobs[index].to_remove = std::mem::replace(of_job, [checkpoint].into()).into_iter().collect();
                Flink::DropOldCheckpoint
            }
            Flink::DropOldCheckpoint => {
                self.forget_files(index);
                Flink::WriteCheckpoint
            }
            Flink::WriteDirty => {
                self.entries.insert(id, true);
                Flink::RemovePlan
            }
            // The file before its pointer, which is marked for deletion meanwhile
            // (`KubernetesStateHandleStore.releaseAndTryRemove`).
            Flink::RemovePlan => {
                if let Some(plan) = self.plans.get(&id) {
                    self.files.remove(plan);
                }
                Flink::RemovePlanPointer
            }
            Flink::RemovePlanPointer => {
                self.plans.remove(&id);
                Flink::RemoveConfigMap
            }
            // The ConfigMap of a job goes as a whole, and the files of its checkpoints after it.
            Flink::RemoveConfigMap => {
                self.jobs[index].to_remove.extend(self.checkpoints.remove(&id).unwrap_or_default());
                Flink::RemoveCheckpoints
            }
            Flink::RemoveCheckpoints => {
                self.forget_files(index);
                Flink::RemoveBlob
            }
            Flink::RemoveBlob => {
                self.files.remove(&format!("blob/job_{id}/blob_p-1"));
                Flink::Commit
            }
            Flink::Commit => {
                if self.entries.contains_key(&id) {
                    self.entries.insert(id, false);
                }
                Flink::Done
            }
            Flink::Done => Flink::Done,
        };
        self.jobs[index].next = then;
    }

    fn forget_files(&mut self, index: usize) {
        for file in std::mem::take(&mut self.jobs[index].to_remove) {
            self.files.remove(&file);
        }
    }

    /// The JVM dies; the next leader recovers what is stored.
    fn crash(&mut self) {
        for job in &mut self.jobs {
            (job.unnamed, job.to_remove) = (None, Vec::new());
            job.next = match (self.entries.get(&job.id), self.plans.contains_key(&job.id)) {
                (Some(true), _) => Flink::RemovePlan,
                (Some(false), _) => Flink::Done,
                (None, true) => Flink::CreateConfigMap,
                (None, false) if job.next == Flink::Done => Flink::Done,
                // The submission is lost with the leader; its user submits anew, under another id.
                (None, false) => Flink::Done,
            };
        }
    }

    fn collect(&mut self) {
        self.collector = match std::mem::take(&mut self.collector) {
            Collector::Idle => Collector::Read(self.entries()),
            Collector::Read(entries) => {
                let inventory = self.inventory();
                let found = collectable(&entries, &inventory);
                if found.is_empty() { Collector::Idle } else { Collector::Decided(found, inventory) }
            }
            Collector::Decided(found, inventory) => {
                found.iter().for_each(|entry| jobs::bury(&mut self.ledger, entry.id, &entry.outcome, "now"));
                let files = self.files.keys().cloned().collect();
                Collector::Removing(found, inventory, files)
            }
            Collector::Removing(found, inventory, mut files) => match files.pop() {
                None => Collector::Removed(found),
                Some(file) => {
                    let plans = |id: JobId| {
                        self.ledger.iter().find(|job| job.id == id).map(|job| job.plans.clone()).unwrap_or_default()
                    };
                    let ended: Vec<EndedJob> =
                        found.iter().map(|entry| EndedJob { id: entry.id, plans: plans(entry.id) }).collect();
                    if is_left_over(&file, self.job_of(&file), &ended, &inventory).is_some() {
                        self.delete(&file);
                    }
                    Collector::Removing(found, inventory, files)
                }
            },
            Collector::Removed(found) => {
                for entry in &found {
                    if self.entries.get(&entry.id) == Some(&false) {
                        self.entries.remove(&entry.id);
                    }
                }
                let removed = found.iter().map(|entry| (entry.id, 0)).collect();
                jobs::confirm(&mut self.ledger, &removed, "now");
                Collector::Idle
            }
        };
    }

    fn sweep(&mut self, age_limit: Duration) {
        let orphan = |world: &Self, path: &str, inventory: &Inventory, dirty: &BTreeSet<JobId>| {
            let known = Evidence { inventory, dirty, living: &world.living(), age_limit };
            let age = world.files.get(path).map_or(Duration::ZERO, |file| HOUR * (world.hour - file.written));
            let first = verdict(path, age, &known);
            let checkpoint = first == FileVerdict::Orphan && Kind::of(path) == Kind::Checkpoint;
            (if checkpoint { of_checkpoint(world.job_of(path), &known) } else { first }) == FileVerdict::Orphan
        };
        self.sweeper = match std::mem::take(&mut self.sweeper) {
            Sweeper::Idle => Sweeper::Knows(self.inventory(), self.dirty()),
            Sweeper::Knows(inventory, dirty) => {
                let found = self.files.keys().filter(|path| orphan(self, path, &inventory, &dirty)).cloned().collect();
                Sweeper::Listed(found)
            }
            Sweeper::Listed(found) => Sweeper::KnowsAgain(found, self.inventory(), self.dirty()),
            Sweeper::KnowsAgain(mut found, inventory, dirty) => match found.pop() {
                None => Sweeper::Idle,
                Some(path) => {
                    if orphan(self, &path, &inventory, &dirty) {
                        self.delete(&path);
                    }
                    Sweeper::KnowsAgain(found, inventory, dirty)
                }
            },
        };
    }

    /// What must be there and is not.
    fn missing(&self) -> Option<String> {
        let named = self
            .plans
            .iter()
            .chain(self.checkpoints.iter().flat_map(|(id, names)| names.iter().map(move |name| (id, name))));
        let written = self.jobs.iter().filter_map(|job| Some((&job.id, job.unnamed.as_ref()?)));
        // Flink's own clean-up removes files of pointers that a crash has left, so only deletions of ours count.
        let lost = |(_, name): &(&JobId, &String)| self.deleted_by_us.contains(name);
        let blob = |job: &OneJob| format!("blob/job_{}/blob_p-1", job.id);
        let lives = |job: &&OneJob| {
            self.plans.contains_key(&job.id) || (job.next == Flink::WritePlan || job.next == Flink::StorePlan)
        };
        let blobs = self.jobs.iter().filter(lives).map(blob).find(|path| self.deleted_by_us.contains(path));
        named.chain(written).find(lost).map(|(id, name)| format!("{name} of {id}")).or(blobs)
    }
}

/// A walk: what went wrong in it, if anything did.
fn walk(seed: u64, age_limit: Duration) -> Option<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let job = |number: u128| OneJob {
        id: JobId::from_number(number),
        next: Flink::WriteBlob,
        unnamed: None,
        to_remove: Vec::new(),
    };
    let mut world = World { jobs: vec![job(1), job(2)], ..World::default() };
    for step in 0..STEPS {
        match random.u32(..100) {
            0..55 => world.flink(random.usize(..2), random.u32(..20) == 0),
            55..75 => world.collect(),
            75..93 => world.sweep(age_limit),
            93..96 => world.crash(),
            // The gateway dies in the middle of whatever it does.
            96..98 => (world.collector, world.sweeper) = (Collector::Idle, Sweeper::Idle),
            // Nothing that Flink does between a file and its pointer lasts an hour.
            _ if world
                .jobs
                .iter()
                .all(|job| job.unnamed.is_none() && !matches!(job.next, Flink::WritePlan | Flink::StorePlan)) =>
            {
                world.hour += 1
            }
            _ => {}
        }
        if let Some(lost) = world.missing() {
            return Some(format!("seed {seed}, step {step}: deleted {lost}"));
        }
    }
    // Both jobs come to their ends, time goes by, and everything is looked through.
    for _ in 0..40 {
        (0..2).for_each(|index| world.flink(index, true));
    }
    world.hour += 48;
    for _ in 0..200 {
        world.collect();
        world.sweep(age_limit);
    }
    let entries = world.entries.keys().next().map(ToString::to_string);
    let left = world.files.keys().next().cloned().or(entries);
    left.map(|left| format!("seed {seed}: {left} was left"))
}

#[test]
fn no_file_in_use_is_ever_deleted_and_nothing_is_left_whatever_crashes() {
    for seed in 0..WALKS {
        assert_eq!(walk(seed, 24 * HOUR), None);
    }
}

/// Without the age a file goes between its writing and its pointer: the walks find it.
#[test]
fn the_walks_bite() {
    assert!((0..WALKS).any(|seed| walk(seed, Duration::ZERO).is_some()));
}
