//! Follows the log filter in the ConfigMap that the pod mounts, so that a change of it restarts nothing and needs no
//! request: the kubelet updates the file, within about a minute by default.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::arguments::Arguments;
use super::health::Health;
use crate::api::log_format::LogFormat;
use crate::api::names::LOG_FORMAT_FILE;
use crate::telemetry::logs::LogFilter;

const INTERVAL: Duration = Duration::from_secs(10);

/// Returns the format of this gateway's log: that of its flag, else the one beside Flink's configuration, which the
/// chart says (`log.format`). One that is not understood, or that cannot be read, is text: without a log nobody learns
/// why.
pub fn format(arguments: &Arguments) -> LogFormat {
    let beside = || {
        let file = arguments.place.beside_configuration(LOG_FORMAT_FILE)?;
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    arguments.log_format.or_else(beside).unwrap_or_default()
}

/// Keeps the term that lines name that of the gateway, until the process ends.
pub async fn follow_term(mut health: watch::Receiver<Health>, term: Arc<AtomicU64>) {
    loop {
        let now = health.borrow_and_update().term;
        term.store(now, Ordering::Relaxed);
        if health.changed().await.is_err() {
            // The process ends.
            pending().await
        }
    }
}

/// Follows the file until the process ends. Without it the filter is the one that the process started with.
pub async fn follow(file: PathBuf, filter: LogFilter) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let found = match tokio::fs::read_to_string(&file).await {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // It is read again; until then the filter stays.
            Err(error) => {
                tracing::debug!(file = %file.display(), %error, "failed to read the log filter");
                continue;
            }
        };
        if found != before {
            filter.change(found.as_deref());
            before = found;
        }
    }
}
