//! A change of the job's definition: how it begins, succeeds, or is taken back once.

use super::lifecycle::Step;
use crate::api::application::{Application, Phase, Upgrade, UpgradeMode};
use crate::api::time::seconds;
use crate::ledger::jobs::SUPERSEDED;

/// Upgrades that the status keeps.
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

/// Writes down that it begins.
pub(super) fn record(step: &mut Step<'_>) {
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
    // One that is replaced before it came up was never concluded.
    application.upgrades.retain(|upgrade| upgrade.result != IN_PROGRESS);
    application.upgrades.push(upgrade);
    let surplus = application.upgrades.len().saturating_sub(KEPT);
    application.upgrades.drain(..surplus);
}

/// Begins. A job that does not run cannot take a savepoint: it goes on from its last state.
pub(super) fn begin(step: &mut Step<'_>) {
    let runs = step.application().phase == Phase::Running;
    record(step);
    match step.job.upgrade_mode {
        UpgradeMode::Savepoint if runs => return step.ask_to_stop(format!("upgrade-{}", step.inputs.generation)),
        UpgradeMode::Stateless => step.new_run(None),
        UpgradeMode::Savepoint | UpgradeMode::LastState => {}
    }
    step.enter(Phase::Upgrading);
}

/// Notes what the job goes on from.
pub(super) fn restored_from(application: &mut Application, path: &str) {
    if let Some(upgrade) = application.upgrades.last_mut().filter(|upgrade| upgrade.result == IN_PROGRESS) {
        upgrade.restored_from = Some(path.to_owned());
    }
}

/// All tasks run.
pub(super) fn came_up(step: &mut Step<'_>) {
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

/// The job has ended: so has its upgrade.
pub(super) fn ended(application: &mut Application) {
    if is_in_progress(application) {
        conclude(application, SUCCEEDED, Some("the job ended".to_owned()));
    }
}

/// The job runs on as before.
pub(super) fn refuse(step: &mut Step<'_>, why: String) {
    if is_in_progress(step.application()) {
        let wanted = super::version(step.wanted);
        let application = step.application_mut();
        application.refused = Some(wanted);
        conclude(application, REFUSED, Some(why));
    }
}

/// Goes back to the last definition that worked, with the state that the failed one found.
pub(super) fn roll_back(step: &mut Step<'_>, why: String) {
    let (ended, begun) = (step.tombstone().is_some(), step.has_begun());
    let found = step.inputs.progress.before.clone().filter(|_| begun);
    let previous = step.application().previous_job_id.clone();
    // One in whose place this one began has not ended by itself: this one found its last checkpoint.
    let has_ended = |run: &String| step.tombstone_of(run).is_some_and(|job| job.state != SUPERSEDED);
    let previous_ended = previous.as_ref().is_some_and(has_ended);
    let application = step.application_mut();
    application.refused = Some(application.version.clone());
    application.error = Some(why.clone());
    let stopped_with = application.last_savepoint.as_ref().filter(|savepoint| !savepoint.id.starts_with("nonce-"));
    let origin = application.restored_from.clone().or_else(|| stopped_with.map(|savepoint| savepoint.path.clone()));
    match (previous, ended) {
        // It was stopped with a savepoint, or failed and left a checkpoint: that is there for another run.
        (Some(_), _) if previous_ended => match origin {
            Some(origin) => step.new_run(Some(origin)),
            None => return halt(step, format!("{why}; the run before has ended, and left nothing to go back to")),
        },
        // The run before is as it was: no leader of the new one has been there.
        (Some(previous), _) if !begun => {
            application.job_id = previous;
            application.previous_job_id = None;
        }
        // Its HA data is gone, with the end of the job or because another run took its place: its last checkpoint is
        // still there.
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
        // The same run goes on from its HA data.
        (None, false) => {}
    }
    conclude(step.application_mut(), ROLLED_BACK, Some(why));
    step.enter(Phase::RollingBack);
}

/// Nothing more is tried by itself, and nothing is deleted.
pub(super) fn halt(step: &mut Step<'_>, why: String) {
    step.application_mut().error = Some(why.clone());
    conclude(step.application_mut(), FAILED, Some(why));
    step.enter(Phase::Halted);
}
