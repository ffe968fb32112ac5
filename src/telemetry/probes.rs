//! Serves the port for the kubelet and for Prometheus.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::world::server::{self, Limits};

/// Whether the process is ready, and what it does: the answer of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    pub text: String,
}

/// Serves `/livez`, `/readyz` and `/metrics` until the process ends.
///
/// # Errors
/// When the port cannot be opened.
pub async fn serve(
    address: SocketAddr,
    ready: watch::Receiver<Readiness>,
    registry: Arc<Mutex<Registry>>,
) -> anyhow::Result<()> {
    let listener = server::listen(address).with_context(|| format!("failed to open {address}"))?;
    let readyz = move || {
        let Readiness { ready, text } = ready.borrow().clone();
        let answer = if ready {
            (StatusCode::OK, format!("ok: {text}"))
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the caches are being filled: {text}"))
        };
        async move { answer }
    };
    let router = Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(readyz)).route(
        "/metrics",
        get(move || async move { encoded(&registry.lock().unwrap_or_else(PoisonError::into_inner)) }),
    );
    server::serve(listener, router, Limits::default()).await;
    Ok(())
}

/// Returns the registry in the OpenMetrics text format.
pub fn encoded(registry: &Registry) -> impl IntoResponse + use<> {
    let mut text = String::new();
    let encoded = prometheus_client::encoding::text::encode(&mut text, registry);
    let status = if encoded.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
