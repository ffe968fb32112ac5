//! The ledger's keys and annotations as anybody may have written them: they survive being read and written, what is
//! not understood is told and not taken for nothing, and a tombstone stands.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::cluster::ha_status;
use crate::cluster::observed::ObservedConfigMap;
use crate::flink::job_id::JobId;
use crate::flink::job_state::{End, FlinkState};
use crate::flink::result::Outcome;
use crate::ha_data::entrance::{Entrance, Records, begun, entrance, note_state};
use crate::ha_data::handover::Stored;
use crate::ha_data::retention::mark;
use crate::input::{Input, record};
use crate::ledger::application::{Before, Progress, Retention, Run, SavepointAnswer, SavepointRequest};
use crate::ledger::checkpoints::Checkpoints;
use crate::ledger::failovers::{Failovers, merged};
use crate::ledger::jobs::{self, Begun, HaData, Job};
use crate::ledger::place::HaDataPlace;
use crate::ledger::refusal::Refusal;
use crate::ledger::savepoints::TakenSavepoints;
use crate::ledger::unready;

pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let lines = [input.line(), input.line(), input.line()];
    let [jobs, ha_data, progress] = lines;
    let (jobs, ha_data) = (record::<Vec<Job>>(jobs), record::<HaData>(ha_data));
    let progress = record::<Progress>(progress);
    for line in lines {
        let _ = record::<HaDataPlace>(line);
        let _ = record::<Before>(line);
        let _ = record::<Failovers>(line).map(|failovers| merged(3, failovers.0));
        let _ = record::<Checkpoints>(line).map(|checkpoints| checkpoints.to_text());
        if let Some(mut known) = record::<TakenSavepoints>(line) {
            mark(&mut known, &Retention::default(), "ns.demo", Timestamp::UNIX_EPOCH);
            assert!(known.latest_periodic().is_none_or(|latest| !latest.removing));
        }
        let _ = record::<SavepointAnswer>(line);
        let _ = record::<SavepointRequest>(line);
        annotations(&String::from_utf8_lossy(line));
    }
    told(lines);
    if let Some(jobs) = &jobs {
        of_jobs(jobs);
    }
    if let Some(ha_data) = &ha_data {
        let _ = ha_status::ha_data(ha_data);
        if let Some(place) = &ha_data.place {
            let _ = place.differs(&HaDataPlace::default());
            assert_eq!(place.differs(place), None);
        }
    }
    of_application(&progress.unwrap_or_default(), jobs.unwrap_or_default());
}

/// The operator's view: a key whose text is no record is named.
fn told(lines: [&[u8]; 3]) {
    let [jobs, ha_data, application] = lines.map(|line| String::from_utf8_lossy(line).into_owned());
    let is_read = [
        serde_json::from_str::<Vec<Job>>(&jobs).is_ok(),
        serde_json::from_str::<HaData>(&ha_data).is_ok(),
        serde_json::from_str::<Progress>(&application).is_ok(),
    ];
    let ledger = json!({ "metadata": {}, "data": { "jobs": jobs, "haData": ha_data, "application": application } });
    let ledger: ObservedConfigMap = serde_json::from_value(ledger).expect("a ConfigMap with texts");
    for (key, is_read) in ["jobs", "haData", "application"].into_iter().zip(is_read) {
        assert_eq!(ledger.data.unreadable.iter().any(|unread| unread == key), !is_read, "{key}");
    }
}

fn annotations(text: &str) {
    let names = ["flinkha.dev/refusal".to_owned(), unready::annotation("uid")];
    let all = names.into_iter().map(|name| (name, text.to_owned()));
    let metadata = ObjectMeta { annotations: Some(all.collect()), ..ObjectMeta::default() };
    if let Some(refusal) = Refusal::of(&metadata) {
        assert!(!refusal.condition_reason().is_empty());
    }
    let _ = unready::of(&metadata, "uid");
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let _ = unready::outdated(&metadata, now);
    }
}

fn of_jobs(before: &[Job]) {
    for job in before {
        let _ = ha_status::with_checkpoint(job, &Checkpoints::default());
    }
    let ids: BTreeSet<JobId> = before.iter().map(|job| job.id).collect();
    let ended = |jobs: &[Job], id: JobId| jobs.iter().any(|job| job.id == id && job.has_ended());
    for id in ids.into_iter().take(8) {
        let mut jobs = before.to_vec();
        let was_ended = ended(&jobs, id);
        let is_twice = jobs.iter().filter(|job| job.id == id).count() > 1;
        jobs::bury(&mut jobs, id, &Outcome::of(End::Failed), "then");
        assert!(ended(&jobs, id));
        let stored = BTreeMap::from([(id, Begun { name: "n".into(), started: "s".into(), plan: Some("p".into()) })]);
        jobs::note(&mut jobs, &stored, &BTreeSet::new());
        assert!(ended(&jobs, id), "a tombstone is gone");
        assert!(is_twice || !was_ended || jobs.len() == before.len());
        jobs::supersede(&mut jobs, id, "later");
        jobs::confirm(&mut jobs, &BTreeMap::from([(id, usize::MAX)]), "now");
        let text = serde_json::to_string(&jobs).expect("jobs are written");
        assert_eq!(jobs::read(Some(&text)).expect("jobs are read"), jobs);
    }
}

/// Pods of an earlier start never lead, an ended run never runs again, and only named runs are superseded.
fn of_application(progress: &Progress, jobs: Vec<Job>) {
    let run = Run { replaces: vec![JobId::from_number(0xb)], ..Run::new(JobId::from_number(0xa), "v2", 2) };
    let stored = Stored { mark: Some(format!("{}/v1", JobId::from_number(0xb))), ..Stored::default() };
    let records = Records { progress: progress.clone(), jobs, entries: Vec::new() };
    let has_ended = records.jobs.iter().any(|job| job.id == run.job_id && job.has_ended());
    let is_later = progress.start > run.start;
    match entrance(&run, &stored, &records, false, "demo-ledger") {
        Entrance::Begin(plan) => {
            assert!(!is_later && !has_ended);
            assert!(plan.superseded.iter().all(|id| run.replaces.contains(id)), "{:?}", plan.superseded);
        }
        Entrance::Enter { .. } => assert!(!is_later && !has_ended),
        Entrance::Refuse(refusal) => assert!(!refusal.message.is_empty()),
        Entrance::Finish | Entrance::Collect(_) | Entrance::Foreign(_) => assert!(!is_later),
    }
    assert_eq!(begun(&run, progress, None).is_err(), is_later);
    let mut noted = progress.clone();
    note_state(&run, &mut noted, &FlinkState::Running, None, Some("now"));
    assert!(!is_later || noted == *progress);
    let _ = progress.stopped_with(run.job_id);
}
