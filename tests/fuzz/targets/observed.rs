//! What the API server shows of a cluster, as anybody may have written it: a plan, a status and causes come of it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::resource::environment;
use crate::api::FlinkHaCluster;
use crate::api::status::FlinkHaClusterStatus;
use crate::cluster::application::Desired;
use crate::cluster::causes::causes;
use crate::cluster::observed::{Observed, StoredHaData};
use crate::cluster::plan::{Lookup, plan};
use crate::cluster::presence::Presence;
use crate::cluster::rejection::Rejection;
use crate::cluster::status::status;
use crate::cluster::{waits, warnings};
use crate::ha_data::handover::Stored;

pub fn run(bytes: &[u8]) {
    let Ok(all) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(resource) = value::<FlinkHaCluster>(&all["resource"]) else { return };
    let now = all["now"].as_str().and_then(|now| now.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let shared = |key: &str| value(&all[key]).map(Arc::new);
    let mut observed = Observed {
        lease: value(&all["lease"]).map(Arc::new),
        job_manager_pods: values(&all["jobManagers"]),
        task_manager_pods: values(&all["taskManagers"]),
        job_manager_deployment: shared("deployment"),
        task_manager_deployment: shared("taskManagerDeployment"),
        ledger: value(&all["ledger"]).map(Arc::new),
        rest: value(&all["rest"]).map(Arc::new).into_iter().collect(),
        ..Observed::default()
    };
    let before = resource.status.clone().unwrap_or_default();
    // What is looked up is there then.
    for _ in 0..4 {
        match plan(&resource, &before, &observed, &environment(), now) {
            Err(Lookup::Presence) => observed.presence = Some(Presence::Gone),
            Err(Lookup::Ledger) => observed.ledger_is_current = true,
            Err(Lookup::StoredHaData) => {
                observed.stored = match Stored::in_config_map(&all["clusterConfigMap"]) {
                    Ok(stored) => StoredHaData::Found(stored),
                    Err(refusal) => StoredHaData::Unreadable(refusal),
                };
            }
            Ok(plan) => {
                told(&resource, &plan.desired, &observed, now);
                break;
            }
        }
    }
    let _ = (waits::of_pods(&observed), waits::to_look_at(&observed, now));
    let events: Vec<_> = all["events"].as_array().into_iter().flatten().filter_map(value).collect();
    let _ = warnings::latest(&events);
}

fn told(resource: &FlinkHaCluster, desired: &Desired, observed: &Observed, now: Timestamp) {
    let before = resource.status.clone().unwrap_or_default();
    let rejection = Rejection::invalid_spec("x".to_owned());
    let told = status(resource, desired, &before, observed, &Err(rejection), now);
    let text = serde_json::to_string(&told.status).expect("a status is written");
    let read: FlinkHaClusterStatus = serde_json::from_str(&text).expect("it is read");
    assert_eq!(serde_json::to_string(&read).expect("it is written"), text);
    assert!(causes(observed).iter().all(|cause| !cause.reason.is_empty()));
}

fn value<T: DeserializeOwned>(json: &Value) -> Option<T> {
    serde_json::from_value(json.clone()).ok()
}

fn values<T: DeserializeOwned>(json: &Value) -> Vec<Arc<T>> {
    json.as_array().into_iter().flatten().filter_map(value).map(Arc::new).collect()
}
