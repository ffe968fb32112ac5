//! What the conditions say of an application.

use crate::api::application::{Application, Phase};
use crate::cluster::cause::Cause;

/// The job has ended and was not a failure: it finished, or somebody cancelled it.
pub const COMPLETE: &str = "Complete";
/// The job has failed for good.
pub const FAILED: &str = "Failed";

/// A condition: its type, whether it holds, the reason and the message.
pub type Verdict = (&'static str, bool, String, String);

/// Returns the conditions that only applications have.
pub fn ends(application: &Application) -> [Verdict; 2] {
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
        (true, false) => (result, "the job has ended well".to_owned()),
        (false, _) => not_yet(),
    };
    [(COMPLETE, ended && !failed, complete_reason, complete_message), (FAILED, failed, failed_reason, failed_message)]
}

/// Why a cluster without pods is as it should be; `None` when it is to have pods.
pub fn rests(application: &Application) -> Option<(&'static str, String)> {
    let going = |what: &str| format!("the pods are going, {what}");
    Some(match application.phase {
        Phase::Suspended => {
            ("Suspended", "spec.job.state is suspended: there are no pods, and the job's state is kept".to_owned())
        }
        Phase::Suspending => ("Suspending", going("because spec.job.state is suspended")),
        Phase::Upgrading => ("Upgrading", going("for another definition of the job to begin")),
        Phase::RollingBack => ("RollingBack", going("for the last definition that worked to come back")),
        Phase::Ending => ("Ending", "the job has ended; its HA data and then its pods are going".to_owned()),
        Phase::Ended => ("Ended", "the job has ended; see Complete and Failed".to_owned()),
        Phase::Starting | Phase::Running | Phase::Savepointing | Phase::Halted => return None,
    })
}

/// What is wrong with the application itself. `told`: what its leader says is wrong.
pub fn cause(application: &Application, told: Option<&str>) -> Option<Cause> {
    if let Some(told) = told.filter(|_| application.phase == Phase::Starting) {
        return Some(Cause { reason: "ApplicationFailed", message: told.to_owned() });
    }
    let error = application.error.as_ref().filter(|_| !matches!(application.phase, Phase::Ending | Phase::Ended))?;
    let last = application.upgrades.last().map(|upgrade| upgrade.result.as_str());
    let (reason, message) = match (application.phase, last) {
        (Phase::Halted, _) => {
            ("UpgradeFailed", format!("the upgrade failed, and so did going back; nothing is deleted: {error}"))
        }
        (_, Some("RolledBack")) => (
            "UpgradeRolledBack",
            format!("the new definition of the job did not come up, and the last one that worked is back: {error}"),
        ),
        (_, Some("Refused")) => ("UpgradeRefused", error.clone()),
        _ => ("SavepointFailed", error.clone()),
    };
    Some(Cause { reason, message })
}
