//! Whether the latest generation of the resource is rolled out: the conditions `Reconciling` and `Stalled`, by which
//! tools such as Flux, Argo CD and `helm --wait` tell whether to wait on.
//!
//! Those tools read them by the rules of kstatus (`sigs.k8s.io/cli-utils/pkg/kstatus`): a resource whose
//! `status.observedGeneration` is late, or that is `Reconciling`, is in progress; one that is `Stalled` has failed;
//! else `Ready` decides.

use jiff::{SignedDuration, Timestamp};

use super::facts::Facts;
use super::kinds::{PAUSED, PROGRESSING, READY, RECONCILING, ROLLING_OUT, STALLED, Verdict, find};
use crate::api::FlinkHaCluster;
use crate::api::application::{JobState, Phase};
use crate::cluster::application::{conditions, version};
use crate::cluster::rejection::Rejection;

/// `Ready` keeps its value in a roll-out for so long: as long as a Deployment may take for its progress by default. An
/// application may take its `upgradeDeadline`, if that is longer.
const ROLL_OUT_TIMEOUT: SignedDuration = SignedDuration::from_secs(600);

/// What became of the generation.
pub(super) enum Generation {
    /// It is on the way.
    RollingOut { reason: String, message: String },
    /// All that it asks for is there, or was once: pods that fail later do not make it be rolled out again.
    RolledOut,
    /// It will not be rolled out unless somebody does something.
    Stalled { reason: String, message: String },
}

impl Generation {
    pub fn of(facts: &Facts<'_>) -> Self {
        if facts.is_deleted() {
            let Verdict { reason, message, .. } = facts.progressing();
            return Self::RollingOut { reason, message };
        }
        if let Some(paused) = paused(facts) {
            return paused;
        }
        if let Some((reason, message)) = stalled(facts) {
            return Self::Stalled { reason: reason.to_owned(), message };
        }
        if !is_open(facts) || is_done(facts) {
            return Self::RolledOut;
        }
        let (progressing, ready) = (facts.progressing(), facts.ready());
        let waits = facts.pause.is_some();
        let Verdict { reason, message, .. } = if progressing.holds || waits { progressing } else { ready };
        Self::RollingOut { reason, message }
    }

    /// `Reconciling` and `Stalled`. They never hold both.
    pub fn verdicts(&self, generation: Option<i64>) -> [Verdict; 2] {
        let number = generation.unwrap_or_default();
        let on_its_way = format!("generation {number} is not stalled");
        match self {
            Self::RollingOut { reason, message } => [
                Verdict::new(RECONCILING, true, reason, message.clone()),
                Verdict::new(STALLED, false, "Reconciling", on_its_way),
            ],
            Self::RolledOut => [
                Verdict::new(RECONCILING, false, "RolledOut", format!("generation {number} is rolled out")),
                Verdict::new(STALLED, false, "RolledOut", on_its_way),
            ],
            Self::Stalled { reason, message } => [
                Verdict::new(RECONCILING, false, "Stalled", "nothing more is tried; see Stalled".to_owned()),
                Verdict::new(STALLED, true, reason, message.clone()),
            ],
        }
    }

    /// The generation that `Ready` is about. In a roll-out it stays the one before, so that `kubectl wait
    /// --for=condition=Ready` waits for the end of the roll-out; and of a generation that was never rolled out too.
    pub fn of_ready(&self, facts: &Facts<'_>) -> Option<i64> {
        let generation = facts.resource.metadata.generation;
        match self {
            Self::RolledOut => generation,
            Self::RollingOut { .. } | Self::Stalled { .. } => {
                find(&facts.before.conditions, READY).map_or(generation, |ready| ready.observed_generation)
            }
        }
    }

    /// `Ready`, which keeps its value in a roll-out, so that a change that was asked for raises no alarm. `now`: what
    /// it says apart from that.
    pub fn keep_ready(&self, facts: &Facts<'_>, now: Verdict) -> Verdict {
        let was = find(&facts.before.conditions, READY).is_some_and(|ready| ready.status == "True");
        let Self::RollingOut { .. } = self else { return now };
        // Nothing is rolled out while the resource is paused, or is being deleted.
        let rolls = facts.pause.is_none() && !facts.is_deleted();
        if now.holds || !was || !rolls || rolls_for(facts) >= timeout(facts.resource) {
            return now;
        }
        Verdict::new(READY, true, ROLLING_OUT, format!("it was ready before this roll-out; now: {}", now.message))
    }
}

/// What a pause leaves of a generation that was refused, or that the operator has not acted on; `None` when what is
/// there decides.
fn paused(facts: &Facts<'_>) -> Option<Generation> {
    facts.pause.as_ref()?;
    let generation = facts.resource.metadata.generation;
    let stalled = find(&facts.before.conditions, STALLED)
        .filter(|condition| condition.status == "True" && condition.observed_generation == generation);
    if let Some(stalled) = stalled {
        return Some(Generation::Stalled { reason: stalled.reason.clone(), message: stalled.message.clone() });
    }
    let number = generation.unwrap_or_default();
    facts.is_unseen().then(|| Generation::RollingOut {
        reason: PAUSED.to_owned(),
        message: format!("generation {number} is not rolled out, because the resource is paused; see Paused"),
    })
}

/// Since when the roll-out has gone on; `None` when it begins now.
pub(super) fn rolls_since(facts: &Facts<'_>) -> Option<Timestamp> {
    let open = find(&facts.before.conditions, RECONCILING).filter(|condition| condition.status == "True");
    open.map(|open| open.last_transition_time.0)
}

fn rolls_for(facts: &Facts<'_>) -> SignedDuration {
    rolls_since(facts).map_or(SignedDuration::ZERO, |since| facts.now.duration_since(since))
}

/// `spec.job.upgradeDeadline`; zero for a session cluster.
pub(super) fn upgrade_deadline(resource: &FlinkHaCluster) -> SignedDuration {
    let deadline = resource.spec.job.as_ref().and_then(|job| humantime::parse_duration(&job.upgrade_deadline).ok());
    deadline.and_then(|deadline| SignedDuration::try_from(deadline).ok()).unwrap_or_default()
}

/// How long a roll-out may take.
pub(super) fn timeout(resource: &FlinkHaCluster) -> SignedDuration {
    upgrade_deadline(resource).max(ROLL_OUT_TIMEOUT)
}

/// Why nothing more is tried: the resource is refused, a definition of the job has failed, or the job has. Crashes are
/// not among it: Kubernetes tries again.
fn stalled(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    if let Err(Rejection { cause, .. }) = facts.outcome {
        return Some((cause.reason, cause.message.clone()));
    }
    let (application, job) = (facts.application?, facts.resource.spec.job.as_ref()?);
    let error = || application.error.clone().unwrap_or_default();
    let cause = || conditions::cause(application, None).map(|cause| (cause.reason, cause.message));
    match application.phase {
        Phase::Halted => cause(),
        Phase::Ended if conditions::has_failed(application) => Some(("JobFailed", error())),
        Phase::Running if application.refused == Some(version(&facts.resource.spec)) => cause(),
        // The job could not be stopped with a savepoint, and is not stopped without one.
        Phase::Running if job.state == JobState::Suspended && application.error.is_some() => cause(),
        _ => None,
    }
}

/// The generation is not known to have been rolled out once, or the operator itself replaces its pods.
fn is_open(facts: &Facts<'_>) -> bool {
    let (before, generation) = (facts.before, facts.resource.metadata.generation);
    let was_rolled_out = match find(&before.conditions, RECONCILING) {
        Some(condition) => condition.status == "False" && condition.observed_generation == generation,
        // As an operator before this condition left it.
        None => {
            let progressing = find(&before.conditions, PROGRESSING);
            progressing.is_some_and(|condition| condition.status == "False" && condition.reason == "Complete")
                && before.observed_generation == generation
        }
    };
    let stalled = find(&before.conditions, STALLED).is_some_and(|condition| condition.status == "True");
    let moves = facts.application.is_some_and(|application| conditions::moves(application.phase));
    !was_rolled_out || stalled || moves || replaces_pods(facts)
}

fn replaces_pods(facts: &Facts<'_>) -> bool {
    let Facts { observed, .. } = facts;
    let deployments = [&observed.job_manager_deployment, &observed.task_manager_deployment];
    deployments.into_iter().flatten().any(|deployment| deployment.replaces_pods())
}

/// All that is asked for is there now.
fn is_done(facts: &Facts<'_>) -> bool {
    let (phase, job) = (facts.application.map(|application| application.phase), facts.resource.spec.job.as_ref());
    match (phase, job) {
        (None | Some(Phase::Running), _) => facts.ready().holds && !facts.progressing().holds,
        (Some(Phase::Suspended), Some(job)) => job.state == JobState::Suspended,
        (Some(Phase::Ended), _) => true,
        _ => false,
    }
}
