//! What the operator does not look at, and how it tells: a metric of all, a line in the log of some, and an event on a
//! resource that it cannot read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::channel::mpsc::UnboundedSender;
use kube::Resource;
use kube::core::ObjectMeta;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::received::Unread;
use crate::api::FlinkHaCluster;
use crate::cluster::events::EventNote;

/// Between two lines in the log about objects of others.
const PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    kind: String,
    reason: &'static str,
}

/// Counts what is ignored.
#[derive(Clone, Default)]
pub struct IgnoredObjects(Family<Reason, Counter>);

impl IgnoredObjects {
    pub fn register(registry: &mut Registry) -> Self {
        let ignored = Self::default();
        registry.register(
            "flinkha_ignored_objects",
            "Versions of objects that carry the operator's label and were ignored: foreign, too_large or unreadable",
            ignored.0.clone(),
        );
        ignored
    }
}

/// A resource that is not read, and what is to be said on it.
pub type IgnoredResource = (ObjectMeta, EventNote);

/// Tells of what is ignored.
#[derive(Clone)]
pub struct Ignored {
    objects: IgnoredObjects,
    told: UnboundedSender<IgnoredResource>,
    /// When the log last said something of objects of others.
    logged: Arc<Mutex<Option<Instant>>>,
}

impl Ignored {
    pub fn new(objects: IgnoredObjects, told: UnboundedSender<IgnoredResource>) -> Self {
        Self { objects, told, logged: Arc::default() }
    }

    /// An object with our label that belongs to no FlinkHaCluster.
    pub fn foreign(&self, kind: &str, metadata: &ObjectMeta) {
        self.count(kind, "foreign");
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() >= PAUSE) {
            *logged = Some(Instant::now());
            tracing::info!(
                kind,
                name = metadata.name,
                namespace = metadata.namespace,
                "ignores objects with the operator's label that belong to no FlinkHaCluster, this one among them; the \
                 metric flinkha_ignored_objects counts them"
            );
        }
    }

    /// An object that is too large, or not as its kind should be.
    pub fn unread(&self, kind: &str, metadata: &ObjectMeta, why: &Unread) {
        let (reason, message) = match why {
            Unread::TooLarge { bytes, limit } => (
                "too_large",
                format!(
                    "it has {bytes} bytes, and the operator reads {limit} at most: shorten its spec or annotations"
                ),
            ),
            Unread::TooManyValues { values, limit } => (
                "too_large",
                format!("it has some {values} values, and the operator reads {limit} at most: shorten its spec"),
            ),
            Unread::Unreadable(error) => (
                "unreadable",
                format!(
                    "this version of the operator does not understand it ({error}): change it, or upgrade the operator"
                ),
            ),
        };
        self.count(kind, reason);
        let message = format!("the operator ignores this {kind}, and a running cluster goes on without it: {message}");
        tracing::warn!(kind, name = metadata.name, namespace = metadata.namespace, "{message}");
        if kind != FlinkHaCluster::kind(&()) {
            return;
        }
        self.tell(metadata, EventNote { warning: true, reason: "ResourceIgnored".to_owned(), message });
    }

    /// Says something on a resource that the operator does not look at.
    pub fn tell(&self, metadata: &ObjectMeta, note: EventNote) {
        // The receiver is gone only when the process ends.
        let _ = self.told.unbounded_send((metadata.clone(), note));
    }

    fn count(&self, kind: &str, reason: &'static str) {
        self.objects.0.get_or_create(&Reason { kind: kind.to_owned(), reason }).inc();
    }
}
