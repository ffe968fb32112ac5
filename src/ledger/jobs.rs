//! Defines the ledger's data about jobs and HA data. The ledger is one ConfigMap. The leading gateway writes it when a
//! job begins or ends; the operator reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::place::HaDataPlace;
pub use super::recorded_state::RecordedState;
use crate::flink::job_id::JobId;
use crate::flink::result::Outcome;
use crate::flink::version::FlinkVersion;

/// Key of the ledger ConfigMap that holds JSON of `Vec<Job>`.
pub const JOBS_KEY: &str = "jobs";
/// Key of the ledger ConfigMap that holds JSON of [`HaData`].
pub const HA_DATA_KEY: &str = "haData";
/// State of the HA data in a directory that no other cluster uses.
pub const COLLECTABLE: &str = "Collectable";

/// Number of jobs without an end. More are not recorded: while they are stored, their pointers protect their files.
pub const UNENDED: usize = 2000;

/// Number of characters of a job's name that are kept. A name made from SQL can be as long as its statement.
const NAME: usize = 128;

/// A job. With an end it is a tombstone: the job never runs again under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default)]
    pub state: RecordedState,
    /// When it was submitted, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When the gateway noticed its end, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// When the last of its HA data was removed, RFC 3339; absent until that is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<String>,
    /// Number of files that the gateway removed because Flink had left them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: usize,
    /// Files of its graphs or plans. Flink removes only the last one, and not even that if the leader dies between the
    /// removal of the pointer and of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<String>,
    /// Files of its jars, below the cluster's directory: the first few. Absent until somebody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jars: Option<Vec<String>>,
    /// Files below the cluster's directory that are gone, and without which Flink cannot recover the job.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Job {
    /// A job of which nothing but its id is known.
    pub fn of(id: JobId) -> Self {
        Self {
            id,
            name: String::new(),
            state: RecordedState::default(),
            started: None,
            ended: None,
            collected: None,
            removed: 0,
            plans: Vec::new(),
            jars: None,
            missing: Vec::new(),
            cause: None,
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Is the job stored? An ended job or one whose state is unknown is not.
    pub fn is_stored(&self) -> bool {
        !self.has_ended() && [RecordedState::Running, RecordedState::Quarantined].contains(&self.state)
    }

    /// Has it ended without a result of Flink's, so that the gateway removes all of it?
    pub fn ended_without_result(&self) -> bool {
        self.has_ended() && [RecordedState::Superseded, RecordedState::Dropped].contains(&self.state)
    }
}

/// The leading gateway's report about the cluster's HA data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HaData {
    /// [`COLLECTABLE`], `NotCollectable`, `Unreachable` or `Shared`; `Settling` while the gateway waits to see whether
    /// another cluster marks the directory too.
    pub state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The owner id of this cluster's mark. It stays with retained data, so that the same resource finds its directory
    /// when it is created again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Digests of the Kubernetes cluster's certificates at the time of that decision. They identify a copy of this
    /// ledger in another Kubernetes cluster. Empty in ledgers of earlier versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Gateway processes of this cluster that wrote the mark last, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// Seconds for which a mark must stand unchanged, while the state is `Settling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settling: Option<u64>,
    /// Location of the HA data. Absent in ledgers of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<HaDataPlace>,
    /// Version of Flink that led last. Absent if it is not known, and in ledgers of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flink_version: Option<String>,
    /// The largest HA ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<Size>,
    /// Number of HA ConfigMaps that the leading gateway could not restore, because it has no room for their copies.
    #[serde(skip_serializing_if = "is_zero")]
    pub without_copy: usize,
    /// ConfigMaps with a pointer that cannot be read; the first of them, if there are many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Files that nothing needs, as the last sweep found them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphans: Option<OrphanCounts>,
}

impl HaData {
    /// Version of Flink that led last, if it is known.
    pub fn led_by(&self) -> Option<FlinkVersion> {
        FlinkVersion::of(self.flink_version.as_ref()?)
    }
}

/// Name and size of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub name: String,
    pub bytes: usize,
}

/// Largest ConfigMap that Kubernetes stores, in bytes (`MaxSecretSize` in its API validation).
pub const CONFIG_MAP_LIMIT: usize = 1 << 20;

impl Size {
    /// Returns the size in percent of [`CONFIG_MAP_LIMIT`].
    pub fn per_cent(&self) -> usize {
        self.bytes.saturating_mul(100) / CONFIG_MAP_LIMIT
    }
}

/// The result of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrphanCounts {
    /// Files that nothing needs and that still exist.
    pub files: u64,
    pub bytes: u64,
    /// Files removed since the ledger was created.
    pub removed: u64,
    /// Files in the cluster's directory that are not Flink's.
    pub foreign: u64,
    /// Files that no readable pointer names, but that an unreadable one might name.
    pub protected: u64,
}

/// Reads the jobs. The caller does not overwrite text that fails to parse.
///
/// # Errors
/// When the text is not a list of jobs.
pub fn read(text: Option<&str>) -> Result<Vec<Job>, serde_json::Error> {
    text.map_or(Ok(Vec::new()), serde_json::from_str)
}

/// What HA data says about a stored job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    pub name: String,
    pub started: String,
    pub plan: Option<String>,
}

/// Whether further jobs may be recorded that have not ended.
pub fn has_room(jobs: &[Job]) -> bool {
    jobs.iter().filter(|job| !job.has_ended()).count() < UNENDED
}

/// Notes the jobs that are stored now. A job without an end that is neither stored nor otherwise known becomes
/// `Unknown` and is not dropped: somebody may have removed its HA data by hand and may restore it. Returns whether
/// anything changed. A job for which there is no room ([`UNENDED`]) is not noted.
pub fn note(jobs: &mut Vec<Job>, stored: &BTreeMap<JobId, Begun>, known: &BTreeSet<JobId>) -> bool {
    let before = jobs.clone();
    for job in jobs.iter_mut().filter(|job| !job.has_ended()) {
        let is_known = stored.contains_key(&job.id) || known.contains(&job.id);
        job.state = if is_known { RecordedState::Running } else { RecordedState::Unknown };
    }
    for (id, begun) in stored {
        if let Some(job) = jobs.iter_mut().find(|job| job.id == *id) {
            if job.name.is_empty() {
                job.name = shortened(&begun.name);
            }
            job.plans.extend(begun.plan.iter().filter(|plan| !job.plans.contains(plan)).cloned().collect::<Vec<_>>());
        } else if has_room(jobs) {
            jobs.push(Job {
                name: shortened(&begun.name),
                state: RecordedState::Running,
                started: Some(begun.started.clone()),
                plans: begun.plan.iter().cloned().collect(),
                ..Job::of(*id)
            });
        }
    }
    *jobs != before
}

fn shortened(name: &str) -> String {
    name.chars().take(NAME).collect()
}

/// Notes a job's end. An end that the ledger already has stays; what it does not say yet of the same end is filled in:
/// the entry of an application, which does not name the exception, may be found before its job's.
pub fn bury(jobs: &mut Vec<Job>, id: JobId, outcome: &Outcome, now: &str) {
    let same = |job: &&mut Job| job.id == id && job.state == RecordedState::Ended(outcome.state);
    if let Some(job) = jobs.iter_mut().find(same) {
        if job.name.is_empty() {
            job.name = shortened(&outcome.name);
        }
        job.cause = job.cause.take().or_else(|| outcome.cause.clone());
    }
    end(jobs, id, now, |job| {
        if job.name.is_empty() {
            job.name = shortened(&outcome.name);
        }
        job.state = RecordedState::Ended(outcome.state);
        job.cause.clone_from(&outcome.cause);
    });
}

/// Writes down that another run of the application began in the place of this one, unless it has ended.
pub fn supersede(jobs: &mut Vec<Job>, id: JobId, now: &str) {
    end(jobs, id, now, |job| {
        job.state = RecordedState::Superseded;
        job.cause = None;
    });
}

pub(super) fn end(jobs: &mut Vec<Job>, id: JobId, now: &str, change: impl FnOnce(&mut Job)) {
    let mut job = match jobs.iter().position(|job| job.id == id) {
        Some(index) if jobs[index].has_ended() => return,
        Some(index) => jobs.remove(index),
        None => Job::of(id),
    };
    change(&mut job);
    (job.jars, job.missing) = (None, Vec::new());
    job.ended = Some(now.to_owned());
    jobs.push(job);
}

/// Notes that all HA data of these ended jobs has been removed, and how many files of each the gateway removed. Returns
/// whether anything changed.
pub fn confirm(jobs: &mut [Job], removed: &BTreeMap<JobId, usize>, now: &str) -> bool {
    let mut news = false;
    for job in jobs.iter_mut().filter(|job| job.has_ended() && job.collected.is_none()) {
        let Some(files) = removed.get(&job.id) else { continue };
        job.collected = Some(now.to_owned());
        job.removed = *files;
        job.plans.clear();
        news = true;
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flink::job_state::End;

    fn id(number: usize) -> JobId {
        JobId::from_number(number as u128)
    }

    fn stored(id: JobId, plan: &str) -> BTreeMap<JobId, Begun> {
        BTreeMap::from([(id, Begun { name: "words".into(), started: "then".into(), plan: Some(plan.into()) })])
    }

    #[test]
    fn a_tombstone_stands_once() {
        let outcome = Outcome { name: "words".into(), ..Outcome::of(End::Finished) };
        let mut jobs = Vec::new();
        note(&mut jobs, &stored(id(20), "plan"), &BTreeSet::new());
        for number in 5..10 {
            bury(&mut jobs, id(number), &outcome, "then");
            bury(&mut jobs, id(number), &outcome, "later");
        }
        assert_eq!(jobs.len(), 6);
        assert_eq!((jobs[1].id, jobs[1].ended.as_deref()), (id(5), Some("then")));
        let removed = BTreeMap::from([(id(7), 2)]);
        assert!(confirm(&mut jobs, &removed, "now"));
        assert!(!confirm(&mut jobs, &removed, "again"));
        let text = serde_json::to_string(&jobs).expect("JSON");
        assert_eq!(read(Some(&text)).expect("jobs"), jobs);
    }

    #[test]
    fn the_version_that_led_is_read_back_and_what_is_none_is_not_known() {
        let noted = HaData { flink_version: Some("1.20.5".to_owned()), ..HaData::default() };
        let text = serde_json::to_string(&noted).expect("JSON");
        assert!(text.contains(r#""flinkVersion":"1.20.5""#), "{text}");
        let read = |text: &str| serde_json::from_str::<HaData>(text).expect("HA data").led_by();
        assert_eq!(read(&text), FlinkVersion::of("1.20.5"));
        assert_eq!(read(r#"{"state":"Collectable"}"#), None, "of an earlier version");
        assert_eq!(read(r#"{"flinkVersion":"edited"}"#), None);
    }

    #[test]
    fn a_size_that_somebody_has_edited_has_a_share() {
        assert_eq!(Size { bytes: 3 << 19, ..Size::default() }.per_cent(), 150);
        assert!(Size { bytes: usize::MAX, ..Size::default() }.per_cent() > 100);
    }

    #[test]
    fn the_exception_of_a_job_is_noted_also_when_its_applications_end_was_noted_first() {
        let of_job = Outcome { name: "words".into(), cause: Some("why".into()), ..Outcome::of(End::Failed) };
        let mut jobs = Vec::new();
        bury(&mut jobs, id(1), &Outcome::of(End::Failed), "then");
        bury(&mut jobs, id(1), &of_job, "later");
        assert_eq!((jobs[0].cause.as_deref(), jobs[0].ended.as_deref()), (Some("why"), Some("then")));
        assert_eq!(jobs[0].name, "words");
        bury(&mut jobs, id(1), &Outcome { cause: Some("another".into()), ..of_job }, "later");
        assert_eq!(jobs[0].cause.as_deref(), Some("why"));
        // Another end than the one that is noted says nothing about it.
        let mut jobs = Vec::new();
        bury(&mut jobs, id(1), &Outcome::of(End::Canceled), "then");
        bury(&mut jobs, id(1), &Outcome { cause: Some("why".into()), ..Outcome::of(End::Failed) }, "later");
        assert_eq!((jobs[0].cause.as_deref(), &jobs[0].state), (None, &RecordedState::Ended(End::Canceled)));
    }

    #[test]
    fn a_run_is_superseded_once_and_only_while_it_has_not_ended() {
        let mut jobs = Vec::new();
        note(&mut jobs, &stored(id(1), "plan"), &BTreeSet::new());
        supersede(&mut jobs, id(1), "then");
        supersede(&mut jobs, id(2), "then");
        bury(&mut jobs, id(3), &Outcome::of(End::Failed), "then");
        supersede(&mut jobs, id(3), "later");
        let told: Vec<_> =
            jobs.iter().map(|job| (job.name.as_str(), job.state.as_str(), job.ended.as_deref())).collect();
        assert_eq!(
            told,
            [("words", "Superseded", Some("then")), ("", "Superseded", Some("then")), ("", "Failed", Some("then"))]
        );
    }

    /// Somebody has edited it: it is not known which job it was.
    #[test]
    fn a_list_with_an_id_that_is_none_is_no_list_of_jobs() {
        assert!(read(Some(r#"[{"id":"00000000000000000000000000000001"}]"#)).is_ok());
        for text in [r#"[{"id":"a"}]"#, r#"[{"state":"Running"}]"#] {
            assert!(read(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_job_is_noted_when_it_begins_and_never_begins_again_after_its_end() {
        let (mut jobs, nothing) = (Vec::new(), BTreeSet::new());
        assert!(note(&mut jobs, &stored(id(0xa), "plan"), &nothing));
        assert!(!note(&mut jobs, &stored(id(0xa), "plan"), &nothing));
        assert_eq!((jobs[0].state.as_str(), jobs[0].started.as_deref()), ("Running", Some("then")));
        assert!(!note(&mut jobs, &BTreeMap::new(), &BTreeSet::from([id(0xa)])), "Flink is still cleaning up");
        bury(&mut jobs, id(0xa), &Outcome::of(End::Failed), "now");
        assert_eq!((jobs[0].state.as_str(), jobs[0].plans.as_slice()), ("Failed", &["plan".to_owned()][..]));
        assert!(!note(&mut jobs, &stored(id(0xa), "plan"), &nothing));
        assert_eq!(jobs[0].state, RecordedState::Ended(End::Failed));
        assert!(!note(&mut jobs, &BTreeMap::new(), &nothing), "a tombstone stays");
        note(&mut jobs, &stored(id(0xb), "plan"), &nothing);
        assert!(note(&mut jobs, &BTreeMap::new(), &nothing));
        assert_eq!((jobs.len(), jobs[1].state.as_str()), (2, "Unknown"), "somebody removed it by hand, perhaps");
        note(&mut jobs, &stored(id(0xb), "plan"), &nothing);
        assert_eq!(jobs[1].state, RecordedState::Running);
    }
}
