//! What an operator that starts has to look at: every resource once, [what somebody waits for](crate::cluster::urgency)
//! first. The others follow a few at a time, so that a change that comes meanwhile need not wait for all of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, Stream, StreamExt, stream};
use kube_runtime::reflector::{ObjectRef, Store};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api::FlinkHaCluster;
use crate::cluster::urgency::{Urgency, urgency};

/// Resources without a change that are in the queue at the same time.
const QUEUED: usize = 64;
/// After this time the next one follows in any case: a resource that is gone meanwhile is never looked at.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

type Reference = ObjectRef<FlinkHaCluster>;

/// The resources that are in the queue for the first time.
pub struct Backlog {
    queued: Mutex<HashSet<Reference>>,
    free: Semaphore,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { queued: Mutex::default(), free: Semaphore::new(QUEUED) }
    }
}

impl Backlog {
    /// The queue of an operator that starts: all resources, in the order of their urgency, and what `triggered`
    /// announces from now on.
    pub fn queue(
        self: &Arc<Self>,
        clusters: Store<FlinkHaCluster>,
        triggered: UnboundedReceiver<Reference>,
    ) -> impl Stream<Item = Reference> + use<> {
        let mut all: Vec<(Urgency, Reference)> =
            clusters.state().iter().map(|one| (urgency(one), ObjectRef::from_obj(&**one))).collect();
        all.sort_by_key(|(urgency, _)| *urgency);
        let changed = all.iter().filter(|(urgency, _)| *urgency == Urgency::Changed).count();
        tracing::info!(clusters = all.len(), changed, "begins to reconcile");
        let backlog = Arc::clone(self);
        let first = stream::iter(all).then(move |(urgency, reference)| {
            let backlog = Arc::clone(&backlog);
            async move {
                if urgency > Urgency::Changed {
                    backlog.wait(&reference).await;
                }
                reference
            }
        });
        // Every resource is in the backlog: what has announced it until now adds nothing.
        let mut triggered = triggered;
        while triggered.next().now_or_never().flatten().is_some() {}
        stream::select(first, triggered)
    }

    async fn wait(&self, reference: &Reference) {
        if let Ok(Ok(permit)) = timeout(LONGEST_PAUSE, self.free.acquire()).await {
            permit.forget();
            self.queued.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.clone());
        }
    }

    /// A resource has been looked at.
    pub fn done(&self, resource: &FlinkHaCluster) {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        if queued.remove(&ObjectRef::from_obj(resource)) {
            self.free.add_permits(1);
        }
    }
}
