//! What a reconciliation asks for beyond the objects: a switchover and savepoints of the leader, removals of the API
//! server.

use serde_json::json;

use crate::api::FlinkHaCluster;
use crate::api::names::{SAVEPOINT_ANNOTATION, SWITCHOVER_ANNOTATION};
use crate::api::v1alpha1::Provider;
use crate::cluster::application::Desired;
use crate::cluster::observed::Observed;
use crate::cluster::switchover::{Switchover, switchover};

/// What is asked for, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The answer to a request for a planned switchover.
    pub switchover: Option<Switchover>,
    /// What the leader is asked for from now on, when it differs from before.
    pub savepoint: Option<SavepointNote>,
    /// The job has ended and its pods are gone: Flink's ConfigMaps go too.
    pub remove_ha_data: bool,
    /// The time to live after the end has passed.
    pub delete_resource: bool,
}

/// A change of the annotation by which the leader is asked for a savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointNote {
    /// `None` removes it.
    pub text: Option<String>,
}

impl Requests {
    pub(super) fn of(resource: &FlinkHaCluster, desired: &Desired, observed: &Observed) -> Self {
        let provider = resource.spec.high_availability.provider;
        let wanted = resource.metadata.annotations.as_ref().and_then(|all| all.get(SWITCHOVER_ANNOTATION));
        let decision = desired.decision.as_ref().filter(|_| !desired.frozen);
        Self {
            switchover: wanted.map(|wanted| switchover(wanted, provider, observed)),
            savepoint: decision.and_then(|decision| {
                let text = decision.request.as_ref().map(|request| json!(request).to_string());
                (asked(provider, observed)? != text).then_some(SavepointNote { text })
            }),
            remove_ha_data: decision.is_some_and(|decision| decision.clean),
            delete_resource: decision.is_some_and(|decision| decision.delete),
        }
    }
}

/// What the leader is asked for until now, where it looks for that: on the Lease, or where there is none on the ledger.
/// `None` when that does not exist.
fn asked(provider: Provider, observed: &Observed) -> Option<Option<String>> {
    let metadata = match provider {
        Provider::Kubernetes => &observed.lease.as_ref()?.metadata,
        Provider::ZooKeeper => &observed.ledger.as_ref()?.metadata,
    };
    Some(metadata.annotations.as_ref().and_then(|all| all.get(SAVEPOINT_ANNOTATION)).cloned())
}
