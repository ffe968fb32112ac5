//! What the operator does next with an application: one step, from what is wanted, what was decided before and what is
//! seen, to what is decided now.
//!
//! Nothing is remembered but [`Application`] in the status, and a step that was not written down can be made again.
//! Pods of two versions are never there at the same time. State is never dropped to make progress: what cannot go on
//! with it is halted.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::decision::{Decision, Inputs, has_no_pods};
use super::step::LifecycleStep;
use super::versions::{job_id, request_directory, version};
use super::{again, definitions, periodic, upgrade};
use crate::api::FlinkHaClusterSpec;
use crate::api::application::{Application, JobSpec, JobState, Phase, Savepoint, UpgradeMode};
use crate::api::time::seconds;
use crate::flink::job_id::JobId;
use crate::flink::job_state::End;
use crate::ledger::application::SavepointRequest;
use crate::ledger::jobs::{self, RecordedState};
use crate::ledger::refusal::{FLINK_VERSION_MISMATCH, LAST_STATE_REFUSED};

/// After a job's end its pods stay until nothing of its HA data is left, but no longer than this.
pub(super) const COLLECTION_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);
/// A cause that does not go by itself is waited for so long.
const LASTING_CAUSE_TIMEOUT: SignedDuration = SignedDuration::from_secs(30);
const LASTING: [&str; 5] =
    ["ImagePullFailed", "ContainerNotStarted", "CrashLooping", LAST_STATE_REFUSED, FLINK_VERSION_MISMATCH];

/// Decides.
pub fn step(wanted: &FlinkHaClusterSpec, job: &JobSpec, before: Option<&Application>, inputs: &Inputs<'_>) -> Decision {
    let application = before.cloned().unwrap_or_else(|| begin(wanted, job, inputs));
    let mut step = LifecycleStep { wanted, job, inputs, decision: Decision { application, ..Decision::default() } };
    match step.application().phase {
        Phase::Starting | Phase::Halted => step.starting(),
        Phase::Running => step.running(),
        Phase::Savepointing => step.savepointing(),
        Phase::Upgrading => step.going(|step| step.start(step.wanted.clone())),
        Phase::RollingBack => step.going(|step| step.start(step.stable().unwrap_or_else(|| step.wanted.clone()))),
        Phase::Suspending => step.going(|step| step.enter(Phase::Suspended)),
        Phase::Suspended => step.suspended(),
        Phase::Ending => step.ending(),
        Phase::Ended => step.ended(),
    }
    let phase = step.application().phase;
    step.follow_wanted();
    // Nobody answers it any more, or something else is asked for.
    if phase != Phase::Running && periodic::requested(step.application()).is_some() {
        step.application_mut().savepoint_request = None;
    }
    step.follow_savepoints();
    let ended = phase == Phase::Ending && step.tombstone().is_none_or(|job| step.is_collected(job));
    step.decision.stopped = ended || has_no_pods(phase);
    step.decision.request = step.request();
    let own = inputs.progress.job.is_some_and(|job| job == step.application().job_id);
    step.application_mut().job_state = inputs
        .progress
        .state
        .as_ref()
        .filter(|_| own && !step.decision.stopped)
        .map(ToString::to_string)
        .unwrap_or_default();
    step.decision
}

/// A resource that is new, or was created again: then the run goes on whose data was retained, or another one from the
/// savepoint with which the last run was stopped.
fn begin(wanted: &FlinkHaClusterSpec, job: &JobSpec, inputs: &Inputs<'_>) -> Application {
    let again::OnRecord { retained, has_state, savepoint, starts, replaces } =
        again::find(inputs.progress, inputs.jobs, inputs.stored);
    // What was stopped with a savepoint goes on as another run, also when only the status was lost.
    let is_over =
        |id: JobId| inputs.progress.job == Some(id) || inputs.jobs.iter().any(|job| job.id == id && job.has_ended());
    let run = (1..).find(|run| savepoint.is_none() || !is_over(job_id(inputs.uid, *run))).unwrap_or(1);
    let phase = match job.state {
        JobState::Suspended => Phase::Suspended,
        // A start that was begun and could not be written down, or a status that is lost: the pods may be of another
        // definition, so they go first.
        JobState::Running if inputs.shows_pods => Phase::Upgrading,
        JobState::Running => Phase::Starting,
    };
    Application {
        phase,
        since: Some(seconds(inputs.now)),
        job_id: retained.unwrap_or_else(|| job_id(inputs.uid, run)).to_string(),
        runs: run,
        starts: starts.saturating_add(1),
        replaces: replaces.iter().map(ToString::to_string).collect(),
        restored_from: savepoint.or_else(|| job.initial_savepoint_path.clone().filter(|_| !has_state)),
        savepoint_trigger_nonce: job.savepoint_trigger_nonce,
        version: version(wanted),
        deployed: definitions::text(wanted),
        ..Application::default()
    }
}

impl LifecycleStep<'_> {
    /// Puts pods of this spec there.
    fn start(&mut self, spec: FlinkHaClusterSpec) {
        let going_back = self.application().phase == Phase::RollingBack;
        if self.job.state == JobState::Suspended && !going_back {
            return self.enter(Phase::Suspended);
        }
        self.application_mut().version = version(&spec);
        self.application_mut().deployed = definitions::text(&spec);
        self.application_mut().starts = self.application().starts.max(self.inputs.progress.start).saturating_add(1);
        // Until something of this resource has come up, it still takes the place of what was on record before it.
        if self.application().previous_job_id.is_some() || self.application().stable.is_some() {
            self.application_mut().replaces = again::predecessors(self.inputs.uid, self.application());
        }
        self.enter(Phase::Starting);
    }

    /// All its tasks have run, since its pods were brought there last.
    fn is_up(&self) -> bool {
        self.has_begun() && self.inputs.progress.start == self.application().starts && self.inputs.progress.up.is_some()
    }

    /// The main method has failed, since the pods were brought there last.
    fn main_failed(&self) -> Option<String> {
        self.inputs
            .progress
            .error
            .clone()
            .filter(|_| self.has_begun() && self.inputs.progress.start == self.application().starts)
    }

    /// A definition that is wanted, is not deployed and has not failed.
    fn wants_upgrade(&self) -> bool {
        let (wanted, application) = (version(self.wanted), self.application());
        let has_failed = Some(&wanted) == application.refused.as_ref() && !upgrade::may_begin_after_refusal(self);
        wanted != application.version && !has_failed
    }

    fn starting(&mut self) {
        again::mend(self.inputs, &mut self.decision.application);
        let can_go_back = self.application().phase == Phase::Starting
            && upgrade::is_in_progress(self.application())
            && self.stable().is_some();
        if let Some(ended) = self.tombstone().cloned() {
            if ended.state == RecordedState::Ended(End::Failed) && can_go_back && !self.is_up() {
                return upgrade::roll_back(self, ended.cause.unwrap_or_else(|| "the job failed".to_owned()));
            }
            return self.end(&ended);
        }
        if let Some(error) = self.main_failed().filter(|_| can_go_back) {
            return upgrade::roll_back(self, error);
        }
        if self.is_up() {
            upgrade::came_up(self);
            return self.running();
        }
        if self.job.state == JobState::Suspended {
            return self.enter(Phase::Suspending);
        }
        if self.wants_upgrade() {
            return upgrade::begin(self);
        }
        let deadline = humantime::parse_duration(&self.job.upgrade_deadline).unwrap_or(Duration::from_secs(300));
        let deadline = SignedDuration::try_from(deadline).unwrap_or(SignedDuration::MAX);
        let lasting = self.inputs.causes.iter().find(|cause| LASTING.contains(&cause.reason));
        let gives_up =
            self.elapsed() >= deadline || (lasting.is_some() && self.elapsed() >= LASTING_CAUSE_TIMEOUT.min(deadline));
        if can_go_back && gives_up {
            let late = || format!("not all tasks ran within {}", self.job.upgrade_deadline);
            return upgrade::roll_back(self, lasting.map_or_else(late, |cause| cause.message.clone()));
        }
        if self.application().phase == Phase::Starting
            && upgrade::is_rolled_back(self.application())
            && self.elapsed() >= deadline
        {
            return upgrade::halt(
                self,
                format!("the roll-back did not come up: not all tasks ran within {}", self.job.upgrade_deadline),
            );
        }
        let left = deadline
            .min(if lasting.is_some() { LASTING_CAUSE_TIMEOUT } else { deadline })
            .saturating_sub(self.elapsed());
        self.wake_after(left.max(SignedDuration::from_secs(1)));
    }

    fn running(&mut self) {
        if let Some(ended) = self.tombstone().cloned() {
            return self.end(&ended);
        }
        if self.job.state == JobState::Suspended {
            let id = self.request_id("suspend", self.inputs.generation);
            let failed = self.inputs.progress.savepoint.as_ref().is_some_and(|answer| {
                // An operator of an earlier version may have asked to stop this run.
                let asked_before = answer.id == format!("suspend-{}", self.inputs.generation);
                let of_this_run = answer.stops.is_some() && answer.stops == JobId::of(&self.application().job_id);
                answer.error.is_some() && (answer.id == id || asked_before && of_this_run)
            });
            return match self.job.upgrade_mode {
                UpgradeMode::Savepoint if failed => {}
                UpgradeMode::Savepoint => self.ask_to_stop(id),
                UpgradeMode::LastState | UpgradeMode::Stateless => self.enter(Phase::Suspending),
            };
        }
        if self.wants_upgrade() {
            return upgrade::begin(self);
        }
        self.end_periodic();
        if periodic::requested(self.application()).is_none() {
            self.answer_nonce();
        }
        self.begin_periodic();
    }

    /// A savepoint was asked for beside the running job.
    fn answer_nonce(&mut self) {
        let wanted = self.job.savepoint_trigger_nonce.filter(|nonce| *nonce != 0);
        let Some(nonce) = wanted.filter(|nonce| self.application().savepoint_trigger_nonce != Some(*nonce)) else {
            return;
        };
        // An operator of an earlier version may have asked.
        let asked = self.application().savepoint_request.clone().filter(|id| *id == format!("nonce-{nonce}"));
        let id = asked.unwrap_or_else(|| self.request_id("nonce", nonce));
        match self.answer_to(&id) {
            None => self.application_mut().savepoint_request = Some(id),
            Some(answer) => {
                // Why a definition that is asked for does not run is still to be told.
                let standing = upgrade::standing_error(self.application());
                let application = self.application_mut();
                (application.savepoint_trigger_nonce, application.savepoint_request) = (Some(nonce), None);
                match answer {
                    Ok(savepoint) => (application.last_savepoint, application.error) = (Some(savepoint), standing),
                    Err(error) => {
                        let failed = format!("spec.job.savepointTriggerNonce {nonce}: no savepoint: {error}");
                        let all = standing.into_iter().chain([failed]).collect::<Vec<_>>();
                        application.error = Some(all.join("; "));
                    }
                }
            }
        }
    }

    /// The id of a request for a savepoint, such as `upgrade-2-5f0c1d7e`. The resource's UID is part of it: the ledger
    /// of a former resource of this name may hold the answer to a request of the same number.
    pub(super) fn request_id(&self, kind: &str, number: i64) -> String {
        let uid = self.inputs.uid.split('-').next().unwrap_or_default();
        format!("{kind}-{number}-{uid}")
    }

    /// What became of a savepoint; `None` while that is not known.
    pub(super) fn answer_to(&self, id: &str) -> Option<Result<Savepoint, String>> {
        let answer = self.inputs.progress.savepoint.as_ref().filter(|answer| answer.id == id)?;
        match (&answer.path, &answer.error) {
            (Some(path), _) => {
                let at = answer.at.parse().ok().map(seconds);
                Some(Ok(Savepoint { path: path.clone(), at, id: id.to_owned() }))
            }
            (None, Some(error)) => Some(Err(error.clone())),
            (None, None) => None,
        }
    }

    fn savepointing(&mut self) {
        let Some(id) = self.application().savepoint_request.clone() else { return self.enter(Phase::Running) };
        let tombstone = self.tombstone().cloned();
        match (self.answer_to(&id), tombstone) {
            (Some(Ok(savepoint)), Some(ended)) if self.is_collected(&ended) => {
                self.application_mut().savepoint_request = None;
                self.application_mut().last_savepoint = Some(savepoint.clone());
                upgrade::restored_from(self.application_mut(), &savepoint.path);
                self.new_run(Some(savepoint.path));
                self.enter(if id.starts_with("suspend-") { Phase::Suspending } else { Phase::Upgrading });
            }
            (Some(Ok(_)), _) => self.wake_after(SignedDuration::from_secs(5)),
            // It ended by itself, before the savepoint was complete.
            (_, Some(ended)) => {
                self.application_mut().savepoint_request = None;
                self.end(&ended);
            }
            (Some(Err(error)), None) => {
                self.application_mut().savepoint_request = None;
                self.application_mut().error = Some(upgrade::not_stopped(&error));
                upgrade::refuse(self, error);
                self.enter(Phase::Running);
            }
            (None, None) => {}
        }
    }

    /// When the pods are gone, goes on.
    fn going(&mut self, on: impl FnOnce(&mut Self)) {
        if let Some(ended) = self.tombstone().cloned().filter(|_| self.application().phase != Phase::RollingBack) {
            return self.end(&ended);
        }
        if !self.inputs.pods {
            on(self);
        }
    }

    fn suspended(&mut self) {
        if self.job.state == JobState::Suspended {
            return;
        }
        // There are pods if a start was begun and could not be written down: they may be of another definition.
        if self.inputs.pods {
            return self.wake_after(SignedDuration::from_secs(5));
        }
        if self.application().stable.is_some() && self.job.upgrade_mode == UpgradeMode::Stateless {
            self.new_run(None);
        }
        if self.wants_upgrade() {
            upgrade::record(self);
        }
        self.start(self.wanted.clone());
    }

    /// The job has ended: absorbing.
    fn end(&mut self, ended: &jobs::Job) {
        upgrade::ended(self.application_mut());
        self.application_mut().result = Some(ended.state.to_string());
        self.enter(Phase::Ending);
        self.ending();
    }

    fn ending(&mut self) {
        let cause = self.tombstone().and_then(|ended| ended.cause.clone()).or_else(|| self.main_failed());
        let failed = self.application().result.as_deref() == Some("Failed");
        self.application_mut().error = cause.or_else(|| failed.then(|| "the job failed".to_owned()));
        let collected = self.tombstone().is_none_or(|ended| self.is_collected(ended));
        if collected && !self.inputs.pods {
            self.decision.clean = true;
            self.enter(Phase::Ended);
            return self.ended();
        }
        if !collected {
            self.wake_after(SignedDuration::from_secs(5));
        }
    }

    /// Nothing is left of its HA data, or it has been waited for long enough.
    fn is_collected(&self, ended: &jobs::Job) -> bool {
        let at: Option<Timestamp> = ended.ended.as_ref().and_then(|at| at.parse().ok());
        ended.collected.is_some() || at.is_none_or(|at| self.inputs.now.duration_since(at) > COLLECTION_TIMEOUT)
    }

    fn ended(&mut self) {
        let Some(ttl) = self.wanted.ttl_seconds_after_finished else { return };
        let left = SignedDuration::from_secs(ttl).saturating_sub(self.elapsed());
        if left <= SignedDuration::ZERO {
            self.decision.delete = true;
        } else {
            self.wake_after(left);
        }
    }

    /// Changes that need no new run are taken over as they come.
    fn follow_wanted(&mut self) {
        let same = version(self.wanted) == self.application().version;
        if same
            && matches!(
                self.application().phase,
                Phase::Starting | Phase::Running | Phase::Savepointing | Phase::Halted
            )
        {
            self.application_mut().deployed = definitions::text(self.wanted);
        }
        if same && self.application().phase == Phase::Running {
            let application = self.application_mut();
            application.stable = Some(application.deployed.clone());
            // What failed is no longer asked for.
            if application.refused.take().is_some() {
                application.error = None;
            }
        }
    }

    pub(super) fn wake_after(&mut self, left: SignedDuration) {
        self.decision.wake = Some(left.try_into().unwrap_or(Duration::from_secs(1)));
    }

    fn request(&self) -> Option<SavepointRequest> {
        let id = self.application().savepoint_request.clone()?;
        Some(SavepointRequest {
            job: JobId::of(&self.application().job_id)?,
            directory: request_directory(self.wanted, self.inputs.own_directory, &id)?,
            stop: self.application().phase == Phase::Savepointing,
            retain: periodic::requested(self.application()).and_then(|_| self.retention()),
            id,
        })
    }
}
