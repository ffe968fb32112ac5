//! Tells a roll-out for a changed Secret from one for a new version of the operator: nobody has changed the resource in
//! either case.

use super::build::configuration_secrets::CHANGES_ANNOTATION;
use super::observed::Observed;
use crate::api::FlinkHaCluster;

/// Why pods are replaced although nobody has changed the resource, as a clause.
pub fn why(resource: &FlinkHaCluster, observed: &Observed) -> &'static str {
    if secret_changed(resource, observed) {
        "a Secret of spec.flinkConfigurationFrom has changed"
    } else {
        "this version of the operator builds the pods in another way"
    }
}

/// Whether pods were made before the last change of a Secret that Flink's configuration comes from.
pub fn secret_changed(resource: &FlinkHaCluster, observed: &Observed) -> bool {
    let is_used = !resource.spec.flink_configuration_from.is_empty();
    let changes = observed.secrets().map(|secrets| secrets.changes).filter(|changes| is_used && *changes > 0);
    let Some(live) = &observed.job_manager_deployment else { return false };
    let live = live.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CHANGES_ANNOTATION));
    changes.is_some_and(|changes| live.is_none_or(|live| *live != changes.to_string()))
}
