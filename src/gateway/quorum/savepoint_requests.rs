//! What the operator asks of an application's leader, by an annotation on the ledger: there is no Lease to write it on.

use futures::{StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;

use crate::api::names;
use crate::gateway::gc::ledger::Book;

/// Follows the annotation until the process ends.
pub async fn follow(book: Book) {
    let stream = watch_object(book.config_maps(), &names::ledger(&book.cluster)).default_backoff();
    pin_mut!(stream);
    while let Some(ledger) = stream.next().await {
        match ledger {
            Ok(Some(ledger)) => book.asked(&ledger.metadata),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the watch of the ledger was interrupted"),
        }
    }
}
