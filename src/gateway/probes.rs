//! The gateway's port on the pod's address: probes, metrics and peers. Whoever reaches the pod reaches it; so nothing
//! else is served, and what a stranger can take is bounded ([`server`]).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::election::peers::{self, Peers};
use super::shared::Shared;
use crate::world::server::{self, Limits};

/// What the probes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why this candidate could not take over now.
    pub unready: Option<&'static str>,
    pub leads: bool,
    pub term: u64,
}

#[derive(Clone)]
struct Probes {
    health: watch::Receiver<Health>,
    shared: Arc<Shared>,
}

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    health: watch::Receiver<Health>,
    shared: Arc<Shared>,
    peers: Option<Arc<Peers>>,
) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Probes { health, shared });
    // Where Flink elects by ZooKeeper there are no promises to ask for.
    let router = match peers {
        Some(peers) => router.route("/peer", post(peers::handle).with_state(peers)),
        None => router,
    };
    server::serve(listener, router, Limits::default()).await;
}

/// Ready means: this candidate can take over.
async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    match probes.health.borrow().unready {
        None => (StatusCode::OK, "ok"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

async fn metrics(State(probes): State<Probes>) -> String {
    let health = probes.health.borrow().clone();
    let mut text = format!(
        "# HELP flinkha_gateway_leader 1 when the JobManager of this pod leads.\n# TYPE flinkha_gateway_leader gauge\nflinkha_gateway_leader {}\n\
         # HELP flinkha_gateway_term Term of the Lease as last seen.\n# TYPE flinkha_gateway_term gauge\nflinkha_gateway_term {}\n\
         # HELP flinkha_gateway_ready 1 when the JobManager of this pod could take over.\n# TYPE flinkha_gateway_ready gauge\nflinkha_gateway_ready {}\n",
        u8::from(health.leads),
        health.term,
        u8::from(health.unready.is_none())
    );
    text.push_str("# HELP flinkha_gateway_ha_config_map_bytes Keys and values of a ConfigMap with HA data; 1048576 is the limit.\n# TYPE flinkha_gateway_ha_config_map_bytes gauge\n");
    for size in probes.shared.snapshots.sizes() {
        text.push_str(&format!("flinkha_gateway_ha_config_map_bytes{{configmap=\"{}\"}} {}\n", size.name, size.bytes));
    }
    if let Some(orphans) = probes.shared.swept() {
        for (name, help, value) in [
            ("orphan_files", "Files in the storage directory that nothing needs, at the last sweep.", orphans.files),
            ("orphan_bytes", "Their size.", orphans.bytes),
            ("orphans_removed", "Files removed by the last sweep.", orphans.removed),
            (
                "protected_files",
                "Files that nothing names, but which a pointer that cannot be read might name.",
                orphans.protected,
            ),
        ] {
            text.push_str(&format!(
                "# HELP flinkha_gateway_{name} {help}\n# TYPE flinkha_gateway_{name} gauge\nflinkha_gateway_{name} {value}\n"
            ));
        }
    }
    text
}
