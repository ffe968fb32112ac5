//! Periodic savepoints: is one due, and what becomes of those that fail. The operator asks the leader for them as for
//! any other savepoint, and only while the job runs and nothing else is to be done: there is never more than one
//! request.

use jiff::{SignedDuration, Timestamp};

use super::decision::Inputs;
use super::step::LifecycleStep;
use crate::api::application::{Application, Phase, Savepoint};
use crate::api::savepoints::PeriodicSavepoints;
use crate::api::time::seconds;
use crate::cluster::cause::Cause;
use crate::flink::job_state::FlinkState;
use crate::ledger::application::Retention;
use crate::ledger::savepoints::{PERIODIC, TakenSavepoint};

/// After the first failure the next try comes so much later, and after each further one twice as late.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(60);
/// The longest time between tries, unless the interval is longer.
const LONGEST_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// A request without an answer is withdrawn then, unless the interval is longer.
const LONGEST_REQUEST: SignedDuration = SignedDuration::from_hours(1);
/// Savepoints that the status lists.
const SHOWN: usize = 20;

/// The time until the next one is to be asked for; zero or less: now.
pub fn time_left(interval: SignedDuration, progress: &PeriodicSavepoints, now: Timestamp) -> SignedDuration {
    let Some(last) = &progress.last else { return SignedDuration::ZERO };
    let wait = match u32::try_from(progress.failures).unwrap_or_default() {
        0 => interval,
        // Beyond twenty the exponent changes nothing.
        failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(20)).min(interval.max(LONGEST_RETRY)),
    };
    wait - now.duration_since(last.0)
}

/// The id of the request in progress, if it is one for a periodic savepoint.
pub fn requested(application: &Application) -> Option<&str> {
    application.savepoint_request.as_deref().filter(|id| id.starts_with(PERIODIC))
}

/// The savepoints that the status lists, of those that the ledger names.
pub fn shown(known: &[TakenSavepoint]) -> Vec<Savepoint> {
    let there: Vec<&TakenSavepoint> = known.iter().filter(|one| !one.removing).collect();
    let latest = there.get(there.len().saturating_sub(SHOWN)..).unwrap_or_default();
    let savepoint =
        |one: &&TakenSavepoint| Savepoint { path: one.path.clone(), at: one.at().map(seconds), id: one.id.clone() };
    latest.iter().map(savepoint).collect()
}

/// What is wrong with periodic savepoints of a job that runs.
pub fn causes(application: &Application) -> impl Iterator<Item = Cause> + use<> {
    let progress = application.periodic_savepoints.clone().filter(|_| application.phase == Phase::Running);
    let progress = progress.unwrap_or_default();
    let tries = progress.failures;
    let failed = progress.error.map(|error| Cause {
        reason: "PeriodicSavepointFailed",
        message: format!(
            "the job runs on, and its last periodic savepoint failed ({tries} in a row): {error}; the operator tries again, \
             ever less often; see Flink's log, and whether the job can write to execution.checkpointing.savepoint-dir; \
             without spec.job.savepoints.interval none is taken"
        ),
    });
    let remains = progress.not_removed.map(|why| Cause {
        reason: "SavepointNotRemoved",
        message: format!(
            "a periodic savepoint that spec.job.savepoints.retain does not keep is still there: {why}; the leader tries \
             again after the next one"
        ),
    });
    failed.into_iter().chain(remains)
}

impl LifecycleStep<'_> {
    /// What became of the request in progress.
    pub(super) fn end_periodic(&mut self) {
        let Some(id) = requested(self.application()).map(str::to_owned) else { return };
        let (now, asked) = (self.inputs.now, self.periodic().last.clone());
        let longest = self.interval().unwrap_or_default().max(LONGEST_REQUEST);
        let left = longest - asked.map_or(SignedDuration::ZERO, |asked| now.duration_since(asked.0));
        let answer = match self.answer_to(&id) {
            None if left <= SignedDuration::ZERO => Err(format!("the leader has not answered the request {id}")),
            None => return self.wake_after(left),
            Some(answer) => answer.map(drop),
        };
        self.application_mut().savepoint_request = None;
        let progress = self.periodic_mut();
        match answer {
            Ok(()) => (progress.failures, progress.error) = (0, None),
            Err(error) => {
                progress.failures = progress.failures.saturating_add(1);
                (progress.error, progress.last) = (Some(error), Some(seconds(now)));
            }
        }
    }

    /// Asks for one, if it is due and there is no request.
    pub(super) fn begin_periodic(&mut self) {
        let Some(interval) = self.interval() else {
            if requested(self.application()).is_none() {
                self.application_mut().periodic_savepoints = None;
            }
            return;
        };
        let now = self.inputs.now;
        let last = self.periodic().last.as_ref().map(|last| last.0).filter(|last| *last <= now);
        // The status may be lost, or the clock was set back.
        let last = last.or_else(|| latest_in_ledger(self.inputs)).unwrap_or(now);
        self.periodic_mut().last = Some(seconds(last));
        if self.application().savepoint_request.is_some() || !self.job_runs() {
            return;
        }
        let left = time_left(interval, self.periodic(), now);
        if left > SignedDuration::ZERO {
            return self.wake_after(left);
        }
        self.periodic_mut().last = Some(seconds(now));
        self.application_mut().savepoint_request = Some(next_id(self.inputs));
    }

    /// What the status says of savepoints, whatever the phase.
    pub(super) fn follow_savepoints(&mut self) {
        let known = self.inputs.savepoints;
        // A ledger that was lost or written by an earlier version says nothing.
        if !known.is_empty() {
            self.application_mut().savepoints = shown(known);
        }
        let remains = known.iter().find_map(|one| Some(format!("{}: {}", one.path, one.error.as_ref()?)));
        if let Some(progress) = &mut self.application_mut().periodic_savepoints {
            progress.not_removed = remains;
        }
    }

    /// Which periodic savepoints stay when this one is complete.
    pub(super) fn retention(&self) -> Option<Retention> {
        let retain = self.job.savepoints.retain.as_ref()?;
        let age = retain.age.as_ref().and_then(|age| humantime::parse_duration(age).ok());
        Some(Retention {
            count: usize::try_from(retain.count).unwrap_or_default().max(1),
            age_seconds: age.and_then(|age| i64::try_from(age.as_secs()).ok()),
            in_use: self.in_use(),
        })
    }

    /// Paths that this resource refers to, as far as they can be of periodic savepoints.
    fn in_use(&self) -> Vec<String> {
        let (application, progress) = (self.application(), self.inputs.progress);
        let definitions = [Some(&application.deployed), application.stable.as_ref()].into_iter().flatten();
        let initial = definitions.filter_map(|text| {
            let definition: serde_json::Value = serde_json::from_str(text).ok()?;
            Some(definition.pointer("/job/initialSavepointPath")?.as_str()?.to_owned())
        });
        let paths = initial
            .chain(self.job.initial_savepoint_path.clone())
            .chain(application.restored_from.clone())
            .chain(application.last_savepoint.as_ref().map(|savepoint| savepoint.path.clone()))
            .chain(application.upgrades.iter().filter_map(|upgrade| upgrade.restored_from.clone()))
            .chain(progress.before.as_ref().and_then(|before| before.checkpoint.clone()))
            .filter(|path| path.contains(PERIODIC));
        let mut paths: Vec<String> = paths.collect();
        paths.sort();
        paths.dedup();
        paths
    }

    fn interval(&self) -> Option<SignedDuration> {
        let interval = humantime::parse_duration(self.job.savepoints.interval.as_ref()?).ok()?;
        SignedDuration::try_from(interval).ok()
    }

    fn job_runs(&self) -> bool {
        self.has_begun() && self.inputs.progress.state == Some(FlinkState::Running)
    }

    fn periodic(&self) -> &PeriodicSavepoints {
        const NONE: &PeriodicSavepoints =
            &PeriodicSavepoints { last: None, failures: 0, error: None, not_removed: None };
        self.application().periodic_savepoints.as_ref().unwrap_or(NONE)
    }

    fn periodic_mut(&mut self) -> &mut PeriodicSavepoints {
        self.application_mut().periodic_savepoints.get_or_insert_default()
    }
}

/// When the latest one was complete, by the ledger.
fn latest_in_ledger(inputs: &Inputs<'_>) -> Option<Timestamp> {
    let latest = inputs.savepoints.iter().rfind(|one| one.is_periodic())?;
    latest.at().filter(|at| *at <= inputs.now)
}

/// An id that no savepoint has, also when the clock was set back.
fn next_id(inputs: &Inputs<'_>) -> String {
    let is_known = |id: &String| inputs.savepoints.iter().any(|one| one.id == *id);
    let answered = inputs.progress.savepoint.as_ref().map(|answer| &answer.id);
    let mut ids = (inputs.now.as_second()..).map(|second| format!("{PERIODIC}{second}"));
    ids.find(|id| !is_known(id) && Some(id) != answered).unwrap_or_default()
}
