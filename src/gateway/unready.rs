//! Reports on the ledger why this pod's candidate could not take over: Kubernetes shows only that the pod is not ready.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::gc::ledger::Ledger;
use super::health::Health;

/// A candidate may be unready for so long without a report: while its JVM starts, or steps down.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until the process ends. A ready candidate costs no request.
pub async fn report(mut health: watch::Receiver<Health>, ledger: Ledger, pod_uid: String) {
    let mut reported = None;
    loop {
        // Something else is to be said than was said last.
        if health.wait_for(|health| health.unready != reported).await.is_err() {
            return;
        }
        let now = health.borrow().unready;
        if now.is_some() && timeout(PATIENCE, health.wait_for(|health| health.unready != now)).await.is_ok() {
            continue;
        }
        match ledger.note_unready(&pod_uid, now).await {
            Ok(()) => reported = now,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    why = now,
                    "failed to report that this candidate is unready"
                );
                sleep(PATIENCE).await;
            }
        }
    }
}
