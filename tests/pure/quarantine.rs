//! A search over what can happen to the files of two jobs, a mount and a leader: no pointer is ever lost, an empty
//! mount moves none, and after two looks jobs are where their files put them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flinkha::flink::ha_data::quarantine_key;
use flinkha::flink::job_id::JobId;
use flinkha::ha_data::quarantine::{APART, Answers, JobFiles, Looks, Moves, Needs};
use serde_json::json;

const ONE: JobId = JobId::from_number(1);
const OTHER: JobId = JobId::from_number(2);

/// Its graph, the metadata of its checkpoint, and its jar.
fn files_of(job: JobId) -> [String; 3] {
    let number = job.as_str().chars().last().unwrap_or_default();
    [
        format!("submittedExecutionPlana{number}"),
        format!("completedCheckpointa{number}"),
        format!("blob/job_{job}/blob_p-a{number}"),
    ]
}

/// Every order of six events, on a cluster ConfigMap that is moved by what is decided.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Lose(usize),
    /// All files are there again, and the mount.
    Restore,
    /// The mount is empty.
    Unmount,
    Look,
    /// The storage does not answer a look.
    Fail,
    Grant,
}

/// JobFiles that are lost.
fn losable() -> [String; 3] {
    let ([plan, checkpoint, _], [other, ..]) = (files_of(ONE), files_of(OTHER));
    [plan, checkpoint, other]
}

#[derive(Clone)]
struct World {
    /// The cluster ConfigMap.
    data: BTreeMap<String, String>,
    lost: BTreeSet<String>,
    is_unmounted: bool,
    looks: Looks,
    now: Duration,
    /// Looks since the storage changed.
    same: u32,
}

fn key(job: JobId) -> String {
    format!("executionPlan-{job}")
}

impl World {
    fn new() -> Self {
        let data = [ONE, OTHER].map(|job| (key(job), format!("pointer of {job}"))).into();
        let (lost, looks) = (BTreeSet::new(), Looks::default());
        Self { data, lost, is_unmounted: false, looks, now: Duration::ZERO, same: 0 }
    }

    fn needs(&self) -> Needs {
        let of = |at: fn(JobId) -> String| -> JobFiles {
            let there = [ONE, OTHER].into_iter().filter(|job| self.data.contains_key(&at(*job)));
            there.map(|job| (job, files_of(job).into())).collect()
        };
        Needs { stored: of(key), quarantined: of(|job| quarantine_key(&key(job))) }
    }

    fn answers(&self) -> Answers {
        let all = [ONE, OTHER].into_iter().flat_map(files_of);
        all.map(|file| (file.clone(), !self.is_unmounted && !self.lost.contains(&file))).collect()
    }

    /// Returns the moves that it makes.
    fn step(&mut self, step: Step) -> Moves {
        self.now += APART;
        match step {
            Step::Lose(file) => {
                self.lost.insert(losable()[file].clone());
                self.same = 0;
            }
            Step::Restore => (self.lost, self.is_unmounted, self.same) = (BTreeSet::new(), false, 0),
            Step::Unmount => (self.is_unmounted, self.same) = (true, 0),
            Step::Look => {
                let (needs, answers) = (self.needs(), self.answers());
                self.looks.note(&needs, &answers, self.now, self.now);
                self.same += 1;
            }
            Step::Fail => {
                let needs = self.needs();
                self.looks.note(&needs, &Answers::new(), self.now, self.now);
            }
            Step::Grant => return self.grant(),
        }
        Moves::default()
    }

    fn grant(&mut self) -> Moves {
        let (needs, mut answers) = (self.needs(), self.answers());
        let asked = needs.in_doubt(&self.looks);
        answers.retain(|file, _| asked.contains(file));
        let moves = Moves::of(&needs, &self.looks, &answers);
        let patch = moves.patch(&json!({ "data": self.data }));
        for (key, pointer) in patch["data"].as_object().expect("data") {
            match pointer.as_str() {
                Some(pointer) => drop(self.data.insert(key.clone(), pointer.to_owned())),
                None => drop(self.data.remove(key)),
            }
        }
        moves
    }

    /// What must hold after a step from `before`.
    fn check(&self, before: &Self, step: Step, moves: &Moves) {
        let pointers: BTreeSet<&String> = self.data.values().collect();
        assert_eq!((pointers.len(), self.data.len()), (2, 2), "each pointer is there once: {:?}", self.data);
        assert!(!before.is_unmounted || moves.is_empty(), "an empty mount is no loss");
        for job in [ONE, OTHER] {
            let is_broken = !before.lost.is_disjoint(&files_of(job).into());
            assert!(is_broken || !moves.aside.contains(&job), "{job} is whole");
            assert!(!is_broken || !moves.back.contains(&job), "{job} is broken");
            let is_aside = self.data.contains_key(&quarantine_key(&key(job)));
            let is_known = step == Step::Grant && before.same >= 2 && !before.is_unmounted;
            assert!(!is_known || is_broken == is_aside, "{job} with {:?} lost: {:?}", before.lost, self.data);
        }
    }
}

#[test]
fn in_every_order_of_events_no_pointer_is_lost_and_jobs_are_where_their_files_put_them() {
    let others = [Step::Restore, Step::Unmount, Step::Look, Step::Fail, Step::Grant];
    let steps: Vec<Step> = (0..losable().len()).map(Step::Lose).chain(others).collect();
    let (mut open, mut states, mut aside, mut back) = (vec![(World::new(), 6)], 0, 0, 0);
    while let Some((world, depth)) = open.pop() {
        states += 1;
        for step in steps.iter().filter(|_| depth > 0) {
            let mut next = world.clone();
            let moves = next.step(*step);
            next.check(&world, *step, &moves);
            (aside, back) = (aside + moves.aside.len(), back + moves.back.len());
            open.push((next, depth - 1));
        }
    }
    assert!(states > 100_000 && aside > 100 && back > 0, "{states} states, {aside} set aside, {back} brought back");
}
