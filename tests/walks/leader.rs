//! A JobManager that leads: Flink's steps, and its gateway's notes in the ledger.

use std::collections::{BTreeMap, BTreeSet};

use product::api::names;
use product::flink::ha_data;
use product::flink::job_id::JobId;
use product::flink::job_state::{End, FlinkState};
use product::flink::result::{Entry, Outcome, Store};
use product::ha_data::collect::collectable;
use product::ha_data::entrance::note_state;
use product::ha_data::inventory::Inventory;
use product::ledger::application::{Progress, SavepointAnswer};
use product::ledger::jobs::{self, Begun, HaData, RecordedState};

use super::asked::{fails, hangs};
use super::gateway::{Gateway, Leading, Running, path};
use super::objects::{NAME, time};
use super::world::{World, config_map, stamp};

/// Of how many steps one can be chosen.
pub const STEPS: u8 = 8;
pub const CHECKPOINT: u8 = 2;

impl World {
    /// The leader of this pod, if the API server still takes its writes.
    fn leader(&self, uid: &str) -> Option<(usize, Leading)> {
        let at = self.pods.iter().position(|pod| pod.uid == uid && pod.is_connected())?;
        let Gateway::Leading(leading) = &self.pods[at].gateway else { return None };
        let is_stamped = self.cluster().is_some_and(|cluster| stamp(cluster) == leading.term);
        is_stamped.then(|| (at, leading.clone()))
    }

    fn set(&mut self, at: usize, leading: Leading) {
        self.pods[at].gateway = Gateway::Leading(leading);
    }

    pub fn leader_step(&mut self, uid: &str, step: u8) {
        let Some((at, leading)) = self.leader(uid) else { return };
        match step {
            0 if !leading.has_started => self.start_job(at, leading),
            1 => self.come_up(at, leading),
            CHECKPOINT => self.take_checkpoint(at, leading),
            3 => self.monitor(at, &leading),
            4 => self.record(at, &leading),
            5 => self.answer(at, leading, true),
            6 => self.clean_up(&leading),
            7 => self.collect(at, &leading),
            _ => {}
        }
    }

    fn start_job(&mut self, at: usize, leading: Leading) {
        let (uid, run) = (self.pods[at].uid.clone(), self.pods[at].run().clone());
        let (term, job) = (leading.term, run.job_id);
        let started = |job, error| Leading { has_started: true, job, error, ..leading.clone() };
        let data = self.cluster().map(|cluster| cluster["data"].clone()).unwrap_or_default();
        let plans: Vec<(String, String)> = data
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((ha_data::plan_of(key)?.to_owned(), value.as_str()?.to_owned())))
            .filter(|(id, _)| !JobId::of(id).is_some_and(|id| self.has_result(id)))
            .collect();
        for (id, version) in &plans {
            if id.as_str() != job.as_str() || *version != run.version {
                self.ghost.violated("one version", || {
                    format!("{uid} of run {job} and version {} recovers run {id} of version {version}", run.version)
                });
            }
        }
        // Flink does not run a job whose result it finds.
        if self.has_result(job) {
            return self.set(at, started(None, None));
        }
        if plans.is_empty() {
            if fails(&run.version) {
                return self.set(at, started(None, Some("the main method failed")));
            }
            // The gateway lets nobody store a job that has a tombstone.
            if self.pods[at].ended.contains(&job) {
                return self.set(at, started(None, Some("the job has ended")));
            }
        }
        let state = match (self.checkpoint(job), &run.restored_from) {
            (Some(state), _) => state,
            (None, Some(path)) => match self.saved.get(path) {
                Some((_, state)) => *state,
                None => return self.set(at, started(None, Some("the savepoint is not there"))),
            },
            (None, None) => 0,
        };
        let (key, version) = (format!("executionPlan-{job}"), run.version.clone());
        if !self.write(&names::cluster_config_map(NAME), term, |cluster| cluster["data"][key] = version.into()) {
            return;
        }
        self.tell(|_| format!("{uid} runs job {job} from state {state}"));
        self.ghost.starts(job, state);
        self.set(at, started(Some(Running { state, is_up: false }), None));
    }

    fn come_up(&mut self, at: usize, leading: Leading) {
        let has_slots = self.pods.iter().any(|pod| pod.component == 1 && pod.is_connected() && pod.exists);
        let Some(job) = leading.job.clone().filter(|_| has_slots && !hangs(&self.pods[at].run().version)) else {
            return;
        };
        self.set(at, Leading { job: Some(Running { is_up: true, ..job }), ..leading });
    }

    fn take_checkpoint(&mut self, at: usize, leading: Leading) {
        let id = self.pods[at].run().job_id;
        let Some(job) = leading.job.clone().filter(|job| job.is_up) else { return };
        let (name, state) = (names::job_config_map(NAME, id.as_str()), job.state + 1);
        self.config_maps.entry(name.clone()).or_insert_with(|| config_map(&name, leading.term));
        if !self
            .write(&name, leading.term, |config_map| config_map["data"]["checkpointID-1"] = state.to_string().into())
        {
            return;
        }
        self.saved.retain(|at, (of, _)| *of != id || !at.starts_with("chk/"));
        self.saved.insert(path(id, state), (id, state));
        self.ghost.checkpoint(id, state);
        self.set(at, Leading { job: Some(Running { state, ..job }), ..leading });
    }

    fn monitor(&mut self, at: usize, leading: &Leading) {
        let (now, run) = (time(self.now).to_string(), self.pods[at].run().clone());
        let (state, up) = match (&leading.job, leading.error) {
            (Some(job), _) => (FlinkState::Running, job.is_up),
            (None, Some(_)) => (FlinkState::Failed, false),
            (None, None) => return,
        };
        let mut progress = self.ledger.as_ref().map(|ledger| ledger.progress()).unwrap_or_default();
        note_state(&run, &mut progress, &state, leading.error, up.then_some(now.as_str()));
        self.change_progress(leading.term, |before| *before = progress);
    }

    /// Writes only what is new.
    fn change_progress(&mut self, term: u64, change: impl FnOnce(&mut Progress)) -> bool {
        let before = self.ledger.as_ref().map(|ledger| ledger.progress()).unwrap_or_default();
        let mut after = before.clone();
        change(&mut after);
        after == before || self.write_ledger("application", term, |ledger| ledger.progress = Some(after))
    }

    fn change_jobs(&mut self, term: u64, change: impl FnOnce(&mut Vec<jobs::Job>)) -> bool {
        let mut after = self.ledger.as_ref().map(|ledger| ledger.jobs.clone()).unwrap_or_default();
        change(&mut after);
        let is_same = self.ledger.as_ref().is_some_and(|ledger| ledger.jobs == after);
        is_same || self.write_ledger("jobs", term, |ledger| ledger.jobs = after)
    }

    fn inventory(&self) -> Inventory {
        Inventory {
            stored: self.stored().map(|stored| stored.plans).unwrap_or_default(),
            with_config_map: self.jobs_with_config_map().collect(),
            ..Inventory::default()
        }
    }

    fn record(&mut self, at: usize, leading: &Leading) {
        let (inventory, now) = (self.inventory(), time(self.now).to_string());
        let begun = |id: &JobId| (*id, Begun { started: now.clone(), ..Begun::default() });
        let stored: BTreeMap<JobId, Begun> = inventory.stored.iter().map(begun).collect();
        let entries = self.entries.iter().map(|entry| entry.id);
        let known: BTreeSet<JobId> = inventory.with_config_map.iter().copied().chain(entries).collect();
        self.change_jobs(leading.term, |jobs| {
            jobs::note(jobs, &stored, &known);
        });
        if self.ledger.as_ref().is_some_and(|ledger| ledger.ha_data.is_none()) {
            let owned = HaData { state: "Collectable".to_owned(), owner: Some("o".to_owned()), ..HaData::default() };
            self.write_ledger("haData", leading.term, |ledger| ledger.ha_data = Some(owned));
        }
        self.see_requests(&self.pods[at].uid.clone());
    }

    /// The next step towards the savepoint that the operator asks for.
    pub fn answer(&mut self, at: usize, leading: Leading, succeeds: bool) {
        let (run, term) = (self.pods[at].run().job_id, leading.term);
        let Some(asked) = self.pods[at].asked.clone().filter(|asked| asked.job == run) else { return };
        let Some(ledger) = self.ledger.as_ref().filter(|ledger| ledger.torn != Some("application")) else { return };
        let before = ledger.progress().savepoint.filter(|answer| answer.id == asked.id).unwrap_or_default();
        if before.path.is_some() || before.error.is_some() {
            self.pods[at].answered = Some(asked.id);
            return;
        }
        let directory = |attempt: u64| format!("{}/{attempt}", asked.directory);
        let at_text = time(self.now).to_string();
        let answer = |path: Option<String>, error: Option<String>| SavepointAnswer {
            id: asked.id.clone(),
            path,
            error,
            at: at_text.clone(),
            attempt: term,
            by: String::new(),
            stops: asked.stop.then_some(asked.job),
        };
        let found = if self.has_result(run) {
            let path = Some(directory(before.attempt)).filter(|path| self.saved.contains_key(path));
            let error = path.is_none().then(|| "the job ended before the savepoint was complete".to_owned());
            answer(path, error)
        } else if before.attempt != term || leading.attempt.as_ref() != Some(&asked.id) {
            let attempt = SavepointAnswer { id: asked.id.clone(), attempt: term, ..SavepointAnswer::default() };
            if self.change_progress(term, |progress| progress.savepoint = Some(attempt)) {
                self.set(at, Leading { attempt: Some(asked.id), ..leading });
            }
            return;
        } else if let Some(job) = leading.job.clone().filter(|job| job.is_up && succeeds) {
            self.tell(|_| format!("the savepoint {} is complete, with state {}", asked.id, job.state));
            self.saved.insert(directory(term), (run, job.state));
            if asked.stop {
                self.ghost.stops(run, job.state);
                self.end_job(at, leading, End::Finished);
                return;
            }
            answer(Some(directory(term)), None)
        } else if succeeds {
            return;
        } else {
            answer(None, Some("it failed".to_owned()))
        };
        if self.change_progress(term, |progress| progress.savepoint = Some(found)) {
            self.pods[at].answered = Some(asked.id);
        }
    }

    /// The savepoint that is asked for fails, or the job ends by itself.
    pub fn mishap(&mut self, uid: &str, end: Option<End>) {
        let Some((at, leading)) = self.leader(uid) else { return };
        let Some(end) = end else { return self.answer(at, leading, false) };
        if leading.job.is_some() {
            let run = self.pods[at].run().job_id;
            self.ghost.ends(run);
            self.tell(|_| format!("job {run} has ended: {end:?}"));
            self.end_job(at, leading, end);
        }
    }

    /// The result is stored before Flink cleans up.
    fn end_job(&mut self, at: usize, leading: Leading, end: End) {
        let id = self.pods[at].run().job_id;
        let outcome = Some(Outcome::of(end));
        self.entries.push(Entry { store: Store::Job, id, dirty: true, outcome, torn: false });
        self.set(at, Leading { job: None, ..leading });
        self.touch();
    }

    /// Flink's next step to clean up after a job.
    fn clean_up(&mut self, leading: &Leading) {
        let Some(id) = self.entries.iter().find(|entry| entry.dirty).map(|entry| entry.id) else { return };
        let (cluster, key) = (names::cluster_config_map(NAME), format!("executionPlan-{id}"));
        if self.cluster().is_some_and(|cluster| cluster["data"].get(&key).is_some()) {
            self.write(&cluster, leading.term, |cluster| drop(cluster["data"].as_object_mut().unwrap().remove(&key)));
        } else if !self.remove_job(id, leading.term) {
            self.entries.iter_mut().filter(|entry| entry.id == id).for_each(|entry| entry.dirty = false);
        }
    }

    /// Whether there was something to remove.
    fn remove_job(&mut self, id: JobId, term: u64) -> bool {
        let name = names::job_config_map(NAME, id.as_str());
        let is_stamped = self.config_maps.get(&name).is_some_and(|config_map| stamp(config_map) == term);
        is_stamped && self.config_maps.remove(&name).is_some()
    }

    /// The collector's next step.
    fn collect(&mut self, at: usize, leading: &Leading) {
        let (term, run, now) = (leading.term, self.pods[at].run().job_id, time(self.now).to_string());
        let Some(ledger) = self.ledger.as_ref().filter(|ledger| ledger.torn.is_none()) else { return };
        let open = ledger.jobs.iter().filter(|job| job.has_ended() && job.collected.is_none());
        let (superseded, ended): (Vec<_>, Vec<_>) = open.partition(|job| job.state == RecordedState::Superseded);
        let ids = |jobs: Vec<&jobs::Job>| jobs.into_iter().map(|job| job.id).collect::<Vec<JobId>>();
        let (superseded, ended) = (ids(superseded), ids(ended));
        for id in &superseded {
            self.remove_job(*id, term);
        }
        let (inventory, entries) = (self.inventory(), self.entries.clone());
        let is_left = |id: &JobId| inventory.may_live(*id) || entries.iter().any(|entry| entry.id == *id);
        let gone =
            superseded.iter().filter(|id| !inventory.may_live(**id)).chain(ended.iter().filter(|id| !is_left(id)));
        let gone: BTreeMap<JobId, usize> = gone.map(|id| (*id, 0)).collect();
        if !gone.is_empty() {
            self.change_jobs(term, |jobs| {
                jobs::confirm(jobs, &gone, &now);
            });
        }
        let mut found = collectable(&entries, &inventory);
        found.retain(|entry| entry.id != run || !self.is_being_stopped(at));
        if leading.is_ending && found.iter().any(|entry| entry.id == run) {
            let uid = self.pods[at].uid.clone();
            self.release(&uid);
            return self.step_down(&uid);
        }
        let has_tombstone = |world: &Self, id: JobId| {
            world.ledger.as_ref().is_some_and(|ledger| ledger.jobs.iter().any(|job| job.id == id && job.has_ended()))
        };
        let fresh: Vec<_> = found.iter().filter(|entry| !has_tombstone(self, entry.id)).cloned().collect();
        if !fresh.is_empty() {
            self.change_jobs(term, |jobs| {
                fresh.iter().for_each(|entry| jobs::bury(jobs, entry.id, &entry.outcome, &now))
            });
            self.pods[at].ended.extend(fresh.iter().map(|entry| entry.id));
            return;
        }
        self.entries.retain(|known| !found.iter().any(|entry| entry.id == known.id));
    }
}
