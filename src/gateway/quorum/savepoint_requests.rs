//! Follows the operator's requests for savepoints, in an annotation on the ledger, because there is no Lease.

use futures::{StreamExt, pin_mut};
use kube_runtime::WatchStreamExt;
use kube_runtime::watcher::watch_object;

use crate::api::names;
use crate::gateway::gc::ledger::Ledger;

/// Follows the annotation until the process ends.
pub async fn follow(ledger: Ledger) {
    let stream = watch_object(ledger.config_maps(), &names::ledger(&ledger.cluster)).default_backoff();
    pin_mut!(stream);
    while let Some(object) = stream.next().await {
        match object {
            Ok(Some(object)) => ledger.asked(&object.metadata),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the watch of the ledger was interrupted"),
        }
    }
}
