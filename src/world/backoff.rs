//! Sets the pause before an interrupted watch is retried.

use std::time::Duration;

use kube_runtime::utils::Backoff;

/// Retries a watch after one second. The default backoff grows to half a minute; after an outage of the API server a
/// standby would see a released Lease only that much later.
pub struct EverySecond;

impl Iterator for EverySecond {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl Backoff for EverySecond {
    fn reset(&mut self) {}
}
