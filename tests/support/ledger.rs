//! The gateway's own ledger of the cluster `demo`, with its HA data in ConfigMaps.

use std::sync::Arc;

use flinkha::gateway::gc::ledger::Ledger;
use flinkha::gateway::gc::pointer_store::{ConfigMaps, PointerStore};
use flinkha::gateway::tenure::Tenures;

pub fn in_config_maps(client: &kube::Client, namespace: &str, tenures: &Arc<Tenures>) -> Ledger {
    let config_maps = ConfigMaps {
        client: client.clone(),
        namespace: namespace.to_owned(),
        cluster_id: "demo".to_owned(),
        cluster: "demo".to_owned(),
        tenures: Arc::clone(tenures),
        snapshots: Arc::default(),
    };
    Ledger {
        client: client.clone(),
        namespace: namespace.to_owned(),
        cluster: "demo".to_owned(),
        pointers: PointerStore::ConfigMaps(config_maps),
        tenures: Arc::clone(tenures),
        signals: Arc::default(),
        copy: Arc::default(),
    }
}
