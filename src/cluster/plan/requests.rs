//! Plans the requests of a reconciliation beyond the objects: switchovers and savepoints from the leader, removals by
//! the leader and by the API server.

use serde_json::json;

use crate::api::FlinkHaCluster;
use crate::api::names::{DROP_JOB_ANNOTATION, SAVEPOINT_ANNOTATION, SWITCHOVER_ANNOTATION};
use crate::api::v1alpha1::Provider;
use crate::cluster::application::Desired;
use crate::cluster::drop_job::{DropJob, drop_job};
use crate::cluster::events::EventNote;
use crate::cluster::observed::Observed;
use crate::cluster::switchover::{Switchover, switchover};
use crate::ledger::application::SavepointRequest;

/// The requests, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The answer to a request for a planned switchover.
    pub switchover: Option<Switchover>,
    /// The answer to a request to drop a job in quarantine.
    pub drop_job: Option<DropJob>,
    /// The new request to the leader, if it differs from the present one.
    pub savepoint: Option<SavepointNote>,
    /// The answer to a request for the operator's image of the gateway.
    pub upgrade_gateways: Option<EventNote>,
    /// The job has ended and its pods are gone, so Flink's ConfigMaps are removed too.
    pub remove_ha_data: bool,
    /// The time to live after the job's end has passed.
    pub delete_resource: bool,
}

/// A change of the annotation that requests a savepoint from the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointNote {
    /// `None` removes the annotation.
    pub text: Option<String>,
}

impl SavepointNote {
    /// The change that is needed for the leader to be asked for this, or for nothing; `None` if there is none.
    pub fn of(provider: Provider, request: Option<&SavepointRequest>, observed: &Observed) -> Option<Self> {
        let text = request.map(|request| json!(request).to_string());
        (asked(provider, observed)? != text).then_some(Self { text })
    }
}

impl Requests {
    pub(super) fn of(resource: &FlinkHaCluster, desired: &Desired, observed: &Observed) -> Self {
        let provider = resource.spec.high_availability.provider;
        let wanted = resource.annotation(SWITCHOVER_ANNOTATION);
        let decision = desired.decision.as_ref().filter(|_| !desired.frozen);
        Self {
            switchover: wanted.map(|wanted| switchover(wanted, provider, observed)),
            drop_job: resource.annotation(DROP_JOB_ANNOTATION).map(|job| drop_job(job, observed)),
            savepoint: decision.and_then(|decision| SavepointNote::of(provider, decision.request.as_ref(), observed)),
            upgrade_gateways: None,
            remove_ha_data: decision.is_some_and(|decision| decision.clean),
            delete_resource: decision.is_some_and(|decision| decision.delete),
        }
    }
}

/// Returns the present request to the leader, from where the leader watches: the Lease, or without one the ledger.
/// `None` if that object does not exist.
fn asked(provider: Provider, observed: &Observed) -> Option<Option<String>> {
    let metadata = match provider {
        Provider::Kubernetes => &observed.lease.as_ref()?.metadata,
        Provider::ZooKeeper => &observed.ledger.as_ref()?.metadata,
    };
    Some(metadata.annotations.as_ref().and_then(|all| all.get(SAVEPOINT_ANNOTATION)).cloned())
}
