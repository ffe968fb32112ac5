//! The gateway's port on the pod's address: probes, metrics, peers, and the preStop hook that starts the hand-over.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::peers::{self, Peers};
use super::shared::Shared;
use crate::lease::elector::Event;

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
pub async fn serve(listener: TcpListener, health: watch::Receiver<Health>, shared: Arc<Shared>, peers: Arc<Peers>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/pre-stop", get(pre_stop))
        .route("/metrics", get(metrics))
        .with_state(Probes { health, shared })
        .route("/peer", post(peers::handle).with_state(peers));
    axum::serve(listener, router).await
}

/// Ready means: this candidate can take over.
async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    match probes.health.borrow().unready {
        None => (StatusCode::OK, "ok"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// The kubelet calls this when the pod begins to terminate, long before the sidecar itself is told to end.
async fn pre_stop(State(probes): State<Probes>) -> &'static str {
    tracing::info!("the pod begins to terminate: handing over");
    probes.shared.tell(Event::PodTerminating);
    "ok"
}

async fn metrics(State(probes): State<Probes>) -> String {
    let health = probes.health.borrow().clone();
    format!(
        "# HELP flinkha_gateway_leader 1 when the JobManager of this pod leads.\n# TYPE flinkha_gateway_leader gauge\nflinkha_gateway_leader {}\n\
         # HELP flinkha_gateway_term Term of the Lease as last seen.\n# TYPE flinkha_gateway_term gauge\nflinkha_gateway_term {}\n\
         # HELP flinkha_gateway_ready 1 when the JobManager of this pod could take over.\n# TYPE flinkha_gateway_ready gauge\nflinkha_gateway_ready {}\n",
        u8::from(health.leads),
        health.term,
        u8::from(health.unready.is_none())
    )
}
