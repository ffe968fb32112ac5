//! What the conditions say of an application.

use crate::api::FlinkHaClusterSpec;
use crate::api::application::{Application, JobSpec, JobState, Phase};
use crate::cluster::application::{definitions, periodic};
use crate::cluster::cause::Cause;

/// The job has ended and was not a failure: it finished, or somebody cancelled it.
pub const COMPLETE: &str = "Complete";
/// The job has failed for good.
pub const FAILED: &str = "Failed";

/// A condition: its type, whether it holds, the reason and the message.
pub type ApplicationCondition = (&'static str, bool, String, String);

/// The conditions that only applications have.
pub fn ends(application: &Application) -> [ApplicationCondition; 2] {
    let ended = application.phase == Phase::Ended;
    let result = application.result.clone().unwrap_or_default();
    let failed = ended && result == "Failed";
    let error = application.error.clone().unwrap_or_default();
    let not_yet = || ("NotEnded".to_owned(), format!("the job {} has not ended", application.job_id));
    let (complete_reason, complete_message) = match (ended, failed) {
        (false, _) => not_yet(),
        (true, true) => ("Failed".to_owned(), "the job has failed; see the condition Failed".to_owned()),
        (true, false) => {
            (result.clone(), format!("the job {} has ended: {result}; nothing of it runs any more", application.job_id))
        }
    };
    let (failed_reason, failed_message) = match (ended, failed) {
        (true, true) => ("JobFailed".to_owned(), error),
        (true, false) => (result, "the job has ended and did not fail".to_owned()),
        (false, _) => not_yet(),
    };
    [(COMPLETE, ended && !failed, complete_reason, complete_message), (FAILED, failed, failed_reason, failed_message)]
}

/// Of a job that has ended: it failed.
pub fn has_failed(application: &Application) -> bool {
    application.result.as_deref() == Some("Failed")
}

/// The operator is on the way from one state to another.
pub fn moves(phase: Phase) -> bool {
    match phase {
        Phase::Running | Phase::Suspended | Phase::Ended | Phase::Halted => false,
        Phase::Starting
        | Phase::Savepointing
        | Phase::Upgrading
        | Phase::RollingBack
        | Phase::Suspending
        | Phase::Ending => true,
    }
}

/// Of an application that has no pods, or whose pods are going: whether that is as `wanted`, and why; `None` when it is
/// to have pods.
pub fn rests(application: &Application, wanted: Option<&JobSpec>) -> Option<(bool, &'static str, String)> {
    let going = |what: &str| format!("the pods end {what}");
    let suspended = wanted.is_some_and(|job| job.state == JobState::Suspended);
    Some(match application.phase {
        Phase::Suspended => (
            suspended,
            "Suspended",
            "spec.job.state is suspended: there are no pods, and the job's state is kept".to_owned(),
        ),
        Phase::Suspending => (false, "Suspending", going("because spec.job.state is suspended")),
        Phase::Upgrading => (false, "Upgrading", going("so that another version of the job can start")),
        Phase::RollingBack => (false, "RollingBack", going("so that the last version that worked can start")),
        Phase::Ending => {
            (false, "Ending", "the job has ended; its HA data is removed, and then its pods end".to_owned())
        }
        Phase::Ended => (!has_failed(application), "Ended", "the job has ended; see Complete and Failed".to_owned()),
        Phase::Starting | Phase::Running | Phase::Savepointing | Phase::Halted => return None,
    })
}

/// All that is wrong with the application itself. `told`: what its leader says is wrong.
pub fn causes(
    application: &Application,
    wanted: &FlinkHaClusterSpec,
    told: Option<&str>,
) -> impl Iterator<Item = Cause> + use<> {
    let of_savepoints = periodic::causes(application);
    cause(application, told).into_iter().chain(definitions::unusable_stable(application, wanted)).chain(of_savepoints)
}

/// What is wrong most. `told`: what its leader says is wrong.
pub fn cause(application: &Application, told: Option<&str>) -> Option<Cause> {
    if let Some(told) = told.filter(|_| application.phase == Phase::Starting) {
        return Some(Cause { reason: "ApplicationFailed", message: told.to_owned() });
    }
    let error = application.error.as_ref().filter(|_| !matches!(application.phase, Phase::Ending | Phase::Ended))?;
    let last = application.upgrades.last().map(|upgrade| upgrade.result.as_str());
    let (reason, message) = match (application.phase, last) {
        (Phase::Halted, _) => {
            ("UpgradeFailed", format!("the upgrade failed, and so did the roll-back; nothing is deleted: {error}"))
        }
        (_, Some("RolledBack")) => (
            "UpgradeRolledBack",
            format!(
                "the new version of the job did not come up, and the last version that worked is restored: {error}"
            ),
        ),
        (_, Some("Refused")) => ("UpgradeRefused", error.clone()),
        _ => ("SavepointFailed", error.clone()),
    };
    Some(Cause { reason, message })
}
