//! Reads, writes and watches a Lease for the [`Elector`](crate::lease::elector::Elector).

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube_runtime::{WatchStreamExt, watcher};

use crate::api::names::SAVEPOINT_ANNOTATION;
use crate::lease::elector::{Event, Read, Write};
use crate::lease::record::Record;
use crate::world::backoff::EverySecond;
use crate::world::error_text::brief;

/// Reads the Lease by quorum: the request has no resourceVersion.
pub async fn read(leases: &Api<Lease>, name: &str, limit: Duration) -> Read {
    match tokio::time::timeout(limit, leases.get_opt(name)).await {
        Ok(Ok(Some(lease))) => match lease.metadata.resource_version.clone() {
            Some(version) => Read::Found { version, record: Record::of(&lease) },
            None => Read::Failed,
        },
        Ok(Ok(None)) => Read::Absent,
        Ok(Err(error)) => {
            tracing::warn!(error = brief(&error), "failed to read the Lease");
            Read::Failed
        }
        Err(_) => {
            tracing::warn!("no answer to a read of the Lease");
            Read::Failed
        }
    }
}

/// Writes the Lease by compare-and-swap. Any result but a success is unknown: the write may have been applied.
pub async fn write(
    leases: &Api<Lease>,
    name: &str,
    version: &str,
    record: &Record,
    acquired: bool,
    limit: Duration,
) -> Write {
    let patch = Patch::Merge(record.to_patch(version, Timestamp::now(), acquired));
    match tokio::time::timeout(limit, leases.patch(name, &PatchParams::default(), &patch)).await {
        Ok(Ok(Lease { metadata, .. })) => {
            metadata.resource_version.map_or(Write::Unknown, |version| Write::Done { version })
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Write::Unknown,
        Ok(Err(error)) => {
            tracing::warn!(error = brief(&error), "failed to write the Lease");
            Write::Unknown
        }
        Err(_) => {
            tracing::warn!("no answer to a write of the Lease");
            Write::Unknown
        }
    }
}

/// Watches the Lease until the caller drops the future. Calls `tell` for every version with its
/// [`SAVEPOINT_ANNOTATION`] and with the gateway process that has written the Lease since the version before. A watch
/// may show old versions; the elector takes that into account.
pub async fn watch(leases: Api<Lease>, name: String, tell: impl Fn(Event, Option<&str>, Option<&str>)) {
    let stream =
        watcher(leases, watcher::Config::default().fields(&format!("metadata.name={name}"))).backoff(EverySecond);
    let stream = stream.applied_objects();
    pin_mut!(stream);
    // Only gateways write these fields; others annotate the Lease too.
    let mut before = None;
    while let Some(lease) = stream.next().await {
        match lease {
            Ok(lease) => {
                if let Some(version) = lease.metadata.resource_version.clone() {
                    let savepoint = lease
                        .metadata
                        .annotations
                        .as_ref()
                        .and_then(|annotations| annotations.get(SAVEPOINT_ANNOTATION));
                    let record = Record::of(&lease);
                    let written = (record.term.clone(), lease.spec.as_ref().and_then(|spec| spec.renew_time.clone()));
                    let process = written.0.as_ref().map(|term| term.process.clone());
                    // The first version may be old, so it does not show that its writer is alive.
                    let alive = before.replace(written.clone()).is_some_and(|before| before != written);
                    let alive = process.filter(|_| alive);
                    tell(Event::LeaseSeen { version, record }, savepoint.map(String::as_str), alive.as_deref());
                }
            }
            Err(error) => tracing::debug!(%error, "the watch of the Lease was interrupted"),
        }
    }
}
