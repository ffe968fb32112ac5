//! Follows the log filter in the ConfigMap that the pod mounts, so that a change of it restarts nothing and needs no
//! request: the kubelet updates the file, within about a minute by default.

use std::path::PathBuf;
use std::time::Duration;

use crate::telemetry::logs::LogFilter;

const INTERVAL: Duration = Duration::from_secs(10);

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
