//! Nobody leads, nobody could take over, or nobody is found.

use flinkha::api::FlinkHaCluster;
use flinkha::api::names::REFUSAL_ANNOTATION;
use flinkha::ledger::unready;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::world::{ADDRESS, JOB_MANAGER, STANDBY, Seen, World, ready, taken};
use crate::support::by_hand::given_back;
use crate::support::operator::condition;

async fn works(world: &World) {
    world.works().await;
    let is_ready = |resource: &Value| condition(resource, "Ready")["status"] == "True";
    world.until::<FlinkHaCluster>("demo", is_ready).await;
}

pub async fn nobody_leads_any_more(world: World) -> Seen {
    works(&world).await;
    world.lease("", given_back(JOB_MANAGER), 600).await;
    let seen = world.told("NoLeader", &["no JobManager leads", STANDBY, "could lead"]).await;
    world.lease(STANDBY, taken(STANDBY), 600).await;
    world.lifted(seen, "NoLeader").await
}

pub async fn no_standby_is_left(world: World) -> Seen {
    works(&world).await;
    world.end(STANDBY).await;
    world.told("NoStandby", &["no standby could take over"]).await
}

pub async fn the_leaders_pod_is_gone(world: World) -> Seen {
    works(&world).await;
    world.end(JOB_MANAGER).await;
    world.told("LeaderGone", &[JOB_MANAGER, "is gone"]).await
}

pub async fn the_address_is_lost(world: World) -> Seen {
    works(&world).await;
    world.addresses(&[]).await;
    let seen = world.told("RestWithoutAddress", &["demo-rest", "has no address", "kubectl logs"]).await;
    world.addresses(&[ADDRESS]).await;
    world.lifted(seen, "RestWithoutAddress").await
}

async fn refused(world: World, reason: &str, message: &str) -> Seen {
    world.works().await;
    world.lease("", given_back(JOB_MANAGER), 600).await;
    let text = json!({ "reason": reason, "message": message }).to_string();
    world.ledger_annotation(REFUSAL_ANNOTATION, Some(&text)).await;
    let seen = world.told(reason, &[message]).await;
    world.ledger_annotation(REFUSAL_ANNOTATION, None).await;
    world.lifted(seen, reason).await
}

pub async fn a_job_manager_is_unknown(world: World) -> Seen {
    refused(world, "JobManagerUnknown", "a JVM whose main class is com.example.Main asks for leadership").await
}

pub async fn data_of_another_run_is_stored(world: World) -> Seen {
    refused(world, "StoredByAnother", "the HA data was stored by start 7 of another run").await
}

pub async fn a_candidate_says_why_it_cannot_lead(world: World) -> Seen {
    works(&world).await;
    let mut status = ready();
    status["conditions"][1]["status"] = json!("False");
    status["containerStatuses"][0]["ready"] = json!(false);
    world.patch_status::<Pod>(STANDBY, status).await;
    let uid = world.until::<Pod>(STANDBY, |_| true).await["metadata"]["uid"].as_str().unwrap().to_owned();
    let (key, why) = (unready::annotation(&uid), "the JobManager does not ask for the lock");
    world.ledger_annotation(&key, Some(&unready::text(why, jiff::Timestamp::now()))).await;
    let seen = world.told("PodNotReady", &[STANDBY, why]).await;
    world.ledger_annotation(&key, None).await;
    world.patch_status::<Pod>(STANDBY, ready()).await;
    world.lifted(seen, "PodNotReady").await
}

/// A standby that is made anew finds no key, because somebody has deleted the Secret.
pub async fn the_peers_key_is_lost(world: World) -> Seen {
    works(&world).await;
    world.end(STANDBY).await;
    world.pod("demo-jobmanager-c", ready()).await;
    world.told("NoPromise", &["demo-jobmanager-c", "has not promised", "Secret demo-peers"]).await
}
