//! Serves the gateway's port on the pod's address: probes, metrics and peers. Everybody who reaches the pod reaches
//! this port, so it serves nothing else, and [`server`] bounds what a stranger can use.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::election::peers::{self, PeerExchange};
use super::gc::pointer_store::PointerStore;
use super::health::Health;
use super::metrics::GatewayMetrics;
use super::signals::Signals;
use crate::telemetry;
use crate::world::server::{self, Limits};

#[derive(Clone)]
struct Probes {
    health: watch::Receiver<Health>,
    pointers: PointerStore,
    signals: Arc<Signals>,
}

/// Serves until the process ends.
pub async fn serve(
    listener: TcpListener,
    health: watch::Receiver<Health>,
    (pointers, signals): (PointerStore, Arc<Signals>),
    peers: Option<Arc<PeerExchange>>,
) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/startz", get(start))
        .route("/metrics", get(metrics))
        .with_state(Probes { health, pointers, signals });
    // With ZooKeeper gateways exchange no promises.
    let router = match peers {
        Some(peers) => router.route("/peer", post(peers::handle).with_state(peers)),
        None => router,
    };
    server::serve(listener, router, Limits::default()).await;
}

/// Ready means that this candidate can take over.
async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    match probes.health.borrow().unready {
        None => (StatusCode::OK, "ok"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// May a JobManager that starts again in this pod start now?
async fn start(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    match probes.signals.recovery.goes_first(Instant::now()) {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "another JobManager was just elected, and its jobs do not run yet"),
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    let Health { unready, leads, term } = probes.health.borrow().clone();
    let seen = GatewayMetrics {
        leads,
        term,
        ready: unready.is_none(),
        sizes: probes.pointers.written_sizes(),
        quorum_session: probes.pointers.quorum_session(),
        signals: probes.signals,
    };
    telemetry::probes::encoded(&seen.registry())
}
