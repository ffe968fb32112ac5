//! Records and data that gateways report about.

use flinkha::api::names::QUORUM_ANNOTATION;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::world::{Seen, World};

async fn reported(world: World, ha_data: Value, reason: &str, words: &[&str]) -> Seen {
    world.works().await;
    world.ledger("haData", &ha_data).await;
    let seen = world.told(reason, words).await;
    world.ledger("haData", &json!({ "state": "Collectable", "owner": "us" })).await;
    world.lifted(seen, reason).await
}

pub async fn a_ledger_is_torn(world: World) -> Seen {
    world.apply(json!({ "job": { "jarURI": "local:///app.jar" } })).await;
    world.pods_run().await;
    world.patch::<ConfigMap>("demo-ledger", json!({ "data": { "jobs": "[{\"id\":" } })).await;
    let seen = world.told("LedgerUnreadable", &["ConfigMap demo-ledger", "jobs", "kubectl patch"]).await;
    world.patch::<ConfigMap>("demo-ledger", json!({ "data": { "jobs": null } })).await;
    world.lifted(seen, "LedgerUnreadable").await
}

pub async fn the_storage_is_unreachable(world: World) -> Seen {
    let ha_data = json!({ "state": "Unreachable", "message": "failed to read the mark: 403 Forbidden" });
    reported(world, ha_data, "StorageUnreachable", &["storageDir", "403 Forbidden"]).await
}

pub async fn two_clusters_share_a_directory(world: World) -> Seen {
    let ha_data = json!({ "state": "Shared", "message": "another cluster marks the directory" });
    reported(world, ha_data, "StorageShared", &["storageDir", "another cluster"]).await
}

pub async fn a_config_map_is_full(world: World) -> Seen {
    let largest = json!({ "name": "demo-cluster-config-map", "bytes": 1_000_000 });
    let ha_data = json!({ "state": "Collectable", "owner": "us", "largest": largest });
    reported(world, ha_data, "HaDataLarge", &["demo-cluster-config-map", "95 %"]).await
}

pub async fn a_pointer_is_unreadable(world: World) -> Seen {
    let ha_data = json!({ "state": "Collectable", "owner": "us", "unreadable": ["demo-x-config-map"] });
    reported(world, ha_data, "PointerUnreadable", &["demo-x-config-map", "savepoint"]).await
}

pub async fn the_quorum_is_unreachable(world: World) -> Seen {
    let zookeeper = json!({ "provider": "ZooKeeper", "zookeeper": { "quorum": "zk-0.zk:2181" } });
    world.apply(json!({ "highAvailability": zookeeper })).await;
    world.ledger_annotation(QUORUM_ANNOTATION, Some("zk-0.zk:2181 refuses connections")).await;
    let seen = world.told("ZooKeeperUnreachable", &["zk-0.zk:2181 refuses connections"]).await;
    world.ledger_annotation(QUORUM_ANNOTATION, None).await;
    world.lifted(seen, "ZooKeeperUnreachable").await
}
