//! Tells a roll-out for a changed Secret from one for a new version of the operator: nobody has changed the resource in
//! either case.

use super::build::configuration_secrets::CHANGES_ANNOTATION;
use super::build::tls::{self, RENEWALS_ANNOTATION};
use super::observed::Observed;
use crate::api::FlinkHaCluster;
use crate::api::names::JOB_MANAGER;

/// Why pods are replaced although nobody has changed the resource, as a clause.
pub fn why(resource: &FlinkHaCluster, observed: &Observed) -> &'static str {
    changed(resource, observed).unwrap_or("this version of the operator builds the pods in another way")
}

/// The Secrets that have changed since the pods were made, as a clause; `None` if none has. JobManagers use all of
/// them.
pub fn changed(resource: &FlinkHaCluster, observed: &Observed) -> Option<&'static str> {
    let spec = &resource.spec;
    let is_used = !spec.flink_configuration_from.is_empty();
    let changes = observed.secrets().map_or(0, |secrets| secrets.changes);
    let configuration = is_used && is_behind(observed, CHANGES_ANNOTATION, changes);
    let renewals = spec.tls.as_ref().map_or(0, |of| tls::renewals(of, &observed.certificates(), JOB_MANAGER));
    match (configuration, is_behind(observed, RENEWALS_ANNOTATION, renewals)) {
        (true, true) => Some("Secrets of spec.flinkConfigurationFrom and of spec.tls have changed"),
        (true, false) => Some("a Secret of spec.flinkConfigurationFrom has changed"),
        (false, true) => Some("a Secret of spec.tls has changed"),
        (false, false) => None,
    }
}

/// Whether the JobManagers were made before this number was reached.
fn is_behind(observed: &Observed, annotation: &str, number: u64) -> bool {
    let Some(live) = &observed.job_manager_deployment else { return false };
    let live = live.metadata.annotations.as_ref().and_then(|annotations| annotations.get(annotation));
    number > 0 && live.is_none_or(|live| *live != number.to_string())
}
