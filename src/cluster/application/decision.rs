//! What a step of an application's lifecycle sees, and what it decides.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::application::{Application, Phase};
use crate::cluster::cause::Cause;
use crate::flink::version::FlinkVersion;
use crate::ha_data::handover::Stored;
use crate::ledger::application::{Progress, SavepointRequest};
use crate::ledger::jobs;
use crate::ledger::savepoints::TakenSavepoint;

/// What is seen.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// UID of the resource.
    pub uid: &'a str,
    pub generation: i64,
    /// The directory that is this resource's own in a directory that several share.
    pub own_directory: &'a str,
    /// There are pods, or may be soon.
    pub pods: bool,
    /// A watch shows pods, or a Deployment that makes some.
    pub shows_pods: bool,
    pub progress: &'a Progress,
    pub jobs: &'a [jobs::Job],
    /// The last savepoints, by the ledger.
    pub savepoints: &'a [TakenSavepoint],
    /// What the cluster ConfigMap holds, if it was looked at.
    pub stored: Option<&'a Stored>,
    pub causes: &'a [Cause],
    /// The version of Flink that led last, if it is known.
    pub led_by: Option<&'a FlinkVersion>,
    pub now: Timestamp,
}

/// What is decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub application: Application,
    /// There are to be no pods.
    pub stopped: bool,
    /// The savepoint that the leader is to be asked for.
    pub request: Option<SavepointRequest>,
    /// The job has ended and its pods are gone: Flink's ConfigMaps go too.
    pub clean: bool,
    /// The resource is to be deleted.
    pub delete: bool,
    /// Look again after this time at the latest.
    pub wake: Option<Duration>,
}

/// In this phase pods are to go, or have gone.
pub fn has_no_pods(phase: Phase) -> bool {
    matches!(phase, Phase::Upgrading | Phase::RollingBack | Phase::Suspending | Phase::Suspended | Phase::Ended)
}
