//! Handles a change of the job's definition: its beginning, its success, and one automatic roll-back.

use super::step::LifecycleStep;
use crate::api::application::{Application, Phase, Upgrade, UpgradeMode};
use crate::api::time::seconds;
use crate::flink::version::FlinkVersion;
use crate::ledger::jobs::RecordedState;

/// Number of upgrades that the status keeps.
const KEPT: usize = 10;

const IN_PROGRESS: &str = "InProgress";
const SUCCEEDED: &str = "Succeeded";
const ROLLED_BACK: &str = "RolledBack";
const REFUSED: &str = "Refused";
const FAILED: &str = "Failed";

pub(super) fn is_in_progress(application: &Application) -> bool {
    last_is(application, IN_PROGRESS)
}

pub(super) fn is_rolled_back(application: &Application) -> bool {
    last_is(application, ROLLED_BACK)
}

fn last_is(application: &Application, result: &str) -> bool {
    application.upgrades.last().is_some_and(|upgrade| upgrade.result == result)
}

fn conclude(application: &mut Application, result: &str, why: Option<String>) {
    if let Some(upgrade) = application.upgrades.last_mut() {
        upgrade.result = result.to_owned();
        upgrade.why = why.or_else(|| upgrade.why.take());
    }
}

/// Records the beginning of an upgrade.
pub(super) fn record(step: &mut LifecycleStep<'_>) {
    let (now, generation, mode) = (seconds(step.inputs.now), step.inputs.generation, step.job.upgrade_mode);
    let application = step.application_mut();
    application.refused = None;
    application.error = None;
    let upgrade = Upgrade {
        at: Some(now),
        generation,
        mode: mode.name().to_owned(),
        result: IN_PROGRESS.to_owned(),
        ..Upgrade::default()
    };
    // An upgrade that is replaced before it came up has no outcome.
    application.upgrades.retain(|upgrade| upgrade.result != IN_PROGRESS);
    application.upgrades.push(upgrade);
    let surplus = application.upgrades.len().saturating_sub(KEPT);
    application.upgrades.drain(..surplus);
}

/// Begins an upgrade. A job that does not run cannot take a savepoint, so it resumes from its last state.
pub(super) fn begin(step: &mut LifecycleStep<'_>) {
    let runs = step.application().phase == Phase::Running;
    record(step);
    if let Some(why) = unproven(step).filter(|_| runs) {
        step.application_mut().error = Some(why.clone());
        return refuse(step, why);
    }
    match step.job.upgrade_mode {
        UpgradeMode::Savepoint if runs => return step.ask_to_stop(step.request_id("upgrade", step.inputs.generation)),
        UpgradeMode::Stateless => step.new_run(None),
        UpgradeMode::Savepoint | UpgradeMode::LastState => {}
    }
    step.enter(Phase::Upgrading);
}

/// Why the job is not to resume from its last state: by what the resource says of the new version of Flink. Without
/// that, the gateways find it out when the former version is gone.
fn unproven(step: &LifecycleStep<'_>) -> Option<String> {
    let from = step.inputs.led_by.filter(|_| step.job.upgrade_mode == UpgradeMode::LastState)?;
    let to = FlinkVersion::of(step.wanted.flink_version.as_deref()?)?;
    (!to.goes_on_from(from)).then(|| {
        format!(
            "the job runs on unchanged, because it is not known that Flink {to} goes on from the last state of Flink {from}: set \
             spec.job.upgradeMode: savepoint"
        )
    })
}

/// An upgrade was refused for the versions of Flink, and would not be now: with another mode, or another declared
/// version.
pub(super) fn may_begin_after_refusal(step: &LifecycleStep<'_>) -> bool {
    let is_of_version = |upgrade: &Upgrade| upgrade.result == REFUSED && upgrade.mode == UpgradeMode::LastState.name();
    step.application().upgrades.last().is_some_and(is_of_version) && unproven(step).is_none()
}

/// Records the savepoint or checkpoint from which the job resumes.
pub(super) fn restored_from(application: &mut Application, path: &str) {
    if let Some(upgrade) = application.upgrades.last_mut().filter(|upgrade| upgrade.result == IN_PROGRESS) {
        upgrade.restored_from = Some(path.to_owned());
    }
}

/// Concludes an upgrade whose tasks all run.
pub(super) fn came_up(step: &mut LifecycleStep<'_>) {
    let now = step.inputs.now;
    let application = step.application_mut();
    if is_in_progress(application) {
        conclude(application, SUCCEEDED, None);
        application.error = None;
        if let Some(upgrade) = application.upgrades.last_mut() {
            let took = upgrade.at.as_ref().map(|at| now.duration_since(at.0).as_millis());
            upgrade.milliseconds = took.and_then(|took| i64::try_from(took).ok());
        }
    }
    application.stable = Some(application.deployed.clone());
    application.previous_job_id = None;
    step.enter(Phase::Running);
}

/// Concludes an upgrade whose job has ended.
pub(super) fn ended(application: &mut Application) {
    if is_in_progress(application) {
        conclude(application, SUCCEEDED, Some("the job ended".to_owned()));
    }
}

/// Refuses an upgrade: the job continues as before.
pub(super) fn refuse(step: &mut LifecycleStep<'_>, why: String) {
    if is_in_progress(step.application()) {
        let wanted = super::version(step.wanted);
        let application = step.application_mut();
        application.refused = Some(wanted);
        conclude(application, REFUSED, Some(why));
    }
}

/// What is said of a job that could not be stopped with a savepoint.
pub(super) fn not_stopped(why: &str) -> String {
    format!("the job runs on unchanged, because no savepoint could be taken: {why}")
}

/// Why a definition that was asked for does not run, as long as it is not tried again.
pub(super) fn standing_error(application: &Application) -> Option<String> {
    application.refused.as_ref()?;
    let Upgrade { result, mode, why, .. } = application.upgrades.last()?;
    let why = why.as_ref()?;
    let is_of_savepoint = result == REFUSED && mode == UpgradeMode::Savepoint.name();
    Some(if is_of_savepoint { not_stopped(why) } else { why.clone() })
}

/// Returns to the last definition that worked, with the state that the failed one found.
pub(super) fn roll_back(step: &mut LifecycleStep<'_>, why: String) {
    let (ended, begun) = (step.tombstone().is_some(), step.has_begun());
    let found = step.inputs.progress.before.clone().filter(|_| begun);
    let previous = step.application().previous_job_id.clone();
    // A superseded run has not ended by itself: this one found its last checkpoint.
    let has_ended = |run: &String| step.tombstone_of(run).is_some_and(|job| job.state != RecordedState::Superseded);
    let previous_ended = previous.as_ref().is_some_and(has_ended);
    let application = step.application_mut();
    application.refused = Some(application.version.clone());
    application.error = Some(why.clone());
    let stopped_with = application.last_savepoint.as_ref().filter(|savepoint| !savepoint.id.starts_with("nonce-"));
    let origin = application.restored_from.clone().or_else(|| stopped_with.map(|savepoint| savepoint.path.clone()));
    match (previous, ended) {
        // It was stopped with a savepoint, or failed and left a checkpoint, which another run can use.
        (Some(_), _) if previous_ended => match origin {
            Some(origin) => step.new_run(Some(origin)),
            None => return halt(step, format!("{why}; the run before has ended, and left nothing to go back to")),
        },
        // The run before is unchanged: the new run has had no leader.
        (Some(previous), _) if !begun => {
            application.job_id = previous;
            application.previous_job_id = None;
        }
        // Its HA data was removed, because the job ended or another run replaced it. Its last checkpoint still exists.
        (Some(_), _) | (None, true) => match found {
            Some(found) if found.checkpoint.is_none() => {
                let lost = "the job's last checkpoint is not in a directory of its own (execution.checkpointing.dir), so it cannot be gone back to";
                return halt(step, format!("{why}; {lost}"));
            }
            found => {
                let checkpoint =
                    found.and_then(|found| found.checkpoint).or_else(|| step.application().restored_from.clone());
                step.new_run(checkpoint);
            }
        },
        // The same run resumes from its HA data.
        (None, false) => {}
    }
    conclude(step.application_mut(), ROLLED_BACK, Some(why));
    step.enter(Phase::RollingBack);
}

/// Halts the application: the operator tries nothing more by itself and deletes nothing.
pub(super) fn halt(step: &mut LifecycleStep<'_>, why: String) {
    step.application_mut().error = Some(why.clone());
    conclude(step.application_mut(), FAILED, Some(why));
    step.enter(Phase::Halted);
}
