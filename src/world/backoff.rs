//! How long a watch that was interrupted waits before it is tried again.

use std::time::Duration;

use kube_runtime::utils::Backoff;

/// The pause before a watch is tried again. The default grows to half a minute: for so long after an API server was
/// away nobody would see that a Lease is given back.
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
