//! Decides which jobs of a session are set aside, because a file without which Flink does not recover them is gone.
//!
//! Flink recovers all stored jobs or none: a graph that it cannot read, the metadata of a retained checkpoint, or a jar
//! that is gone ends the JVM of every leader (`SessionDispatcherLeaderProcess.recoverJobs`;
//! `Dispatcher.handleJobManagerRunnerResult` for an initialization that fails in a recovery; 1.20 to 2.3). Without the
//! pointer to its graph Flink does not know the job, so this one pointer is moved to where Flink does not look. Nothing
//! is removed. When all files are there again, the pointer moves back.
//!
//! A job is set aside only if
//! * a file of it was not there twice, at least [`APART`], and is not there now, each time by the storage's own answer:
//!   an error says nothing;
//! * a graph or a jar of some job is there. An empty mount holds none, also if the leader has marked it meanwhile and
//!   Flink has written checkpoints into it: graphs and jars are written once, when a job is submitted. So with a
//!   single job, too, its jar proves the loss of its graph, and its graph that of its jar or of a checkpoint. Whoever
//!   loses both of all jobs keeps the pointers where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::inventory::Inventory;
use crate::flink::ha_data;
use crate::flink::ha_file::Kind;
use crate::flink::job_id::JobId;
use crate::ledger::jobs::Job;

/// Shortest time between two looks that both do not find a file.
pub const APART: Duration = Duration::from_secs(10);

/// The files that Flink reads when it recovers a job, by job: paths below the cluster's directory.
pub type JobFiles = BTreeMap<JobId, BTreeSet<String>>;

/// The files of all jobs that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of jobs that the next leader recovers.
    pub stored: JobFiles,
    /// Of jobs that are set aside.
    pub quarantined: JobFiles,
}

impl Needs {
    /// `jobs`: those of the ledger, which names the jars. A job that has ended, or whose pointer cannot be read, has no
    /// files here.
    pub fn of(inventory: &Inventory, jobs: &[Job]) -> Self {
        let files = |plans: &BTreeMap<JobId, String>| -> JobFiles {
            let has_ended = |id: &JobId| jobs.iter().any(|job| job.id == *id && job.has_ended());
            let known = plans.iter().filter(|(id, plan)| !plan.is_empty() && !has_ended(id));
            let with_all = known.map(|(id, plan)| {
                let jars = jobs.iter().filter(|job| job.id == *id).flat_map(|job| job.jars.iter().flatten());
                let checkpoints = inventory.checkpoints.get(id).into_iter().flatten();
                (*id, checkpoints.chain(jars).chain([plan]).cloned().collect())
            });
            with_all.collect()
        };
        Self { stored: files(&inventory.plans), quarantined: files(&inventory.quarantined) }
    }

    /// Are all files of stored jobs there?
    pub fn is_whole(&self, answers: &Answers) -> bool {
        self.stored.values().all(|files| are_there(files, answers))
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &String> {
        self.stored.values().chain(self.quarantined.values()).flatten()
    }

    /// The files whose state decides about a move: those of jobs in quarantine, and those of jobs that have lost one.
    pub fn in_doubt(&self, looks: &Looks) -> BTreeSet<String> {
        let lost = self.stored.values().filter(|files| !files.is_disjoint(&looks.gone));
        lost.chain(self.quarantined.values()).flatten().chain(&looks.anchor).cloned().collect()
    }

    /// The files of each job that were not there twice.
    pub fn missing(&self, looks: &Looks) -> JobFiles {
        let missing = |(id, files): (&JobId, &BTreeSet<String>)| {
            let missing: BTreeSet<String> = files.intersection(&looks.gone).cloned().collect();
            (!missing.is_empty()).then_some((*id, missing))
        };
        self.stored.iter().chain(&self.quarantined).filter_map(missing).collect()
    }
}

/// What the storage says of files: whether each is there. Of a file that is not named nothing is known.
pub type Answers = BTreeMap<String, bool>;

/// What one gateway has seen. Times are those of its own monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// JobFiles that were not there, with the end of the first such look.
    absent: BTreeMap<String, Duration>,
    /// Those of them that a later look did not find either.
    gone: BTreeSet<String>,
    /// A graph or jar that was there.
    anchor: Option<String>,
    /// Jobs in quarantine whose files were all there, with the end of the first such look.
    whole: BTreeMap<JobId, Duration>,
    /// Those of them of which a later look said the same: their files have been put back, and are not just being
    /// copied.
    restored: BTreeSet<JobId>,
}

impl Looks {
    /// Notes a look at all files. It says something only of the files that it names.
    pub fn note(&mut self, needs: &Needs, answers: &Answers, began: Duration, ended: Duration) {
        let is_due = |first: &Duration| began >= first.saturating_add(APART);
        self.absent.retain(|file, _| answers.get(file) != Some(&true) && needs.files().any(|needed| needed == file));
        let absent = &self.absent;
        let again: Vec<String> =
            not_there(answers).filter(|file| absent.get(*file).is_some_and(is_due)).cloned().collect();
        self.gone.extend(again);
        self.gone.retain(|file| absent.contains_key(file));
        for file in not_there(answers) {
            self.absent.entry(file.clone()).or_insert(ended);
        }
        self.anchor = anchors(answers).next().cloned();
        let whole: Vec<JobId> =
            needs.quarantined.iter().filter(|(_, files)| are_there(files, answers)).map(id).collect();
        self.whole.retain(|id, _| whole.contains(id));
        self.restored = whole.iter().filter(|id| self.whole.get(*id).is_some_and(is_due)).copied().collect();
        for id in whole {
            self.whole.entry(id).or_insert(ended);
        }
    }

    /// Were all files that were not there looked for twice?
    pub fn is_settled(&self) -> bool {
        self.absent.keys().all(|file| self.gone.contains(file))
    }

    /// Has a stored job lost a file?
    pub fn has_lost(&self) -> bool {
        !self.gone.is_empty()
    }

    /// Jobs in quarantine that the next leader would recover.
    pub fn restored(&self) -> &BTreeSet<JobId> {
        &self.restored
    }
}

fn id((id, _): (&JobId, &BTreeSet<String>)) -> JobId {
    *id
}

fn not_there(answers: &Answers) -> impl Iterator<Item = &String> {
    answers.iter().filter(|(_, is_there)| !**is_there).map(|(file, _)| file)
}

fn are_there(files: &BTreeSet<String>, answers: &Answers) -> bool {
    files.iter().all(|file| answers.get(file) == Some(&true))
}

/// Graphs and jars that are there.
fn anchors(answers: &Answers) -> impl Iterator<Item = &String> {
    let is_anchor = |file: &str| matches!(Kind::of(file), Kind::Plan | Kind::Blob(_));
    answers.iter().filter(move |(file, is_there)| **is_there && is_anchor(file)).map(|(file, _)| file)
}

/// The pointers to move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    pub aside: BTreeSet<JobId>,
    pub back: BTreeSet<JobId>,
}

impl Moves {
    /// Decides while nobody leads. `answers`: what the storage says now.
    pub fn of(needs: &Needs, looks: &Looks, answers: &Answers) -> Self {
        if anchors(answers).next().is_none() {
            return Self::default();
        }
        let is_lost = |file: &String| looks.gone.contains(file) && answers.get(file) == Some(&false);
        let aside = needs.stored.iter().filter(|(job, files)| {
            // Its pointer would take the place of the one that is there.
            files.iter().any(is_lost) && !needs.quarantined.contains_key(*job)
        });
        let back = needs.quarantined.iter();
        let back = back.filter(|(job, files)| are_there(files, answers) && !needs.stored.contains_key(*job));
        Self { aside: aside.map(id).collect(), back: back.map(id).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.aside.is_empty() && self.back.is_empty()
    }

    /// The merge patch of the cluster ConfigMap that makes these moves.
    pub fn patch(&self, cluster: &Value) -> Value {
        let mut data = json!({});
        let entries = cluster.get("data").and_then(Value::as_object).into_iter().flatten();
        for (key, pointer) in entries {
            let of = |key: &str, jobs: &BTreeSet<JobId>| {
                ha_data::job_key_of(key).and_then(JobId::of).is_some_and(|job| jobs.contains(&job))
            };
            let to = match ha_data::key_in_quarantine(key) {
                Some(plan) => of(plan, &self.back).then(|| plan.to_owned()),
                None => of(key, &self.aside).then(|| ha_data::quarantine_key(key)),
            };
            if let Some(to) = to {
                (data[key], data[to]) = (Value::Null, pointer.clone());
            }
        }
        json!({ "data": data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flink::ha_data::quarantine_key;

    const ONE: JobId = JobId::from_number(1);
    const OTHER: JobId = JobId::from_number(2);

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn files_of(job: JobId) -> [String; 3] {
        let number = job.as_str().chars().last().unwrap_or_default();
        [
            format!("submittedExecutionPlana{number}"),
            format!("completedCheckpointa{number}"),
            format!("blob/job_{job}/blob_p-a{number}"),
        ]
    }

    fn of(jobs: &[JobId]) -> JobFiles {
        jobs.iter().map(|job| (*job, files_of(*job).into())).collect()
    }

    fn answers(absent: &[&str]) -> Answers {
        let all = [ONE, OTHER].into_iter().flat_map(files_of);
        all.map(|file| (file.clone(), !absent.contains(&file.as_str()))).collect()
    }

    /// Two looks, the second one after this time.
    fn looked(needs: &Needs, first: &Answers, then: &Answers, after: Duration) -> Looks {
        let mut looks = Looks::default();
        looks.note(needs, first, second(0), second(1));
        looks.note(needs, then, second(1) + after, second(2) + after);
        looks
    }

    #[test]
    fn a_job_is_set_aside_when_a_file_was_not_there_twice_far_enough_apart() {
        let needs = Needs { stored: of(&[ONE, OTHER]), quarantined: JobFiles::new() };
        for file in files_of(ONE) {
            let (lost, whole) = (answers(&[&file]), answers(&[]));
            let moves = |looks: &Looks, now: &Answers| Moves::of(&needs, looks, now).aside;
            let looks = looked(&needs, &lost, &lost, APART);
            assert_eq!(moves(&looks, &lost), BTreeSet::from([ONE]), "{file}");
            assert_eq!(needs.missing(&looks), JobFiles::from([(ONE, BTreeSet::from([file.clone()]))]));
            assert!(needs.in_doubt(&looks).contains(&file) && looks.is_settled() && looks.has_lost());
            assert!(!needs.is_whole(&lost) && needs.is_whole(&whole));
            assert!(moves(&looks, &whole).is_empty(), "it is there now");
            assert!(moves(&looks, &Answers::new()).is_empty(), "nothing is known now");
            for looks in [
                looked(&needs, &lost, &lost, APART - Duration::from_millis(1)),
                looked(&needs, &lost, &whole, APART),
                looked(&needs, &whole, &lost, APART),
                looked(&needs, &lost, &Answers::new(), APART),
            ] {
                assert!(moves(&looks, &lost).is_empty(), "{file}: {looks:?}");
            }
        }
    }

    #[test]
    fn a_file_that_came_back_in_between_is_counted_anew_and_one_that_nobody_needs_is_forgotten() {
        let needs = Needs { stored: of(&[ONE, OTHER]), quarantined: JobFiles::new() };
        let [plan, ..] = files_of(ONE);
        let (lost, whole) = (answers(&[&plan]), answers(&[]));
        let mut looks = looked(&needs, &lost, &whole, APART);
        looks.note(&needs, &lost, second(20), second(20));
        assert!(!looks.has_lost() && !looks.is_settled());
        looks.note(&needs, &lost, second(30), second(30));
        assert!(looks.has_lost());
        looks.note(&Needs { stored: of(&[OTHER]), ..needs }, &whole, second(31), second(31));
        assert!(looks.is_settled() && !looks.has_lost());
    }

    #[test]
    fn an_empty_mount_is_no_loss_not_even_with_new_checkpoints() {
        let [one, other] = [ONE, OTHER].map(files_of);
        let all: Vec<&str> = one.iter().chain(&other).map(String::as_str).collect();
        for jobs in [&[ONE, OTHER][..], &[ONE]] {
            let needs = Needs { stored: of(jobs), quarantined: JobFiles::new() };
            let empty = answers(&all);
            let looks = looked(&needs, &empty, &empty, APART);
            assert!(Moves::of(&needs, &looks, &empty).is_empty());
            let mut with_checkpoint = empty;
            with_checkpoint.insert(one[1].clone(), true);
            let looks = looked(&needs, &with_checkpoint, &with_checkpoint, APART);
            assert!(looks.has_lost() && Moves::of(&needs, &looks, &with_checkpoint).is_empty());
        }
        // The jar of the only job shows that the graph alone is gone.
        let needs = Needs { stored: of(&[ONE]), quarantined: JobFiles::new() };
        let lost = answers(&[&one[0], &other[0], &other[1], &other[2]]);
        let looks = looked(&needs, &lost, &lost, APART);
        assert_eq!(Moves::of(&needs, &looks, &lost).aside, BTreeSet::from([ONE]));
    }

    #[test]
    fn a_job_comes_back_when_all_its_files_are_there_and_nothing_else_is_stored_under_its_id() {
        let needs = Needs { stored: of(&[OTHER]), quarantined: of(&[ONE]) };
        let whole = answers(&[]);
        assert_eq!(Moves::of(&needs, &Looks::default(), &whole).back, BTreeSet::from([ONE]));
        for file in files_of(ONE) {
            assert!(Moves::of(&needs, &Looks::default(), &answers(&[&file])).is_empty());
            let unknown: Answers =
                whole.iter().filter(|(known, _)| **known != file).map(|(file, is)| (file.clone(), *is)).collect();
            assert!(Moves::of(&needs, &Looks::default(), &unknown).is_empty());
        }
        let both = Needs { stored: of(&[ONE, OTHER]), quarantined: of(&[ONE]) };
        assert!(Moves::of(&both, &Looks::default(), &whole).is_empty(), "it was submitted again");
        assert!(looked(&needs, &whole, &whole, second(9)).restored().is_empty(), "files may just be copied");
        assert_eq!(looked(&needs, &whole, &whole, APART).restored(), &BTreeSet::from([ONE]));
        assert!(looked(&needs, &whole, &answers(&[&files_of(ONE)[0]]), APART).restored().is_empty());
    }

    #[test]
    fn a_move_changes_the_keys_of_its_job_alone_and_back_makes_it_undone() {
        let (plan, other) = (format!("executionPlan-{ONE}"), format!("jobGraph-{OTHER}"));
        let cluster =
            json!({ "data": { &plan: "p", &other: "o", "executionPlan-x": "?", format!("application-{ONE}"): "a" } });
        let moves = Moves { aside: BTreeSet::from([ONE]), back: BTreeSet::new() };
        let patch = moves.patch(&cluster);
        assert_eq!(patch, json!({ "data": { &plan: null, quarantine_key(&plan): "p" } }));
        let moved = json!({ "data": { quarantine_key(&plan): "p", &other: "o" } });
        let back = Moves { aside: BTreeSet::new(), back: BTreeSet::from([ONE, OTHER]) };
        assert_eq!(back.patch(&moved), json!({ "data": { quarantine_key(&plan): null, &plan: "p" } }));
        assert_eq!(Moves::default().patch(&cluster), json!({ "data": {} }));
    }

    #[test]
    fn the_files_of_a_job_are_those_that_pointers_and_the_ledger_name() {
        let [plan, checkpoint, jar] = files_of(ONE);
        let inventory = Inventory {
            plans: [(ONE, plan)].into(),
            quarantined: [(OTHER, String::new())].into(),
            checkpoints: [(ONE, [checkpoint].into()), (OTHER, ["completedCheckpointff".to_owned()].into())].into(),
            ..Inventory::default()
        };
        let jobs = [Job { jars: Some(vec![jar]), ..Job::of(ONE) }, Job::of(OTHER)];
        let needs = Needs::of(&inventory, &jobs);
        assert_eq!(needs.stored, of(&[ONE]));
        assert!(needs.quarantined.is_empty(), "nobody knows what an unreadable pointer names");
        let ended = [Job { ended: Some("then".to_owned()), ..Job::of(ONE) }];
        assert_eq!(Needs::of(&inventory, &ended), Needs::default(), "it is not brought back");
    }
}
